//! Rules of words: the style guide, and American spelling.

use std::path::{Path, PathBuf};

use super::all_code;

/// Words and phrases that STYLE.md replaces, in lower case. A space also matches an underscore, so
/// that names are held to the same rule.
const AVOIDED: [&str; 62] = [
    "is no",
    "are no",
    "was no",
    "were no",
    "nobody",
    "somebody",
    "anew",
    "so many",
    "so much",
    "so long",
    "so few",
    "at hand",
    "of late",
    "now and then",
    "made otherwise",
    "told",
    "tell",
    "tells",
    "says",
    "say",
    "said",
    "hear",
    "hears",
    "heard",
    "knows",
    "know",
    "wants",
    "want",
    "wanted",
    "wish",
    "asks",
    "ask",
    "asked",
    "asking",
    "forget",
    "forgets",
    "forgotten",
    "remembers",
    "whoever",
    "whatever",
    "what came",
    "came of",
    "comes of",
    "mended",
    "goes on",
    "go on",
    "went on",
    "going on",
    "would else",
    "all else",
    "beside",
    "at once",
    "passed over",
    "passes over",
    "looked at",
    "looks at",
    "stands for",
    "stand for",
    "what is",
    "what was",
    "who does",
    "condemned",
];

/// Beginnings of words in British spelling.
const BRITISH: [&str; 22] = [
    "analyse",
    "artefact",
    "behaviour",
    "catalogue",
    "centre",
    "colour",
    "favour",
    "grey",
    "honour",
    "initialis",
    "judgement",
    "labelled",
    "licence",
    "maximis",
    "minimis",
    "neighbour",
    "normalis",
    "optimis",
    "organis",
    "programme",
    "recognis",
    "summaris",
];

/// Places where an avoided word is stored, or is a name of a protocol: the end of the path of the
/// file, and a part of the line.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("src/train/sequential/tests.rs", "add what was kept"),
    ("src/train/layer_spec.rs", "add what was kept"),
    ("src/train/network_builder/tests.rs", "add what was kept"),
    ("src/train/card_metrics.rs", "neighbours_accuracy"),
    ("src/train/config_digests.rs", "\"licence\""),
    ("src/evaluate/result/mod.rs", "rename = \"neighbours\""),
    ("tests/suite/inputs.rs", "[\"passed_over\"]"),
    ("tests/object_store/main.rs", "[\"passed_over\"]"),
    ("tests/object_store/clouds.rs", "[\"passed_over\"]"),
    ("tests/object_store/inbox.rs", "[\"passed_over\"]"),
    ("src/cli/summary.rs", "rename = \"passed_over\""),
    ("src/registry/mod.rs", "optimiser"),
    ("src/registry/renamed_keys/mod.rs", "\"licence\""),
    ("src/registry/renamed_keys/tests.rs", "\"licence\""),
    ("src/registry/renamed_keys/mod.rs", "\"optimi"),
    ("src/registry/renamed_keys/tests.rs", "\"optimi"),
    ("src/registry/renamed_keys/mod.rs", "\"standardise\""),
    ("src/registry/renamed_keys/tests.rs", "\"standardise\""),
    ("src/model/card/mod.rs", "licence"),
    ("src/model/card/tests.rs", "licence"),
    ("src/model/card/tests.rs", "optimiser"),
    ("src/topology/poison_records/crash_state.rs", "condemned"),
    ("src/topology/poison_records/tests.rs", "condemned"),
    ("docs/reference/on-disk-format.md", "`condemned`"),
];

/// Whether `line` has `phrase` between characters that are neither letters nor digits.
fn has_phrase(line: &str, phrase: &str) -> bool {
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    line.match_indices(phrase).any(|(start, _)| {
        let before = start.checked_sub(1).and_then(|at| line.as_bytes().get(at));
        !is_word(before) && !is_word(line.as_bytes().get(start + phrase.len()))
    })
}

/// Whether a word of `line` starts with `start`.
fn has_start(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| line.as_bytes().get(at));
        !before.is_some_and(u8::is_ascii_alphanumeric)
    })
}

fn documents() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, paths);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "deploy/README.md",
    ]
    .map(|name| root.join(name))
    .to_vec();
    walk(&root.join("docs"), &mut paths);
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

#[test]
fn words_of_the_style_guide_are_used() {
    let mut found = Vec::new();
    for (path, text) in all_code().into_iter().chain(documents()) {
        for (number, line) in text.lines().enumerate() {
            let is_exception = EXCEPTIONS
                .iter()
                .any(|(file, exception)| path.ends_with(file) && line.contains(exception));
            if is_exception {
                continue;
            }
            let mut plain = line.to_lowercase().replace('_', " ");
            for usual in [
                "is no longer",
                "are no longer",
                "there is no",
                "there are no",
            ] {
                plain = plain.replace(usual, "");
            }
            let avoided = AVOIDED.iter().filter(|phrase| has_phrase(&plain, phrase));
            let british = BRITISH.iter().filter(|start| has_start(&plain, start));
            for phrase in avoided.chain(british) {
                found.push(format!(
                    "{}:{}: `{phrase}`: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(
        found.is_empty(),
        "{} found:\n{}",
        found.len(),
        found.join("\n")
    );
}
