//! Loads ONNX Runtime, and reads what the library supports.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::environment::Environment;
use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{self, ExecutionProvider as _, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use parking_lot::Mutex;

use crate::model::config::ExecutionProvider;
use crate::model::ort_backend::reason;

/// The loaded library and its environment, which live until the process ends: a process cannot load
/// a second library.
pub(super) static LOADED: Mutex<Option<LoadedLibrary>> = Mutex::new(None);

pub(crate) struct LoadedLibrary {
    pub(super) library: PathBuf,
    pub(super) environment: Environment,
}

/// The path of the loaded library; `None` if none has been loaded.
pub fn loaded() -> Option<PathBuf> {
    LOADED.lock().as_ref().map(|loaded| loaded.library.clone())
}

/// Loads the library, unless a library has already been loaded.
///
/// # Errors
/// The reason why this file is not a supported ONNX Runtime. Another file may then be tried.
pub(in crate::model) fn load(library: &Path) -> Result<(), String> {
    let mut loaded = LOADED.lock();
    if loaded.is_some() {
        return Ok(());
    }
    // `ort` panics on a library that exports the expected symbol but is not ONNX Runtime.
    let builder =
        catch_unwind(|| ort::init_from(library)).map_err(|_| "is not ONNX Runtime".to_owned())?;
    let builder = builder.map_err(load_reason)?;
    let environment = catch_unwind(AssertUnwindSafe(|| {
        builder
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
    }));
    let environment = environment
        .map_err(|_| "is not ONNX Runtime".to_owned())?
        .map_err(reason)?;
    // Without a level, ONNX Runtime calls the logger for messages of all levels.
    environment.set_log_level(LogLevel::Warning);
    *loaded = Some(LoadedLibrary {
        library: library.to_path_buf(),
        environment,
    });
    Ok(())
}

/// Logs a message of the library at debug level: each failure is also returned as an error.
fn log(_: LogLevel, _: &str, _: &str, place: &str, message: &str) {
    tracing::debug!(
        target: "onnxruntime",
        place,
        text = message.trim(),
        "ONNX Runtime logged a message"
    );
}

/// Whether the loaded library was built with this execution provider.
pub fn available(provider: ExecutionProvider) -> bool {
    let available = match provider {
        ExecutionProvider::Cpu => Ok(true),
        ExecutionProvider::Cuda => ep::CUDA::is_available(),
        ExecutionProvider::Tensorrt => ep::TensorRT::is_available(),
        ExecutionProvider::Openvino => ep::OpenVINO::is_available(),
        ExecutionProvider::Coreml => ep::CoreML::is_available(),
    };
    available.unwrap_or(false)
}

fn load_reason(error: ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            // The message of the error itself is only "dlopen failed".
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!(
                "cannot be loaded: {}",
                cause.unwrap_or_else(|| error.to_string())
            )
        }
        ort::LoadDynamicError::MissingApi { .. } => "is a library, but not ONNX Runtime".to_owned(),
        ort::LoadDynamicError::InvalidVersionString => "does not report its version".to_owned(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!(
                "is ONNX Runtime {version_str}; expected 1.{} or later",
                ort::MINOR_VERSION
            )
        }
    }
}

pub(super) fn dispatch(provider: ExecutionProvider) -> ExecutionProviderDispatch {
    let dispatch = match provider {
        // Without the arena, each call requests the memory of its activations from the system again,
        // page by page. The arena keeps the peak of a call, whose size is bounded.
        ExecutionProvider::Cpu => ep::CPU::default().with_arena_allocator(true).build(),
        // The default searches all algorithms for each new batch size, and batch sizes vary.
        ExecutionProvider::Cuda => ep::CUDA::default()
            .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
            .build(),
        ExecutionProvider::Tensorrt => ep::TensorRT::default().build(),
        ExecutionProvider::Openvino => ep::OpenVINO::default().build(),
        ExecutionProvider::Coreml => ep::CoreML::default().build(),
    };
    dispatch.error_on_failure()
}
