//! Loads the ONNX Runtime library once per process, and reports all tried files and folders if that
//! fails.

use std::path::Path;

use crate::error::config_error::ConfigError;
use crate::model::config::{ExecutionProvider, RuntimeSpec};
use crate::model::library_search::trust::trusted;
use crate::model::library_search::{LibraryCandidate, LibraryOrigin, LibrarySearchPaths, VARIABLE};
use crate::model::ort_backend::library::available;

/// Finds ONNX Runtime, loads it unless the process has already loaded it, and checks that it has
/// the configured execution providers.
///
/// # Errors
/// At `library` if no supported library was found, with all files and folders that were tried; at
/// `providers` if the library was built without one of them.
pub fn init(spec: &RuntimeSpec) -> Result<(), ConfigError> {
    match (crate::model::ort_backend::library::loaded(), &spec.library) {
        (Some(loaded), Some(requested)) if !same_file(&loaded, requested) => {
            let message = format!(
                "{} is already loaded; a process can load only one ONNX Runtime library",
                loaded.display()
            );
            return Err(ConfigError::new("library", message));
        }
        (Some(_), _) => {}
        (None, _) => load_first(&LibrarySearchPaths::of_process(spec))?,
    }
    check_providers(&spec.providers)
}

/// The library that a pipeline with these options loads: the first candidate. Loads nothing.
pub fn library(spec: &RuntimeSpec) -> Option<String> {
    let (candidates, _) = LibrarySearchPaths::of_process(spec).candidates();
    candidates.first().map(LibraryCandidate::to_string)
}

fn load_first(paths: &LibrarySearchPaths) -> Result<(), ConfigError> {
    let (candidates, empty) = paths.candidates();
    let mut tried = Vec::new();
    for candidate in candidates {
        match load(&candidate) {
            Ok(()) => return Ok(()),
            Err(reason) => tried.push(format!("{} {reason}", candidate.file.display())),
        }
    }
    tried.extend(
        empty
            .iter()
            .map(|folder| format!("{} contains no library", folder.display())),
    );
    let hint = match (&paths.option, &paths.variable) {
        (Some(_), _) => "correct `runtime.library`, or remove it".to_owned(),
        (None, Some(_)) => format!("correct the environment variable {VARIABLE}, or unset it"),
        (None, None) => format!(
            "run `make runtime`, or `pip install onnxruntime` and set {VARIABLE} to its library"
        ),
    };
    Err(ConfigError::new(
        "library",
        format!(
            "cannot load ONNX Runtime; {hint}; tried: {}",
            tried.join("; ")
        ),
    ))
}

fn load(LibraryCandidate { file, origin }: &LibraryCandidate) -> Result<(), String> {
    let is_bare = file.components().count() == 1;
    // The system's loader would block on a named pipe until a process writes to it.
    if file.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err("is not a regular file".to_owned());
    }
    match origin {
        LibraryOrigin::Option => crate::model::ort_backend::library::load(&trusted(file)?),
        LibraryOrigin::System => crate::model::ort_backend::library::load(file),
        // The system's loader searches a bare name in its own folders, and never in the current
        // folder.
        LibraryOrigin::Variable if is_bare => crate::model::ort_backend::library::load(file),
        _ => crate::model::ort_backend::library::load(
            &std::path::absolute(file).unwrap_or_else(|_| file.clone()),
        ),
    }
}

fn check_providers(providers: &[ExecutionProvider]) -> Result<(), ConfigError> {
    if providers.is_empty() {
        return Err(ConfigError::new(
            "providers",
            "is empty; list at least one, such as [\"cpu\"]",
        ));
    }
    match providers.iter().find(|&&provider| !available(provider)) {
        Some(missing) => {
            let library = crate::model::ort_backend::library::loaded().unwrap_or_default();
            let message = format!(
                "`{}` is not available in this build of ONNX Runtime ({}); use a build with this \
                 provider, or remove it",
                missing.as_str(),
                library.display()
            );
            Err(ConfigError::new("providers", message))
        }
        None => Ok(()),
    }
}

fn same_file(loaded: &Path, requested: &Path) -> bool {
    let loaded = loaded.canonicalize().ok();
    let requested = requested.canonicalize().ok();
    // The option may be the folder of the library.
    loaded.is_some()
        && (loaded == requested || loaded.as_deref().and_then(Path::parent) == requested.as_deref())
}
