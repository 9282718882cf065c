//! Rules of the source tree that the compiler does not check: module docs, the order of modules,
//! `ort` in one file and `object_store` in one folder, the length of functions, the words of texts
//! and names, and the length of names of tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Groups of modules from left to right. A module names only modules of its group or of a group
/// further left.
const ORDER: [&[&str]; 20] = [
    &[
        "test_data",
        "error",
        "json",
        "text_escape",
        "temp_dir",
        "file_descriptors",
        "units",
        "system",
        "batch",
        "coverage",
        "tensor",
        "arrow_size",
        "nested_types",
        "schema_display",
        "schema_unification",
        "column_cast",
        "metrics",
        "fs_durable",
        "storage",
        "shard",
        "server",
    ],
    &["eval_metrics"],
    &["registry"],
    &["config"],
    &["image"],
    &["corruption"],
    &["model"],
    &["plan_context"],
    &["source"],
    &["transform"],
    &["sink"],
    &["plan"],
    &["topology"],
    &["embed"],
    &["admin"],
    &["daemon"],
    &["data"],
    &["evaluate"],
    &["report"],
    &["train"],
];

/// Maximum number of lines of a function, its signature and closing brace included.
const FUNCTION_LINES: usize = 100;

/// Maximum number of characters of the name of a test.
const TEST_NAME: usize = 60;

fn sources() -> BTreeMap<PathBuf, String> {
    files_below(&["src"])
}

/// Rust files of the repository, without this one, which lists what the others avoid.
fn all_code() -> BTreeMap<PathBuf, String> {
    let mut files = files_below(&["src", "tests", "benches", "fuzz"]);
    files.retain(|path, _| !path.ends_with("tests/suite/source_rules.rs"));
    files
}

fn files_below(folders: &[&str]) -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    for folder in folders {
        walk(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut files,
        );
    }
    assert!(files.len() > 30, "the sources were not found");
    files
}

/// The code of a file without the items of its unit tests, to which the rules do not apply. Their
/// lines are replaced by empty ones. In the format of rustfmt, an item ends at the line that closes
/// it with the indentation of its attribute, or at its `;`.
fn code(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.trim_start() != "#[cfg(test)]" {
            kept += line;
        } else {
            let (closed, is_item_line) = (format!("{indent}}}"), |item_line: &str| {
                !item_line.trim_start().starts_with("#[")
            });
            for item_line in lines.by_ref() {
                kept.push('\n');
                let ends = item_line.ends_with(';')
                    || item_line.ends_with(" {}")
                    || item_line.ends_with("},");
                let is_top = item_line
                    .strip_prefix(indent)
                    .is_some_and(|rest| !rest.starts_with([' ', '#']));
                if item_line == closed || (is_top && is_item_line(item_line) && ends) {
                    break;
                }
            }
        }
        kept.push('\n');
    }
    kept
}

#[test]
fn code_after_an_item_of_tests_is_kept() {
    let text = "use a;\n#[cfg(test)]\nmod x;\nb();\n#[cfg(test)]\n#[path = \"c.rs\"]\nmod tests {\n    d();\n}\nfn e() {\n    \
                #[cfg(test)]\n    f();\n    g();\n}\n";
    let kept: Vec<_> = code(text).lines().map(str::to_owned).collect();
    assert_eq!(kept.len(), text.lines().count());
    assert_eq!(kept.join(""), "use a;b();fn e() {    g();}");
}

fn module(path: &Path) -> String {
    let inside = path
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn every_file_begins_with_a_module_doc() {
    let undocumented: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(
        undocumented.is_empty(),
        "files without a `//!` sentence at the top: {undocumented:?}"
    );
}

#[test]
fn onnx_runtime_is_named_in_one_file() {
    let naming: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| names(&code(text), "ort"))
        .map(|(path, _)| path)
        .collect();
    assert!(
        naming.len() == 1 && naming[0].ends_with("model/ort_backend.rs"),
        "`ort` is named in {naming:?}"
    );
}

#[test]
fn object_stores_are_named_in_one_folder() {
    for (path, text) in sources() {
        let is_store = path
            .parent()
            .is_some_and(|folder| folder.ends_with("src/storage"));
        for name in ["object_store", "reqwest"] {
            assert!(
                is_store || !names(&code(&text), name),
                "`{name}` is named in {}",
                path.display()
            );
        }
        assert!(
            is_store || !code(&text).contains("object-store\")"),
            "{} names the feature `object-store`",
            path.display()
        );
    }
}

/// Whether `code` has a path that begins with the crate `name`: `ort::`, but not `port::`.
fn names(code: &str, name: &str) -> bool {
    let starts = |(place, _)| !code[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(&format!("{name}::")).any(starts)
}

#[test]
fn modules_name_only_modules_further_left() {
    let rank = |name: &str| ORDER.iter().position(|modules| modules.contains(&name));
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module(&path);
        let Some(place) = rank(&own) else {
            assert!(
                ["lib", "main", "cli"].contains(&own.as_str()),
                "`{own}` has no place in the order of modules"
            );
            continue;
        };
        let code = code(&text);
        for used in code.split("crate::").skip(1) {
            let used: String = used
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if rank(&used).is_none_or(|rank| rank > place) {
                wrong.push(format!("{} names crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_have_at_most_100_lines() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let mut open: Option<(usize, usize, String)> = None;
        for (number, line) in code(&text).lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let trimmed = line.trim_start();
            let is_start = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
                "async fn ",
                "pub async fn ",
                "pub(super) async fn ",
                "const fn ",
            ]
            .iter()
            .any(|start| trimmed.starts_with(start));
            if is_start {
                open = Some((number, indent, trimmed.to_owned()));
            }
            if let Some((start, depth, name)) = &open
                && line.trim_end() == format!("{}}}", " ".repeat(*depth))
            {
                if number - start + 1 > FUNCTION_LINES {
                    long.push(format!(
                        "{}:{}: {} lines: {name}",
                        path.display(),
                        start + 1,
                        number - start + 1
                    ));
                }
                open = None;
            }
        }
    }
    assert!(
        long.is_empty(),
        "longer than {FUNCTION_LINES} lines:\n{}",
        long.join("\n")
    );
}

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
    ("src/train/sequential.rs", "add what was kept"),
    ("src/train/network_builder.rs", "add what was kept"),
    ("src/train/card_metrics.rs", "neighbours_accuracy"),
    ("src/train/config_digests.rs", "\"licence\""),
    ("src/evaluate/result.rs", "rename = \"neighbours\""),
    ("tests/suite/inputs.rs", "[\"passed_over\"]"),
    ("tests/object_store/main.rs", "[\"passed_over\"]"),
    ("tests/object_store/inbox.rs", "[\"passed_over\"]"),
    ("src/cli/summary.rs", "rename = \"passed_over\""),
    ("src/registry/mod.rs", "optimiser"),
    ("src/registry/renamed_keys.rs", "\"licence\""),
    ("src/registry/renamed_keys.rs", "\"optimi"),
    ("src/registry/renamed_keys.rs", "\"standardise\""),
    ("src/model/card.rs", "licence"),
    ("src/model/card.rs", "optimiser"),
    ("src/topology/poison_records/crash_state.rs", "condemned"),
    ("src/topology/poison_records/tests.rs", "condemned"),
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .map(|name| root.join(name))
        .to_vec();
    paths.extend(
        std::fs::read_dir(root.join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    paths
        .into_iter()
        .filter(|path| path.is_file())
        .map(read)
        .collect()
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

#[test]
fn names_of_tests_are_short() {
    let mut long = Vec::new();
    for (path, text) in all_code() {
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            }
            if let Some(rest) = line.strip_prefix("fn ").or(line.strip_prefix("async fn "))
                && std::mem::take(&mut is_test)
                && let Some((name, _)) = rest.split_once('(')
                && name.len() > TEST_NAME
            {
                long.push(format!(
                    "{}: {} characters: {name}",
                    path.display(),
                    name.len()
                ));
            }
        }
    }
    assert!(
        long.is_empty(),
        "{} found:\n{}",
        long.len(),
        long.join("\n")
    );
}
