//! Unit tests of the module `object`.
#![cfg(feature = "s3")]
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn url_has_a_bucket_and_an_optional_key() {
    let name = |url: &str| ObjectPath::parse(url).map(|remote| remote.to_string());
    assert_eq!(
        name("s3://bucket/a/b c*/"),
        Ok("s3://bucket/a/b c*".to_owned())
    );
    assert_eq!(name("s3://bucket"), Ok("s3://bucket".to_owned()));
    let root = ObjectPath::parse("s3://bucket/").unwrap();
    assert_eq!(root.join("a").join("b/c").to_string(), "s3://bucket/a/b/c");
    let (folder, file) = root.join("a/b").parent().unwrap();
    assert_eq!((folder, file.as_str()), (root.join("a"), "b"));
    assert_eq!(root.parent(), None);
}

#[test]
fn equal_keys_of_different_stores_are_different_locations() {
    let s3 = ObjectPath::parse("s3://bucket/a").unwrap();
    assert_eq!(s3, ObjectPath::parse("s3://bucket/a/").unwrap());
    if let Ok(gs) = ObjectPath::parse("gs://bucket/a") {
        assert_eq!(gs.to_string(), "gs://bucket/a");
        assert_ne!(s3, gs);
    }
}

#[test]
fn invalid_url_is_refused_with_its_invalid_part() {
    let fault = |url: &str| ObjectPath::parse(url).unwrap_err().to_string();
    let expected = "expected `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` \
                    or a local path";
    assert_eq!(
        fault("ftp://bucket/x"),
        format!("unsupported scheme `ftp://`; {expected}")
    );
    assert_eq!(
        fault("s3:///x"),
        format!("`` is not a bucket name; {expected}")
    );
    let credentials = fault("s3://me:pass@host/x");
    assert!(!credentials.contains("pass"), "{credentials}");
    let key = fault("s3://bucket/a//b");
    assert!(key.starts_with("`a//b` is not an object key: "), "{key}");
}

#[cfg(feature = "azure")]
#[test]
fn storage_account_is_required() {
    // The tests run without the variables of an account.
    let fault = ObjectPath::parse("az://container/x")
        .unwrap_err()
        .to_string();
    assert_eq!(
        fault,
        "az://container: the storage account is unknown; set AZURE_STORAGE_ACCOUNT_NAME"
    );
}
