//! Unit tests of the module `input_file`.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "b.csv",
        "a.csv",
        "a/x.CSV",
        "a-b.csv",
        "_latentflow/m.csv",
        ".hidden.csv",
        "notes.txt",
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    folder
}

fn names(path: &Path) -> Vec<String> {
    list("s", path.to_str().unwrap(), &["csv"])
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect()
}

#[test]
fn folder_selects_visible_files_with_extension_in_order() {
    assert_eq!(
        names(folder().path()),
        ["a-b.csv", "a.csv", "a/x.CSV", "b.csv"]
    );
}

#[test]
fn glob_selects_its_matches_below_its_literal_folder() {
    let folder = folder();
    assert_eq!(
        names(&folder.path().join("*.csv")),
        [".hidden.csv", "a-b.csv", "a.csv", "b.csv"]
    );
    assert_eq!(
        names(&folder.path().join("**/*.{CSV,txt}")),
        ["a/x.CSV", "notes.txt"]
    );
}

#[test]
fn split_is_named_by_stage_name_size_and_time() {
    let folder = folder();
    let file = list("s", folder.path().join("b.csv").to_str().unwrap(), &[])
        .unwrap()
        .remove(0);
    assert!(
        file.split.name().starts_with("s/b.csv:5:"),
        "{}",
        file.split.name()
    );
}

#[test]
fn error_without_files_states_the_path_or_pattern() {
    let folder = folder();
    let error = |path: &str| {
        list("s", folder.path().join(path).to_str().unwrap(), &["gz"])
            .unwrap_err()
            .to_string()
    };
    assert!(
        error("none").contains("does not exist; expected a folder, a file, or a glob"),
        "{}",
        error("none")
    );
    assert!(
        error("*.gz").ends_with("files scanned: 5; none matches"),
        "{}",
        error("*.gz")
    );
    assert!(
        error("a").ends_with("none has the extension gz"),
        "{}",
        error("a")
    );
}
