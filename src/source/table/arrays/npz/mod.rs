//! The `npz` source reads arrays of NumPy archives (.npz) and files (.npy), one record per index of
//! their first dimension.

pub(crate) mod config;
pub(crate) mod container;
pub(crate) mod found_array;

use arrow::datatypes::SchemaRef;

use crate::batch::reject::RejectCode;
use crate::plan_context::PipelineLimits;
use crate::schema_unification::accepts;
use crate::source::batch_size::BatchSize;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::arrays::JoinedArrays;
use crate::source::table::arrays::header::ArrayHeader;
use crate::source::table::arrays::npz::container::{ArrayContainer, too_large};
use crate::source::table::arrays::npz::found_array::FoundArray;
use crate::source::table::arrays::reader::read_together;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::file_source::{BatchOutput, FileFormat, absent_column, different_column};
use crate::storage::FileReader;

/// The format of planned NumPy files.
struct NpzFormat {
    arrays: Vec<String>,
    schema: SchemaRef,
    batch: BatchSize,
    limits: PipelineLimits,
    /// Maximum memory in bytes for arrays whose records are scattered.
    max_buffer_bytes: u64,
    /// The memory in bytes for these arrays of the largest file.
    buffer_bytes: u64,
}

impl FileFormat for NpzFormat {
    const EXTENSIONS: &'static [&'static str] = &["npz", "npy"];

    fn read(
        &self,
        file: &InputFile,
        input: FileReader,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let handle = input.try_clone().map_err(file.stopped())?;
        let check = || file.check_available(&handle);
        let opened = catch_panic(|| {
            let container = ArrayContainer::open(input)?;
            let found = container
                .find(Some(&self.arrays))?
                .map_err(|fault| fault.message)?;
            Ok::<_, String>((container, found))
        });
        let (container, found) = match opened {
            Ok(opened) => opened,
            Err((code, what)) => {
                check()?;
                return output.reject_rest(0, code, &what);
            }
        };
        let rows = found
            .iter()
            .map(|array| array.header.rows)
            .max()
            .unwrap_or(0);
        for (planned, array) in self.schema.fields().iter().zip(&found) {
            let field = array.field();
            let compared = if planned.name() == field.name() {
                accepts(planned, &field).map_err(|conflict| different_column(&conflict))
            } else {
                Err(absent_column(planned))
            };
            compared.map_err(|what| file.unfit(RejectCode::Mismatch, &what, rows.max(1)))?;
        }
        let refuse = |code, what| output.reject_rows(0..rows.max(1), code, what);
        if let Some(other) = found.iter().find(|array| array.header.rows != rows) {
            let what = format!(
                "`{}` has {} records, but another array has {rows}",
                other.name, other.header.rows
            );
            return refuse(RejectCode::Mismatch, what);
        }
        let headers: Vec<&ArrayHeader> = found.iter().map(|array| &array.header).collect();
        let joined = match JoinedArrays::new(&headers, self.batch, &self.limits) {
            Ok(joined) => joined,
            Err(what) => return refuse(RejectCode::TooLarge, what),
        };
        let bytes = buffer_bytes(&found);
        if bytes > self.buffer_bytes.max(self.max_buffer_bytes) {
            return refuse(
                RejectCode::TooLarge,
                too_large(bytes, self.max_buffer_bytes),
            );
        }
        let arrays = catch_panic(|| Ok::<_, String>(container.readers(&found)));
        match arrays.flatten() {
            Ok(arrays) => read_together(arrays, &joined, &check, output),
            Err((code, what)) => {
                check()?;
                refuse(code, what)
            }
        }
    }

    fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes
    }

    fn count_rows(&self, file: &InputFile) -> Option<u64> {
        let found = self.find(file)?;
        Some(found.map_or(1, |found| {
            found
                .iter()
                .map(|array| array.header.rows)
                .max()
                .unwrap_or(0)
        }))
    }
}

impl NpzFormat {
    /// Finds the arrays of a file; `None` after an error of the environment.
    fn find(&self, file: &InputFile) -> Option<Result<Vec<FoundArray>, String>> {
        let input = file.reopen().ok()?;
        let handle = input.try_clone().ok()?;
        let found = catch_panic(|| {
            ArrayContainer::open(input).and_then(|container| container.find(Some(&self.arrays)))
        });
        file.check_available(&handle).ok()?;
        Some(
            found
                .map_err(|(_, what)| what)
                .and_then(|found| found.map_err(|fault| fault.message)),
        )
    }

    /// The memory in bytes for the file that needs the most. Files that cannot be read are skipped
    /// here; their errors are reported when they are read.
    fn largest_buffer(&self, files: &[InputFile]) -> Result<u64, String> {
        let sizes = files
            .iter()
            .filter_map(|file| Some(buffer_bytes(&self.find(file)?.ok()?)));
        let (fitting, excessive): (Vec<u64>, Vec<u64>) =
            sizes.partition(|&bytes| bytes <= self.max_buffer_bytes);
        match (fitting.into_iter().max(), excessive.first()) {
            (None, Some(&bytes)) => Err(too_large(bytes, self.max_buffer_bytes)),
            (bytes, _) => Ok(bytes.unwrap_or(0)),
        }
    }
}

/// The memory in bytes for the arrays whose records are scattered.
fn buffer_bytes(found: &[FoundArray]) -> u64 {
    found.iter().fold(0, |total: u64, array| {
        total.saturating_add(array.header.buffer_bytes())
    })
}

#[cfg(test)]
mod tests;
