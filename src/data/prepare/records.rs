//! Adds the records of a batch to a dataset.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use sha2::{Digest, Sha256};

use crate::batch::Batch;
use crate::batch::reject::{Reject, RejectCode, RejectCollector};
use crate::data::config::Subset;
use crate::data::prepare::builder::{DatasetBuilder, MAX_REASONS, little_endian};
use crate::data::prepare::record_class::{RecordClass, RecordContext};
use crate::data::record_file::record::RecordTrailer;
use crate::data::record_id::RecordIdResolver;
use crate::error::StageError;
use crate::image::prepared::ImageSamples;

impl<'a> DatasetBuilder<'a> {
    pub(crate) fn add_features(
        &mut self,
        batch: &Batch,
        context: &mut RecordContext<'_>,
    ) -> Result<(), StageError> {
        let vectors = batch.records.columns().last();
        let Some(vectors) = vectors.and_then(|column| column.as_fixed_size_list_opt()) else {
            return Ok(());
        };
        let bytes = if self.float64 {
            let values = cast(vectors.values(), &DataType::Float64)?;
            little_endian(
                values.as_primitive::<Float64Type>().values(),
                f64::to_le_bytes,
            )
        } else {
            let values = vectors.values().as_primitive::<Float32Type>().values();
            little_endian(values, f32::to_le_bytes)
        };
        let width = bytes.len() / batch.records.num_rows().max(1);
        for (index, values) in bytes.chunks_exact(width.max(1)).enumerate() {
            self.add(batch, index, context, [1, 1], values)?;
        }
        Ok(())
    }

    pub(crate) fn add_images(
        &mut self,
        batch: &Batch,
        column: usize,
        pixels: u64,
        context: &mut RecordContext<'_>,
    ) -> Result<(), StageError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        let channels = decoder.channels();
        let images: ArrayRef = cast(batch.records.column(column), &DataType::Binary)?;
        let images = images.as_binary::<i32>();
        for (index, decoded) in decoder.decode(images, pixels).into_iter().enumerate() {
            match decoded {
                // A record whose length does not match its size would shift the records after it.
                Ok(image) if image.samples.len() == image.height * image.width * channels => {
                    let size = [image.height, image.width];
                    let bytes = match image.samples {
                        ImageSamples::Bytes(bytes) => bytes,
                        ImageSamples::Floats(values) => {
                            Cow::Owned(little_endian(&values, f32::to_le_bytes))
                        }
                    };
                    self.add(batch, index, context, size, &bytes)?;
                }
                Ok(image) => {
                    let (name, row) = context.record_ids.name(batch, index);
                    let (samples, size) = (image.samples.len(), [image.height, image.width]);
                    let reason = format!(
                        "{name}, row {row}: the decoder returned {samples} samples for an image of \
                         {size:?} pixels"
                    );
                    self.reject(&reason, 1);
                }
                Err(reason) => {
                    let (name, row) = context.record_ids.name(batch, index);
                    self.reject(&format!("{name}, row {row}: {reason}"), 1);
                }
            }
        }
        Ok(())
    }

    /// Writes one record.
    pub(crate) fn add(
        &mut self,
        batch: &Batch,
        index: usize,
        context: &mut RecordContext<'_>,
        size: [usize; 2],
        values: &[u8],
    ) -> Result<(), StageError> {
        let record_id = context.record_ids.resolve(batch, index, context.source);
        let class = context.class(batch, index);
        let part = if class == RecordClass::Normal {
            record_id.subset(self.spec.validation, self.spec.test)
        } else {
            Subset::Test
        };
        let label = context
            .labels
            .as_ref()
            .filter(|labels| labels.is_valid(index))
            .map(|labels| labels.value(index));
        // The sides of an image are 32-bit numbers in its header.
        let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        let text = label.unwrap_or_default();
        let head = [part as u8, class.digest_byte(), u8::from(label.is_some())];
        let sizes = [height, width, u32::try_from(text.len()).unwrap_or(u32::MAX)]
            .map(u32::to_le_bytes)
            .concat();
        let update = |digest: &mut Sha256, bytes: &[u8]| {
            digest.update([&head, sizes.as_slice(), text.as_bytes()].concat());
            digest.update(bytes);
        };
        update(&mut self.digest, values);
        if let Some(former) = &mut self.former_digest {
            let floats = values.as_chunks().0.iter();
            let rounded = floats.map(|&bytes| f64::from_le_bytes(bytes) as f32);
            update(
                former,
                &rounded.flat_map(f32::to_le_bytes).collect::<Vec<_>>(),
            );
        }
        if matches!(class, RecordClass::Unlabeled { .. }) {
            self.without_label += 1;
            return Ok(());
        }
        let number = label.map(|label| self.classes.number(label)).transpose()?;
        let anomaly = class == RecordClass::Anomaly;
        let trailer = RecordTrailer {
            identity: record_id.identity,
            height,
            width,
            label: number.unwrap_or(RecordTrailer::NO_LABEL),
            anomaly,
        };
        self.anomalies += u64::from(anomaly);
        let origin = context.record_ids.name(batch, index);
        self.writers[part as usize].add(values, &trailer, origin)
    }

    /// Counts the rejects of a transform. `before` is its input batch, which resolves the ordinals
    /// to names.
    pub(crate) fn reject_rows(
        &mut self,
        record_ids: &RecordIdResolver,
        before: &Batch,
        rejects: &[Reject],
    ) {
        for reject in rejects {
            let index = before
                .row_ordinals
                .binary_search(&reject.ordinal)
                .unwrap_or(usize::MAX);
            let (name, row) = record_ids.name(before, index);
            self.reject(
                &format!("{name}, row {row}: {}", reject.reason),
                reject.records,
            );
        }
    }

    /// Counts the records on which a comparison failed, and returns their ordinals. Records that it
    /// leaves out because a value is missing are not included.
    pub(crate) fn reject_failures(
        &mut self,
        record_ids: &RecordIdResolver,
        before: &Batch,
        rejects: RejectCollector,
    ) -> Vec<u32> {
        let failed =
            |reject: &Reject| matches!(reject.code, RejectCode::Internal | RejectCode::Panicked);
        let failures: Vec<Reject> = rejects.into_vec().into_iter().filter(failed).collect();
        self.reject_rows(record_ids, before, &failures);
        failures.iter().map(|reject| reject.ordinal).collect()
    }

    pub(crate) fn reject(&mut self, reason: &str, records: u64) {
        self.rejects = self.rejects.saturating_add(records);
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason.to_owned());
        }
    }
}
