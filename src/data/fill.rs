//! Reads the planned sources to their ends and writes their records, each into its part.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;

use super::images::Images;
use super::labels::{Labels, words};
use super::manifest::Manifest;
use super::origin::Origins;
use super::plan::{Plan, Planned, Steps, Target};
use super::records::Tail;
use super::spec::{DataSpec, Part};
use super::write::Writer;
use crate::batch::{Batch, Reject, Rejects, SourceBatch};
use crate::coverage::Progress;
use crate::durable::{create_folders, remove_temporaries, sync_folder};
use crate::error::StageError;
use crate::source::Source;
use crate::tensor::fixed_values;

/// Reasons that are kept of those for which records were rejected.
const REASONS: usize = 10;

/// Makes the files in `folder` anew. Until the manifest is written they count for nothing.
///
/// # Errors
/// When a source or the folder fails, or there is no record.
pub(super) fn fill(
    plan: Plan,
    spec: &DataSpec,
    keys: Option<[String; 2]>,
    folder: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Manifest, StageError> {
    create_folders(folder)?;
    Manifest::remove(folder)?;
    remove_temporaries(folder, 1)?;
    let columns = match &plan.target {
        Target::Features { columns } => columns.clone(),
        Target::Images { .. } => vec![],
    };
    let channels = match plan.target {
        Target::Images { channels, .. } => channels.count(),
        Target::Features { .. } => plan.width,
    };
    let (key, written) = keys.map_or((None, None), |[key, written]| (Some(key), Some(written)));
    let (kind, columns_are_values) = (plan.kind(), plan.columns_are_values);
    let mut filling = Filling::new(folder, &plan.target, spec)?;
    let mut read = 0;
    for (at, Planned { source, mut steps, .. }) in plan.sources.into_iter().enumerate() {
        each_batch(source, |batch| {
            read += batch.batch.provenance.len();
            filling.take(at, &mut steps, batch)?;
            progress(read);
            Ok(())
        })?;
    }
    let Filling { writers, labels, digest, rejects, reasons, left_out, anomalies, .. } = filling;
    let [training, validation, test] = writers.map(Writer::finish);
    let parts = [training?, validation?, test?];
    if parts.iter().all(|part| part.records == 0) {
        return Err(nothing(rejects, &reasons, left_out));
    }
    sync_folder(folder)?;
    let (labels, classes) = labels.sorted();
    let digest = format!("{:x}", digest.finalize());
    let manifest = Manifest {
        key,
        written,
        kind,
        channels,
        columns,
        columns_are_values,
        labels,
        classes,
        digest,
        rejects,
        reasons,
        left_out,
        anomalies,
        parts,
    };
    manifest.write(folder)?;
    Ok(manifest)
}

fn nothing(rejects: u64, reasons: &[String], left_out: u64) -> StageError {
    let first = reasons.first().map(|reason| format!("; the first because: {reason}")).unwrap_or_default();
    StageError::Other(format!(
        "there is no record: {rejects} could not be used{first}{}",
        if left_out > 0 { format!("; `keep` left out {left_out}") } else { String::new() }
    ))
}

/// Gives every batch of a source to `take`.
fn each_batch(
    source: Box<dyn Source>,
    mut take: impl FnMut(SourceBatch) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| StageError::Other(format!("cannot wait for a source: {error}")))?;
    let mut batches = source.open(&Progress::default())?.batches;
    while let Some(batch) = runtime.block_on(batches.next()) {
        take(batch?)?;
    }
    Ok(())
}

/// The files while they are filled.
struct Filling<'a> {
    spec: &'a DataSpec,
    images: Option<Images>,
    writers: [Writer; 3],
    labels: Labels,
    digest: Sha256,
    rejects: u64,
    reasons: Vec<String>,
    left_out: u64,
    anomalies: u64,
    /// The values of a feature record as they stand in the file.
    row: Vec<u8>,
}

impl<'a> Filling<'a> {
    fn new(folder: &Path, target: &Target, spec: &'a DataSpec) -> Result<Self, StageError> {
        let writer = |part| Writer::new(folder, part);
        Ok(Self {
            spec,
            images: Images::new(target),
            writers: [writer(Part::Training)?, writer(Part::Validation)?, writer(Part::Test)?],
            labels: Labels::default(),
            digest: Sha256::new(),
            rejects: 0,
            reasons: vec![],
            left_out: 0,
            anomalies: 0,
            row: vec![],
        })
    }

    /// Writes the records of one batch.
    fn take(&mut self, source: usize, steps: &mut Steps, batch: SourceBatch) -> Result<(), StageError> {
        let SourceBatch { mut batch, rejects, pixels } = batch;
        rejects.iter().for_each(|reject| self.reject(&reject.reason, reject.records));
        let all = batch.records.num_rows();
        for keep in &mut steps.keep {
            batch = keep.apply(batch, &mut Rejects::default())?;
        }
        self.left_out += (all - batch.records.num_rows()) as u64;
        if let Some(features) = &mut steps.features {
            let mut rejects = Rejects::default();
            let taken = features.apply(batch.clone(), &mut rejects)?;
            self.reject_rows(&steps.origins, &batch, &rejects.into_vec());
            batch = taken;
        }
        let normal = match &mut steps.normal {
            Some(normal) => Some(normal.apply(batch.clone(), &mut Rejects::default())?.origin),
            None => None,
        };
        let labels = steps.label.map(|place| words(batch.records.column(place))).transpose()?;
        let mut known = Known { source, origins: &mut steps.origins, normal, labels };
        match steps.image {
            Some(image) => self.take_images(&batch, image, pixels, &mut known),
            None => self.take_features(&batch, &mut known),
        }
    }

    fn take_features(&mut self, batch: &Batch, known: &mut Known<'_>) -> Result<(), StageError> {
        let vectors = batch.records.columns().last().and_then(|column| fixed_values(column.as_ref()));
        let width = vectors.map_or(0, |values| values.len() / batch.records.num_rows().max(1));
        let mut row = std::mem::take(&mut self.row);
        for (place, values) in vectors.unwrap_or_default().chunks_exact(width.max(1)).enumerate() {
            row.clear();
            row.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            self.add(batch, place, known, [1, 1], &row)?;
        }
        self.row = row;
        Ok(())
    }

    fn take_images(
        &mut self,
        batch: &Batch,
        column: usize,
        pixels: u64,
        known: &mut Known<'_>,
    ) -> Result<(), StageError> {
        let Some(decoder) = &mut self.images else { return Ok(()) };
        let images: ArrayRef = cast(batch.records.column(column), &DataType::Binary)?;
        let images = images.as_binary::<i32>();
        for (place, decoded) in decoder.decode(images, pixels).into_iter().enumerate() {
            match decoded {
                Ok(image) => self.add(batch, place, known, [image.height, image.width], &image.data)?,
                Err(reason) => {
                    let (name, row) = known.origins.name(batch, place);
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
        place: usize,
        known: &mut Known<'_>,
        size: [usize; 2],
        values: &[u8],
    ) -> Result<(), StageError> {
        let origin = known.origins.of(batch, place, known.source);
        let anomaly = known.is_anomaly(batch, place);
        let part = if anomaly { Part::Test } else { origin.part(self.spec.validation, self.spec.test) };
        let label = known.labels.as_ref().filter(|labels| labels.is_valid(place)).map(|labels| labels.value(place));
        let number = label.map(|label| self.labels.number(label)).transpose()?;
        // An image's sides are 32 bits in its header.
        let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        let tail = Tail { identity: origin.identity, height, width, label: number.unwrap_or(Tail::NO_LABEL), anomaly };
        self.digest.update([part as u8, u8::from(anomaly), u8::from(label.is_some())]);
        let text = label.unwrap_or_default();
        self.digest
            .update([height, width, u32::try_from(text.len()).unwrap_or(u32::MAX)].map(u32::to_le_bytes).concat());
        self.digest.update(text);
        self.digest.update(values);
        self.anomalies += u64::from(anomaly);
        self.writers[part as usize].add(values, &tail)
    }

    /// Counts what a transform refused, by the names that the batch before it had.
    fn reject_rows(&mut self, origins: &Origins, before: &Batch, rejects: &[Reject]) {
        for reject in rejects {
            let place = before.origin.binary_search(&reject.ordinal).unwrap_or(usize::MAX);
            let (name, row) = origins.name(before, place);
            self.reject(&format!("{name}, row {row}: {}", reject.reason), reject.records);
        }
    }

    fn reject(&mut self, reason: &str, records: u64) {
        self.rejects = self.rejects.saturating_add(records);
        if self.reasons.len() < REASONS {
            self.reasons.push(reason.to_owned());
        }
    }
}

/// What is known of a batch's records beside their values.
struct Known<'a> {
    source: usize,
    origins: &'a mut Origins,
    /// The ordinals of those that are normal, ascending; `None`: all are.
    normal: Option<Vec<u32>>,
    labels: Option<StringArray>,
}

impl Known<'_> {
    fn is_anomaly(&self, batch: &Batch, place: usize) -> bool {
        self.normal.as_ref().is_some_and(|normal| normal.binary_search(&batch.origin[place]).is_err())
    }
}
