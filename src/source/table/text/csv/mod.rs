//! The `csv` source reads records of delimited text (RFC 4180).

pub mod config;
mod dialect;
mod inference;
mod parser;

use std::collections::BTreeSet;

use arrow::datatypes::Field;
use parking_lot::Mutex;

use crate::batch::reject::RejectCode;
use crate::source::batch_limits::BatchLimits;
use crate::source::discovery::compression::Compression;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::file_source::{BatchOutput, FileFormat};
use crate::source::table::text::read_all;
use crate::storage::FileReader;

use dialect::CsvDialect;
use inference::NONE_SHARED;
use parser::PlannedColumns;

pub(in crate::source) use inference::SeenColumns;
pub(in crate::source) use parser::{CsvParser, StoredCsvFormat};

/// The format of planned CSV files.
struct CsvFormat {
    dialect: CsvDialect,
    batch_limits: BatchLimits,
    buffer_bytes: u64,
    planned: PlannedColumns,
    /// The columns of files that are not planned and that a warning has named.
    left_out: Mutex<BTreeSet<String>>,
}

impl FileFormat for CsvFormat {
    const EXTENSIONS: &'static [&'static str] = &["csv", "csv.gz", "csv.zst"];

    fn is_appendable(&self, file: &InputFile) -> bool {
        Compression::of_name(&file.name).is_none() && self.dialect.encoding.has_ascii_lines()
    }

    fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes
    }

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let mut framer = self.dialect.open(file, output.track(input))?;
        let names = if self.dialect.header {
            self.dialect.names(file, &mut framer)?
        } else {
            let planned = self.planned.schema.fields().iter();
            Some(planned.map(|field| field.name().clone()).collect())
        };
        let Some(names) = names else { return Ok(()) };
        let missing = match self.missing(&names) {
            Ok(missing) => missing,
            Err(what) => {
                let records = framer.count().map_err(file.stopped())?;
                return Err(file.unfit(RejectCode::Mismatch, &what, records));
            }
        };
        self.name_left_out(file, &names);
        let values = self.dialect.values.clone();
        let parser = CsvParser::new(values, names, self.planned.clone());
        let rows = read_all(framer, &parser, self.batch_limits, output)?;
        match missing {
            Some(name) if rows == 0 => {
                let what = format!(
                    "has no records, and its header does not have column `{name}`, so it may be \
                     truncated"
                );
                Err(file.unfit(RejectCode::Mismatch, &what, 1))
            }
            _ => Ok(()),
        }
    }

    fn finish(&self, stage: &str) {
        self.planned.misfits.report(stage);
    }
}

impl CsvFormat {
    /// The first planned column that a file with the columns `names` does not have, and whose
    /// values are null.
    ///
    /// # Errors
    /// A sentence that states why the records of the file cannot be read.
    fn missing(&self, names: &[String]) -> Result<Option<&str>, String> {
        let times = |field: &Field| names.iter().filter(|name| *name == field.name()).count();
        let fields = self.planned.schema.fields();
        if let Some(field) = fields.iter().find(|field| times(field) > 1) {
            return Err(format!(
                "duplicate column `{}`; names must be unique",
                field.name()
            ));
        }
        let missing: Vec<_> = fields.iter().filter(|field| times(field) == 0).collect();
        if missing.len() == fields.len() {
            return Err(NONE_SHARED.to_owned());
        }
        Ok(missing.first().map(|field| field.name().as_str()))
    }

    /// Warns once of each column that is not planned, because it was not in the sampled files.
    fn name_left_out(&self, file: &InputFile, names: &[String]) {
        let mut named = self.left_out.lock();
        for name in names {
            let is_planned = self.planned.schema.column_with_name(name).is_some();
            if !is_planned && named.insert(name.clone()) {
                tracing::warn!(
                    path = %file.name,
                    column = %name,
                    "a column that the sampled files do not have is left out"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
