//! Infers the columns of delimited text from samples of all files.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema};

use super::dialect::{CsvDialect, RecordFramer};
use super::parser::{CsvParser, PlannedColumns};
use crate::batch::reject::RejectCode;
use crate::error::StageError;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::text::batch::TextBatch;
use crate::source::table::text::sample::{FileSample, infer_from_samples, visit_records};
use crate::source::table::text::seen_values::SeenValues;

/// The columns of files, with the kinds of their values.
#[derive(Debug, Default)]
pub(in crate::source) struct SeenColumns(Vec<(String, SeenValues)>);

impl SeenColumns {
    /// Adds a column, or the values of one that exists.
    pub(in crate::source) fn add(&mut self, name: &str, seen: SeenValues) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.merge(seen),
            None => self.0.push((name.to_owned(), seen)),
        }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The columns with the types that hold their values; [`DataType::Null`] without values.
    pub(in crate::source) fn fields(&self) -> Vec<Field> {
        let field = |(name, seen): &(String, SeenValues)| Field::new(name, seen.data_type(), true);
        self.0.iter().map(field).collect()
    }
}

/// Infers the columns of all files together, with notes for the user. Columns of later files follow
/// those of earlier ones.
/// `given` holds the names of the columns of files without a header.
///
/// # Errors
/// If no file has columns, or a file cannot be read because of an error of the process.
pub(super) fn infer(
    dialect: &CsvDialect,
    files: &[InputFile],
    given: Option<&[String]>,
) -> Result<(Schema, Vec<String>), StageError> {
    let mut columns = SeenColumns::default();
    if let Some(given) = given {
        for name in given {
            columns.add(name, SeenValues::default());
        }
    }
    let has_blocks = dialect.encoding.has_ascii_lines();
    let notes = infer_from_samples(files, has_blocks, |file, input, sample| {
        let mut framer = dialect.open(file, input)?;
        let Some(first) = dialect.unique_names_or_count(file, &mut framer)? else {
            return Ok(false);
        };
        if dialect.header {
            check_shared(file, &columns, &first)?;
            add_file(dialect, file, (framer, sample), first, &mut columns)?;
            return Ok(true);
        }
        if columns.0.is_empty() {
            for number in 1..=first.len() {
                columns.add(&format!("column_{number}"), SeenValues::default());
            }
        }
        // The first record is not a header; it was read to count the values of a record.
        let reopened = file.reopen().map_err(file.stopped())?;
        let from_start = dialect.open(file, reopened)?;
        let names = columns.names().cloned().collect();
        add_file(dialect, file, (from_start, sample), names, &mut columns)?;
        Ok(true)
    })?;
    // Text holds the values that a column without a value in the sample may have.
    let field = |field: Field| match field.data_type() {
        DataType::Null => field.with_data_type(DataType::Utf8),
        _ => field,
    };
    let fields = columns.fields().into_iter().map(field);
    Ok((Schema::new(fields.collect::<Vec<_>>()), notes))
}

/// Checks that a file has at least one column of the files before it.
fn check_shared(file: &InputFile, columns: &SeenColumns, names: &[String]) -> Result<(), ReadEnd> {
    let is_shared = columns.names().any(|name| names.contains(name));
    if is_shared || columns.0.is_empty() {
        return Ok(());
    }
    Err(file.unfit(RejectCode::Mismatch, NONE_SHARED, 1))
}

/// The reason why a file without a planned column is rejected.
pub(super) const NONE_SHARED: &str = "has none of the columns of the other files; correct its \
     header or its delimiter, or read it with a separate source";

/// Adds the columns of a file with the values of its sample.
fn add_file(
    dialect: &CsvDialect,
    file: &InputFile,
    (framer, sample): (RecordFramer<'_>, FileSample),
    names: Vec<String>,
    columns: &mut SeenColumns,
) -> Result<(), ReadEnd> {
    let fields = names
        .iter()
        .map(|name| Field::new(name, DataType::Utf8, true));
    let planned = PlannedColumns {
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        given: Arc::new(BTreeSet::new()),
        misfits: Arc::default(),
    };
    let parser = CsvParser::new(dialect.values.clone(), names.clone(), planned);
    let mut seen = vec![SeenValues::default(); names.len()];
    let mut observe = |batch: TextBatch| {
        let texts = batch.parse(&parser)?.records;
        for (column, kinds) in texts.columns().iter().zip(&mut seen) {
            for text in column.as_string::<i32>().iter().flatten() {
                kinds.merge(SeenValues::of_text(text, dialect.values.decimal));
            }
        }
        Ok(())
    };
    visit_records(file, framer, sample, &parser, &mut observe)?;
    for block in sample.blocks(file)? {
        let lines = dialect.frame_converted(block).map_err(file.stopped())?;
        visit_records(file, lines, sample, &parser, &mut observe)?;
    }
    for (name, kinds) in names.iter().zip(seen) {
        columns.add(name, kinds);
    }
    Ok(())
}

impl CsvDialect {
    /// The values of the first record: unique names if there is a header.
    fn unique_names_or_count(
        &self,
        file: &InputFile,
        framer: &mut RecordFramer<'_>,
    ) -> Result<Option<Vec<String>>, ReadEnd> {
        if self.header {
            self.unique_names(file, framer)
        } else {
            self.names(file, framer)
        }
    }

    /// A framer of a block of a file in the configured encoding.
    fn frame_converted(&self, block: Vec<u8>) -> std::io::Result<RecordFramer<'static>> {
        self.frame(self.encoding.convert(Cursor::new(block)))
    }
}
