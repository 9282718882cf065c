//! The transform `pixels`: decodes, orients, resizes and normalizes images into a tensor column.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, RejectCode, RejectCollector};
use crate::error::{ConfigError, RecordFaults, StageError};
use crate::image::{
    Channels, DecodeMode, DecodeOptions, ImageError, PixelFormat, ResizeMode, Resizer, TargetSize,
    TensorLayout, ValueRange, decode_resized, decode_with,
};
use crate::model::ImageInput;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::source::IMAGE;
use crate::tensor;
use crate::transform::{Transform, TransformConfig, TransformPlan};

/// Options of `pixels`: either a `model`, whose training format is used, or `size` and the options
/// that differ from their defaults.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct PixelsConfig {
    /// The model that processes the pixels. Size, channels, layout, range, mean and std are then
    /// those of its training.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: Option<String>,
    /// The size of the tensors: `[height, width]` in pixels, or `"original"` to keep the size of
    /// each image. Required without `model`.
    #[schemars(extend("x-changes-rows" = true))]
    pub size: Option<TargetSize>,
    /// The channels of a pixel. Default: rgb.
    #[schemars(extend("x-changes-rows" = true))]
    pub channels: Option<Channels>,
    /// The order of the dimensions of the tensor. Default: nchw.
    #[schemars(extend("x-changes-rows" = true))]
    pub layout: Option<TensorLayout>,
    /// The range to which bytes 0..255 are mapped linearly. Default: [0.0, 1.0].
    #[schemars(extend("x-changes-rows" = true))]
    pub range: Option<[f32; 2]>,
    /// The mean of each channel, which is subtracted after `range`. Default: none.
    #[schemars(extend("x-changes-rows" = true))]
    pub mean: Option<Vec<f32>>,
    /// The standard deviation of each channel, by which values are divided after `mean`. Default:
    /// none.
    #[schemars(extend("x-changes-rows" = true))]
    pub std: Option<Vec<f32>>,
    /// The sample values of black and white in files that have more than 8 bits per sample and do
    /// not state their range, such as `[0, 255]` for floating-point TIFFs, or `[0, 4095]` for 12 bits
    /// in samples of 16. Values outside of the range become black or white. Default: `[0, 1]` for
    /// floating-point samples, all 16 bits for others; an image with other values is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-changes-rows" = true))]
    pub value_range: Option<[f64; 2]>,
    /// The treatment of an image whose aspect ratio differs from that of `size`. Default: stretch.
    #[schemars(extend("x-changes-rows" = true))]
    pub fit: Option<ResizeMode>,
    /// How JPEGs are decoded. `scaled` takes up to half of the time, and resized pixels differ from
    /// those of `full` by about 0.4 steps of 255 in the mean. Default: as the images on which the
    /// model was trained, which its card states; else full.
    #[schemars(extend("x-changes-rows" = true, "x-former-default" = "full"))]
    pub decode: Option<DecodeMode>,
    /// The input column of encoded images. Default: image.
    #[schemars(extend("x-changes-rows" = true))]
    pub column: Option<String>,
    /// The name of the new column of tensors. Default: pixels.
    #[schemars(extend("x-changes-rows" = true))]
    pub to: Option<String>,
    /// Whether to keep the column of encoded images. Default: false.
    #[schemars(extend("x-changes-rows" = true))]
    pub keep: bool,
}

impl TransformConfig for PixelsConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let (name, to) = (
            self.column.get_or_insert_with(|| IMAGE.to_owned()).clone(),
            self.to().to_owned(),
        );
        let mut faults = Vec::new();
        let column = faults.record(find_column(input, &name));
        let target = faults.record_all(self.target(context));
        let kept: Vec<usize> = (0..input.fields().len())
            .filter(|&index| self.keep || Some(index) != column)
            .collect();
        if kept.iter().any(|&index| input.field(index).name() == &to) {
            faults.push(ConfigError::new(
                "to",
                format!("the input already has a column `{to}`; choose another name"),
            ));
        }
        let (Some(column), Some(target), true) = (column, target, faults.is_empty()) else {
            return Err(faults);
        };
        let field = target
            .field(&to)
            .map_err(|error| vec![ConfigError::new("size", error.to_string())])?;
        let fields = kept
            .iter()
            .map(|&index| Arc::new(input.field(index).clone()));
        let fields: Vec<Arc<Field>> = fields.chain([Arc::new(field)]).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        self.set_target(&target);
        Ok(Box::new(PixelsPlan {
            schema,
            column,
            kept,
            target,
        }))
    }
}

impl PixelsConfig {
    /// The name of the column of tensors, which is set to its default if it is missing.
    fn to(&mut self) -> &str {
        self.to.get_or_insert_with(|| "pixels".to_owned())
    }

    /// Sets the options to the planned target.
    fn set_target(
        &mut self,
        PixelsTarget {
            format,
            size,
            fit,
            decode,
            ..
        }: &PixelsTarget,
    ) {
        let PixelFormat {
            channels,
            layout,
            range,
            mean,
            std,
        } = format.clone();
        (self.channels, self.layout, self.range) = (Some(channels), Some(layout), Some(range));
        (self.mean, self.std, self.size) = (Some(mean), Some(std), Some(*size));
        self.decode = Some(*decode);
        if *size != TargetSize::Original {
            self.fit = Some(*fit);
        }
    }

    /// Plans the target of the images, from the model if there is one.
    fn target(&self, context: &PlanContext) -> Result<PixelsTarget, Vec<ConfigError>> {
        let mut trained_decode = DecodeMode::default();
        let (format, size) = match &self.model {
            Some(name) => {
                let input = context.model(name)?.image_input();
                let none = || {
                    vec![ConfigError::new(
                        "model",
                        format!("the model `{name}` does not take images"),
                    )]
                };
                let input = input.ok_or_else(none)?;
                trained_decode = input.decode;
                self.as_trained(name, input)?
            }
            None => {
                let expected = "is missing; set `size = [height, width]` or `size = \"original\"`, \
                                or name a `model`";
                let size = self
                    .size
                    .ok_or_else(|| vec![ConfigError::new("size", expected)])?;
                (self.written_format(PixelFormat::default()), size)
            }
        };
        let mut faults = Vec::new();
        if let Err(message) = format.check() {
            faults.push(ConfigError::new("", message));
        }
        let value_range = self.value_range.map(ValueRange::new).transpose();
        if let Err(message) = &value_range {
            faults.push(ConfigError::new("value_range", message.clone()));
        }
        if size == TargetSize::Original && self.fit.is_some() {
            faults.push(ConfigError::new(
                "fit",
                "images of original size are not fitted; remove `fit`",
            ));
        }
        let max_pixels = max_pixels(&context.limits, format.channels);
        if let TargetSize::Fixed(height, width) = size
            && (height as u64).saturating_mul(width as u64) > max_pixels
        {
            let message = format!(
                "{height} x {width} pixels exceed the limit of {max_pixels} pixels per image"
            );
            faults.push(ConfigError::new("size", message));
        }
        let decode = match size {
            TargetSize::Fixed(..) => self.decode.unwrap_or(trained_decode),
            TargetSize::Original => self.decode.unwrap_or_default(),
        };
        if decode == DecodeMode::Scaled && size == TargetSize::Original {
            faults.push(ConfigError::new(
                "decode",
                "images of original size are decoded in full; remove `decode`",
            ));
        }
        let fit = self.fit.unwrap_or_default();
        if faults.is_empty() {
            Ok(PixelsTarget {
                format,
                size,
                fit,
                decode,
                max_pixels,
                value_range: value_range.ok().flatten(),
            })
        } else {
            Err(faults)
        }
    }

    /// Returns the format and size of the model. The options can repeat them, but must not
    /// contradict them.
    fn as_trained(
        &self,
        name: &str,
        input: ImageInput,
    ) -> Result<(PixelFormat, TargetSize), Vec<ConfigError>> {
        let mut faults = Vec::new();
        let trained = input.format;
        let written = self.written_format(trained.clone());
        let contradictions = [
            ("channels", written.channels != trained.channels),
            ("layout", written.layout != trained.layout),
            ("range", written.range != trained.range),
            ("mean", written.mean != trained.mean),
            ("std", written.std != trained.std),
        ];
        for (key, _) in contradictions
            .iter()
            .filter(|(_, contradicts)| *contradicts)
        {
            faults.push(ConfigError::new(
                *key,
                format!("the model `{name}` was trained with another `{key}`; remove it here"),
            ));
        }
        let trained_size = input
            .size
            .map(|(height, width)| TargetSize::Fixed(height, width));
        let size = match (trained_size, self.size) {
            (Some(expected), Some(chosen)) if expected != chosen => {
                let message =
                    format!("the model `{name}` takes images of {expected}; remove `size` here");
                faults.push(ConfigError::new("size", message));
                expected
            }
            (Some(expected), _) => expected,
            (None, chosen) => chosen.unwrap_or(TargetSize::Original),
        };
        if faults.is_empty() {
            Ok((trained, size))
        } else {
            Err(faults)
        }
    }

    /// Overrides `format` with the options that are set.
    fn written_format(&self, format: PixelFormat) -> PixelFormat {
        PixelFormat {
            channels: self.channels.unwrap_or(format.channels),
            layout: self.layout.unwrap_or(format.layout),
            range: self.range.unwrap_or(format.range),
            mean: self.mean.clone().unwrap_or(format.mean),
            std: self.std.clone().unwrap_or(format.std),
        }
    }
}

fn find_column(input: &SchemaRef, name: &str) -> Result<usize, ConfigError> {
    let Some((index, field)) = input.column_with_name(name) else {
        let known: Vec<&str> = input
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        return Err(ConfigError::new(
            "column",
            format!("no column `{name}`; the input has: {}", known.join(", ")),
        ));
    };
    match field.data_type() {
        DataType::Binary | DataType::LargeBinary => Ok(index),
        other => Err(ConfigError::new(
            "column",
            format!("column `{name}` holds {other}, not the bytes of encoded images"),
        )),
    }
}

/// The limit of the options, bounded by the maximum length of an Arrow list, which is an `i32`.
fn max_pixels(limits: &PipelineLimits, channels: Channels) -> u64 {
    limits.pixels.min(i32::MAX as u64 / channels.count() as u64)
}

/// The size and format to which images are converted.
#[derive(Debug, Clone)]
struct PixelsTarget {
    format: PixelFormat,
    size: TargetSize,
    fit: ResizeMode,
    decode: DecodeMode,
    max_pixels: u64,
    value_range: Option<ValueRange>,
}

impl PixelsTarget {
    fn field(&self, name: &str) -> Result<Field, arrow::error::ArrowError> {
        let field = match self.size {
            TargetSize::Fixed(height, width) => {
                tensor::tensor_field(name, &self.format.shape(height, width))?
            }
            TargetSize::Original => tensor::variable_field(name, 3)?,
        };
        Ok(self.format.annotate(field))
    }
}

struct PixelsPlan {
    schema: SchemaRef,
    column: usize,
    /// The indices of the input columns that are kept.
    kept: Vec<usize>,
    target: PixelsTarget,
}

impl TransformPlan for PixelsPlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        let resizer = match self.target.size {
            TargetSize::Fixed(height, width) => Some(Resizer::new(height, width, self.target.fit)),
            TargetSize::Original => None,
        };
        Ok(Box::new(PixelsTransform {
            schema: Arc::clone(&self.schema),
            column: self.column,
            kept: self.kept.clone(),
            target: self.target.clone(),
            resizer,
        }))
    }

    fn bytes_per_pixel(&self) -> u64 {
        match self.target.size {
            TargetSize::Original => (self.target.format.channels.count() * size_of::<f32>()) as u64,
            TargetSize::Fixed(..) => 0,
        }
    }

    // `scratch_bytes` is 0: the memory of decoding depends on the images, and is estimated from the
    // pixels of the batch.

    fn summary(&self) -> String {
        let PixelsTarget {
            format,
            size,
            decode,
            value_range,
            ..
        } = &self.target;
        let [low, high] = format.range;
        let values_note =
            value_range.map_or_else(String::new, |range| format!(" of values {range}"));
        let decode_note = match decode {
            DecodeMode::Full => "",
            DecodeMode::Scaled => ", JPEGs decoded at a fraction of their size",
        };
        let scaling_note = if format.mean.is_empty() && format.std.is_empty() {
            ""
        } else {
            ", standardized"
        };
        format!(
            "{:?} {:?}, {size}{decode_note}, {low}..{high}{values_note}{scaling_note}",
            format.channels, format.layout
        )
        .to_lowercase()
    }
}

struct PixelsTransform {
    schema: SchemaRef,
    column: usize,
    kept: Vec<usize>,
    target: PixelsTarget,
    /// The resizer to a fixed size; `None` for the original size.
    resizer: Option<Resizer>,
}

impl Transform for PixelsTransform {
    fn apply(&mut self, batch: Batch, rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let images = Arc::clone(batch.records.column(self.column));
        let mut tensors = TensorBuilder {
            values: Vec::new(),
            shapes: Vec::new(),
        };
        if let TargetSize::Fixed(height, width) = self.target.size {
            let rows = images.len() - images.null_count();
            tensors.reserve(
                rows.saturating_mul(height * width * self.target.format.channels.count()),
            )?;
        }
        let mut usable = Vec::with_capacity(images.len());
        for (row, &ordinal) in batch.row_ordinals.iter().enumerate() {
            let read = read(bytes(&images, row), &self.target, self.resizer.as_mut());
            usable.push(read.is_ok());
            match read {
                Ok(DecodedRow { pixels, shape }) => {
                    self.target
                        .format
                        .normalize(&pixels, tensors.grow(shape, pixels.len())?);
                }
                Err((code, reason)) => rejects.push(ordinal, code, reason),
            }
        }
        let batch = batch.filter(&BooleanArray::from(usable))?;
        let kept = self
            .kept
            .iter()
            .map(|&index| Arc::clone(batch.records.column(index)));
        let columns = kept.chain([tensors.column(&self.target)?]).collect();
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(batch.with_records(records))
    }
}

/// The pixels of a row of the column of tensors.
struct DecodedRow<'a> {
    /// The interleaved bytes.
    pixels: Cow<'a, [u8]>,
    /// The shape, if that of the column is not fixed.
    shape: Option<Vec<usize>>,
}

/// Decodes and resizes an image, or returns the reason that it cannot be used.
fn read<'a>(
    image: Option<&[u8]>,
    target: &PixelsTarget,
    resizer: Option<&'a mut Resizer>,
) -> Result<DecodedRow<'a>, (RejectCode, String)> {
    let reject = |error: ImageError| (error.code(), error.to_string());
    let image = image.ok_or_else(|| (RejectCode::Missing, "the image is null".to_owned()))?;
    let options = DecodeOptions {
        channels: target.format.channels,
        max_pixels: target.max_pixels,
        value_range: target.value_range,
    };
    match resizer {
        Some(resizer) => {
            let resized = decode_resized(image, &options, target.decode, resizer);
            Ok(DecodedRow {
                pixels: Cow::Borrowed(resized.map_err(reject)?),
                shape: None,
            })
        }
        None => {
            let pixels = decode_with(image, &options).map_err(reject)?;
            Ok(DecodedRow {
                shape: Some(target.format.shape(pixels.height, pixels.width)),
                pixels: Cow::Owned(pixels.data),
            })
        }
    }
}

/// Collects the values of the column of tensors.
struct TensorBuilder {
    values: Vec<f32>,
    /// The shape of each row, if that of the column is not fixed.
    shapes: Vec<Vec<usize>>,
}

impl TensorBuilder {
    fn reserve(&mut self, more: usize) -> Result<(), StageError> {
        self.values.try_reserve(more).map_err(|_| {
            StageError::Memory(format!(
                "cannot allocate memory for {more} more values of a batch; reduce `batch` \
                 of the source"
            ))
        })
    }

    /// Adds a row of `len` values and returns them. `shape` is given if that of the column is not
    /// fixed.
    fn grow(&mut self, shape: Option<Vec<usize>>, len: usize) -> Result<&mut [f32], StageError> {
        let start = self.values.len();
        if let Some(shape) = shape {
            // The offsets of an Arrow list of variable length have 32 bits.
            if i32::try_from(start + len).is_err() {
                let message = "the images of a batch have more than 2^31 values; reduce `batch` of \
                               the source";
                return Err(StageError::Other(message.to_owned()));
            }
            self.shapes.push(shape);
        }
        self.reserve(len)?;
        self.values.resize(start + len, 0.0);
        Ok(&mut self.values[start..])
    }

    fn column(self, target: &PixelsTarget) -> Result<ArrayRef, StageError> {
        Ok(match target.size {
            TargetSize::Fixed(height, width) => {
                tensor::fixed_column(height * width * target.format.channels.count(), self.values)?
            }
            TargetSize::Original => tensor::variable_column(3, self.values, &self.shapes)?,
        })
    }
}

/// The bytes of a row of a binary column; `None` if it is null.
fn bytes(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Binary => Some(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(column.as_binary::<i64>().value(row)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{BinaryArray, LargeBinaryArray, StringArray};
    use serde_json::{Value, json};

    use super::*;
    use crate::batch::{Provenance, Split};
    use crate::image::{OutputFormat, encode};
    use crate::registry::find;
    use crate::tensor::{TensorShape, fixed_values, variable_row};
    use crate::transform::KINDS;

    fn context() -> PlanContext {
        PlanContext::new(Default::default(), PipelineLimits::default())
    }

    fn input(image: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("source", DataType::Utf8, false),
            Field::new(IMAGE, image, true),
        ]))
    }

    fn plan(options: Value) -> Result<Box<dyn TransformPlan>, Vec<(String, String)>> {
        let kind = find(KINDS, "pixels", "transform").unwrap();
        let planned = (kind.plan)(options, &input(DataType::Binary), &context());
        planned.map(|planned| planned.stage).map_err(|faults| {
            faults
                .into_iter()
                .map(|fault| (fault.key, fault.message))
                .collect()
        })
    }

    fn faults(options: Value) -> Vec<(String, String)> {
        plan(options).err().unwrap()
    }

    /// Encodes a gray image whose pixels are all `value`.
    fn png(width: usize, height: usize, value: u8) -> Vec<u8> {
        let data = vec![value; width * height];
        encode(
            &crate::image::Pixels {
                width,
                height,
                channels: Channels::Gray,
                data,
            },
            OutputFormat::Png,
        )
        .unwrap()
    }

    fn batch(images: ArrayRef) -> Batch {
        let sources: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..images.len()).map(|row| row.to_string()),
        ));
        let provenance = Provenance::rows(Split::new("test"), 0..images.len() as u64);
        let records =
            RecordBatch::try_new(input(images.data_type().clone()), vec![sources, images]).unwrap();
        Batch::new(records, provenance)
    }

    fn applied(plan: &dyn TransformPlan, batch: Batch) -> (Batch, Vec<(u32, RejectCode)>) {
        let mut rejects = RejectCollector::default();
        let batch = plan.build().unwrap().apply(batch, &mut rejects).unwrap();
        assert_eq!(batch.records.schema(), plan.schema());
        (
            batch,
            rejects
                .into_vec()
                .into_iter()
                .map(|reject| (reject.ordinal, reject.code))
                .collect(),
        )
    }

    #[test]
    fn valid_images_become_tensors_and_others_are_rejected() {
        let plan =
            plan(json!({ "size": [2, 3], "channels": "gray", "range": [0.0, 255.0] })).unwrap();
        let (first, last) = (png(30, 20, 7), png(3, 2, 9));
        let images = [
            Some(first.as_slice()),
            None,
            Some(b"not an image"),
            Some(&first[..50]),
            Some(&last),
        ];
        let (batch, rejects) = applied(
            plan.as_ref(),
            batch(Arc::new(BinaryArray::from(images.to_vec()))),
        );

        let expected = [
            (1, RejectCode::Missing),
            (2, RejectCode::Unsupported),
            (3, RejectCode::Truncated),
        ];
        assert_eq!(rejects, expected);
        assert_eq!(batch.row_ordinals, [0, 4]);
        let field = batch.records.schema_ref().field(1).clone();
        assert_eq!(field.name(), "pixels");
        assert_eq!(
            TensorShape::of(&field),
            Some(TensorShape::Fixed(vec![1, 2, 3]))
        );
        assert_eq!(
            PixelFormat::from_field(&field).unwrap().channels,
            Channels::Gray
        );
        assert_eq!(
            fixed_values(batch.records.column(1)).unwrap(),
            [[7.0; 6], [9.0; 6]].concat()
        );
    }

    #[test]
    fn images_of_original_size_keep_their_sizes() {
        let options = json!({
            "size": "original",
            "layout": "nhwc",
            "range": [0.0, 255.0],
            "keep": true,
            "to": "x",
        });
        let plan = plan(options).unwrap();
        assert_eq!(plan.bytes_per_pixel(), 12);
        assert_eq!(plan.summary(), "rgb nhwc, original size, 0..255");
        let (wide, tall) = (png(3, 1, 7), png(1, 2, 9));
        let images = BinaryArray::from(vec![wide.as_slice(), &wide[..9], tall.as_slice()]);
        let (batch, rejects) = applied(plan.as_ref(), batch(Arc::new(images)));

        assert_eq!(rejects, [(1, RejectCode::Truncated)]);
        let names: Vec<&String> = batch
            .records
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.name())
            .collect();
        assert_eq!(names, ["source", "image", "x"]);
        let tensors = batch.records.column(2);
        assert_eq!(
            variable_row(tensors, 0).unwrap(),
            ([7.0; 9].as_slice(), vec![1, 3, 3])
        );
        assert_eq!(
            variable_row(tensors, 1).unwrap(),
            ([9.0; 6].as_slice(), vec![2, 1, 3])
        );
    }

    #[test]
    fn value_range_scales_deep_samples_and_must_ascend() {
        let mut deep = std::io::Cursor::new(Vec::new());
        let samples = image::ImageBuffer::from_pixel(2, 1, image::Luma([2048_u16]));
        image::DynamicImage::ImageLuma16(samples)
            .write_to(&mut deep, image::ImageFormat::Tiff)
            .unwrap();
        let images = || batch(Arc::new(BinaryArray::from(vec![deep.get_ref().as_slice()])));
        let options = json!({ "size": [1, 1], "channels": "gray", "range": [0.0, 255.0] });
        let (_, rejects) = applied(plan(options.clone()).unwrap().as_ref(), images());
        assert_eq!(rejects, [(0, RejectCode::Unsupported)]);
        let mut ranged = options;
        ranged["value_range"] = json!([0, 4095]);
        let ranged_plan = plan(ranged.clone()).unwrap();
        assert_eq!(
            ranged_plan.summary(),
            "gray nchw, 1 x 1, 0..255 of values 0..4095"
        );
        let (levels, _) = applied(ranged_plan.as_ref(), images());
        assert_eq!(fixed_values(levels.records.column(1)).unwrap(), [128.0]);
        ranged["value_range"] = json!([4095, 0]);
        assert_eq!(
            faults(ranged),
            [(
                "value_range".to_owned(),
                "[4095, 0] is not a range of sample values; expected the values of black and of \
                 white in ascending order, such as [0, 4095]"
                    .to_owned()
            )]
        );
    }

    #[test]
    fn batch_without_valid_images_becomes_empty() {
        for size in [json!([2, 2]), json!("original")] {
            let plan = plan(json!({ "size": size })).unwrap();
            for images in [vec![], vec![Some(b"x".as_slice()), None]] {
                let (batch, rejects) = applied(
                    plan.as_ref(),
                    batch(Arc::new(BinaryArray::from(images.clone()))),
                );
                assert_eq!((batch.records.num_rows(), rejects.len()), (0, images.len()));
            }
        }
    }

    #[test]
    fn large_binary_columns_are_decoded() {
        let mut config = PixelsConfig {
            size: Some(TargetSize::Fixed(1, 1)),
            ..PixelsConfig::default()
        };
        let plan = config
            .plan(&input(DataType::LargeBinary), &context())
            .unwrap();
        let (batch, _) = applied(
            plan.as_ref(),
            batch(Arc::new(LargeBinaryArray::from(vec![
                png(1, 1, 255).as_slice(),
            ]))),
        );
        assert_eq!(fixed_values(batch.records.column(1)).unwrap(), [1.0; 3]);
    }

    #[test]
    fn image_above_the_pixel_limit_is_rejected() {
        let mut context = context();
        context.limits.pixels = 5;
        let mut config = PixelsConfig {
            size: Some(TargetSize::Fixed(1, 1)),
            ..PixelsConfig::default()
        };
        let plan = config.plan(&input(DataType::Binary), &context).unwrap();
        let images = BinaryArray::from(vec![png(3, 2, 0).as_slice(), png(5, 1, 0).as_slice()]);
        let (batch, rejects) = applied(plan.as_ref(), batch(Arc::new(images)));
        assert_eq!(
            (batch.row_ordinals, rejects),
            (vec![1], vec![(0, RejectCode::TooLarge)])
        );
    }

    #[test]
    fn faults_of_column_model_and_name_are_reported_together() {
        let found = faults(json!({ "column": "picture", "to": "source", "model": "photo" }));
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["column", "model", "to"]);
        assert_eq!(
            found[0].1,
            "no column `picture`; the input has: source, image"
        );
        assert_eq!(
            found[2].1,
            "the input already has a column `source`; choose another name"
        );
    }

    #[test]
    fn faults_of_size_format_and_column_contain_a_hint() {
        let only = |options| faults(options).remove(0);
        let size = "is missing; set `size = [height, width]` or `size = \"original\"`, or name a \
                    `model`";
        assert_eq!(only(json!({})), ("size".to_owned(), size.to_owned()));
        let huge = "100000 x 100000 pixels exceed the limit of 100000000 pixels per image";
        assert_eq!(
            only(json!({ "size": [100_000, 100_000] })),
            ("size".to_owned(), huge.to_owned())
        );
        let unfitted = "images of original size are not fitted; remove `fit`";
        assert_eq!(
            only(json!({ "size": "original", "fit": "pad" })),
            ("fit".to_owned(), unfitted.to_owned())
        );
        let full = "images of original size are decoded in full; remove `decode`";
        assert_eq!(
            only(json!({ "size": "original", "decode": "scaled" })),
            ("decode".to_owned(), full.to_owned())
        );
        assert_eq!(
            only(json!({ "size": [1, 1], "mean": [0.5] })).1,
            "`mean` has 1 values for 3 channels"
        );
        let text = "column `source` holds Utf8, not the bytes of encoded images";
        assert_eq!(only(json!({ "size": [1, 1], "column": "source" })).1, text);
    }

    #[test]
    fn options_can_repeat_but_not_contradict_the_model() {
        let model_input = |size| ImageInput {
            format: PixelFormat::default(),
            size,
            decode: DecodeMode::default(),
        };
        let keys = |options: Value, size| {
            let config: PixelsConfig = serde_json::from_value(options).unwrap();
            let outcome = config.as_trained("photo", model_input(size));
            outcome
                .map(|(_, target)| target)
                .map_err(|faults| faults.into_iter().map(|f| f.key).collect::<Vec<_>>())
        };
        let fixed = Some((64, 48));
        assert_eq!(keys(json!({}), fixed), Ok(TargetSize::Fixed(64, 48)));
        assert_eq!(
            keys(json!({ "size": [64, 48], "channels": "rgb" }), fixed),
            Ok(TargetSize::Fixed(64, 48))
        );
        let contradictions =
            json!({ "size": "original", "channels": "gray", "range": [-1.0, 1.0] });
        assert_eq!(
            keys(contradictions, fixed).unwrap_err(),
            ["channels", "range", "size"]
        );
        assert_eq!(keys(json!({}), None), Ok(TargetSize::Original));
        assert_eq!(
            keys(json!({ "size": [32, 32] }), None),
            Ok(TargetSize::Fixed(32, 32))
        );
    }
}
