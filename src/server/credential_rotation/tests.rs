//! Unit tests of the module `credential_rotation`.

#![allow(clippy::unwrap_used)]

use super::super::auth::{TokenAuth, TokenSource};
use super::*;

const FIRST: &str = "Bearer the-first-of-the-tokens";
const SECOND: &str = "Bearer the-second-of-the-tokens";

#[test]
fn changed_token_is_loaded_once_two_polls_agree() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let write = |bearer: &str| std::fs::write(&file, bearer.trim_start_matches("Bearer ")).unwrap();
    write(FIRST);
    let source = TokenSource {
        file: Some(file.clone()),
        variable: None,
    };
    let auth = Arc::new(TokenAuth::new(Some(&source)).unwrap());
    let (rotation, metrics) = (CredentialRotation::default(), Arc::new(Metrics::new()));
    rotation
        .register("in", Arc::clone(&auth) as Arc<dyn Credential>, &metrics)
        .unwrap();
    let admits = || [FIRST, SECOND].map(|header| auth.is_authorized(Some(header)));
    let refused = metrics
        .listeners
        .rotation_refused
        .with_label_values(&["in", "token"]);
    assert_eq!(admits(), [true, false]);
    write(SECOND);
    assert!(rotation.poll_files(false).replaced.is_empty());
    assert_eq!(rotation.poll_files(false).replaced, ["token of in"]);
    assert_eq!(admits(), [false, true]);
    // The previous token stays in use, and a poll on request reports the error again.
    write("short");
    let error = "token of in: expected a token of at least 16 bytes";
    assert_eq!(rotation.poll_files(true).refused, [error]);
    assert_eq!(rotation.poll_files(true).refused, [error]);
    assert_eq!((admits(), refused.get()), ([false, true], 1));
    std::fs::remove_file(&file).unwrap();
    assert!(rotation.poll_files(true).refused[0].contains("No such file"));
    write(SECOND);
    assert!(rotation.poll_files(true).replaced.is_empty());
    assert_eq!((admits(), refused.get()), ([false, true], 0));
    write(FIRST);
    assert_eq!(
        rotation.poll_files(true).replaced,
        ["token of in"],
        "without waiting for a second poll"
    );
    assert_eq!(admits(), [true, false]);
}

#[cfg(unix)]
#[test]
fn readers_of_a_secret_are_reported() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "x").unwrap();
    let of = |mode| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        readers(&file)
    };
    assert_eq!(
        [of(0o600), of(0o640), of(0o604)],
        [None, Some("its group"), Some("every user of this machine")]
    );
}
