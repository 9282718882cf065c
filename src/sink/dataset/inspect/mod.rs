//! The description of a Parquet dataset: rows, columns, provenance, and the distribution of errors.

pub(crate) mod display;

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};

use crate::coverage::Coverage;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::shard::first_and_last_folder;
use crate::sink::dataset::data_files::{DataFile, data_files};
use crate::sink::dataset::rewrite_commit::shared_read_lock;
use crate::sink::dataset::summary_stats::{Distribution, SummaryStats};
use crate::sink::ownership::shard_marker::shard_count;
use crate::sink::parquet::coverage_snapshot::CoverageSnapshot;
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::sink::{OutputIdentity, STATE_DIR};
use crate::storage::Location;
use crate::transform::registry::error_columns;

/// The description of a dataset; `Display` writes its text form.
#[derive(Debug)]
pub struct DatasetDescription {
    /// The described folder or file.
    pub location: Location,
    /// Number of files.
    pub files: u64,
    /// Number of rows of all files.
    pub rows: u64,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// The columns of the first file.
    pub schema: Schema,
    /// Files whose columns differ from those of the first file.
    pub different: Vec<Location>,
    /// Number of files that latentflow did not write.
    pub foreign: u64,
    /// The identities that wrote the other files, with the version of latentflow if it is known.
    pub writers: Vec<(OutputIdentity, Option<String>)>,
    /// The source rows that the dataset accounts for.
    pub coverage: Coverage,
    /// The statistics of each error column, in the order of the schema.
    pub errors: Vec<(String, SummaryStats)>,
}

/// Describes a Parquet file, or the Parquet files directly in a folder, including those of other
/// programs.
///
/// # Errors
/// If there is no such file, or if a file cannot be read.
pub fn describe(location: &Location) -> Result<DatasetDescription, StageError> {
    let _lock = shared_read_lock(location);
    let (is_folder, files) = match location.file()? {
        Some(entry) => (
            false,
            vec![DataFile {
                location: location.clone(),
                entry,
            }],
        ),
        None => (true, data_files(location)?),
    };
    let mut description = DatasetDescription {
        location: location.clone(),
        files: 0,
        rows: 0,
        bytes: 0,
        schema: Schema::empty(),
        different: Vec::new(),
        foreign: 0,
        writers: Vec::new(),
        coverage: Coverage::default(),
        errors: Vec::new(),
    };
    let mut errors = BTreeMap::new();
    for file in &files {
        description.add_file(file)?;
        read_errors(file, &mut errors)?;
    }
    let snapshot = if is_folder {
        CoverageSnapshot::load(location)?
    } else {
        CoverageSnapshot::default()
    };
    if files.is_empty() && snapshot == CoverageSnapshot::default() {
        check_output(location)?;
    }
    for (identity, coverage) in snapshot.history.writers {
        description.add_writer(identity, None);
        description.coverage.union(&coverage);
    }
    let mut distribution = |name: &String| errors.remove(name).and_then(Distribution::summary);
    let names = description.schema.fields().iter().map(|field| field.name());
    description.errors = names
        .filter_map(|name| Some((name.clone(), distribution(name)?)))
        .collect();
    Ok(description)
}

/// Checks that a location without files and coverage is the output of a run, which found no input.
///
/// # Errors
/// If it is not, or if it holds the folders of shards.
pub(crate) fn check_output(location: &Location) -> Result<(), StageError> {
    if let Some(count) = shard_count(location)? {
        let (first, _) = first_and_last_folder(count);
        return Err(StageError::new(
            ErrorCode::DatasetCorrupt,
            format!(
                "holds the output of {count} shards; name the folder of one of them, such as \
             {location}/{first}"
            ),
        ));
    }
    if location.join(STATE_DIR).is_folder()? {
        return Ok(());
    }
    Err(StageError::new(
        ErrorCode::DatasetCorrupt,
        "expected Parquet files directly in this folder; found none".to_owned(),
    ))
}

impl DatasetDescription {
    fn add_file(&mut self, data: &DataFile) -> Result<(), StageError> {
        let metadata = data.metadata()?;
        let file = metadata.file_metadata();
        let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
        if self.files == 0 {
            self.schema = schema;
        } else if self.schema.fields() != schema.fields() {
            self.different.push(data.location.clone());
        }
        self.files += 1;
        self.rows = self
            .rows
            .saturating_add(u64::try_from(file.num_rows()).unwrap_or(0));
        self.bytes += data.entry.size;
        match ProvenanceFooter::from_metadata(&data.location, &metadata)? {
            Some(ProvenanceFooter {
                identity,
                version,
                coverage,
            }) => {
                self.add_writer(identity, Some(version));
                self.coverage.union(&coverage);
            }
            None => self.foreign += 1,
        }
        Ok(())
    }

    /// Adds a writer, unless it is already present. The version is `None` for writers from the
    /// snapshot, which does not store it.
    fn add_writer(&mut self, identity: OutputIdentity, version: Option<String>) {
        let known = |(other, theirs): &(OutputIdentity, Option<String>)| {
            other.is_same(&identity) && (version.is_none() || *theirs == version)
        };
        if !self.writers.iter().any(known) {
            self.writers.push((identity, version));
        }
    }
}

/// Adds the values of a file's error columns to their distributions.
fn read_errors(
    file: &DataFile,
    errors: &mut BTreeMap<String, Distribution>,
) -> Result<(), StageError> {
    let failed = |error: String| {
        StageError::new(
            ErrorCode::DatasetCorrupt,
            format!("{}: {error}", file.location),
        )
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.open()?)
        .map_err(|error| failed(error.to_string()))?;
    let is_error =
        |data_type: &DataType| matches!(data_type, DataType::Float32 | DataType::Float64);
    let columns = reader.schema().fields().iter().enumerate();
    let columns = columns.filter(|(_, field)| {
        error_columns().any(|name| name == field.name()) && is_error(field.data_type())
    });
    let indices: Vec<usize> = columns.map(|(index, _)| index).collect();
    if indices.is_empty() {
        return Ok(());
    }
    let mask = ProjectionMask::roots(reader.parquet_schema(), indices);
    let batches = reader
        .with_projection(mask)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    for batch in batches {
        let batch = batch.map_err(|error| failed(error.to_string()))?;
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let distribution = errors.entry(field.name().clone()).or_default();
            floats(column).for_each(|value| distribution.add(value));
        }
    }
    Ok(())
}

/// The values of a column without nulls.
fn floats(column: &ArrayRef) -> impl Iterator<Item = f64> {
    let single = column
        .as_primitive_opt::<Float32Type>()
        .into_iter()
        .flatten()
        .flatten()
        .map(f64::from);
    single.chain(
        column
            .as_primitive_opt::<Float64Type>()
            .into_iter()
            .flatten()
            .flatten(),
    )
}

#[cfg(test)]
mod tests;
