//! The `synthetic` source: data generated from a seed, for demos, tests and benchmarks.

pub(crate) mod config;
pub(crate) mod dead_leaves;
pub(crate) mod factor_model;
pub(crate) mod generator;

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::datatypes::SchemaRef;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, codecs};

use super::{Source, SourceHandle};
use crate::batch::provenance::{Provenance, Split};
use crate::batch::{Batch, SourceBatch};
use crate::coverage::ResumeState;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::discovery::share::SourceShare;
use crate::source::origin::add_origin;
use crate::source::reader::spawn_reader;
use crate::source::synthetic::generator::{
    FeatureLayout, SyntheticGenerator, SyntheticImageFormat, stream,
};
use crate::storage::Location;
use crate::tensor::fixed_column;

use factor_model::FactorModel;

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
    encoded.map_err(|error| {
        StageError::new(
            ErrorCode::Internal,
            format!("cannot encode an image: {error}"),
        )
    })?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests;
