//! The sink `images`: writes a tensor column as image files, one a record.

mod name_log;
mod file_names;
mod writer;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, StageError};
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

use name_log::NameLog;
use writer::{ClaimedImageFolder, ImageWriter};

/// JPEG's quality where none is given: hardly to be told from the original.
const QUALITY: u8 = 90;

/// How images are encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFileFormat {
    /// PNG, lossless.
    #[default]
    Png,
    /// JPEG, of the given quality.
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
    /// The folder to write to. The sink never replaces a file that is there already.
    #[schemars(extend("x-changes-rows" = false, "format" = "path"))]
    path: PathBuf,
    /// How files are named, below `path`: a pattern that ends in `.{ext}`, such as
    /// `{dir}/{stem}.{ext}`. `{source}` stands for the whole relative path of the record's source,
    /// `{dir}` for its folders, `{stem}` for its file name without the extension, `{source_ext}`
    /// for that extension, `{row}` for the record's row in the source (six digits or more), `{ext}`
    /// for the extension of `format`. Where several records have one name, or a file of another
    /// program has it, the later record takes a suffix that depends on its place in the input alone
    /// (`b-1f0c22ab.png`). Default: `{dir}/{stem}.{ext}` for an image file,
    /// `{dir}/{stem}-{row}.{ext}` for the further rows of one, `{source}/{row}.{ext}` for records
    /// of other sources; an output that was begun before there were patterns keeps its names
    /// (`a/b.jpg.png`).
    #[schemars(extend("x-changes-rows" = true))]
    name: Option<String>,
    /// The tensor column to write. Default: the only one that holds pixels.
    #[schemars(extend("x-changes-rows" = true))]
    column: Option<String>,
    /// `png` (default), `jpeg` or `webp`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    format: ImageFileFormat,
    /// JPEG's quality, from 1 to 100. Default: 90.
    #[schemars(extend("x-changes-rows" = true))]
    quality: Option<u8>,
}

impl SinkConfig for ImagesSinkConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        _: &PlanContext,
    ) -> Result<Box<dyn Sink>, Vec<ConfigError>> {
        let mut faults = Vec::new();
        if self.path.as_os_str().is_empty() {
            faults.push(ConfigError::new(
                "path",
                "is empty; write the folder that the images go to",
            ));
        }
        if let Ok(Location::Remote(_)) | Err(_) = Location::from_path(&self.path) {
            let message = "images are written to folders of this machine only; the sink `parquet` writes to buckets";
            faults.push(ConfigError::new("path", message));
        }
        let name = self.name.as_deref().map(NamePattern::parse).transpose();
        let name = name
            .map_err(|message| faults.push(ConfigError::new("name", message)))
            .ok()
            .flatten();
        let quality = self.quality.unwrap_or(QUALITY);
        if self.format == ImageFileFormat::Jpeg {
            self.quality = Some(quality);
        }
        if !(1..=100).contains(&quality) {
            faults.push(ConfigError::new(
                "quality",
                format!("{quality} is no quality; expected 1 to 100"),
            ));
        } else if self.quality.is_some() && self.format != ImageFileFormat::Jpeg {
            faults.push(ConfigError::new(
                "quality",
                "only JPEG has one; remove it, or write format = \"jpeg\"",
            ));
        }
        for (name, kind) in [(SOURCE, DataType::Utf8), (ROW, DataType::UInt64)] {
            if input
                .column_with_name(name)
                .is_none_or(|(_, field)| field.data_type() != &kind)
            {
                let message = format!(
                    "files are named by the column `{name}` ({kind}), which does not arrive here"
                );
                faults.push(ConfigError::new(
                    "inputs",
                    format!("{message}; keep it, as sources give it"),
                ));
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
                let (path, folder) = (self.path.clone(), Location::Local(self.path.clone()));
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

/// The sink as planned.
struct ImagesSink {
    path: PathBuf,
    /// The same.
    folder: Location,
    /// How files are named, where the pipeline says so.
    name: Option<NamePattern>,
    /// What their names end in.
    extension: &'static str,
    encoder: ImageEncoder,
    /// Taken before the first look at what is there: whoever looks without it may miss what another
    /// adds.
    claimed: RefCell<Option<(FileLock, CoverageSnapshot)>>,
}

impl ImagesSink {
    fn claimed(&self) -> Result<(FileLock, CoverageSnapshot), StageError> {
        let look = || {
            Ok((
                FileLock::take(&self.path)?,
                CoverageSnapshot::load(&self.folder)?,
            ))
        };
        self.claimed.take().map_or_else(look, Ok)
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
        snapshot.save(&coverage_snapshot::place(&self.folder, None))?;
        self.claimed.replace(Some((lock, snapshot)));
        Ok(())
    }

    fn reset(&self, remove: bool) -> Result<CommitStats, StageError> {
        let _lock = FileLock::take(&self.path)?;
        let place = coverage_snapshot::place(&self.folder, None);
        if remove {
            let snapshot = CoverageSnapshot::load(&self.folder)?;
            if snapshot.naming.is_none_or(|naming| naming.former)
                && !snapshot.history.writers.is_empty()
            {
                let folder = self.path.display();
                tracing::warn!(
                    "{folder}: image files of an earlier version stay, and are not replaced: move them away"
                );
            }
            // A snapshot without rows comes first: after a crash, the next run removes the rest of
            // the files that are listed.
            let naming = NamingState {
                adopts: true,
                ..NamingState::default()
            };
            CoverageSnapshot {
                naming: Some(naming),
                ..CoverageSnapshot::default()
            }
            .save(&place)?;
        }
        let forgotten = NameLog::forget(&self.path, remove)?;
        if remove {
            place.remove()?;
        }
        Ok(forgotten)
    }

    fn batch_encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        Some(Arc::new(self.encoder.clone()))
    }

    fn open(self: Box<Self>, identity: OutputIdentity) -> Result<Box<dyn SinkWriter>, StageError> {
        let (lock, snapshot) = self.claimed()?;
        let Self {
            path,
            folder,
            name,
            extension,
            ..
        } = *self;
        let snapshot_file = coverage_snapshot::place(&folder, None);
        let found = ClaimedImageFolder {
            path,
            lock,
            snapshot,
            snapshot_file,
        };
        // Names that are given before anything is noted are those that the program gave before it
        // noted anything.
        let scheme = match name {
            Some(pattern) => NamingScheme::Pattern(pattern),
            None if found.is_former() => NamingScheme::Former,
            None => NamingScheme::Current,
        };
        Ok(Box::new(ImageWriter::open(
            found, scheme, extension, identity,
        )?))
    }
}

#[cfg(test)]
mod tests;
