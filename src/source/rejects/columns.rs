//! The columns of a rejects dataset, and the originals in them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{SchemaRef, UInt64Type};

use crate::batch::reject::RecordLayout;
use crate::columns::rejects::{CODE, FORMAT, RECORD, RECORDS, SPLIT, STAGE};
use crate::columns::{ROW, SOURCE};
use crate::source::discovery::file_reference::{FileReference, ReferenceReadError};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::rejects::format::OriginalFormat;
use crate::source::rejects::{image_schema, text_originals};
use crate::source::table::arrow_ipc::bounded_reader::{BoundedIpcReader, IpcBounds};
use crate::source::table::file_source::read_end::catch_panic;

/// The reason why a reject without its original cannot be read again.
pub(crate) const NO_ORIGINAL: &str = "its original is not stored, because the source had none, \
     `rejects.record` is false, or the original was purged; read the source again";

/// The columns of a batch of rejects.
pub(super) struct RejectColumns<'a> {
    pub(super) batch: &'a RecordBatch,
    pub(super) split: &'a StringArray,
    stage: &'a StringArray,
    pub(super) code: &'a StringArray,
    pub(super) format: &'a StringArray,
    pub(super) record: &'a BinaryArray,
}

impl<'a> RejectColumns<'a> {
    pub(super) fn from_batch(batch: &'a RecordBatch) -> Option<Self> {
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
        let record = batch.column_by_name(RECORD)?.as_binary_opt::<i32>()?;
        let [split, stage, code, format] = [text(SPLIT)?, text(STAGE)?, text(CODE)?, text(FORMAT)?];
        Some(Self {
            batch,
            split,
            stage,
            code,
            format,
            record,
        })
    }

    /// The stage of the source of the record.
    pub(super) fn from(&self, row: usize) -> &'a str {
        self.split.value(row).split('/').next().unwrap_or_default()
    }

    /// The name of the input of the record and its row in the input.
    pub(super) fn origin(&self, row: usize) -> Option<(String, u64)> {
        let source = self.batch.column_by_name(SOURCE)?.as_string_opt::<i32>()?;
        let rows = self
            .batch
            .column_by_name(ROW)?
            .as_primitive_opt::<UInt64Type>()?;
        Some((source.value(row).to_owned(), rows.value(row)))
    }

    /// The number of records that the reject represents.
    pub(super) fn records(&self, row: usize) -> u64 {
        let counts = self
            .batch
            .column_by_name(RECORDS)
            .and_then(|column| column.as_primitive_opt::<UInt64Type>());
        counts
            .filter(|counts| counts.is_valid(row))
            .map_or(1, |counts| counts.value(row))
    }

    pub(super) fn matches(&self, filter: &RejectFilter, row: usize) -> bool {
        let is_included = |names: &Option<Vec<String>>, name: &str| {
            names
                .as_ref()
                .is_none_or(|names| names.iter().any(|included| included == name))
        };
        self.from(row) == filter.from
            && is_included(&filter.stages, self.stage.value(row))
            && is_included(&filter.codes, self.code.value(row))
    }

    /// The columns of the record, if its original is stored.
    pub(super) fn schema(&self, row: usize) -> Option<SchemaRef> {
        if self.is(row, OriginalFormat::Image) || self.is(row, OriginalFormat::File) {
            return Some(image_schema());
        }
        let record = self
            .is(row, OriginalFormat::Arrow)
            .then(|| self.record.value(row))?;
        catch_panic(|| BoundedIpcReader::bounded(record, STORED_RECORD))
            .ok()
            .map(|messages| Arc::clone(messages.schema()))
    }

    /// The format of a stored text record that can be parsed again.
    pub(super) fn text_format(&self, row: usize) -> Option<OriginalFormat> {
        [OriginalFormat::Json, OriginalFormat::Csv]
            .into_iter()
            .find(|format| self.is(row, *format))
    }

    /// The stored record of a reject, and how it can be read again.
    pub(super) fn original(&self, row: usize) -> (Option<Vec<u8>>, RecordLayout) {
        let record = self.record.is_valid(row).then(|| self.record.value(row));
        match (record, self.text_format(row)) {
            (Some(stored), Some(OriginalFormat::Csv)) => {
                let (description, line) = text_originals::split_bytes(stored);
                let description = String::from_utf8_lossy(description);
                (Some(line.to_vec()), RecordLayout::Csv(description.into()))
            }
            (Some(stored), Some(_)) => (Some(stored.to_vec()), RecordLayout::Json),
            (record, _) => (record.map(<[u8]>::to_vec), RecordLayout::Unparsed),
        }
    }

    pub(super) fn is(&self, row: usize, format: OriginalFormat) -> bool {
        self.format.is_valid(row)
            && self.record.is_valid(row)
            && self.format.value(row) == format.as_str()
    }

    /// Reads the image in the file that a record refers to, or returns why it cannot be read again.
    ///
    /// # Errors
    /// If the file cannot be read now.
    pub(super) fn read_file(
        &self,
        row: usize,
        limit: u64,
    ) -> Result<Result<RecordBatch, String>, ReadEnd> {
        let Some(reference) = FileReference::from_json(self.record.value(row)) else {
            return Ok(Err("the record is not a reference to a file".to_owned()));
        };
        let image = match reference.read(limit) {
            Ok(image) => image,
            Err(ReferenceReadError::Refused(why)) => return Ok(Err(why)),
            Err(ReferenceReadError::Unavailable(unavailable)) => return Err(unavailable.into()),
        };
        let image: ArrayRef = Arc::new(BinaryArray::from_iter_values([image]));
        let part = |name: &str| {
            self.batch
                .column_by_name(name)
                .map(|column| column.slice(row, 1))
        };
        let columns = [part(SOURCE), part(ROW), Some(image)]
            .into_iter()
            .flatten()
            .collect();
        Ok(RecordBatch::try_new(image_schema(), columns).map_err(|error| error.to_string()))
    }

    /// Decodes the record as its source read it, or returns why it cannot be read again.
    pub(super) fn read(&self, row: usize, schema: &SchemaRef) -> Result<RecordBatch, String> {
        if self.is(row, OriginalFormat::Image) && *schema == image_schema() {
            let image: ArrayRef = Arc::new(self.record.slice(row, 1));
            let part = |name: &str| {
                self.batch
                    .column_by_name(name)
                    .map(|column| column.slice(row, 1))
            };
            let columns = [part(SOURCE), part(ROW), Some(image)]
                .into_iter()
                .flatten()
                .collect();
            return RecordBatch::try_new(Arc::clone(schema), columns)
                .map_err(|error| error.to_string());
        }
        if self.is(row, OriginalFormat::Line) {
            return Err(
                "the record is a line of text that its source did not parse; correct it and read \
                 it with a source of its format"
                    .to_owned(),
            );
        }
        if !self.is(row, OriginalFormat::Arrow) {
            return Err(NO_ORIGINAL.to_owned());
        }
        let record = catch_panic(|| {
            BoundedIpcReader::bounded(self.record.value(row), STORED_RECORD)?.next()
        });
        match record {
            Ok(Some(record)) => {
                text_originals::convert(&record, schema).map_err(|error| error.to_string())
            }
            Ok(None) => Err("the stored record is empty".to_owned()),
            Err((_, what)) => Err(format!("the stored record is damaged: {what}")),
        }
    }
}

/// The bounds of a stored record. Its size is not bounded, since the record was in memory when it
/// was stored; the size of its decompressed content is.
const STORED_RECORD: IpcBounds = IpcBounds::of_file(u64::MAX, 256 << 20);

/// The selection of rejects to be read.
pub(super) struct RejectFilter {
    pub(crate) from: String,
    pub(crate) stages: Option<Vec<String>>,
    pub(crate) codes: Option<Vec<String>>,
}
