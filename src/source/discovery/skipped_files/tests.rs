//! Unit tests of the module `skipped_files`.

#![allow(clippy::unwrap_used)]

use super::*;

fn counted(files: &[(&str, SkipReason)]) -> SkippedFiles {
    let mut counts = SkippedFiles::default();
    files
        .iter()
        .for_each(|&(file, reason)| counts.add(Path::new(file), reason));
    counts
}

#[test]
fn extensions_are_counted_in_any_case_and_listed_by_count() {
    let files = ["a.txt", "b.HEIC", "c.heic", "Makefile", "d.Heic"]
        .map(|file| (file, SkipReason::Extension));
    assert_eq!(
        counted(&files).to_string(),
        "3 .heic, 1 without an extension, 1 .txt"
    );
}

#[test]
fn other_reasons_are_listed_after_the_extensions() {
    use SkipReason::{Extension, Hidden, Link, NotRequested, Own, Underscore};
    let files = [
        ("l", Link),
        (".x", Hidden),
        ("a.b", Extension),
        ("_S", Underscore),
        ("t", Own),
        ("u", NotRequested),
    ];
    let text = counted(&files).to_string();
    let expected = "1 .b, 1 hidden (a name begins with `.`), \
             1 not data by convention (a name begins with `_`), \
             1 symbolic link (follow_links = true follows it), 1 internal file of latentflow";
    assert_eq!(text, expected);
    assert!(SkippedFiles::default().is_empty() && SkippedFiles::default().to_string().is_empty());
}

#[test]
fn objects_that_no_glob_can_match_are_listed() {
    let mut counts = SkippedFiles::default();
    counts.add_unusable_keys(2);
    counts.add_below_object(30);
    let expected = "2 with keys that are not valid file names (an empty part, `.`, `..`, \
             a control character), 30 below the name of the object that is read \
             (add a glob such as `/**/*` to read them)";
    assert_eq!(counts.to_string(), expected);
    assert_eq!(
        serde_json::to_string(&counts).unwrap(),
        r#"{"unusable_keys":2,"below_object":30}"#
    );
}

#[test]
fn many_or_long_extensions_are_counted_together() {
    let names: Vec<String> = (0..100).map(|number| format!("a.{number}")).collect();
    let mut counts = SkippedFiles::default();
    names
        .iter()
        .for_each(|name| counts.add(Path::new(name), SkipReason::Extension));
    counts.add(
        Path::new("a.an-extension-that-is-long"),
        SkipReason::Extension,
    );
    assert_eq!((counts.extensions.len(), counts.other_extensions), (64, 37));
    assert!(
        counts.to_string().ends_with("93 with other extensions"),
        "{counts}"
    );
}

#[test]
fn json_of_counts_holds_only_nonzero_ones() {
    let counts = counted(&[("a.heic", SkipReason::Extension), ("l", SkipReason::Link)]);
    assert_eq!(
        serde_json::to_string(&counts).unwrap(),
        r#"{"extensions":{".heic":1},"links":1}"#
    );
}
