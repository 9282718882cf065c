//! The `synthetic` source: data generated from a seed, for demos, tests and benchmarks.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, codecs};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::batch_limits::BatchLimits;
use super::factor_model::FactorModel;
use super::{
    BatchSize, IMAGE, Source, SourceConfig, SourceHandle, SourceShare, add_origin, dead_leaves,
    spawn_reader, with_origin,
};
use crate::batch::{Batch, Provenance, SourceBatch, Split};
use crate::coverage::ResumeState;
use crate::error::{ConfigError, StageError};
use crate::plan_context::PlanContext;
use crate::storage::Location;
use crate::tensor::{fixed_column, vector_field};

/// Generates data from a seed. A record depends only on the seed and its number, so a larger number
/// of records extends the same data.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct SyntheticSourceConfig {
    /// The kind of data to generate.
    #[schemars(extend("x-changes-rows" = true))]
    pub content: SyntheticContent,
    /// The number of records.
    #[schemars(extend("x-changes-rows" = true))]
    pub records: u64,
    /// The seed of the random numbers; different seeds give different data. Default: 0.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub seed: u64,
    /// For images: height and width in pixels. Default: [64, 64].
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub size: Option<[u32; 2]>,
    /// For images: their encoding. Default: png.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub format: Option<SyntheticImageFormat>,
    /// For features: the number of values in a record. Default: 32.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub width: Option<usize>,
    /// For features: the number of independent factors behind the values. Default: a quarter of
    /// `width`.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub rank: Option<usize>,
    /// For features: the fraction of records that are outliers, 0 to 1. If it is above 0, the
    /// column `outlier` marks them. Default: 0.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub outliers: Option<f64>,
    /// For features: the columns that hold the values. Default: vector.
    #[serde(default)]
    #[schemars(extend("x-changes-rows" = true))]
    pub layout: Option<FeatureLayout>,
}

/// The kinds of data that can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyntheticContent {
    /// Dead-leaves images: opaque discs with the statistics of natural images (Lee, Mumford, Huang
    /// 2001).
    Images,
    /// Correlated normal values: a linear mix of a few hidden factors with a little noise.
    Features,
}

/// Encodings of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyntheticImageFormat {
    /// Lossless.
    #[default]
    Png,
    /// Lossy, of quality 90.
    Jpeg,
    /// Not compressed.
    Bmp,
}

/// Layouts of feature records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FeatureLayout {
    /// One vector column, `features`.
    #[default]
    Vector,
    /// One column for each value: `f0`, `f1` and so on.
    Columns,
}

/// Maximum number of entries of the mixing matrix of features: 64 MiB.
const MAX_MIXING: usize = 1 << 24;

impl SourceConfig for SyntheticSourceConfig {
    fn plan(
        &mut self,
        name: &str,
        batch: BatchSize,
        context: &PlanContext,
    ) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let mut faults = self.unused();
        let generator = match self.content {
            SyntheticContent::Images => self.images(context, &mut faults),
            SyntheticContent::Features => self.features(&mut faults),
        };
        let (Some(generator), true) = (generator, faults.is_empty()) else {
            return Err(faults);
        };
        let split = Split::new(format!(
            "{name}/synthetic:{}:{}:{}",
            self.content.name(),
            self.seed,
            generator.identity()
        ));
        let schema = with_origin(&generator.schema());
        let step = generator.records_per_batch(batch);
        let (name, seed, records) = (name.to_owned(), self.seed, self.records);
        let share = SourceShare::new(context.shard);
        Ok(Box::new(SyntheticSource {
            share,
            name,
            generator,
            seed,
            records,
            split,
            schema,
            step,
        }))
    }
}

impl SyntheticSourceConfig {
    /// Returns an error for each option that applies to the other content only.
    fn unused(&self) -> Vec<ConfigError> {
        let options = [
            ("size", self.size.is_some(), SyntheticContent::Images),
            ("format", self.format.is_some(), SyntheticContent::Images),
            ("width", self.width.is_some(), SyntheticContent::Features),
            ("rank", self.rank.is_some(), SyntheticContent::Features),
            (
                "outliers",
                self.outliers.is_some(),
                SyntheticContent::Features,
            ),
            ("layout", self.layout.is_some(), SyntheticContent::Features),
        ];
        let idle = options
            .into_iter()
            .filter(|(_, given, content)| *given && *content != self.content);
        idle.map(|(key, _, content)| {
            ConfigError::new(
                key,
                format!(
                    "applies to {} only, but `content` is `{}`; remove the option",
                    content.name(),
                    self.content.name()
                ),
            )
        })
        .collect()
    }

    fn images(
        &mut self,
        context: &PlanContext,
        faults: &mut Vec<ConfigError>,
    ) -> Option<SyntheticGenerator> {
        let [height, width] = *self.size.get_or_insert([64, 64]);
        let pixels = u64::from(height) * u64::from(width);
        let limit = context.limits.pixels;
        if pixels == 0 || pixels > limit {
            let message = format!(
                "{height}x{width} has {pixels} pixels; expected 1 to {limit} (limits.pixels)"
            );
            faults.push(ConfigError::new("size", message));
            return None;
        }
        let format = *self.format.get_or_insert_default();
        if format == SyntheticImageFormat::Jpeg && height.max(width) > u32::from(u16::MAX) {
            faults.push(ConfigError::new(
                "size",
                format!(
                    "{height}x{width} is too large for a JPEG; the maximum side is 65535 pixels"
                ),
            ));
        }
        Some(SyntheticGenerator::Images {
            height,
            width,
            format,
        })
    }

    fn features(&mut self, faults: &mut Vec<ConfigError>) -> Option<SyntheticGenerator> {
        let width = *self.width.get_or_insert(32);
        let rank = *self.rank.get_or_insert(width.div_ceil(4));
        let outliers = *self.outliers.get_or_insert(0.0);
        let layout = *self.layout.get_or_insert_default();
        if !(0.0..=1.0).contains(&outliers) {
            faults.push(ConfigError::new(
                "outliers",
                format!("must lie between 0 and 1; met {outliers}"),
            ));
        }
        let fault = if width == 0 || width > MAX_MIXING {
            ConfigError::new(
                "width",
                format!("must lie between 1 and {MAX_MIXING}; met {width}"),
            )
        } else if rank == 0 || rank > width {
            ConfigError::new(
                "rank",
                format!("must lie between 1 and `width`, {width}; met {rank}"),
            )
        } else if width.saturating_mul(rank) > MAX_MIXING {
            let message = format!(
                "{width} values with {rank} factors are too many; \
                 the maximum of their product is {MAX_MIXING}"
            );
            ConfigError::new("width", message)
        } else {
            // The parameters use the last stream of random numbers, which is not used by any
            // record.
            let factors =
                FactorModel::draw(&mut stream(self.seed, u64::MAX), width, rank, outliers);
            return Some(SyntheticGenerator::Features { factors, layout });
        };
        faults.push(fault);
        None
    }
}

impl SyntheticContent {
    fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Features => "features",
        }
    }
}

/// Returns the random numbers of a record. They depend only on the seed and the record's number, so
/// that each record can be generated independently.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// A generator of records with checked parameters.
enum SyntheticGenerator {
    Images {
        height: u32,
        width: u32,
        format: SyntheticImageFormat,
    },
    Features {
        factors: FactorModel,
        layout: FeatureLayout,
    },
}

impl SyntheticGenerator {
    /// Returns a text with all parameters that change the values of a record, except the seed. It
    /// is part of the name of the split.
    fn identity(&self) -> String {
        match self {
            Self::Images {
                height,
                width,
                format,
            } => format!("{height}x{width}:{}", format.extension()),
            Self::Features { factors, .. } => {
                format!("{}:{}:{}", factors.width, factors.rank, factors.outliers)
            }
        }
    }

    fn schema(&self) -> Schema {
        match self {
            Self::Images { .. } => Schema::new(vec![Field::new(IMAGE, DataType::Binary, false)]),
            Self::Features { factors, layout } => {
                let mut fields = match layout {
                    FeatureLayout::Vector => vec![vector_field("features", factors.width)],
                    FeatureLayout::Columns => {
                        let names = (0..factors.width).map(|index| format!("f{index}"));
                        names
                            .map(|name| Field::new(name, DataType::Float32, false))
                            .collect()
                    }
                };
                if factors.outliers > 0.0 {
                    fields.push(Field::new("outlier", DataType::Boolean, false));
                }
                Schema::new(fields)
            }
        }
    }

    fn records_per_batch(&self, batch: BatchSize) -> u64 {
        match self {
            Self::Images { height, width, .. } => {
                BatchLimits::images(batch).records_of(3 * u64::from(*height) * u64::from(*width))
            }
            Self::Features { factors, .. } => {
                BatchLimits::features(batch).records_of((factors.width * size_of::<f32>()) as u64)
            }
        }
    }
}

struct SyntheticSource {
    /// The name of the stage.
    name: String,
    /// The share of the records: consecutive ones.
    share: SourceShare,
    generator: SyntheticGenerator,
    seed: u64,
    records: u64,
    split: Arc<Split>,
    schema: SchemaRef,
    /// The number of records in a batch.
    step: u64,
}

impl Source for SyntheticSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn inputs(&self) -> Result<Option<Vec<String>>, StageError> {
        Ok(Some(vec![self.split.name().to_owned()]))
    }

    fn list_inputs(&self, _: Option<&Location>) -> Result<(), StageError> {
        let range = self.range();
        self.share
            .set_size(range.end - range.start, self.records, "records");
        Ok(())
    }

    fn share(&self) -> Option<&SourceShare> {
        Some(&self.share)
    }

    fn open(self: Box<Self>, resume: &ResumeState) -> Result<SourceHandle, StageError> {
        let range = self.range();
        let all = Provenance::rows(Arc::clone(&self.split), range.clone());
        let pending = resume.uncommitted_ranges(&all).into_iter();
        let pending: Vec<Range<u64>> = pending
            .map(|part| range.start + part.start..range.start + part.end)
            .collect();
        let total = pending.iter().map(|rows| rows.end - rows.start).sum();
        let batches = spawn_reader(2, move |sender| {
            let mut next = range.start;
            for rows in pending {
                // Batches begin at multiples of the step, regardless of the committed rows and of
                // the shard.
                let mut start = next.max(rows.start / self.step * self.step);
                while start < rows.end {
                    let end = (start / self.step * self.step).saturating_add(self.step);
                    let end = end.min(range.end);
                    if !sender.send(self.batch(start..end)?) {
                        return Ok(());
                    }
                    start = end;
                }
                next = start;
            }
            Ok(())
        });
        Ok(SourceHandle::new(batches, Some(total)))
    }
}

impl SyntheticSource {
    /// The numbers of the records that are generated.
    fn range(&self) -> Range<u64> {
        self.share
            .shard()
            .map_or(0..self.records, |shard| shard.range_of(self.records))
    }

    fn batch(&self, rows: Range<u64>) -> Result<SourceBatch, StageError> {
        let (records, pixels) = match &self.generator {
            &SyntheticGenerator::Images {
                height,
                width,
                format,
            } => {
                let pixels = u64::from(height) * u64::from(width) * (rows.end - rows.start);
                (self.images(rows.clone(), height, width, format)?, pixels)
            }
            SyntheticGenerator::Features { factors, layout } => {
                (self.features(rows.clone(), factors, *layout)?, 0)
            }
        };
        let provenance = Provenance::rows(Arc::clone(&self.split), rows);
        Ok(SourceBatch {
            batch: Batch::new(records, provenance),
            rejects: Vec::new(),
            pixels,
        })
    }

    fn images(
        &self,
        rows: Range<u64>,
        height: u32,
        width: u32,
        format: SyntheticImageFormat,
    ) -> Result<RecordBatch, StageError> {
        let mut images = Vec::new();
        for row in rows.clone() {
            let pixels =
                dead_leaves::draw(&mut stream(self.seed, row), height as usize, width as usize);
            images.push(encode(&pixels, height, width, format)?);
        }
        let source = rows
            .clone()
            .map(|row| format!("image-{row:09}.{}", format.extension()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(source)),
            Arc::new(UInt64Array::from_iter_values(rows)),
            Arc::new(BinaryArray::from_iter_values(images)),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn features(
        &self,
        rows: Range<u64>,
        factors: &FactorModel,
        layout: FeatureLayout,
    ) -> Result<RecordBatch, StageError> {
        let (mut values, mut outliers) = (Vec::new(), Vec::new());
        for row in rows.clone() {
            outliers.push(factors.record(&mut stream(self.seed, row), &mut values));
        }
        let column = |index| {
            let column = values.iter().skip(index).step_by(factors.width);
            Arc::new(column.copied().collect::<Float32Array>()) as ArrayRef
        };
        let mut columns = match layout {
            FeatureLayout::Columns => (0..factors.width).map(column).collect(),
            FeatureLayout::Vector => vec![fixed_column(factors.width, values)?],
        };
        if factors.outliers > 0.0 {
            columns.push(Arc::new(BooleanArray::from(outliers)));
        }
        add_origin(&self.schema, &self.name, rows, &columns)
    }
}

impl SyntheticImageFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Bmp => "bmp",
        }
    }
}

fn encode(
    pixels: &[u8],
    height: u32,
    width: u32,
    format: SyntheticImageFormat,
) -> Result<Vec<u8>, StageError> {
    let mut bytes = Cursor::new(Vec::new());
    let color = ExtendedColorType::Rgb8;
    let encoded = match format {
        SyntheticImageFormat::Png => {
            PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
                .write_image(pixels, width, height, color)
        }
        SyntheticImageFormat::Jpeg => codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
            .write_image(pixels, width, height, color),
        SyntheticImageFormat::Bmp => {
            codecs::bmp::BmpEncoder::new(&mut bytes).write_image(pixels, width, height, color)
        }
    };
    encoded.map_err(|error| StageError::Other(format!("cannot encode an image: {error}")))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use expect_test::{Expect, expect};
    use tokio_stream::StreamExt;

    use super::*;
    use crate::coverage::Coverage;
    use crate::plan_context::PipelineLimits;
    use crate::registry::parse_options;

    fn plan(written: &str, records: Option<u32>) -> Result<Box<dyn Source>, Vec<ConfigError>> {
        let context = PlanContext::new(BTreeMap::new(), PipelineLimits::default());
        let batch = BatchSize {
            records: records.and_then(std::num::NonZeroU32::new),
            ..BatchSize::default()
        };
        parse_options::<SyntheticSourceConfig>(serde_json::from_str(written).unwrap())?
            .plan("demo", batch, &context)
    }

    fn batches(
        written: &str,
        records: Option<u32>,
        resume: &ResumeState,
    ) -> (Vec<SourceBatch>, Option<u64>) {
        let source = plan(written, records).unwrap_or_else(|faults| panic!("{faults:?}"));
        let mut opened = source.open(resume).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let batches = runtime.block_on(opened.batches.collect::<Vec<_>>());
        (
            batches.into_iter().map(Result::unwrap).collect(),
            opened.total.known(),
        )
    }

    fn all(written: &str, records: Option<u32>) -> RecordBatch {
        let (batches, _) = batches(written, records, &ResumeState::default());
        concat_batches(
            &plan(written, None).unwrap().schema(),
            batches.iter().map(|batch| &batch.batch.records),
        )
        .unwrap()
    }

    const IMAGES: &str = r#"{"content": "images", "records": 5, "size": [20, 30]}"#;
    const FEATURES: &str = r#"{"content": "features", "records": 5, "width": 4, "outliers": 0.5}"#;

    #[test]
    fn images_have_the_configured_size_and_format() {
        for (name, format) in [
            ("png", image::ImageFormat::Png),
            ("jpeg", image::ImageFormat::Jpeg),
            ("bmp", image::ImageFormat::Bmp),
        ] {
            let records = all(
                &format!(
                    r#"{{"content": "images", "records": 2, "size": [20, 30], "format": "{name}"}}"#
                ),
                None,
            );
            let bytes = records.column(2).as_binary::<i32>().value(1);
            assert_eq!(image::guess_format(bytes).unwrap(), format);
            let decoded = image::load_from_memory(bytes).unwrap();
            assert_eq!((decoded.height(), decoded.width()), (20, 30));
        }
        let records = all(IMAGES, None);
        assert_eq!(
            records.column(0).as_string::<i32>().value(3),
            "image-000000003.png"
        );
    }

    #[test]
    fn record_depends_only_on_the_seed_and_its_number() {
        for written in [IMAGES, FEATURES] {
            let whole = all(written, None);
            assert_eq!(whole.num_rows(), 5);
            assert_eq!(whole, all(written, Some(2)));
            let fewer = all(&written.replace("\"records\": 5", "\"records\": 3"), None);
            assert_eq!(whole.slice(0, 3), fewer);
            let other = written.replace("\"records\"", "\"seed\": 1, \"records\"");
            assert_ne!(whole.column(2), all(&other, None).column(2));
        }
    }

    #[test]
    fn layout_changes_the_columns_and_not_the_values() {
        let vectors = all(FEATURES, None);
        let columns = all(
            &FEATURES.replace("\"width\"", "\"layout\": \"columns\", \"width\""),
            None,
        );
        let values = crate::tensor::fixed_values(vectors.column(2)).unwrap();
        let f1 = columns
            .column_by_name("f1")
            .unwrap()
            .as_primitive::<arrow::datatypes::Float32Type>();
        assert_eq!(
            f1.values()[..],
            [values[1], values[5], values[9], values[13], values[17]]
        );
        assert_eq!(
            vectors.column_by_name("outlier"),
            columns.column_by_name("outlier")
        );
    }

    #[test]
    fn batches_that_every_sink_has_committed_are_skipped() {
        let (sent, total) = batches(IMAGES, Some(2), &ResumeState::default());
        let rows = |batches: &[SourceBatch]| -> Vec<Range<u64>> {
            batches
                .iter()
                .map(|batch| batch.batch.provenance.ranges()[0].rows.clone())
                .collect()
        };
        assert_eq!((rows(&sent), total), (vec![0..2, 2..4, 4..5], Some(5)));
        assert_eq!(sent[0].pixels, 1200);
        let mut done = Coverage::default();
        done.insert(&sent[0].batch.provenance);
        done.insert(&sent[1].batch.provenance.slice(0..1));
        let resume = ResumeState {
            sinks: Arc::new(vec![done]),
            ..ResumeState::default()
        };
        let (rest, remaining) = batches(IMAGES, Some(2), &resume);
        assert_eq!((rows(&rest), remaining), (vec![2..4, 4..5], Some(2)));
    }

    #[test]
    fn zero_records_give_no_batches() {
        let (sent, total) = batches(
            r#"{"content": "features", "records": 0}"#,
            None,
            &ResumeState::default(),
        );
        assert_eq!((sent.len(), total), (0, Some(0)));
    }

    #[test]
    fn batches_are_bounded_in_bytes() {
        let large = SyntheticGenerator::Images {
            height: 4000,
            width: 6000,
            format: SyntheticImageFormat::Bmp,
        };
        assert_eq!(large.records_per_batch(BatchSize::default()), 1);
        let small = SyntheticGenerator::Images {
            height: 1000,
            width: 1000,
            format: SyntheticImageFormat::Bmp,
        };
        assert_eq!(small.records_per_batch(BatchSize::default()), 11);
    }

    #[test]
    fn invalid_options_are_all_reported() {
        let check = |written: &str, expected: Expect| {
            let faults = plan(written, None).err().unwrap_or_default();
            let lines: Vec<String> = faults
                .iter()
                .map(|fault| format!("{}: {}", fault.key, fault.message))
                .collect();
            expected.assert_eq(&lines.join("\n"));
        };
        check(
            r#"{"content": "images", "records": 1, "size": [0, 64],
                "width": 3, "layout": "columns"}"#,
            expect![[r#"
                width: applies to features only, but `content` is `images`; remove the option
                layout: applies to features only, but `content` is `images`; remove the option
                size: 0x64 has 0 pixels; expected 1 to 100000000 (limits.pixels)"#]],
        );
        check(
            r#"{"content": "images", "records": 1, "size": [1, 70000], "format": "jpeg"}"#,
            expect!["size: 1x70000 is too large for a JPEG; the maximum side is 65535 pixels"],
        );
        check(
            r#"{"content": "features", "records": 1, "size": [8, 8],
                "width": 8, "rank": 9, "outliers": 2}"#,
            expect![[r#"
                size: applies to images only, but `content` is `features`; remove the option
                outliers: must lie between 0 and 1; met 2
                rank: must lie between 1 and `width`, 8; met 9"#]],
        );
        check(
            r#"{"content": "features", "records": 1, "width": 1000000}"#,
            expect![
                "width: 1000000 values with 250000 factors are too many; \
                 the maximum of their product is 16777216"
            ],
        );
        check(
            r#"{"content": "sounds"}"#,
            expect!["content: unknown variant `sounds`, expected `images` or `features`"],
        );
    }
}
