//! Collects the records of a dataset, and counts those that cannot be used.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::batch::SourceBatch;
use crate::batch::reject::RejectCollector;
use crate::data::DataError;
use crate::data::column_values::{ComparisonTally, missing_values};
use crate::data::config::{DataSpec, Subset};
use crate::data::image_decoder::ParallelDecoder;
use crate::data::labels::ClassIndex;
use crate::data::plan::record_kind::RecordKind;
use crate::data::plan::source_steps::SourceSteps;
use crate::data::prepare::column_tally::ColumnTally;
use crate::data::prepare::record_class::{NormalRecords, RecordContext};
use crate::data::record_writer::RecordWriter;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::config_error::ConfigError;
use crate::transform::class_names;

/// Maximum number of reject reasons in the manifest.
pub(super) const MAX_REASONS: usize = 10;

pub(super) fn little_endian<T: Copy, const BYTES: usize>(
    values: &[T],
    bytes: fn(T) -> [u8; BYTES],
) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

/// Writes the records of all sources into the files of the three parts.
pub(super) struct DatasetBuilder<'a> {
    pub(super) spec: &'a DataSpec,
    pub(crate) decoder: Option<ParallelDecoder>,
    pub(super) writers: [RecordWriter; 3],
    pub(super) classes: ClassIndex,
    pub(super) digest: Sha256,
    /// Covers the features rounded to float32, as the digest of earlier versions.
    pub(super) former_digest: Option<Sha256>,
    /// Whether features are stored as float64.
    pub(super) float64: bool,
    pub(super) rejects: u64,
    pub(super) reasons: Vec<String>,
    pub(super) left_out: u64,
    pub(super) anomalies: u64,
    /// Records without a value in the column of `normal`, which are in none of the parts.
    pub(super) without_label: u64,
    /// The nulls and the categories of feature columns.
    pub(super) columns: ColumnTally,
    /// The records that each comparison of `keep` was applied to.
    keep: Vec<ComparisonTally>,
    /// The records that the comparison `normal` was applied to.
    pub(super) normal: ComparisonTally,
}

impl<'a> DatasetBuilder<'a> {
    pub(super) fn new(
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
            columns: ColumnTally::new(target),
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
    pub(super) fn no_usable_record(&self) -> DataError {
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
        DataError::Stage(StageError::new(
            ErrorCode::InputEmpty,
            format!("the data has no usable record; number of rejects: {rejects}{first}{left_out}"),
        ))
    }

    /// Writes the records of one batch.
    pub(super) fn add_batch(
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
            self.columns.add_nulls(&batch.records)?;
            let taken = features.apply(&batch, &mut rejects)?;
            self.reject_rows(&steps.record_ids, &batch, &rejects.into_vec());
            batch = taken;
            self.columns.add_categories(&batch.records)?;
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
}
