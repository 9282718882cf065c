//! Reads the planned sources to their end and writes each record into the file of its part.

pub(crate) mod builder;
pub(crate) mod column_tally;
pub(crate) mod record_class;
pub(crate) mod records;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use sha2::Digest;

use super::config::DataSpec;
use super::manifest::{DatasetManifest, MANIFEST_VERSION};
use super::plan::DatasetPlan;
use super::record_writer::RecordWriter;
use super::source_reader::each_batch;
use super::{DataError, ReadProgress};
use crate::data::plan::record_kind::RecordKind;
use crate::data::plan::source_steps::PlannedSource;
use crate::data::prepare::builder::DatasetBuilder;
use crate::fs_durable::{create_dir_all_synced, fsync_dir, remove_stale_temp_files};

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
    let (columns, channels, fractional) = match &plan.target {
        RecordKind::Features { columns, .. } => (columns.clone(), plan.width, false),
        RecordKind::Images { options, sizing } => {
            (vec![], options.channels.count(), !sizing.gives_bytes())
        }
    };
    let (key, written) = keys.map_or((None, None), |[key, written]| (Some(key), Some(written)));
    let (kind, columns_are_values) = (plan.kind(), plan.columns_are_values);
    let value_names = match columns_are_values {
        true => Vec::new(),
        false => plan.value_names,
    };
    let mut builder = DatasetBuilder::new(folder, &plan.target, plan.float64, spec)?;
    if !read_sources(plan.sources, &mut builder, stop, progress)? {
        drop(builder);
        remove_stale_temp_files(folder, 1)?;
        return Ok(None);
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
        columns: tally,
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
    let (nulls, categories) = tally.finish();
    let manifest = DatasetManifest {
        nulls,
        categories,
        version: MANIFEST_VERSION,
        float64,
        fractional,
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

/// Adds the records of all sources. Returns `false` if `stop` became true before their end.
fn read_sources(
    sources: Vec<PlannedSource>,
    builder: &mut DatasetBuilder,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(ReadProgress),
) -> Result<bool, DataError> {
    let (mut records, last) = (0, sources.len().saturating_sub(1));
    for (at, planned) in sources.into_iter().enumerate() {
        let (before, mut steps) = (records, planned.steps);
        let is_complete = each_batch(planned.source, stop, |batch, of_source| {
            records += batch.batch.provenance.len();
            builder.add_batch(at, &mut steps, batch)?;
            let total = of_source
                .filter(|_| at == last)
                .map(|of_source| before + of_source);
            progress(ReadProgress { records, total });
            Ok(ControlFlow::Continue(()))
        })?;
        if !is_complete {
            return Ok(false);
        }
    }
    Ok(true)
}
