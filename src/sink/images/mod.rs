//! The sink `images`, which writes a tensor column as one image file per record.

pub mod config;
pub(crate) mod encoder;
mod file_names;
pub(crate) mod file_naming;
pub(crate) mod name_log;
mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::StageError;
use crate::sink::images::encoder::ImageEncoder;
use crate::sink::images::file_naming::NamingScheme;
use crate::sink::images::file_naming::pattern::NamePattern;
use crate::sink::images::writer::unnamed::ClaimedImageFolder;
use crate::sink::ownership::file_lock::FileLock;
use crate::sink::parquet::coverage_snapshot::{self, CoverageSnapshot, NamingState};
use crate::sink::{BatchEncoder, CommitStats, OutputHistory, OutputIdentity, Sink, SinkWriter};
use crate::source::WrittenFiles;
use crate::storage::Location;

use name_log::NameLog;
use writer::ImageWriter;

pub(super) use name_log::NAMES;

/// The planned sink.
struct ImagesSink {
    path: PathBuf,
    /// The location of `path`.
    folder: Location,
    /// The pattern of file names of the pipeline; `None` for default names.
    name: Option<NamePattern>,
    /// The extensions of the files.
    extensions: &'static [&'static str],
    encoder: ImageEncoder,
    /// The lock and the snapshot. The lock is taken before the snapshot is read, since another
    /// process could change the snapshot otherwise.
    claimed: RefCell<Option<(FileLock, CoverageSnapshot)>>,
}

impl ImagesSink {
    fn claimed(&self) -> Result<(FileLock, CoverageSnapshot), StageError> {
        let claim = || {
            Ok((
                FileLock::acquire(&self.path)?,
                CoverageSnapshot::load(&self.folder)?,
            ))
        };
        self.claimed.take().map_or_else(claim, Ok)
    }
}

impl Sink for ImagesSink {
    fn folder(&self) -> Option<Location> {
        Some(self.folder.clone())
    }

    fn written_files(&self) -> Option<WrittenFiles<'_>> {
        Some(WrittenFiles {
            folder: &self.folder,
            extensions: self.extensions,
            name: None,
        })
    }

    fn history(&self) -> Result<OutputHistory, StageError> {
        let found = self.claimed()?;
        let history = found.1.history.clone();
        self.claimed.replace(Some(found));
        Ok(history)
    }

    fn read_history(&self) -> Result<OutputHistory, StageError> {
        Ok(CoverageSnapshot::load(&self.folder)?.history)
    }

    fn allow_mixing(&self, digests: &[String]) -> Result<(), StageError> {
        let (lock, mut snapshot) = self.claimed()?;
        snapshot.history.allow_mixing(digests);
        snapshot.save(&coverage_snapshot::location(&self.folder, None))?;
        self.claimed.replace(Some((lock, snapshot)));
        Ok(())
    }

    fn reset(&self, remove: bool) -> Result<CommitStats, StageError> {
        let _lock = FileLock::acquire(&self.path)?;
        let location = coverage_snapshot::location(&self.folder, None);
        if remove {
            let snapshot = CoverageSnapshot::load(&self.folder)?;
            if snapshot.naming.is_none_or(|naming| naming.former)
                && !snapshot.history.writers.is_empty()
            {
                tracing::warn!(
                    path = %self.path.display(),
                    "image files of an earlier version are kept and will not be replaced; \
                     move them to another folder"
                );
            }
            // A snapshot without rows is written first, so that after a crash the next run removes
            // the remaining files of the name log.
            let naming = NamingState {
                adopts: true,
                ..NamingState::default()
            };
            CoverageSnapshot {
                naming: Some(naming),
                ..CoverageSnapshot::default()
            }
            .save(&location)?;
        }
        let found = NameLog::reset(&self.path, remove)?;
        if remove {
            location.remove()?;
        }
        Ok(found)
    }

    fn embedded_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        Some(Arc::new(self.encoder.clone()))
    }

    fn can_reject(&self) -> bool {
        true
    }

    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        let (lock, snapshot) = self.claimed()?;
        let Self {
            path,
            folder,
            name,
            encoder,
            ..
        } = *self;
        let snapshot_file = coverage_snapshot::location(&folder, None);
        let found = ClaimedImageFolder {
            path,
            lock,
            snapshot,
            snapshot_file,
        };
        // An output without a record of its naming was started by a version without patterns.
        let scheme = match name {
            Some(pattern) => NamingScheme::Pattern(pattern),
            None if found.is_legacy() => NamingScheme::Legacy,
            None => NamingScheme::Current,
        };
        Ok(Box::new(ImageWriter::open(
            found, scheme, encoder, identity,
        )?))
    }
}

#[cfg(test)]
mod tests;
