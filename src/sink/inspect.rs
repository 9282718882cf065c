//! The description of a Parquet dataset: rows, columns, provenance, and the distribution of errors.

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};

use crate::coverage::{Coverage, RangeSet};
use crate::error::StageError;
use crate::schema_display::write_columns;
use crate::shard::first_and_last_folder;
use crate::sink::coverage_snapshot::CoverageSnapshot;
use crate::sink::data_files::{DataFile, data_files};
use crate::sink::provenance_footer::ProvenanceFooter;
use crate::sink::rewrite_commit::shared_read_lock;
use crate::sink::shard_marker::shard_count;
use crate::sink::summary_stats::{Distribution, SummaryStats};
use crate::sink::{OutputIdentity, STATE_DIR};
use crate::storage::Location;
use crate::text_escape::line;
use crate::units::ByteSize;

/// The names of numeric columns that measure how well a record was reconstructed.
pub const ERRORS: [&str; 7] = [
    "reconstruction_error",
    "zscore",
    "mse",
    "bce",
    "mae",
    "psnr",
    "ssim",
];

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
fn check_output(location: &Location) -> Result<(), StageError> {
    if let Some(count) = shard_count(location)? {
        let (first, _) = first_and_last_folder(count);
        return Err(StageError::Other(format!(
            "holds the output of {count} shards; name the folder of one of them, such as \
             {location}/{first}"
        )));
    }
    if location.join(STATE_DIR).is_folder()? {
        return Ok(());
    }
    Err(StageError::Other(
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
    let failed = |error: String| StageError::Other(format!("{}: {error}", file.location));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.open()?)
        .map_err(|error| failed(error.to_string()))?;
    let is_error =
        |data_type: &DataType| matches!(data_type, DataType::Float32 | DataType::Float64);
    let columns = reader.schema().fields().iter().enumerate();
    let columns = columns.filter(|(_, field)| {
        ERRORS.contains(&field.name().as_str()) && is_error(field.data_type())
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

impl fmt::Display for DatasetDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.location)?;
        writeln!(
            f,
            "rows         {} in {} of {}",
            self.rows,
            count(self.files, "file"),
            ByteSize(self.bytes)
        )?;
        if self.files > 0 {
            writeln!(f, "columns")?;
            write_columns(f, &self.schema)?;
        }
        for file in &self.different {
            writeln!(f, "             {file} has other columns")?;
        }
        self.write_errors(f)?;
        self.write_origin(f)
    }
}

/// Maximum number of splits, and of ranges of each split, that the text lists.
const MAX_SHOWN: usize = 12;

impl DatasetDescription {
    fn write_errors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return Ok(());
        }
        let width = self
            .errors
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let head = ["count", "mean", "std", "min", "p50", "p99", "max"];
        let head: String = head.iter().map(|name| format!("  {name:>12}")).collect();
        writeln!(f, "errors\n    {:width$}{head}", "")?;
        for (name, summary) in &self.errors {
            let SummaryStats {
                count,
                not_finite,
                mean,
                std,
                min,
                p50,
                p99,
                max,
                exact,
            } = summary;
            write!(f, "    {name:width$}  {count:>12}")?;
            for value in [mean, std, min, p50, p99, max] {
                write!(f, "  {:>12}", short(*value))?;
            }
            let estimated = if *exact {
                ""
            } else {
                "  (quantiles within 1 %)"
            };
            let infinite = if *not_finite == 0 {
                String::new()
            } else {
                format!("  ({not_finite} not finite)")
            };
            writeln!(f, "{estimated}{infinite}")?;
        }
        Ok(())
    }

    fn write_origin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.foreign {
            0 => {}
            all if all == self.files && self.writers.is_empty() => {
                return writeln!(f, "provenance   none: not written by latentflow");
            }
            some => writeln!(
                f,
                "provenance   none of {}: not written by latentflow",
                count(some, "file")
            )?,
        }
        for (identity, version) in &self.writers {
            writeln!(
                f,
                "pipeline     {}, stage {}",
                line(&identity.pipeline),
                line(&identity.stage)
            )?;
            writeln!(f, "digest       {}", line(&identity.digest))?;
            for (name, digest) in &identity.models {
                writeln!(f, "model        {} {}", line(name), line(digest))?;
            }
            if let Some(version) = version {
                writeln!(f, "version      latentflow {}", line(version))?;
            }
        }
        let splits = self.coverage.splits();
        writeln!(
            f,
            "source rows  {} of {}",
            self.coverage.len(),
            count(splits.len() as u64, "split")
        )?;
        for (name, rows) in splits.iter().take(MAX_SHOWN) {
            writeln!(f, "    {}: {}", line(name), ranges(rows))?;
        }
        match splits.len() {
            all if all > MAX_SHOWN => writeln!(f, "    ... and {} more", all - MAX_SHOWN),
            _ => Ok(()),
        }
    }
}

/// The text of half-open ranges, such as `0..12, 20..22`.
fn ranges(rows: &RangeSet) -> String {
    let shown = rows
        .ranges()
        .iter()
        .take(MAX_SHOWN)
        .map(|range| format!("{}..{}", range.start, range.end));
    let mut parts: Vec<String> = shown.collect();
    if rows.ranges().len() > MAX_SHOWN {
        parts.push(format!("... and {} more", rows.ranges().len() - MAX_SHOWN));
    }
    parts.join(", ")
}

fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A number with six digits, and with an exponent if it is very small or very large.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e6).contains(&size) => format!("{value:.6}"),
        _ => format!("{value:.5e}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{Float32Array, RecordBatch, StringArray};
    use arrow::datatypes::Field;
    use expect_test::expect;
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::batch::{Batch, Provenance, Split};
    use crate::sink::parquet::ParquetSinkConfig;
    use crate::tensor::{fixed_column, vector_field};

    fn records(errors: &[f32]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("source", DataType::Utf8, false),
            vector_field("latent", 2),
            Field::new("reconstruction_error", DataType::Float32, false),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(
                errors.iter().map(|error| format!("{error}.png")),
            )),
            fixed_column(2, vec![0.5; errors.len() * 2]).unwrap(),
            Arc::new(Float32Array::from(errors.to_vec())),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn run(path: &Path, digest: &str, from: u64, batches: &[&[f32]]) {
        let identity = OutputIdentity {
            pipeline: "photos".into(),
            stage: "out".into(),
            digest: digest.into(),
            models: BTreeMap::from([("photo".into(), "5eed".into())]),
            ..OutputIdentity::default()
        };
        let mut writer = ParquetSinkConfig::new(path)
            .sink(&records(&[]).schema())
            .unwrap()
            .open(identity)
            .unwrap();
        let split = Split::new("photos/listing-0");
        for (index, errors) in (0_u64..).zip(batches) {
            let start = from + index * 10;
            let provenance = Arc::new(Provenance::rows(Arc::clone(&split), start..start + 10));
            let row_ordinals = (0..u32::try_from(errors.len()).unwrap()).collect();
            writer
                .write(&Batch {
                    records: records(errors),
                    row_ordinals,
                    provenance,
                })
                .unwrap();
            writer.commit().unwrap();
        }
    }

    fn text(path: &Path) -> String {
        let text = describe(&path.into()).unwrap().to_string();
        // The size of files depends on the encoder and is not tested.
        let size = format!("of {}", ByteSize(describe(&path.into()).unwrap().bytes));
        text.replace(&path.display().to_string(), "DATASET")
            .replace(&size, "of SIZE")
    }

    #[test]
    fn description_has_content_and_provenance() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "d1", 0, &[&[0.5, 0.25, 1.0], &[], &[0.125]]);
        run(folder.path(), "d1", 50, &[&[f32::NAN], &[]]);
        expect![[r"
            DATASET
            rows         5 in 3 files of SIZE
            columns
                source                string
                latent                float32[2]
                reconstruction_error  float32
            errors
                                             count          mean           std           min           p50           p99           max
                reconstruction_error             4      0.468750      0.335119      0.125000      0.250000      0.500000      1.000000  (1 not finite)
            pipeline     photos, stage out
            digest       d1
            model        photo 5eed
            version      latentflow 0.1.0
            source rows  50 of 1 split
                photos/listing-0: 0..30, 50..70
        "]]
        .assert_eq(&text(folder.path()));
    }

    #[test]
    fn file_of_another_program_has_no_provenance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let records = records(&[0.0001]);
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), records.schema(), None).unwrap();
        writer.write(&records).unwrap();
        writer.close().unwrap();
        let text = text(&path);
        assert!(
            text.contains("provenance   none: not written by latentflow"),
            "{text}"
        );
        assert!(text.contains("1.00000e-4"), "{text}");
        assert!(!text.contains("source rows"), "{text}");
    }

    #[test]
    fn dataset_without_files_is_described_by_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "d1", 0, &[&[]]);
        let description = describe(&folder.path().into()).unwrap();
        assert_eq!(
            (
                description.files,
                description.rows,
                description.coverage.len()
            ),
            (0, 0, 10)
        );
        assert_eq!(description.writers.len(), 1);
    }

    #[test]
    fn writers_of_different_files_are_listed_separately() {
        let folder = tempfile::tempdir().unwrap();
        run(&folder.path().join("a"), "d1", 0, &[&[0.5]]);
        run(&folder.path().join("b"), "d2", 0, &[&[0.5]]);
        let moved = folder.path().join("a/other.parquet");
        std::fs::rename(folder.path().join("b/part-00000.parquet"), &moved).unwrap();
        let description = describe(&Location::from(folder.path()).join("a")).unwrap();
        let digests: Vec<&str> = description
            .writers
            .iter()
            .map(|(identity, _)| identity.digest.as_str())
            .collect();
        assert_eq!(digests, ["d2", "d1"]);
        assert!(description.different.is_empty());
    }

    #[test]
    fn folder_without_dataset_and_other_file_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            describe(&folder.path().into()).unwrap_err().to_string(),
            "expected Parquet files directly in this folder; found none"
        );
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "hello").unwrap();
        assert!(
            describe(&path.as_path().into())
                .unwrap_err()
                .to_string()
                .contains("notes.txt: invalid or truncated Parquet file")
        );
    }
}
