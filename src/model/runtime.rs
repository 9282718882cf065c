//! Where ONNX Runtime's library is found, and what is said where it isn't.

use std::path::{Path, PathBuf};

use crate::error::Fault;
use crate::model::onnx;
use crate::model::spec::{Provider, RuntimeSpec};

/// The environment variable that names the library; ONNX Runtime's other users know it too.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Finds ONNX Runtime and loads it, once per process, and checks that it has the providers that are asked for.
///
/// # Errors
/// A fault at `library` where none was found or none fits, with every place that was tried; at `providers` where the
/// library was built without one.
pub fn init(spec: &RuntimeSpec) -> Result<(), Fault> {
    match (onnx::loaded(), &spec.library) {
        (Some(loaded), Some(wanted)) if !same_file(&loaded, wanted) => {
            let message = format!("{} is loaded already; a process has one ONNX Runtime", loaded.display());
            return Err(Fault::new("library", message));
        }
        (Some(_), _) => {}
        (None, _) => load_first(&Surroundings::of_process(spec))?,
    }
    check_providers(&spec.providers)
}

/// What decides where the library is looked for.
#[derive(Debug, Default)]
struct Surroundings {
    option: Option<PathBuf>,
    variable: Option<PathBuf>,
    executable: Option<PathBuf>,
    folder: Option<PathBuf>,
    virtual_env: Option<PathBuf>,
}

impl Surroundings {
    fn of_process(spec: &RuntimeSpec) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            option: spec.library.clone(),
            variable: variable(VARIABLE),
            executable: std::env::current_exe().ok(),
            folder: std::env::current_dir().ok(),
            virtual_env: variable("VIRTUAL_ENV"),
        }
    }

    /// The files to try, in order, and the folders where there was none. What is named outright is the only candidate:
    /// another one in its place would be a surprise.
    fn candidates(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        if let Some(named) = self.option.as_ref().or(self.variable.as_ref()) {
            let inside = libraries_in(named);
            return (if inside.is_empty() { vec![named.clone()] } else { inside }, vec![]);
        }
        let (mut files, mut empty) = (Vec::new(), Vec::new());
        for folder in self.folders() {
            let found = libraries_in(&folder);
            if found.is_empty() { empty.push(folder) } else { files.extend(found) }
        }
        // A bare name is looked up by the system's own loader, in the system's own folders.
        files.push(PathBuf::from(format!(
            "{}onnxruntime{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        )));
        (files, empty)
    }

    fn folders(&self) -> Vec<PathBuf> {
        let beside = self.executable.as_deref().and_then(Path::parent).map(Path::to_path_buf);
        // The folder that the program was built in, wherever it is run, and the one that it is run in.
        let above = self.executable.iter().chain(&self.folder).flat_map(|place| place.ancestors());
        let project = above.map(|at| at.join(".runtime/onnxruntime"));
        let python =
            self.virtual_env.iter().flat_map(|venv| python_packages(venv)).map(|at| at.join("onnxruntime/capi"));
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in beside.into_iter().chain(project).chain(python) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }
}

fn load_first(surroundings: &Surroundings) -> Result<(), Fault> {
    let (files, empty) = surroundings.candidates();
    let mut tried = Vec::new();
    for file in files {
        match onnx::load(&absolute(&file)) {
            Ok(()) => return Ok(()),
            Err(reason) => tried.push(format!("{} {reason}", file.display())),
        }
    }
    tried.extend(empty.iter().map(|folder| format!("{} has none", folder.display())));
    let advice = match (&surroundings.option, &surroundings.variable) {
        (Some(_), _) => "correct `runtime.library`, or leave it out".to_owned(),
        (None, Some(_)) => format!("correct the environment variable {VARIABLE}, or unset it"),
        (None, None) => format!("run `make runtime`, or `pip install onnxruntime` and set {VARIABLE} to its library"),
    };
    Err(Fault::new("library", format!("no ONNX Runtime: {advice}; looked here: {}", tried.join("; "))))
}

fn check_providers(providers: &[Provider]) -> Result<(), Fault> {
    if providers.is_empty() {
        return Err(Fault::new("providers", "is empty; name at least one, such as [\"cpu\"]"));
    }
    match providers.iter().find(|&&provider| !onnx::available(provider)) {
        Some(missing) => {
            let library = onnx::loaded().unwrap_or_default();
            let message = format!(
                "`{}` is not in this build of ONNX Runtime ({}); load one that has it, or leave it out",
                missing.as_str(),
                library.display()
            );
            Err(Fault::new("providers", message))
        }
        None => Ok(()),
    }
}

/// The libraries in a folder, the greatest name first; none where there is no such folder.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = files.filter(|file| file.file_name().is_some_and(is_library)).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

/// `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`, `onnxruntime.dll`; not the libraries of providers.
fn is_library(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let prefix = format!("{}onnxruntime.", std::env::consts::DLL_PREFIX);
    name.starts_with(&prefix) && name.contains(std::env::consts::DLL_SUFFIX)
}

/// `lib/python3.12/site-packages` of a virtual environment, whatever the version.
fn python_packages(venv: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(venv.join("lib")) else { return Vec::new() };
    let versions = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = versions
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python")))
        .map(|path| path.join("site-packages"))
        .collect();
    found.sort_unstable();
    found
}

/// Bare names stay as they are: they are for the system's loader.
fn absolute(file: &Path) -> PathBuf {
    let bare = file.components().count() == 1 && !file.exists();
    if bare { file.to_path_buf() } else { std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()) }
}

fn same_file(loaded: &Path, wanted: &Path) -> bool {
    let loaded = loaded.canonicalize().ok();
    let wanted = wanted.canonicalize().ok();
    // The option may name the folder that holds the library.
    loaded.is_some() && (loaded == wanted || loaded.as_deref().and_then(Path::parent) == wanted.as_deref())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn library(folder: &Path) -> PathBuf {
        let name = if cfg!(target_os = "macos") { "libonnxruntime.1.31.1.dylib" } else { "libonnxruntime.so.1.31.1" };
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("libonnxruntime_providers_shared.so"), "").unwrap();
        std::fs::write(folder.join(name), "not a library").unwrap();
        folder.join(name)
    }

    #[test]
    fn what_is_found_is_tried_from_the_nearest_to_the_farthest() {
        let root = tempfile::tempdir().unwrap();
        let project = library(&root.path().join(".runtime/onnxruntime"));
        let python = library(&root.path().join("venv/lib/python3.12/site-packages/onnxruntime/capi"));
        let surroundings = Surroundings {
            executable: Some(root.path().join("bin/latentflow")),
            folder: Some(root.path().join("deep/down")),
            virtual_env: Some(root.path().join("venv")),
            ..Surroundings::default()
        };
        let (files, empty) = surroundings.candidates();
        assert_eq!(files[..2], [project, python]);
        assert!(empty.contains(&root.path().join("bin")), "{empty:?}");
    }

    #[test]
    fn what_is_named_outright_is_the_only_candidate() {
        let root = tempfile::tempdir().unwrap();
        library(&root.path().join(".runtime/onnxruntime"));
        let named = root.path().join("elsewhere.so");
        let folder = Some(root.path().to_path_buf());
        let surroundings = Surroundings { variable: Some(named.clone()), folder, ..Surroundings::default() };
        assert_eq!(surroundings.candidates(), (vec![named], vec![]));
    }
}
