//! Unit tests of the module `library_search`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::model::library_search::trust::trusted;

fn library(folder: &Path) -> PathBuf {
    let name = if cfg!(target_os = "macos") {
        "libonnxruntime.1.31.1.dylib"
    } else {
        "libonnxruntime.so.1.31.1"
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("libonnxruntime_providers_shared.so"), "").unwrap();
    std::fs::write(folder.join(name), "not a library").unwrap();
    folder.join(name)
}

fn found(paths: &LibrarySearchPaths) -> Vec<(PathBuf, LibraryOrigin)> {
    let files = paths
        .candidates()
        .0
        .into_iter()
        .filter(|candidate| candidate.origin != LibraryOrigin::System);
    files
        .map(|LibraryCandidate { file, origin }| (file, origin))
        .collect()
}

#[test]
fn checkout_comes_before_python_and_python_before_system() {
    let root = tempfile::tempdir().unwrap();
    let executable = root.path().join("target/release/latentflow");
    std::fs::create_dir_all(executable.parent().unwrap()).unwrap();
    std::fs::write(&executable, "").unwrap();
    std::fs::write(root.path().join("Cargo.toml"), "").unwrap();
    let checkout = library(&root.path().join(".runtime/onnxruntime"));
    let venv = library(
        &root
            .path()
            .join("venv/lib/python3.12/site-packages/onnxruntime/capi"),
    );
    let other = library(
        &root
            .path()
            .join("usr/lib/python3.11/site-packages/onnxruntime/capi"),
    );
    std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    std::fs::write(root.path().join("usr/bin/python3"), "").unwrap();
    let paths = LibrarySearchPaths {
        executable: Some(executable),
        virtual_env: Some(root.path().join("venv")),
        search_path: vec![PathBuf::from("."), root.path().join("usr/bin")],
        ..LibrarySearchPaths::default()
    };
    let expected = [
        (checkout, LibraryOrigin::Checkout),
        (venv, LibraryOrigin::Python),
        (other, LibraryOrigin::Python),
    ];
    assert_eq!(found(&paths), expected);
    let (_, empty) = paths.candidates();
    assert_eq!(empty[0], root.path().join("target/release"));
}

#[test]
fn runtime_folder_outside_a_checkout_is_ignored() {
    let root = tempfile::tempdir().unwrap();
    library(&root.path().join(".runtime/onnxruntime"));
    for path in ["bin/latentflow", "target/release/latentflow"] {
        let paths = LibrarySearchPaths {
            executable: Some(root.path().join(path)),
            ..LibrarySearchPaths::default()
        };
        assert_eq!(found(&paths), [], "{path}");
    }
}

#[test]
fn explicitly_set_library_is_the_only_candidate() {
    let root = tempfile::tempdir().unwrap();
    let named = root.path().join("elsewhere.so");
    let paths = LibrarySearchPaths {
        variable: Some(named.clone()),
        ..LibrarySearchPaths::default()
    };
    let expected = vec![LibraryCandidate {
        file: named,
        origin: LibraryOrigin::Variable,
    }];
    assert_eq!(paths.candidates(), (expected, vec![]));
}

#[cfg(unix)]
#[test]
fn library_that_other_users_can_replace_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
    };
    let root = tempfile::tempdir().unwrap();
    set(root.path(), 0o755);
    let file = library(&root.path().join("a/lib"));
    for (path, mode) in [("a/lib", 0o755), ("a", 0o755)] {
        set(&root.path().join(path), mode);
    }
    set(&file, 0o644);
    assert_eq!(trusted(&file), Ok(file.canonicalize().unwrap()));
    for (path, mode, back) in [
        ("a/lib", 0o777, 0o755),
        ("a/lib", 0o775, 0o755),
        ("a", 0o777, 0o755),
    ] {
        set(&root.path().join(path), mode);
        let reason = trusted(&file).unwrap_err();
        assert!(
            reason.contains(&format!("has the mode {mode:04o}"))
                && reason.contains("run `chmod go-w` on it"),
            "{reason}"
        );
        set(&root.path().join(path), back);
    }
    set(&file, 0o666);
    assert!(trusted(&file).unwrap_err().contains("has the mode 0666"));
    let reason = trusted(Path::new("lib/x.so")).unwrap_err();
    assert_eq!(reason, "is a relative path; use an absolute path");
}
