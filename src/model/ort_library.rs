//! Loads ONNX Runtime's library, once per process, and reports where none was found.

use std::path::Path;

use crate::error::ConfigError;
use crate::model::config::{ExecutionProvider, RuntimeSpec};
use crate::model::library_search::{
    LibraryCandidate, LibraryOrigin, LibrarySearchPaths, VARIABLE, trusted,
};
use crate::model::ort_backend;

/// Finds ONNX Runtime and loads it, once per process, and checks that it has the providers that are
/// asked for.
///
/// # Errors
/// A fault at `library` where none was found or none fits, with every place that was tried; at
/// `providers` where the library was built without one.
pub fn init(spec: &RuntimeSpec) -> Result<(), ConfigError> {
    match (ort_backend::loaded(), &spec.library) {
        (Some(loaded), Some(wanted)) if !same_file(&loaded, wanted) => {
            let message = format!(
                "{} is loaded already; a process has one ONNX Runtime",
                loaded.display()
            );
            return Err(ConfigError::new("library", message));
        }
        (Some(_), _) => {}
        (None, _) => load_first(&LibrarySearchPaths::of_process(spec))?,
    }
    check_providers(&spec.providers)
}

/// Which library a pipeline with these settings loads: the first file that is found. Nothing is
/// loaded.
pub fn library(spec: &RuntimeSpec) -> Option<String> {
    let (candidates, _) = LibrarySearchPaths::of_process(spec).candidates();
    candidates.first().map(LibraryCandidate::to_string)
}

fn load_first(surroundings: &LibrarySearchPaths) -> Result<(), ConfigError> {
    let (candidates, empty) = surroundings.candidates();
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
            .map(|folder| format!("{} has none", folder.display())),
    );
    let advice = match (&surroundings.option, &surroundings.variable) {
        (Some(_), _) => "correct `runtime.library`, or leave it out".to_owned(),
        (None, Some(_)) => format!("correct the environment variable {VARIABLE}, or unset it"),
        (None, None) => format!(
            "run `make runtime`, or `pip install onnxruntime` and set {VARIABLE} to its library"
        ),
    };
    Err(ConfigError::new(
        "library",
        format!(
            "no ONNX Runtime: {advice}; looked here: {}",
            tried.join("; ")
        ),
    ))
}

fn load(LibraryCandidate { file, origin }: &LibraryCandidate) -> Result<(), String> {
    let is_bare = file.components().count() == 1;
    // The system's loader would wait for a writer of a pipe.
    if file.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err("is not a regular file".to_owned());
    }
    match origin {
        LibraryOrigin::Option => ort_backend::load(&trusted(file)?),
        LibraryOrigin::System => ort_backend::load(file),
        // The system's loader looks a bare name up in its own folders, and never in the current
        // one.
        LibraryOrigin::Variable if is_bare => ort_backend::load(file),
        _ => ort_backend::load(&std::path::absolute(file).unwrap_or_else(|_| file.clone())),
    }
}

fn check_providers(providers: &[ExecutionProvider]) -> Result<(), ConfigError> {
    if providers.is_empty() {
        return Err(ConfigError::new(
            "providers",
            "is empty; name at least one, such as [\"cpu\"]",
        ));
    }
    match providers
        .iter()
        .find(|&&provider| !ort_backend::available(provider))
    {
        Some(missing) => {
            let library = ort_backend::loaded().unwrap_or_default();
            let message = format!(
                "`{}` is not in this build of ONNX Runtime ({}); load one that has it, or leave it out",
                missing.as_str(),
                library.display()
            );
            Err(ConfigError::new("providers", message))
        }
        None => Ok(()),
    }
}

fn same_file(loaded: &Path, wanted: &Path) -> bool {
    let loaded = loaded.canonicalize().ok();
    let wanted = wanted.canonicalize().ok();
    // The option may name the folder that holds the library.
    loaded.is_some()
        && (loaded == wanted || loaded.as_deref().and_then(Path::parent) == wanted.as_deref())
}
