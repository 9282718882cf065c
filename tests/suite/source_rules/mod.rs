//! Rules of the source tree that the compiler does not check: module docs, the order of modules and
//! circles between files, `ort` and `object_store` in one folder each, the length of files and
//! functions, the words of texts and names, and the length of names of tests.

pub(crate) mod circles;
pub(crate) mod modules;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Maximum number of lines of a file without unit tests.
const FILE_LINES: usize = 300;

/// Maximum number of lines of a function, its signature and closing brace included.
const FUNCTION_LINES: usize = 100;

/// Maximum number of characters of the name of a test.
const TEST_NAME: usize = 60;

pub(crate) fn sources() -> BTreeMap<PathBuf, String> {
    files_below(&["src"])
}

/// Rust files of the repository, without this one, which lists what the others avoid.
fn all_code() -> BTreeMap<PathBuf, String> {
    let mut files = files_below(&["src", "tests", "benches", "fuzz"]);
    files.retain(|path, _| !path.ends_with("tests/suite/source_rules/words.rs"));
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
pub(crate) fn code(text: &str) -> String {
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

/// Whether a file has unit tests only, to which the limits on lengths do not apply.
fn is_of_tests(path: &Path) -> bool {
    path.iter().any(|name| name == "tests" || name == "testing")
        || path
            .file_stem()
            .is_some_and(|name| name.to_string_lossy().ends_with("tests"))
}

/// Whether a file is in the folder `below` of the repository.
fn is_below(path: &Path, below: &str) -> bool {
    path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join(below))
}

#[test]
fn files_have_at_most_300_lines() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES && !is_of_tests(&path) {
            long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(
        long.is_empty(),
        "longer than {FILE_LINES} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn functions_have_at_most_100_lines() {
    let mut long = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_of_tests(path)) {
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
