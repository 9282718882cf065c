//! The search for the ONNX Runtime library, and the check that a file can be trusted.

pub(crate) mod trust;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::config::RuntimeSpec;
use crate::model::library_search::trust::{owner, user};

/// The environment variable with the path of the library, which other users of `ort` also read.
pub(super) const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The locations in which the library is searched. The current folder is not one of them, since
/// anyone who can write there could execute code.
#[derive(Debug, Default)]
pub(super) struct LibrarySearchPaths {
    pub(super) option: Option<PathBuf>,
    pub(super) variable: Option<PathBuf>,
    executable: Option<PathBuf>,
    virtual_env: Option<PathBuf>,
    search_path: Vec<PathBuf>,
}

/// A file that may be the ONNX Runtime library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LibraryCandidate {
    pub(super) file: PathBuf,
    pub(super) origin: LibraryOrigin,
}

/// The location in which a candidate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LibraryOrigin {
    /// The option `runtime.library` of the pipeline.
    Option,
    /// The environment variable.
    Variable,
    /// The folder of the program.
    Program,
    /// The checkout in which the program was built.
    Checkout,
    /// The active Python environment.
    Python,
    /// A bare name, which the system's loader resolves.
    System,
}

impl fmt::Display for LibraryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Option => "set by `runtime.library`",
            Self::Variable => "set by ORT_DYLIB_PATH",
            Self::Program => "in the folder of the program",
            Self::Checkout => "in the checkout of the program",
            Self::Python => "in the active Python environment",
            Self::System => "found by the system's loader",
        })
    }
}

impl fmt::Display for LibraryCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.file.display(), self.origin)
    }
}

impl LibrarySearchPaths {
    pub(super) fn of_process(spec: &RuntimeSpec) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let search_path = variable("PATH")
            .map(|all| std::env::split_paths(&all).collect())
            .unwrap_or_default();
        Self {
            option: spec.library.clone(),
            variable: variable(VARIABLE).map(PathBuf::from),
            executable: std::env::current_exe().ok(),
            virtual_env: variable("VIRTUAL_ENV").map(PathBuf::from),
            search_path,
        }
    }

    /// The files to try, in order, and the searched folders without a library. A file that is set
    /// explicitly is the only candidate, since the user does not expect another one in its place.
    pub(super) fn candidates(&self) -> (Vec<LibraryCandidate>, Vec<PathBuf>) {
        let named = self
            .option
            .as_ref()
            .map(|named| (named, LibraryOrigin::Option));
        if let Some((named, origin)) =
            named.or_else(|| Some((self.variable.as_ref()?, LibraryOrigin::Variable)))
        {
            let inside = libraries_in(named);
            let files = if inside.is_empty() {
                vec![named.clone()]
            } else {
                inside
            };
            return (
                files
                    .into_iter()
                    .map(|file| LibraryCandidate { file, origin })
                    .collect(),
                vec![],
            );
        }
        let (mut files, mut empty): (Vec<LibraryCandidate>, Vec<PathBuf>) =
            (Vec::new(), Vec::new());
        for (folder, origin) in self.folders() {
            let found = libraries_in(&folder);
            if found.is_empty() && !empty.contains(&folder) {
                empty.push(folder);
            }
            files.extend(
                found
                    .into_iter()
                    .map(|file| LibraryCandidate { file, origin }),
            );
        }
        let bare = format!(
            "{}onnxruntime{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        );
        files.push(LibraryCandidate {
            file: PathBuf::from(bare),
            origin: LibraryOrigin::System,
        });
        (files, empty)
    }

    fn folders(&self) -> Vec<(PathBuf, LibraryOrigin)> {
        let program = self
            .executable
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_path_buf);
        let checkout = self
            .executable
            .as_deref()
            .and_then(checkout)
            .map(|root| root.join(".runtime/onnxruntime"));
        let environments = self.virtual_env.iter().cloned().chain(self.python());
        // A relative path depends on the folder in which the program is started.
        let packages = environments
            .filter(|folder| folder.is_absolute())
            .flat_map(|folder| python_packages(&folder));
        let python = packages.map(|at| (at.join("onnxruntime/capi"), LibraryOrigin::Python));
        let program = program
            .into_iter()
            .map(|folder| (folder, LibraryOrigin::Program));
        program
            .chain(
                checkout
                    .into_iter()
                    .map(|folder| (folder, LibraryOrigin::Checkout)),
            )
            .chain(python)
            .collect()
    }

    /// The environment of the first Python on the search path.
    fn python(&self) -> Option<PathBuf> {
        let folders = self
            .search_path
            .iter()
            .filter(|folder| folder.is_absolute());
        let mut with_python = folders.filter(|folder| {
            ["python3", "python"]
                .iter()
                .any(|name| folder.join(name).is_file())
        });
        with_python.next()?.parent().map(Path::to_path_buf)
    }
}

/// The checkout in which a program was built: the program is below the folder `target` next to the
/// `Cargo.toml` of the checkout. The runtime folder must be owned by the owner of the program, by
/// the user, or by root.
fn checkout(executable: &Path) -> Option<PathBuf> {
    let target = executable
        .ancestors()
        .skip(1)
        .find(|at| at.file_name().is_some_and(|name| name == "target"))?;
    let root = target.parent()?;
    let runtime = root.join(".runtime/onnxruntime");
    let is_ours = match (owner(&runtime), owner(executable)) {
        (Some(folder), program) => folder == 0 || Some(folder) == program || Some(folder) == user(),
        (None, _) => true,
    };
    (is_ours && root.join("Cargo.toml").is_file()).then(|| root.to_path_buf())
}

/// The libraries in a folder, in descending order of their names. Empty if the folder does not
/// exist.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = files
        .filter(|file| file.file_name().is_some_and(is_library))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

/// Whether a file name is that of the library, such as `libonnxruntime.so.1.31.1`,
/// `libonnxruntime.1.31.1.dylib` or `onnxruntime.dll`, and not of a library of a provider.
fn is_library(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let prefix = format!("{}onnxruntime.", std::env::consts::DLL_PREFIX);
    name.starts_with(&prefix) && name.contains(std::env::consts::DLL_SUFFIX)
}

/// The package folders of a Python environment, such as `lib/python3.12/site-packages`, or
/// `dist-packages` on Debian, for all versions.
fn python_packages(environment: &Path) -> Vec<PathBuf> {
    let lib = [environment.join("lib"), environment.join("local/lib")];
    let entries = lib
        .iter()
        .filter_map(|lib| std::fs::read_dir(lib).ok())
        .flatten();
    let versions = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let versions = versions.filter(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("python"))
    });
    let packages =
        |version: PathBuf| ["site-packages", "dist-packages"].map(|name| version.join(name));
    let mut found: Vec<PathBuf> = versions.flat_map(packages).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests;
