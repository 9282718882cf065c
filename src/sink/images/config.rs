//! The options of the sink `images`.

use std::cell::RefCell;
use std::path::PathBuf;

use arrow::datatypes::{DataType, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::columns::{IMAGE, ROW, SOURCE};
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::image::ColorSpace;
use crate::image::encode::OutputFormat;
use crate::image::encoded_column::holds_encoded_images;
use crate::image::jpeg_encoding::{ChromaSubsampling, JpegOptions};
use crate::image::reencode::ReencodeOptions;
use crate::plan_context::PlanContext;
use crate::sink::images::ImagesSink;
use crate::sink::images::encoder::{FileEncoding, ImageEncoder, OriginalImages, pixel_column};
use crate::sink::images::file_naming::pattern::NamePattern;
use crate::sink::{Sink, SinkConfig};
use crate::source::images::config::EXTENSIONS;
use crate::storage::Location;

/// Default JPEG quality, at which differences from the original are barely visible.
const QUALITY: u8 = 92;

/// Default resolution of color. Subsampling would lose detail that a model has restored.
const SUBSAMPLING: ChromaSubsampling = ChromaSubsampling::Full;

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
    /// The format of the source image, with its alpha and metadata.
    Original,
}

impl ImageFileFormat {
    /// The extensions of the files, the usual one first.
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Png => &["png"],
            Self::Jpeg => &["jpg"],
            Self::Webp => &["webp"],
            Self::Original => EXTENSIONS,
        }
    }

    fn writes_jpeg(self) -> bool {
        matches!(self, Self::Jpeg | Self::Original)
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
    /// Format of the files: `png` (default), `jpeg`, `webp` or `original`. With `original`, each
    /// file has the format and the extension of its source image, its alpha, its EXIF, XMP and IPTC
    /// metadata with the orientation reset and without a thumbnail, and its color profile, unless
    /// the stage `pixels` has `color_space = "srgb"`: the file is then sRGB without a profile. GIF
    /// becomes PNG, and WebP is lossless. Requires the column of encoded images: set `keep = true`
    /// of the stage `pixels`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) format: ImageFileFormat,
    /// JPEG quality, from 1 to 100. Default: 92. Valid only with `format = "jpeg"` or `"original"`.
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) quality: Option<u8>,
    /// The resolution of color in JPEGs: `4:4:4` (default) or `4:2:0`. Valid only with
    /// `format = "jpeg"` or `"original"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) subsampling: Option<ChromaSubsampling>,
    /// For `format = "original"`: the column of encoded images. Default: image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) original: Option<String>,
    /// For `format = "original"`: whether the file of a gray image is gray. Default: true; a model
    /// that adds color needs false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub(super) keep_gray: Option<bool>,
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
        let jpeg = self.jpeg_options(&mut faults);
        let originals = faults.record_all(self.originals(input, jpeg, context));
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
            ImageFileFormat::Jpeg => FileEncoding::Pixels(OutputFormat::Jpeg(jpeg)),
            ImageFileFormat::Webp => FileEncoding::Pixels(OutputFormat::WebP),
            ImageFileFormat::Png | ImageFileFormat::Original => originals.flatten().map_or(
                FileEncoding::Pixels(OutputFormat::Png),
                FileEncoding::Original,
            ),
        };
        match pixel_column(input, self.column.as_deref()) {
            Ok((column, pixels)) if faults.is_empty() => {
                self.column = Some(column.clone());
                let extensions = self.format.extensions();
                let color_space = input
                    .column_with_name(&column)
                    .map_or(ColorSpace::default(), |(_, field)| {
                        ColorSpace::of_field(field)
                    });
                let encoder = ImageEncoder {
                    column,
                    pixels,
                    color_space,
                    output,
                    extension: extensions.first().copied().unwrap_or_default(),
                };
                let path = location.map_or_else(|_| self.path.clone(), |folder| folder.to_path());
                let folder = Location::Local(path.clone());
                Ok(Box::new(ImagesSink {
                    path,
                    folder,
                    name,
                    extensions,
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

impl ImagesSinkConfig {
    /// Returns the options of JPEGs, and sets the missing ones to their defaults if there are any.
    fn jpeg_options(&mut self, faults: &mut Vec<ConfigError>) -> JpegOptions {
        let options = JpegOptions {
            quality: self.quality.unwrap_or(QUALITY),
            subsampling: self.subsampling.unwrap_or(SUBSAMPLING),
        };
        if !(1..=100).contains(&options.quality) {
            let message = format!(
                "{} is not a JPEG quality; expected 1 to 100",
                options.quality
            );
            faults.push(ConfigError::new("quality", message));
            return options;
        }
        if self.format.writes_jpeg() {
            self.quality = Some(options.quality);
            self.subsampling = Some(options.subsampling);
            return options;
        }
        for (key, is_set) in [
            ("quality", self.quality.is_some()),
            ("subsampling", self.subsampling.is_some()),
        ] {
            if is_set {
                let message = "applies only to JPEG; remove it, or set format = \"jpeg\" or \
                               \"original\"";
                faults.push(ConfigError::new(key, message));
            }
        }
        options
    }

    /// Returns the column and the options of original images, and sets the missing ones to their
    /// defaults; `None` for another format.
    fn originals(
        &mut self,
        input: &SchemaRef,
        jpeg: JpegOptions,
        context: &PlanContext,
    ) -> Result<Option<OriginalImages>, Vec<ConfigError>> {
        if self.format != ImageFileFormat::Original {
            let options = [
                ("original", self.original.is_some()),
                ("keep_gray", self.keep_gray.is_some()),
            ];
            let unused = options.into_iter().filter(|(_, is_set)| *is_set);
            let fault = |(key, _)| {
                let message =
                    "applies only to format = \"original\"; remove it, or set that format";
                ConfigError::new(key, message)
            };
            let faults: Vec<ConfigError> = unused.map(fault).collect();
            return if faults.is_empty() {
                Ok(None)
            } else {
                Err(faults)
            };
        }
        let column = self
            .original
            .get_or_insert_with(|| IMAGE.to_owned())
            .clone();
        let found = input.column_with_name(&column);
        if !found.is_some_and(|(_, field)| holds_encoded_images(field.data_type())) {
            let message = format!(
                "format = \"original\" requires the column `{column}` of encoded images, which the \
                 input does not have; set keep = true of the stage `pixels`, and keep the column in \
                 later stages"
            );
            return Err(vec![ConfigError::new("original", message)]);
        }
        let keeps_gray = *self.keep_gray.get_or_insert(true);
        Ok(Some(OriginalImages {
            column,
            options: ReencodeOptions {
                jpeg,
                keeps_gray,
                max_pixels: context.limits.pixels,
            },
        }))
    }
}
