//! Unit tests of the module `storage`.

#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn text_without_valid_scheme_is_a_path() {
    for path in ["photos", "/a//b", "a:b", "://x", "C:\\x", "my folder://x"] {
        assert_eq!(
            Location::parse(path).unwrap(),
            Location::Local(PathBuf::from(path))
        );
    }
}

#[test]
fn tidy_path_keeps_its_target() {
    let cases = [
        ("in.csv", "in.csv"),
        ("./in//a/./b/", "in/a/b"),
        ("/", "/"),
        ("//data/.", "/data"),
        (".", "."),
        ("./", "."),
        ("../in/../b", "../in/../b"),
        ("in/**/*.{a,b}", "in/**/*.{a,b}"),
        ("s3://bucket//a/b/", "s3://bucket/a/b"),
        ("my folder://x", "my folder:/x"),
    ];
    for (path, expected) in cases {
        assert_eq!(tidy(path), expected);
    }
}

#[test]
fn url_with_another_scheme_is_refused() {
    let refused = Location::parse("ftp://host/x").unwrap_err();
    assert_eq!(refused, LocationError::Scheme("ftp".to_owned()));
}

#[test]
fn url_of_a_store_that_the_build_lacks_names_the_feature() {
    let stores = [
        ("s3", "s3", cfg!(feature = "s3")),
        ("gs", "gcs", cfg!(feature = "gcs")),
        ("az", "azure", cfg!(feature = "azure")),
    ];
    for (scheme, feature, is_supported) in stores {
        let disabled = LocationError::Disabled { scheme, feature };
        let refused = Location::parse(&format!("{scheme}://bucket/x")).err();
        assert_eq!(refused == Some(disabled), !is_supported, "{scheme}");
    }
}

#[test]
fn small_file_is_read_back_and_missing_file_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = Location::from(folder.path()).join("a/b.json");
    assert_eq!(file.read().unwrap(), None);
    file.put_if_absent(b"one").unwrap();
    file.put(b"two").unwrap();
    assert_eq!(file.read().unwrap().unwrap(), b"two");
}
