//! Reads the planned sources to their end and writes each record into the file of its part.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use sha2::{Digest, Sha256};

use super::column_values::{ComparisonTally, missing_values};
use super::config::{DataSpec, Subset};
use super::image_decoder::ParallelDecoder;
use super::labels::{ClassIndex, class_names};
use super::manifest::{DatasetManifest, MANIFEST_VERSION};
use super::plan::{DatasetPlan, PlannedSource, RecordKind, SourceSteps};
use super::record_file::RecordTrailer;
use super::record_id::RecordIdResolver;
use super::record_writer::RecordWriter;
use super::source_reader::each_batch;
use super::{DataError, ReadProgress};
use crate::batch::{Batch, Reject, RejectCode, RejectCollector, SourceBatch};
use crate::error::{ConfigError, StageError};
use crate::fs_durable::{create_dir_all_synced, fsync_dir, remove_stale_temp_files};

/// Maximum number of reject reasons in the manifest.
const MAX_REASONS: usize = 10;

/// Writes the files in `folder` instead of those of an earlier call. They are not used until the
/// manifest is written. Returns `None` if `stop` became true before the end of the sources.
///
/// # Errors
/// Returns an error if a source or the folder fails, or if no record can be used.
pub(super) fn build_dataset(
    plan: DatasetPlan,
    spec: &DataSpec,
    keys: Option<[String; 2]>,
    folder: &Path,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(ReadProgress),
) -> Result<Option<DatasetManifest>, DataError> {
    create_dir_all_synced(folder)?;
    DatasetManifest::remove(folder)?;
    remove_stale_temp_files(folder, 1)?;
    let columns = match &plan.target {
        RecordKind::Features { columns } => columns.clone(),
        RecordKind::Images { .. } => vec![],
    };
    let channels = match plan.target {
        RecordKind::Images { channels, .. } => channels.count(),
        RecordKind::Features { .. } => plan.width,
    };
    let (key, written) = keys.map_or((None, None), |[key, written]| (Some(key), Some(written)));
    let (kind, columns_are_values) = (plan.kind(), plan.columns_are_values);
    let value_names = match columns_are_values {
        true => Vec::new(),
        false => plan.value_names,
    };
    let mut builder = DatasetBuilder::new(folder, &plan.target, plan.float64, spec)?;
    let (mut records, last) = (0, plan.sources.len().saturating_sub(1));
    for (
        at,
        PlannedSource {
            source, mut steps, ..
        },
    ) in plan.sources.into_iter().enumerate()
    {
        let before = records;
        let is_complete = each_batch(source, stop, |batch, of_source| {
            records += batch.batch.provenance.len();
            builder.add_batch(at, &mut steps, batch)?;
            let total = of_source
                .filter(|_| at == last)
                .map(|of_source| before + of_source);
            progress(ReadProgress { records, total });
            Ok(ControlFlow::Continue(()))
        })?;
        if !is_complete {
            drop(builder);
            remove_stale_temp_files(folder, 1)?;
            return Ok(None);
        }
    }
    let unusable = builder.no_usable_record();
    let float64 = builder.float64;
    let DatasetBuilder {
        writers,
        classes: labels,
        digest,
        former_digest,
        rejects,
        reasons,
        left_out,
        anomalies,
        without_label,
        normal,
        ..
    } = builder;
    let [training, validation, test] = writers.map(RecordWriter::finish);
    let parts = [training?, validation?, test?];
    if parts.iter().all(|part| part.records == 0) {
        return Err(unusable);
    }
    fsync_dir(folder)?;
    let (labels, classes) = labels.sorted();
    let digest = format!("{:x}", digest.finalize());
    let former_digest = former_digest.map(|former| format!("{:x}", former.finalize()));
    let manifest = DatasetManifest {
        version: MANIFEST_VERSION,
        float64,
        former_digest,
        key,
        written,
        kind,
        channels,
        columns,
        columns_are_values,
        value_names,
        labels,
        classes,
        digest,
        rejects,
        reasons,
        left_out,
        anomalies,
        without_label,
        normal_values: normal.unsatisfied().map(|(_, values)| values),
        has_origins: true,
        parts,
    };
    manifest.write(folder)?;
    Ok(Some(manifest))
}

fn little_endian<T: Copy, const BYTES: usize>(
    values: &[T],
    bytes: fn(T) -> [u8; BYTES],
) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

/// Writes the records of all sources into the files of the three parts.
struct DatasetBuilder<'a> {
    spec: &'a DataSpec,
    decoder: Option<ParallelDecoder>,
    writers: [RecordWriter; 3],
    classes: ClassIndex,
    digest: Sha256,
    /// Covers the features rounded to float32, as the digest of earlier versions.
    former_digest: Option<Sha256>,
    /// Whether features are stored as float64.
    float64: bool,
    rejects: u64,
    reasons: Vec<String>,
    left_out: u64,
    anomalies: u64,
    /// Records without a value in the column of `normal`, which are in none of the parts.
    without_label: u64,
    /// The records that each comparison of `keep` was applied to.
    keep: Vec<ComparisonTally>,
    /// The records that the comparison `normal` was applied to.
    normal: ComparisonTally,
}

impl<'a> DatasetBuilder<'a> {
    fn new(
        folder: &Path,
        target: &RecordKind,
        float64: bool,
        spec: &'a DataSpec,
    ) -> Result<Self, StageError> {
        let writer = |part| RecordWriter::new(folder, part);
        Ok(Self {
            spec,
            decoder: ParallelDecoder::new(target),
            writers: [
                writer(Subset::Training)?,
                writer(Subset::Validation)?,
                writer(Subset::Test)?,
            ],
            classes: ClassIndex::default(),
            digest: Sha256::new(),
            former_digest: float64.then(Sha256::new),
            float64,
            rejects: 0,
            reasons: vec![],
            left_out: 0,
            anomalies: 0,
            without_label: 0,
            keep: spec
                .keep
                .iter()
                .map(|_| ComparisonTally::default())
                .collect(),
            normal: ComparisonTally::default(),
        })
    }

    /// Returns the error of data without a record that can be used. A comparison that leaves out
    /// all records is a fault of the table.
    fn no_usable_record(&self) -> DataError {
        for (at, (comparison, tally)) in self.spec.keep.iter().zip(&self.keep).enumerate() {
            if let Some((records, values)) = tally.unsatisfied() {
                let message = format!(
                    "leaves out all {records} records: the column `{}` holds {values}; correct the \
                     comparison",
                    comparison.column
                );
                return DataError::Faults(vec![ConfigError::new(format!("keep[{at}]"), message)]);
            }
        }
        if let Some(comparison) = self.spec.normal.as_ref().filter(|_| self.without_label > 0) {
            let message = format!(
                "{} records have no value in the column `{}`, and no other record can be used; \
                 name a column that has values",
                self.without_label, comparison.column
            );
            return DataError::Faults(vec![ConfigError::new("normal", message)]);
        }
        let first = self
            .reasons
            .first()
            .map(|reason| format!("; reason of the first reject: {reason}"))
            .unwrap_or_default();
        let left_out = match self.left_out {
            0 => String::new(),
            left_out => format!("; `keep` left out {left_out}"),
        };
        let rejects = self.rejects;
        DataError::Stage(StageError::Other(format!(
            "the data has no usable record; number of rejects: {rejects}{first}{left_out}"
        )))
    }

    /// Writes the records of one batch.
    fn add_batch(
        &mut self,
        source: usize,
        steps: &mut SourceSteps,
        batch: SourceBatch,
    ) -> Result<(), StageError> {
        let SourceBatch {
            mut batch,
            rejects: source_rejects,
            pixels,
        } = batch;
        source_rejects
            .iter()
            .for_each(|reject| self.reject(&reject.reason, reject.records));
        let all = batch.records.num_rows();
        let mut failures = 0;
        let spec = self.spec;
        for (number, (keep, comparison)) in steps.keep.iter_mut().zip(&spec.keep).enumerate() {
            let mut failed = RejectCollector::default();
            let kept = keep.apply(&batch, &mut failed)?;
            self.keep[number].add(comparison, &batch, kept.records.num_rows())?;
            failures += self
                .reject_failures(&steps.record_ids, &batch, failed)
                .len();
            batch = kept;
        }
        self.left_out += (all - batch.records.num_rows() - failures) as u64;
        if let Some(features) = &mut steps.features {
            let mut rejects = RejectCollector::default();
            let taken = features.apply(&batch, &mut rejects)?;
            self.reject_rows(&steps.record_ids, &batch, &rejects.into_vec());
            batch = taken;
        }
        let mut normal = None;
        if let Some((step, comparison)) = steps.normal.as_mut().zip(spec.normal.as_ref()) {
            let mut rejects = RejectCollector::default();
            let satisfied = step.apply(&batch, &mut rejects)?.row_ordinals;
            // Records on which the comparison failed are neither normal nor anomalies.
            let failed = self.reject_failures(&steps.record_ids, &batch, rejects);
            if !failed.is_empty() {
                let mask = batch
                    .row_ordinals
                    .iter()
                    .map(|ordinal| Some(!failed.contains(ordinal)))
                    .collect();
                batch = batch.filter(&mask)?;
            }
            self.normal.add(comparison, &batch, satisfied.len())?;
            normal = Some(NormalRecords {
                satisfied,
                missing: missing_values(comparison, &batch)?,
            });
        }
        let labels = steps
            .label
            .map(|column| class_names(batch.records.column(column)))
            .transpose()?;
        let mut context = RecordContext {
            source,
            record_ids: &mut steps.record_ids,
            normal,
            labels,
        };
        match steps.image {
            Some(image) => self.add_images(&batch, image, pixels, &mut context),
            None => self.add_features(&batch, &mut context),
        }
    }

    fn add_features(
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

    fn add_images(
        &mut self,
        batch: &Batch,
        column: usize,
        pixels: u64,
        context: &mut RecordContext<'_>,
    ) -> Result<(), StageError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        let images: ArrayRef = cast(batch.records.column(column), &DataType::Binary)?;
        let images = images.as_binary::<i32>();
        for (index, decoded) in decoder.decode(images, pixels).into_iter().enumerate() {
            match decoded {
                // A record whose length does not match its size would shift the records after it.
                Ok(image)
                    if image.data.len() == image.height * image.width * image.channels.count() =>
                {
                    self.add(
                        batch,
                        index,
                        context,
                        [image.height, image.width],
                        &image.data,
                    )?;
                }
                Ok(image) => {
                    let (name, row) = context.record_ids.name(batch, index);
                    let (bytes, size) = (image.data.len(), [image.height, image.width]);
                    let reason = format!(
                        "{name}, row {row}: the decoder returned {bytes} bytes for an image of \
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
    fn add(
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
    fn reject_rows(&mut self, record_ids: &RecordIdResolver, before: &Batch, rejects: &[Reject]) {
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
    fn reject_failures(
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

    fn reject(&mut self, reason: &str, records: u64) {
        self.rejects = self.rejects.saturating_add(records);
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push(reason.to_owned());
        }
    }
}

/// The records of a batch that the comparison `normal` was applied to.
struct NormalRecords {
    /// The ordinals of the records that satisfy the comparison, ascending.
    satisfied: Vec<u32>,
    /// Whether each record has no value in the column of the comparison.
    missing: Vec<bool>,
}

/// The class of a record according to the comparison `normal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordClass {
    Normal,
    Anomaly,
    /// The column has no value for the record.
    Unlabeled {
        is_satisfied: bool,
    },
}

impl RecordClass {
    /// Returns the byte of the class in the digest of the data. Earlier versions had two classes,
    /// and their digests stay valid for records whose class is still used in the same way.
    fn digest_byte(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Anomaly
            | Self::Unlabeled {
                is_satisfied: false,
            } => 1,
            Self::Unlabeled { is_satisfied: true } => 2,
        }
    }
}

/// The data of a batch's records other than their values.
struct RecordContext<'a> {
    source: usize,
    record_ids: &'a mut RecordIdResolver,
    /// `None` if all records are normal.
    normal: Option<NormalRecords>,
    labels: Option<StringArray>,
}

impl RecordContext<'_> {
    fn class(&self, batch: &Batch, index: usize) -> RecordClass {
        let Some(normal) = &self.normal else {
            return RecordClass::Normal;
        };
        let ordinal = &batch.row_ordinals[index];
        let is_satisfied = normal.satisfied.binary_search(ordinal).is_ok();
        match (normal.missing[index], is_satisfied) {
            (true, _) => RecordClass::Unlabeled { is_satisfied },
            (false, true) => RecordClass::Normal,
            (false, false) => RecordClass::Anomaly,
        }
    }
}
