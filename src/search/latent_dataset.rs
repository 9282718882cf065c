//! The files of a dataset with their latents, and the row groups in which they are read.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};

use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::search::latent_column::{default_column, invalid, is_vector, unknown_column};
use crate::search::model_digests::ModelDigests;
use crate::sink::OutputIdentity;
use crate::sink::dataset::data_files::{DataFile, data_files};
use crate::sink::dataset::inspect::check_output;
use crate::sink::dataset::rewrite_commit::shared_read_lock;
use crate::sink::parquet::footer::ProvenanceFooter;
use crate::source::table::parquet::types::{Int96Unit, metadata_as_read};
use crate::storage::Location;

/// Number of values of a batch of latents: 4 MiB.
const BATCH_VALUES: usize = 1 << 20;
/// Maximum number of rows of a batch.
const BATCH_ROWS: usize = 8192;

/// A dataset with a column of latents. A row is named by its position, counted from 0 over the files
/// in the order of their names.
pub(crate) struct LatentDataset {
    pub(crate) location: Location,
    /// The name of the column of latents.
    pub(crate) column: String,
    /// The number of values of a latent.
    pub(crate) width: usize,
    /// The number of rows of all files.
    pub(crate) rows: u64,
    pub(super) files: Vec<LatentFile>,
    /// The writers of the files.
    pub(crate) writers: Vec<OutputIdentity>,
    /// Keeps a compaction from replacing files while they are read.
    _lock: Option<File>,
}

/// A file of a dataset.
pub(super) struct LatentFile {
    file: DataFile,
    /// The position of its first row.
    pub(super) first: u64,
    /// The number of rows of each row group.
    pub(super) groups: Vec<u64>,
    /// The index of its writer; `None` if another program wrote it.
    pub(super) writer: Option<usize>,
    /// Whether the file has the column of latents.
    pub(super) has_latents: bool,
}

impl LatentFile {
    pub(super) fn rows(&self) -> u64 {
        self.groups.iter().sum()
    }

    /// The metadata of the file, with the types that its columns are read as.
    pub(super) fn metadata(&self) -> Result<ArrowReaderMetadata, StageError> {
        read_metadata(&self.file)
    }

    /// Opens a reader of some columns: of one row group, or of all of them.
    pub(super) fn reader(
        &self,
        metadata: ArrowReaderMetadata,
        is_read: &dyn Fn(&Field) -> bool,
        part: FilePart,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader, StageError> {
        let fields = metadata.schema().fields().iter().enumerate();
        let roots: Vec<usize> = fields
            .filter(|(_, field)| is_read(field))
            .map(|(index, _)| index)
            .collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let input = self.file.open()?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(input, metadata)
            .with_projection(mask)
            .with_batch_size(batch_rows);
        let reader = match part {
            FilePart::Group(group) => reader.with_row_groups(vec![group]),
            FilePart::Rows(rows) => reader.with_row_selection(rows),
        };
        reader.build().map_err(|error| self.corrupt(&error))
    }

    /// The error of a file whose content cannot be read.
    pub(super) fn corrupt(&self, error: &dyn std::fmt::Display) -> StageError {
        corrupt(&self.file, error)
    }
}

/// The rows of a file that are read.
pub(super) enum FilePart {
    /// Those of a row group.
    Group(usize),
    /// Some of all rows.
    Rows(RowSelection),
}

fn corrupt(file: &DataFile, error: &dyn std::fmt::Display) -> StageError {
    let message = format!("{}: cannot be read: {error}", file.location);
    StageError::new(ErrorCode::DatasetCorrupt, message)
}

fn read_metadata(file: &DataFile) -> Result<ArrowReaderMetadata, StageError> {
    metadata_as_read(Arc::new(file.metadata()?), Int96Unit::default())
        .map_err(|error| corrupt(file, &error))
}

impl LatentDataset {
    /// Opens the Parquet files directly in a folder, or one Parquet file. `column` is the column of
    /// latents; by default `latent`, or the only column of vectors.
    ///
    /// # Errors
    /// If there are no rows, the column cannot be determined, or files have latents of different
    /// sizes.
    pub fn open(location: &Location, column: Option<&str>) -> Result<Self, StageError> {
        let lock = shared_read_lock(location);
        let found = match location.file()? {
            Some(entry) => vec![DataFile {
                location: location.clone(),
                entry,
            }],
            None => data_files(location)?,
        };
        if found.is_empty() {
            check_output(location)
                .map_err(|error| StageError::new(error.code(), format!("{location}: {error}")))?;
        }
        let mut dataset = Self {
            location: location.clone(),
            column: column.unwrap_or_default().to_owned(),
            width: 0,
            rows: 0,
            files: Vec::new(),
            writers: Vec::new(),
            _lock: lock,
        };
        let mut has_column = false;
        for file in found {
            has_column |= dataset.add_file(file)?;
        }
        match (dataset.files.first(), dataset.width) {
            (None, _) => Err(invalid(format!("{location}: has no rows"))),
            (Some(file), 0) if !has_column => Err(unknown_column(
                &file.file.location,
                file.metadata()?.schema(),
                column,
            )),
            _ if dataset.rows == 0 => Err(invalid(format!("{location}: has no rows"))),
            (_, 0) => Err(invalid(format!("{location}: has no latents"))),
            _ => Ok(dataset),
        }
    }

    /// Adds a file, and returns whether it has the column of latents. A file of an earlier run may lack
    /// a column that was added later.
    fn add_file(&mut self, file: DataFile) -> Result<bool, StageError> {
        let metadata = read_metadata(&file)?;
        let groups = metadata.metadata().row_groups().iter();
        let groups: Vec<u64> = groups
            .map(|group| u64::try_from(group.num_rows()).unwrap_or_default())
            .collect();
        let footer = ProvenanceFooter::from_metadata(&file.location, metadata.metadata())?;
        let writer = footer.map(|footer| self.writer(footer.identity));
        let mut latents = LatentFile {
            file,
            first: self.rows,
            groups,
            writer,
            has_latents: false,
        };
        let schema = metadata.schema();
        if self.column.is_empty() {
            self.column = default_column(&latents.file.location, schema)?.unwrap_or_default();
        }
        let field = schema.field_with_name(&self.column).ok();
        let has_column = field.is_some();
        match field.map(|field| (field, is_vector(field))) {
            None => {}
            Some((_, true)) if latents.rows() == 0 => {}
            Some((field, true)) => {
                let width = match field.data_type() {
                    DataType::FixedSizeList(_, width) => usize::try_from(*width).unwrap_or(0),
                    _ => self.list_width(&latents, metadata.clone())?,
                };
                latents.has_latents = width > 0;
                if width > 0 && self.width > 0 && width != self.width {
                    return Err(invalid(format!(
                        "{}: `{}` holds {width} values, but {} in earlier files; latents of \
                         different sizes have no distance",
                        latents.file.location, self.column, self.width
                    )));
                }
                self.width = self.width.max(width);
            }
            Some((field, false)) => {
                return Err(invalid(format!(
                    "{}: the column `{}` has the type {}; expected lists of numbers of one length",
                    latents.file.location,
                    self.column,
                    field.data_type()
                )));
            }
        }
        self.rows += latents.rows();
        self.files.push(latents);
        Ok(has_column)
    }

    /// The index of a writer, which is added unless it is known.
    fn writer(&mut self, identity: OutputIdentity) -> usize {
        let known = self.writers.iter().position(|known| *known == identity);
        known.unwrap_or_else(|| {
            self.writers.push(identity);
            self.writers.len() - 1
        })
    }

    /// The length of the first list of a file; 0 if all are null or empty.
    fn list_width(
        &self,
        file: &LatentFile,
        metadata: ArrowReaderMetadata,
    ) -> Result<usize, StageError> {
        for group in 0..file.groups.len() {
            let is_read = |field: &Field| *field.name() == self.column;
            let reader = file.reader(metadata.clone(), &is_read, FilePart::Group(group), 64)?;
            for records in reader {
                let records = records.map_err(|error| file.corrupt(&error))?;
                let lists = records.column(0);
                let len = |row: usize| match lists.data_type() {
                    DataType::LargeList(_) => lists.as_list::<i64>().value(row).len(),
                    _ => lists.as_list::<i32>().value(row).len(),
                };
                let mut lens = (0..lists.len()).filter(|&row| lists.is_valid(row)).map(len);
                if let Some(found) = lens.find(|&own| own > 0) {
                    return Ok(found);
                }
            }
        }
        Ok(0)
    }

    /// The number of rows of a batch of latents.
    pub(super) fn batch_rows(&self) -> usize {
        (BATCH_VALUES / self.width.max(1)).clamp(1, BATCH_ROWS)
    }

    /// The index of the file of a row; `None` for a position after the last one.
    pub(super) fn file_at(&self, position: u64) -> Option<usize> {
        let after = self.files.partition_point(|file| file.first <= position);
        (position < self.rows).then(|| after.saturating_sub(1))
    }

    /// The models that wrote the file with this index; `None` if another program wrote it.
    pub(super) fn models_of(&self, file: usize) -> Option<ModelDigests> {
        let writer = self.files.get(file)?.writer?;
        Some(ModelDigests::new(&self.writers.get(writer)?.models))
    }
}
