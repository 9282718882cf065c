//! Which files a path, a folder or a glob means, in which order, and what identifies them.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use globset::{GlobBuilder, GlobMatcher};
use walkdir::{DirEntry, WalkDir};

use crate::batch::Split;
use crate::error::StageError;

/// A file of input.
#[derive(Debug, Clone)]
pub(super) struct InputFile {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Its path relative to the root of the listing, with `/` between folders.
    pub(super) name: String,
    /// `<stage>/<name>:<size>:<modification time in ns>`: a file that was written anew is another input.
    pub(super) split: Arc<Split>,
}

/// The files that `path` means, sorted bytewise by name: one file, all files of a folder and its subfolders that have
/// one of `extensions`, or what a glob matches. Folders whose names begin with `.` or `_` are passed over
/// (they hold what is not data), and in folders such files too.
///
/// # Errors
/// When there is none, or a folder cannot be read.
pub(super) fn list(stage: &str, path: &str, extensions: &[&str]) -> Result<Vec<InputFile>, StageError> {
    let place = Path::new(path);
    let mut files = if place.is_file() {
        let name = place.file_name().map(PathBuf::from).unwrap_or_default();
        vec![identify(stage, place.to_path_buf(), &name)?]
    } else if place.is_dir() {
        let wanted = |name: &Path| !is_hidden(name) && has_extension(name, extensions);
        walk(stage, place, wanted)?
    } else if path.contains(META) {
        let (root, pattern) = split_glob(place);
        let matcher = compile(&pattern)?;
        walk(stage, &root, |name| matcher.is_match(name))?
    } else {
        return Err(StageError::Other(format!("`{path}` does not exist; expected a file, a folder or a glob")));
    };
    if files.is_empty() {
        let known = extensions.join(", .");
        let hint = if place.is_dir() { format!("; a folder is searched for .{known}") } else { String::new() };
        return Err(StageError::Other(format!("no file matches `{path}`{hint}")));
    }
    files.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(files)
}

/// Characters that make a path a glob.
const META: [char; 4] = ['*', '?', '[', '{'];

fn walk(stage: &str, root: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<InputFile>, StageError> {
    let mut files = Vec::new();
    let visible = |entry: &DirEntry| entry.depth() == 0 || !entry.file_type().is_dir() || !is_hidden(entry.path());
    for entry in WalkDir::new(root).follow_links(true).into_iter().filter_entry(visible) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.loop_ancestor().is_some() => continue,
            Err(error) => return Err(StageError::Other(format!("cannot list `{}`: {error}", root.display()))),
        };
        let name = entry.path().strip_prefix(root).unwrap_or(entry.path());
        if entry.file_type().is_file() && wanted(name) {
            files.push(identify(stage, entry.path().to_path_buf(), name)?);
        }
    }
    Ok(files)
}

fn identify(stage: &str, path: PathBuf, name: &Path) -> Result<InputFile, StageError> {
    let metadata = path.metadata().map_err(StageError::io(&path))?;
    let modified = metadata.modified().map_err(StageError::io(&path))?;
    let age = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let parts: Vec<_> = name.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let name = parts.join("/");
    let split = Split::new(format!("{stage}/{name}:{}:{age}", metadata.len()));
    Ok(InputFile { path, name, split })
}

/// The folder that a glob starts from, and the pattern below it.
fn split_glob(path: &Path) -> (PathBuf, PathBuf) {
    let is_pattern = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(META);
    let root: PathBuf = path.components().take_while(|part| !is_pattern(part)).collect();
    let pattern = path.components().skip_while(|part| !is_pattern(part)).collect();
    (if root.as_os_str().is_empty() { PathBuf::from(".") } else { root }, pattern)
}

fn compile(pattern: &Path) -> Result<GlobMatcher, StageError> {
    let glob = GlobBuilder::new(&pattern.to_string_lossy()).literal_separator(true).build();
    Ok(glob
        .map_err(|error| StageError::Other(format!("{error}; `**` stands for folders of any depth")))?
        .compile_matcher())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']))
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| extensions.contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv", "a/x.CSV", "a-b.csv", "_latentflow/m.csv", ".hidden.csv", "notes.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        folder
    }

    fn names(path: &Path) -> Vec<String> {
        list("s", path.to_str().unwrap(), &["csv"]).unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn a_folder_means_its_visible_files_with_the_extension_sorted_bytewise() {
        assert_eq!(names(folder().path()), ["a-b.csv", "a.csv", "a/x.CSV", "b.csv"]);
    }

    #[test]
    fn a_glob_means_what_it_matches_below_its_literal_folder() {
        let folder = folder();
        assert_eq!(names(&folder.path().join("*.csv")), [".hidden.csv", "a-b.csv", "a.csv", "b.csv"]);
        assert_eq!(names(&folder.path().join("**/*.{CSV,txt}")), ["a/x.CSV", "notes.txt"]);
    }

    #[test]
    fn a_file_is_known_by_stage_name_size_and_time() {
        let folder = folder();
        let file = list("s", folder.path().join("b.csv").to_str().unwrap(), &[]).unwrap().remove(0);
        assert!(file.split.name().starts_with("s/b.csv:5:"), "{}", file.split.name());
    }

    #[test]
    fn nothing_found_says_what_was_looked_for() {
        let folder = folder();
        let error = |path: &str, extension: &str| {
            list("s", folder.path().join(path).to_str().unwrap(), &[extension]).unwrap_err().to_string()
        };
        assert!(error("none", "csv").contains("does not exist; expected a file, a folder or a glob"));
        assert!(error("*.gz", "csv").starts_with("no file matches"));
        assert!(error("a", "parquet").ends_with("a folder is searched for .parquet"));
    }
}
