//! Tests of the file names of records.
#![allow(clippy::unwrap_used)]

use std::path::Component;

use proptest::prelude::*;

use super::*;

fn current(source: &str, row: u64) -> String {
    format!("{}.png", NamingScheme::Current.path(source, row, "png"))
}

fn legacy(source: &str, row: u64) -> String {
    format!("{}.png", NamingScheme::Legacy.path(source, row, "png"))
}

fn with_pattern(pattern: &str, source: &str, row: u64) -> String {
    format!(
        "{}.png",
        NamingScheme::Pattern(NamePattern::parse(pattern).unwrap()).path(source, row, "png")
    )
}

#[test]
fn name_has_folder_and_stem_of_its_source() {
    let cases = [
        ("a/b.jpg", 0, "a/b.png"),
        ("b.png", 0, "b.png"),
        ("a/b.c.jpg", 12, "a/b.c-000012.png"),
        ("a/b.jpg-000012", 0, "a/b.jpg-000012/000000.png"),
        ("train.parquet", 1_234_567, "train.parquet/1234567.png"),
        ("é ü/ñ.JPEG", 0, "é ü/ñ.png"),
    ];
    for (source, row, expected) in cases {
        assert_eq!(current(source, row), expected);
    }
    assert_eq!(
        NamingScheme::Current.path("a/b.jpg", 0, "jpg") + ".jpg",
        "a/b.jpg"
    );
}

#[test]
fn legacy_scheme_keeps_the_extension_of_the_source() {
    let cases = [
        ("a/b.jpg", 0, "a/b.jpg.png"),
        ("a/b.png", 0, "a/b.png.png"),
        ("a/b.jpg", 12, "a/b.jpg-000012.png"),
        ("train.parquet", 7, "train.parquet/000007.png"),
        (
            "../../etc/passwd.jpg",
            0,
            "%2E%2E/%2E%2E/etc/passwd.jpg.png",
        ),
    ];
    for (source, row, expected) in cases {
        assert_eq!(legacy(source, row), expected);
    }
}

#[test]
fn placeholders_of_a_pattern_are_replaced() {
    let cases = [
        ("{stem}.{ext}", "a/b.jpg", "b.png"),
        ("{dir}/{stem}.{ext}", "b.jpg", "b.png"),
        ("x/{dir}/{stem}.{ext}", "b.jpg", "x/b.png"),
        ("{source}.{ext}", "a/b.jpg", "a/b.jpg.png"),
        (
            "{source_ext}/{row}_{stem}.{ext}",
            "a/b.jpg",
            "jpg/000003_b.png",
        ),
        ("{ext}/{dir}-{stem}.{ext}", "a/c/b.jpg", "png/a/c-b.png"),
        ("{stem}.{ext}", "no-extension", "no-extension.png"),
        ("{source_ext}.{ext}", "none", "%.png"),
    ];
    for (pattern, source, expected) in cases {
        assert_eq!(with_pattern(pattern, source, 3), expected, "{pattern}");
    }
}

#[test]
fn invalid_pattern_is_refused_with_its_invalid_part() {
    let cases = [
        ("{stem}", "`{stem}` must end in `.{ext}`"),
        ("{steam}.{ext}", "`{steam}` is not a placeholder"),
        ("{stem.{ext}", "`{stem` is not a placeholder"),
        ("a}.{ext}", "`}` is not a placeholder"),
        ("/out/{stem}.{ext}", "has an empty part"),
        ("a//{stem}.{ext}", "has an empty part"),
        (".{ext}", "has an empty part"),
        ("../{stem}.{ext}", "`..` is not allowed"),
        ("a/./{stem}.{ext}", "`.` is not allowed"),
        (".hidden/{stem}.{ext}", "`.hidden` starts with a dot"),
        ("_LatentFlow/{stem}.{ext}", "`_latentflow` is reserved"),
        ("C:\\{stem}.{ext}", "the character `:` is not valid"),
        ("{stem}%.{ext}", "the character `%` is not valid"),
    ];
    for (pattern, expected) in cases {
        let message = NamePattern::parse(pattern).unwrap_err();
        assert!(message.starts_with(expected), "{pattern}: {message}");
    }
}

#[test]
fn unsafe_sources_are_encoded() {
    let cases = [
        ("../../etc/passwd.jpg", "%2E%2E/%2E%2E/etc/passwd.png"),
        ("/etc/x.jpg", "%/etc/x.png"),
        ("a//./b.jpg", "a/%/%2E/b.png"),
        (r"C:\x\..\y.jpg", "C%3A%5Cx%5C..%5Cy.png"),
        ("a\0b\n.jpg", "a%00b%0A.png"),
        ("100%41.jpg", "100%2541.png"),
        ("nul.jpg", "%6Eul.png"),
        ("com7/x. /y.jpg", "%63om7/x.%20/y.png"),
        ("_LatentFlow/lock.jpg", "%5FLatentFlow/lock.png"),
        (".latentflow-x.jpg", "%2Elatentflow-x.png"),
        ("a.jpg.PNG/b.jpg", "a.jpg%2EPNG/b.png"),
    ];
    for (source, expected) in cases {
        assert_eq!(current(source, 0), expected);
    }
    assert_eq!(current("", 0), "%/000000.png");
}

#[test]
fn long_names_end_in_a_hash_and_differ() {
    let long = |end: &str| format!("{}{end}.jpg", "ü".repeat(150));
    let (one, two) = (current(&long("1"), 0), current(&long("2"), 0));
    assert!(
        one != two && one.len() <= MAX_COMPONENT_BYTES + 4 && one.starts_with("üüü"),
        "{one}"
    );
    let deep = format!("{}x.jpg", "folder/".repeat(300));
    let (third, fourth) = (current(&deep, 3), current(&deep, 4));
    assert!(
        third != fourth && third.starts_with("%~") && third.len() < 60,
        "{third}"
    );
}

proptest! {
    #[test]
    fn name_of_any_source_is_inside_the_folder(
        source in r"(\PC|[./\\:%~\x00-\x20_-]|\.png|\.jpg|nul|latentflow){0,40}", row: u64,
    ) {
        let pattern = "{dir}/{stem}/{source}{source_ext}.{ext}";
        let names = [
            current(&source, row),
            legacy(&source, row),
            with_pattern(pattern, &source, row),
        ];
        for name in names {
            for part in Path::new(&name).components() {
                prop_assert!(matches!(part, Component::Normal(_)), "{name}");
            }
            for part in name.split('/') {
                let is_safe = !part.is_empty()
                    && part.len() <= 230
                    && !part.starts_with('.')
                    && part != STATE_DIR;
                prop_assert!(is_safe, "{name}");
                let is_invalid = |c: char| c.is_control() || r#"<>:"\|?*"#.contains(c);
                prop_assert!(!part.contains(is_invalid), "{name}");
            }
            let mut folders = name.rsplit('/').skip(1);
            prop_assert!(folders.all(|folder| !folder.ends_with(".png")), "{name}");
        }
    }

    #[test]
    fn legacy_names_of_different_records_differ(
        one in r"([ab./%-]|\.png|\.jpg|-00000[01]|%2E){0,6}", row: bool,
        two in r"([ab./%-]|\.png|\.jpg|-00000[01]|%2E){0,6}", other_row: bool,
    ) {
        let (row, other_row) = (u64::from(row), u64::from(other_row));
        prop_assume!((&one, row) != (&two, other_row));
        prop_assert_ne!(legacy(&one, row), legacy(&two, other_row));
    }
}
