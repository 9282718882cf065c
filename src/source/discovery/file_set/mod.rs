//! The files that a folder, a glob or a path selects, sorted by name, independent of the order of
//! the file system.

pub(crate) mod patterns;
pub(crate) mod scan;
pub(crate) mod walk;

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::error::{ErrorClass, StageError};
use crate::shard::Shard;
use crate::source::discovery::file_set::scan::VisitFolder;
use crate::source::discovery::listing::Listing;
use crate::source::discovery::skipped_files::LastSkippedFiles;
use crate::storage::transfer_limits::reading_bytes;
use crate::storage::{Location, is_url};

/// The `path` of a source, with the rules for selecting files.
#[derive(Debug, Clone)]
pub(crate) struct FileSet {
    path: String,
    follow_links: bool,
    /// In a folder, files with one of these extensions are selected, except for hidden ones. In a
    /// glob, every match is selected.
    extensions: &'static [&'static str],
    /// Whether files whose names begin with an underscore are selected, as cameras name photographs
    /// so. Folders with such names are never entered.
    underscore_files: bool,
    /// The counts of files that the last listing skipped.
    skipped_files: LastSkippedFiles,
    /// The shard whose files are listed; `None` for all files.
    shard: Option<Shard>,
}

impl FileSet {
    /// Checks `path` as far as that is possible without listing it.
    ///
    /// # Errors
    /// A fault at `path` if it is empty or not a valid glob.
    pub(crate) fn new(
        path: String,
        follow_links: bool,
        extensions: &'static [&'static str],
    ) -> Result<Self, ConfigError> {
        let skipped_files = LastSkippedFiles::default();
        let set = Self {
            path,
            follow_links,
            extensions,
            underscore_files: false,
            skipped_files,
            shard: None,
        };
        if set.path.is_empty() {
            return Err(ConfigError::new(
                "path",
                "is empty; expected a folder, a file, or a glob such as `photos/**/*.jpg`",
            ));
        }
        if is_url(&set.path) || !Path::new(&set.path).exists() {
            let glob = set
                .glob()
                .map_err(|message| ConfigError::new("path", message))?;
            let root = glob.map_or_else(|| set.path.clone(), |glob| glob.root);
            Location::parse(&root).map_err(|error| error.at("path"))?;
        }
        Ok(set)
    }

    /// Also selects files whose names begin with an underscore, as cameras name photographs so.
    pub(crate) fn with_underscore_files(self) -> Self {
        Self {
            underscore_files: true,
            ..self
        }
    }

    /// Makes listings report the files that they skip to `skipped_files`.
    pub(crate) fn reporting_to(self, skipped_files: LastSkippedFiles) -> Self {
        Self {
            skipped_files,
            ..self
        }
    }

    /// Lists only the files of a shard, unless `shard` is `None`.
    pub(crate) fn of_shard(self, shard: Option<Shard>) -> Self {
        Self { shard, ..self }
    }

    /// The shard whose files are listed.
    pub(crate) fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// The counts of files that the last listing skipped.
    pub(crate) fn skipped_files(&self) -> LastSkippedFiles {
        self.skipped_files.clone()
    }

    /// Bytes of memory that reading one of the files takes, in addition to the data.
    pub(crate) fn reading_bytes(&self) -> u64 {
        reading_bytes(&self.path)
    }

    /// Lists the files. Only regular files are selected; folders, pipes, sockets and devices are
    /// never opened. A folder or file that cannot be read is left out and recorded in
    /// [`Listing::unread`].
    ///
    /// # Errors
    /// If the root folder cannot be read.
    pub(crate) fn list(&self) -> Result<Listing, StageError> {
        self.list_visiting(&mut |_, _| {})
    }

    /// As [`Self::list`], for sources that wait for files: a prefix without objects counts as an
    /// empty folder, because a bucket does not have folders.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub(crate) fn list_inbox(&self) -> Result<Listing, StageError> {
        if !is_url(&self.path) {
            return self.list();
        }
        let mut listing = match self.list_objects()? {
            Some(listing) => listing,
            None => {
                let root = Location::parse(&self.path)?;
                Listing {
                    is_folder: true,
                    ..Listing::empty(root)
                }
            }
        };
        listing.retain_shard(self.shard);
        self.skipped_files.set(listing.skipped_files.clone());
        Ok(listing)
    }

    /// As [`Self::list`], but calls `visit` with each folder before its entries are read.
    ///
    /// # Errors
    /// Those of [`Self::list`].
    pub(crate) fn list_visiting(&self, visit: &mut VisitFolder<'_>) -> Result<Listing, StageError> {
        let mut listing = self.scan(usize::MAX, visit)?;
        listing.retain_shard(self.shard);
        self.skipped_files.set(listing.skipped_files.clone());
        Ok(listing)
    }

    /// The default interval between full listings of a watched path.
    pub(crate) fn default_rescan(&self) -> Duration {
        Duration::from_secs(if is_url(&self.path) { 60 } else { 600 })
    }

    fn not_found(&self) -> StageError {
        match fs::metadata(&self.path) {
            Err(error) if !is_url(&self.path) && !ErrorClass::of(&error).concerns_file() => {
                StageError::io(&self.path)(error)
            }
            _ => StageError::new(
                ErrorCode::InputNotFound,
                format!(
                    "`{}` does not exist; expected a folder, a file, or a glob such as \
                 `photos/**/*.jpg`",
                    self.path
                ),
            ),
        }
    }

    /// The error of a listing without files.
    pub(crate) fn no_matches(&self, listing: &Listing) -> StageError {
        if let Some(unavailable) = listing.failures().next() {
            return unavailable.to_stage_error();
        }
        let scanned = listing.files_scanned;
        let expected = match listing.is_folder {
            true => format!("has the extension {}", self.extensions.join(", ")),
            false => "matches".to_owned(),
        };
        let links = match listing.skipped_files.links() {
            0 => String::new(),
            links => {
                format!("; symbolic links skipped: {links} (`follow_links = true` follows them)")
            }
        };
        let skipped = match &listing.skipped_files {
            none if none.is_empty() => String::new(),
            some => format!("skips {some}; "),
        };
        let path = &self.path;
        StageError::new(
            ErrorCode::InputNotFound,
            format!("`{path}`: {skipped}files scanned: {scanned}; none {expected}{links}"),
        )
    }
}

/// The folder of an output that holds latentflow's state. A listing that begins above it never
/// selects its files.
pub(crate) const STATE_DIR: &str = "_latentflow";

#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    /// A folder of files that each contain their own name.
    pub(in crate::source) fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }
}

#[cfg(test)]
mod tests;
