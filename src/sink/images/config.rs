//! The options of the sink `images`.

use std::cell::RefCell;
use std::path::PathBuf;

use arrow::datatypes::{DataType, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::{ROW, SOURCE};
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::encode::OutputFormat;
use crate::plan_context::PlanContext;
use crate::sink::images::ImagesSink;
use crate::sink::images::encoder::{ImageEncoder, pixel_column};
use crate::sink::images::file_naming::pattern::NamePattern;
use crate::sink::{Sink, SinkConfig};
use crate::storage::Location;

/// Default JPEG quality, at which differences from the original are barely visible.
const QUALITY: u8 = 90;

/// The format of the image files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImageFileFormat {
    /// PNG, lossless.
    #[default]
    Png,
    /// JPEG with the given quality.
    Jpeg,
    /// WebP, lossless.
    Webp,
}

impl ImageFileFormat {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }
}

/// Options of the sink `images`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct ImagesSinkConfig {
    /// The folder to write to. The sink never replaces an existing file.
    #[schemars(extend("x-changes-rows" = false, "format" = "path"))]
    pub(super) path: PathBuf,
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
    pub(super) name: Option<String>,
    /// The tensor column to write. Default: the only column that holds pixels.
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) column: Option<String>,
    /// Format of the files: `png` (default), `jpeg` or `webp`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) format: ImageFileFormat,
    /// JPEG quality, from 1 to 100. Default: 90. Valid only with `format = "jpeg"`.
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) quality: Option<u8>,
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
