//! ONNX Runtime's library where it is not: what is said. A process of its own, since a library is
//! loaded once for ever.

#![allow(clippy::unwrap_used)]

use latentflow::model::config::ExecutionProvider;
use latentflow::model::{RuntimeSpec, ort_library};

#[test]
fn a_library_that_does_not_fit_is_refused_with_the_reason_and_a_fitting_one_may_follow() {
    let folder = tempfile::tempdir().unwrap();
    let plain = |name: &str| {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(
                folder.path().join(name),
                std::fs::Permissions::from_mode(0o644),
            )
            .unwrap();
        }
    };
    let refuse = |name: &str, expected: &str| {
        let spec = RuntimeSpec {
            library: Some(folder.path().join(name)),
            ..RuntimeSpec::default()
        };
        let fault = ort_library::init(&spec).unwrap_err();
        assert_eq!(fault.key, "library");
        assert!(
            fault
                .message
                .starts_with("no ONNX Runtime: correct `runtime.library`"),
            "{}",
            fault.message
        );
        assert!(fault.message.contains(expected), "{}", fault.message);
    };
    refuse("gone.so", "gone.so cannot be loaded: ");
    std::fs::write(folder.path().join("text.so"), "not a library").unwrap();
    plain("text.so");
    refuse("text.so", "text.so cannot be loaded: ");
    #[cfg(target_os = "linux")]
    {
        let alien = [
            "/lib/x86_64-linux-gnu/libm.so.6",
            "/lib/aarch64-linux-gnu/libm.so.6",
            "/lib64/libm.so.6",
        ];
        let alien = alien
            .iter()
            .find(|path| std::path::Path::new(path).exists())
            .unwrap();
        std::fs::copy(alien, folder.path().join("alien.so")).unwrap();
        plain("alien.so");
        refuse("alien.so", "alien.so is a library, but not ONNX Runtime");
    }
    ort_library::init(&RuntimeSpec::default()).unwrap_or_else(|fault| panic!("{}", fault.message));
    let spec = RuntimeSpec {
        library: Some(folder.path().join("text.so")),
        ..RuntimeSpec::default()
    };
    assert!(
        ort_library::init(&spec)
            .unwrap_err()
            .message
            .contains("is loaded already")
    );
    let spec = RuntimeSpec {
        providers: vec![],
        ..RuntimeSpec::default()
    };
    assert_eq!(ort_library::init(&spec).unwrap_err().key, "providers");
    let spec = RuntimeSpec {
        providers: vec![ExecutionProvider::Cpu, ExecutionProvider::Tensorrt],
        ..RuntimeSpec::default()
    };
    // The pinned library has no TensorRT; one that a developer set by ORT_DYLIB_PATH may.
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        let fault = ort_library::init(&spec).unwrap_err();
        assert!(
            fault
                .message
                .starts_with("`tensorrt` is not in this build of ONNX Runtime"),
            "{}",
            fault.message
        );
    }
}
