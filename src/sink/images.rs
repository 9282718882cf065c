//! The sink `images`, which writes a tensor column as one image file per record.

mod name_log;
mod file_names;
mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, RecordFaults, StageError};
use crate::image::encode::OutputFormat;
use crate::plan_context::PlanContext;
use crate::sink::coverage_snapshot::{self, CoverageSnapshot, NamingState};
use crate::sink::file_lock::FileLock;
use crate::sink::file_naming::{NamePattern, NamingScheme};
use crate::sink::image_encoder::{ImageEncoder, pixel_column};
use crate::sink::{
    BatchEncoder, CommitStats, OutputHistory, OutputIdentity, Sink, SinkConfig, SinkWriter,
};
use crate::source::{ROW, SOURCE, WrittenFiles};
use crate::storage::Location;

pub(super) use name_log::NAMES;

use name_log::NameLog;
use writer::{ClaimedImageFolder, ImageWriter};

/// Default JPEG quality, at which differences from the original are barely visible.
const QUALITY: u8 = 90;

/// The format of the image files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFileFormat {
    /// PNG, lossless.
    #[default]
    Png,
    /// JPEG with the given quality.
    Jpeg,
    /// WebP, lossless.
    Webp,
}

impl ImageFileFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }
}

/// Options of the sink `images`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct ImagesSinkConfig {
    /// The folder to write to. The sink never replaces an existing file.
    #[schemars(extend("x-changes-rows" = false, "format" = "path"))]
    path: PathBuf,
    /// Pattern of file names below `path`, which ends in `.{ext}`, such as `{dir}/{stem}.{ext}`.
    /// `{source}` is the relative path of the record's source, `{dir}` its folders, `{stem}` its
    /// file name without the extension, `{source_ext}` that extension, `{row}` the record's row in
    /// the source (at least six digits), and `{ext}` the extension of `format`. If several records
    /// have the same name, or if a file of another program has it, the later record gets a suffix
    /// that depends only on its position in the input (`b-1f0c22ab.png`). Default:
    /// `{dir}/{stem}.{ext}` for an image file, `{dir}/{stem}-{row}.{ext}` for further rows of an
    /// image file, and `{source}/{row}.{ext}` for records of other sources. An output that was
    /// started by a version without patterns keeps its names (`a/b.jpg.png`).
    #[schemars(extend("x-changes-rows" = true))]
    name: Option<String>,
    /// The tensor column to write. Default: the only column that holds pixels.
    #[schemars(extend("x-changes-rows" = true))]
    column: Option<String>,
    /// Format of the files: `png` (default), `jpeg` or `webp`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    format: ImageFileFormat,
    /// JPEG quality, from 1 to 100. Default: 90. Valid only with `format = "jpeg"`.
    #[schemars(extend("x-changes-rows" = true))]
    quality: Option<u8>,
}

impl SinkConfig for ImagesSinkConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        let mut faults = Vec::new();
        if self.path.as_os_str().is_empty() {
            faults.push(ConfigError::new(
                "path",
                "is empty; expected the folder for the images",
            ));
        }
        let location = context.output_folder(&self.path);
        if let Ok(Location::Remote(_)) | Err(_) = location {
            let message = "images can only be written to a local folder; expected a local path, or \
                           the sink `parquet`, which writes to buckets";
            faults.push(ConfigError::new("path", message));
        }
        let pattern = self.name.as_deref().map(NamePattern::parse).transpose();
        let pattern = pattern.map_err(|message| ConfigError::new("name", message));
        let name = faults.record(pattern).flatten();
        let quality = self.quality.unwrap_or(QUALITY);
        if self.format == ImageFileFormat::Jpeg {
            self.quality = Some(quality);
        }
        if !(1..=100).contains(&quality) {
            faults.push(ConfigError::new(
                "quality",
                format!("{quality} is not a JPEG quality; expected 1 to 100"),
            ));
        } else if self.quality.is_some() && self.format != ImageFileFormat::Jpeg {
            faults.push(ConfigError::new(
                "quality",
                "applies only to JPEG; remove it, or set format = \"jpeg\"",
            ));
        }
        for (column, kind) in [(SOURCE, DataType::Utf8), (ROW, DataType::UInt64)] {
            if input
                .column_with_name(column)
                .is_none_or(|(_, field)| field.data_type() != &kind)
            {
                let message = format!(
                    "file names require the column `{column}` ({kind}), which the input does not \
                     have; keep the column that the source provides"
                );
                faults.push(ConfigError::new("inputs", message));
            }
        }
        let output = match self.format {
            ImageFileFormat::Png => OutputFormat::Png,
            ImageFileFormat::Jpeg => OutputFormat::Jpeg(quality),
            ImageFileFormat::Webp => OutputFormat::WebP,
        };
        match pixel_column(input, self.column.as_deref()) {
            Ok((column, pixels)) if faults.is_empty() => {
                self.column = Some(column.clone());
                let encoder = ImageEncoder {
                    column,
                    pixels,
                    output,
                };
                let path = location.map_or_else(|_| self.path.clone(), |folder| folder.to_path());
                let folder = Location::Local(path.clone());
                let extension = self.format.extension();
                Ok(Box::new(ImagesSink {
                    path,
                    folder,
                    name,
                    extension,
                    encoder,
                    claimed: RefCell::default(),
                }))
            }
            Ok(_) => Err(faults),
            Err(message) => {
                faults.push(ConfigError::new("column", message));
                Err(faults)
            }
        }
    }
}

/// The planned sink.
struct ImagesSink {
    path: PathBuf,
    /// The location of `path`.
    folder: Location,
    /// The pattern of file names of the pipeline; `None` for default names.
    name: Option<NamePattern>,
    /// The extension of the files.
    extension: &'static str,
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
            extension: self.extension,
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
            extension,
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
            found, scheme, extension, encoder, identity,
        )?))
    }
}

#[cfg(test)]
mod tests;
