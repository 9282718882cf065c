//! A test of the errors for an invalid library of ONNX Runtime. It has its own process, since a
//! process loads the library once.

#![allow(clippy::unwrap_used)]

use latentflow::model::config::ExecutionProvider;
use latentflow::model::{RuntimeSpec, ort_library};

#[test]
fn invalid_library_is_refused_and_a_valid_one_may_follow() {
    let folder = tempfile::tempdir().unwrap();
    let remove_execute_permission = |name: &str| {
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
    let assert_refused = |name: &str, expected: &str| {
        let spec = RuntimeSpec {
            library: Some(folder.path().join(name)),
            ..RuntimeSpec::default()
        };
        let fault = ort_library::init(&spec).unwrap_err();
        assert_eq!(fault.key, "library");
        assert!(
            fault
                .message
                .starts_with("cannot load ONNX Runtime; correct `runtime.library`"),
            "{}",
            fault.message
        );
        assert!(fault.message.contains(expected), "{}", fault.message);
    };
    assert_refused("gone.so", "gone.so cannot be loaded: ");
    std::fs::write(folder.path().join("text.so"), "not a library").unwrap();
    remove_execute_permission("text.so");
    assert_refused("text.so", "text.so cannot be loaded: ");
    #[cfg(target_os = "linux")]
    {
        let foreign = [
            "/lib/x86_64-linux-gnu/libm.so.6",
            "/lib/aarch64-linux-gnu/libm.so.6",
            "/lib64/libm.so.6",
        ];
        let foreign = foreign
            .iter()
            .find(|path| std::path::Path::new(path).exists())
            .unwrap();
        std::fs::copy(foreign, folder.path().join("foreign.so")).unwrap();
        remove_execute_permission("foreign.so");
        assert_refused(
            "foreign.so",
            "foreign.so is a library, but not ONNX Runtime",
        );
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
            .contains("is already loaded")
    );
    let without_providers = RuntimeSpec {
        providers: vec![],
        ..RuntimeSpec::default()
    };
    assert_eq!(
        ort_library::init(&without_providers).unwrap_err().key,
        "providers"
    );
    let with_tensorrt = RuntimeSpec {
        providers: vec![ExecutionProvider::Cpu, ExecutionProvider::Tensorrt],
        ..RuntimeSpec::default()
    };
    // The pinned library has no TensorRT; one that a developer set by ORT_DYLIB_PATH may.
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        let fault = ort_library::init(&with_tensorrt).unwrap_err();
        assert!(
            fault
                .message
                .starts_with("`tensorrt` is not available in this build of ONNX Runtime"),
            "{}",
            fault.message
        );
    }
}
