//! Samples a dataset for its report in bounded memory: evenly spaced errors and latents, the most
//! unusual records, and the number of rows per source.

mod anomalies;
mod columns;

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema, UInt64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::columns::rejects::{CODE, RECORDS, STAGE};
use crate::columns::{ROW, SOURCE};
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::report::dataset_sample::anomalies::TopAnomalies;
use crate::report::dataset_sample::columns::SampledColumns;
use crate::sink::dataset::data_files::{DataFile, data_files};
use crate::sink::dataset::rewrite_commit::shared_read_lock;
use crate::storage::Location;
use crate::tensor::fixed_values;

/// Maximum number of rows whose errors are read.
const MAX_ERRORS: u64 = 100_000;
/// Maximum number of rows whose latents are read.
const MAX_CODES: u64 = 4000;
/// Maximum number of values of all latents: 64 MiB.
const MAX_VALUES: usize = 1 << 24;
/// Maximum number of sources that are counted separately.
const MAX_SOURCES: usize = 50_000;
/// Maximum number of characters of a stored label or source.
const MAX_LABEL_CHARS: usize = 512;
/// A sample of a dataset.
#[derive(Debug, Default)]
pub(super) struct DatasetSample {
    /// The names and values of the columns of errors.
    pub(super) errors: Vec<(String, Vec<f64>)>,
    /// Latents of evenly spaced rows.
    pub(super) codes: Option<SampledLatents>,
    /// The most unusual records.
    pub(super) anomalies: TopAnomalies,
    /// Number of rows by source.
    pub(super) sources: BTreeMap<String, u64>,
    /// Number of rows of all sources beyond the first [`MAX_SOURCES`].
    pub(super) other_sources: u64,
}

/// Latents with the labels and errors of their records.
#[derive(Debug)]
pub(super) struct SampledLatents {
    pub(super) column: String,
    pub(super) size: usize,
    pub(super) values: Vec<f32>,
    pub(super) labels: Vec<Option<String>>,
    /// The values of the first column of errors.
    pub(super) errors: Vec<Option<f64>>,
    /// The source and the row of each record, as far as the dataset has them.
    pub(super) origins: Vec<[Option<String>; 2]>,
}

/// Samples a dataset of `rows` rows with the columns of `schema`.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn sample_dataset(
    location: &Location,
    schema: &Schema,
    rows: u64,
) -> Result<DatasetSample, StageError> {
    let columns = SampledColumns::from_schema(schema);
    let mut scan = DatasetSample {
        errors: columns
            .errors
            .iter()
            .map(|name| (name.clone(), Vec::new()))
            .collect(),
        codes: columns.codes.clone().map(|(column, size)| SampledLatents {
            column,
            size,
            values: Vec::new(),
            labels: Vec::new(),
            errors: Vec::new(),
            origins: Vec::new(),
        }),
        anomalies: TopAnomalies::new(&columns.errors),
        ..DatasetSample::default()
    };
    let (mut first, _still) = (0, shared_read_lock(location));
    for file in files(location)? {
        read(&file, &columns.names(), &mut |records| {
            scan.add(&columns, records, (first, rows));
            first += records.num_rows() as u64;
        })?;
    }
    Ok(scan)
}

/// Counts the rejected records by stage and reject code in the rejects dataset at `location`.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn rejects(location: &Location) -> Result<BTreeMap<(String, String), u64>, StageError> {
    let (mut counts, _still) = (BTreeMap::new(), shared_read_lock(location));
    for file in data_files(location)? {
        read(
            &file,
            &[STAGE, CODE, RECORDS].map(str::to_owned),
            &mut |records| {
                let [stages, codes] = [STAGE, CODE].map(|name| text_column(records, name));
                let numbers = records
                    .column_by_name(RECORDS)
                    .and_then(|column| column.as_primitive_opt::<UInt64Type>());
                for row in 0..records.num_rows() {
                    let text = |column: &Option<ArrayRef>| {
                        text_value(column.as_ref(), row).unwrap_or_default()
                    };
                    let count: &mut u64 = counts.entry((text(&stages), text(&codes))).or_default();
                    *count = count.saturating_add(numbers.map_or(1, |numbers| numbers.value(row)));
                }
            },
        )?;
    }
    Ok(counts)
}

fn files(location: &Location) -> Result<Vec<DataFile>, StageError> {
    match location.file()? {
        Some(entry) => Ok(vec![DataFile {
            location: location.clone(),
            entry,
        }]),
        None => data_files(location),
    }
}

/// Reads the named columns of a file, as far as it has them, and calls `work` for each batch.
fn read(
    file: &DataFile,
    names: &[String],
    work: &mut dyn FnMut(&RecordBatch),
) -> Result<(), StageError> {
    let named = |error: String| {
        StageError::new(
            ErrorCode::DatasetCorrupt,
            format!("{}: {error}", file.location),
        )
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.open()?)
        .map_err(|error| named(error.to_string()))?;
    let fields = reader.schema().fields().iter().enumerate();
    let indices: Vec<usize> = fields
        .filter(|(_, field)| names.contains(field.name()))
        .map(|(index, _)| index)
        .collect();
    let mask = ProjectionMask::roots(reader.parquet_schema(), indices);
    for records in reader
        .with_projection(mask)
        .build()
        .map_err(|error| named(error.to_string()))?
    {
        work(&records.map_err(|error| named(error.to_string()))?);
    }
    Ok(())
}

impl DatasetSample {
    /// Adds records; `first` is the position of the first of them among `all` records.
    fn add(&mut self, columns: &SampledColumns, records: &RecordBatch, (first, all): (u64, u64)) {
        let floats = |name: &str| {
            let column = records.column_by_name(name)?;
            cast(column, &DataType::Float64).ok()
        };
        let errors: Vec<Option<ArrayRef>> =
            columns.errors.iter().map(|name| floats(name)).collect();
        let error = |column: Option<&Option<ArrayRef>>, row: usize| {
            let column = column?.as_ref()?.as_primitive_opt::<Float64Type>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let [sources, rows] = [SOURCE, ROW].map(|name| text_column(records, name));
        self.anomalies.add(records, [&sources, &rows], first);
        let labels = columns
            .label
            .as_ref()
            .and_then(|name| text_column(records, name));
        let few = self.codes.as_ref().map_or(0, |codes| {
            MAX_CODES.min((MAX_VALUES / codes.size.max(1)) as u64)
        });
        for row in 0..records.num_rows() {
            let index = first + row as u64;
            if is_selected(index, MAX_ERRORS, all) {
                for (column, (_, values)) in errors.iter().zip(&mut self.errors) {
                    values.extend(error(Some(column), row).filter(|value| value.is_finite()));
                }
            }
            self.count(text_value(sources.as_ref(), row));
            let code = columns.codes.as_ref().and_then(|(name, size)| {
                let column = records
                    .column_by_name(name)
                    .filter(|column| column.is_valid(row))?;
                fixed_values(column)?.get(row * size..(row + 1) * size)
            });
            if let (Some(codes), Some(code), true) =
                (&mut self.codes, code, is_selected(index, few, all))
            {
                codes.values.extend_from_slice(code);
                codes.labels.push(text_value(labels.as_ref(), row));
                codes.errors.push(error(errors.first(), row));
                let origin = [&sources, &rows].map(|column| text_value(column.as_ref(), row));
                codes.origins.push(origin);
            }
        }
    }

    fn count(&mut self, source: Option<String>) {
        let Some(source) = source else { return };
        if let Some(count) = self.sources.get_mut(&source) {
            *count += 1;
        } else if self.sources.len() < MAX_SOURCES {
            self.sources.insert(source, 1);
        } else {
            self.other_sources += 1;
        }
    }
}

/// Whether item `n` of `all` is among `few` evenly spaced items.
fn is_selected(n: u64, few: u64, all: u64) -> bool {
    let before = |index: u64| u128::from(index) * u128::from(few) / u128::from(all.max(1));
    few >= all || before(n + 1) > before(n)
}

/// Converts a column of any type to text.
fn text_column(records: &RecordBatch, name: &str) -> Option<ArrayRef> {
    cast(records.column_by_name(name)?, &DataType::Utf8).ok()
}

fn text_value(column: Option<&ArrayRef>, row: usize) -> Option<String> {
    let column = column?.as_string_opt::<i32>()?;
    column
        .is_valid(row)
        .then(|| column.value(row).chars().take(MAX_LABEL_CHARS).collect())
}
