//! Where ONNX Runtime's library is looked for, and which files are trusted to be it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::config::RuntimeSpec;

/// The environment variable that names the library; ONNX Runtime's other users know it too.
pub(super) const VARIABLE: &str = "ORT_DYLIB_PATH";

/// What decides where the library is looked for. The current folder does not: whoever may write
/// there could have code run.
#[derive(Debug, Default)]
pub(super) struct LibrarySearchPaths {
    pub(super) option: Option<PathBuf>,
    pub(super) variable: Option<PathBuf>,
    executable: Option<PathBuf>,
    virtual_env: Option<PathBuf>,
    search_path: Vec<PathBuf>,
}

/// A file that may be ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LibraryCandidate {
    pub(super) file: PathBuf,
    pub(super) origin: LibraryOrigin,
}

/// Why a file is a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LibraryOrigin {
    /// The pipeline names it.
    Option,
    /// The environment names it.
    Variable,
    /// It lies in the folder of the program.
    Program,
    /// It lies in the checkout that the program was built in.
    Checkout,
    /// It belongs to the active Python environment.
    Python,
    /// A bare name, for the system's loader.
    System,
}

impl fmt::Display for LibraryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Option => "named by `runtime.library`",
            Self::Variable => "named by ORT_DYLIB_PATH",
            Self::Program => "in the folder of the program",
            Self::Checkout => "in the program's checkout",
            Self::Python => "in the active Python environment",
            Self::System => "as the system's loader finds it",
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

    /// The files to try, in order, and the folders that hold none. A file that is named outright is
    /// the only candidate: another file in its place would be a surprise.
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
        let beside = self
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
        // A relative path means another folder wherever the program is started.
        let packages = environments
            .filter(|place| place.is_absolute())
            .flat_map(|place| python_packages(&place));
        let python = packages.map(|at| (at.join("onnxruntime/capi"), LibraryOrigin::Python));
        let beside = beside
            .into_iter()
            .map(|folder| (folder, LibraryOrigin::Program));
        beside
            .chain(
                checkout
                    .into_iter()
                    .map(|folder| (folder, LibraryOrigin::Checkout)),
            )
            .chain(python)
            .collect()
    }

    /// The environment of the Python that the search path leads to first.
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

/// The checkout that a program was built in: it lies below the folder `target` beside the
/// checkout's `Cargo.toml`. Both have one owner, or the checkout is root's.
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

/// The libraries in a folder, the greatest name first; none where there is no such folder.
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

/// `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`, `onnxruntime.dll`; not the libraries
/// of providers.
fn is_library(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let prefix = format!("{}onnxruntime.", std::env::consts::DLL_PREFIX);
    name.starts_with(&prefix) && name.contains(std::env::consts::DLL_SUFFIX)
}

/// `lib/python3.12/site-packages` of a Python environment, whatever the version; Debian's packages
/// have another name.
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

/// The file behind a path that a pipeline names, if nobody but the user and root can have put it
/// there. A pipeline may come from anywhere, and a library that is loaded runs as the user.
///
/// # Errors
/// What stands against it and what to do, to be read after the path.
pub(super) fn trusted(file: &Path) -> Result<PathBuf, String> {
    if !file.is_absolute() {
        return Err("is a relative path; write the absolute one".to_owned());
    }
    let file = file
        .canonicalize()
        .map_err(|error| format!("cannot be loaded: {error}"))?;
    for (depth, place) in file.ancestors().enumerate() {
        if let Some(reason) = distrust(place, depth)? {
            return Err(format!("is not loaded: {} {reason}", place.display()));
        }
    }
    Ok(file)
}

/// What lets others than the user and root replace the library: the library itself, its folder
/// (`depth` 1), or one above.
#[cfg(unix)]
fn distrust(place: &Path, depth: usize) -> Result<Option<String>, String> {
    use std::os::unix::fs::MetadataExt as _;
    const STICKY: u32 = 0o1000;
    let metadata = place
        .metadata()
        .map_err(|error| format!("cannot be loaded: {}: {error}", place.display()))?;
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != 0 && Some(owner) != user() {
        return Ok(Some(format!(
            "belongs to the user {owner}; only files of the user or of root are loaded"
        )));
    }
    // In a sticky folder others cannot rename what is not theirs.
    let is_open = if depth < 2 {
        mode & 0o022 != 0
    } else {
        mode & 0o002 != 0 && mode & STICKY == 0
    };
    let advice =
        "others may write there; run chmod go-w on it, or name the library by ORT_DYLIB_PATH";
    Ok(is_open.then(|| format!("has the mode {:04o}: {advice}", mode & 0o7777)))
}

#[cfg(not(unix))]
fn distrust(_: &Path, _: usize) -> Result<Option<String>, String> {
    Ok(None)
}

#[cfg(unix)]
fn owner(path: &Path) -> Option<u32> {
    std::os::unix::fs::MetadataExt::uid(&path.metadata().ok()?).into()
}

#[cfg(unix)]
fn user() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> Option<u32> {
    None
}

#[cfg(not(unix))]
fn user() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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

    fn found(surroundings: &LibrarySearchPaths) -> Vec<(PathBuf, LibraryOrigin)> {
        let files = surroundings
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
        let surroundings = LibrarySearchPaths {
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
        assert_eq!(found(&surroundings), expected);
        let (_, empty) = surroundings.candidates();
        assert_eq!(empty[0], root.path().join("target/release"));
    }

    #[test]
    fn runtime_folder_above_a_program_of_no_checkout_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        library(&root.path().join(".runtime/onnxruntime"));
        for place in ["bin/latentflow", "target/release/latentflow"] {
            let surroundings = LibrarySearchPaths {
                executable: Some(root.path().join(place)),
                ..LibrarySearchPaths::default()
            };
            assert_eq!(found(&surroundings), [], "{place}");
        }
    }

    #[test]
    fn named_library_is_the_only_candidate() {
        let root = tempfile::tempdir().unwrap();
        let named = root.path().join("elsewhere.so");
        let surroundings = LibrarySearchPaths {
            variable: Some(named.clone()),
            ..LibrarySearchPaths::default()
        };
        let expected = vec![LibraryCandidate {
            file: named,
            origin: LibraryOrigin::Variable,
        }];
        assert_eq!(surroundings.candidates(), (expected, vec![]));
    }

    #[cfg(unix)]
    #[test]
    fn library_that_others_may_replace_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        let root = tempfile::tempdir().unwrap();
        set(root.path(), 0o755);
        let file = library(&root.path().join("a/lib"));
        for (place, mode) in [("a/lib", 0o755), ("a", 0o755)] {
            set(&root.path().join(place), mode);
        }
        set(&file, 0o644);
        assert_eq!(trusted(&file), Ok(file.canonicalize().unwrap()));
        for (place, mode, back) in [
            ("a/lib", 0o777, 0o755),
            ("a/lib", 0o775, 0o755),
            ("a", 0o777, 0o755),
        ] {
            set(&root.path().join(place), mode);
            let reason = trusted(&file).unwrap_err();
            assert!(
                reason.contains(&format!("has the mode {mode:04o}"))
                    && reason.contains("chmod go-w"),
                "{reason}"
            );
            set(&root.path().join(place), back);
        }
        set(&file, 0o666);
        assert!(trusted(&file).unwrap_err().contains("has the mode 0666"));
        assert!(
            trusted(Path::new("lib/x.so"))
                .unwrap_err()
                .contains("is a relative path")
        );
    }
}
