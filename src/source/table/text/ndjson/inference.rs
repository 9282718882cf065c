//! Infers the columns of JSON objects from samples of all files.

use std::io::Read;

use arrow::datatypes::Schema;

use super::parser::NdjsonParser;
use crate::batch::reject::RejectCode;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::source::discovery::input_file::InputFile;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::json::scan::scan_line;
use crate::source::table::json::types::{JsonTypeCollector, JsonTypes};
use crate::source::table::text::batch::TextBatch;
use crate::source::table::text::encoding::{TextEncoding, open_text};
use crate::source::table::text::framer::Framer;
use crate::source::table::text::sample::{infer_from_samples, visit_records};

/// Maximum number of columns. Records with more keys are left out of the sample; wider tables store
/// their features in a list.
const MAX_COLUMNS: usize = 4096;

/// Maximum number of keys of a record in the sample: each may become a place of its own. A list of
/// objects repeats its keys.
const RECORD_KEYS: u64 = 1 << 18;

/// Number of different keys in the sample above which the file is refused.
const DIFFERENT_KEYS: usize = 1 << 16;

/// Opens the text of a file.
pub(super) fn open<'a>(
    file: &InputFile,
    input: impl Read + 'a,
    record_bytes: u64,
) -> Result<Framer<Box<dyn Read + 'a>>, ReadEnd> {
    let text = open_text(file, input, TextEncoding::default())?;
    Framer::new(text, None, record_bytes).map_err(file.stopped())
}

/// Infers the columns of all files together, with notes for the user.
///
/// # Errors
/// If no file has objects, or a file cannot be read because of an error of the process.
pub(super) fn infer(
    files: &[InputFile],
    record_bytes: u64,
) -> Result<(Schema, Vec<String>), StageError> {
    let format = NdjsonParser::checking(record_bytes);
    let mut all = JsonTypes::default();
    let notes = infer_from_samples(files, true, |file, input, sample| {
        let unfit = |what: &str| file.unfit(RejectCode::Mismatch, what, 1);
        let mut columns = FileColumns::default();
        let mut add = |batch: TextBatch| columns.add(&batch).map_err(|what| unfit(&what));
        let framer = open(file, input, record_bytes)?;
        if visit_records(file, framer, sample, &format, &mut add)? == 0 {
            return Ok(false);
        }
        for block in sample.blocks(file)? {
            let lines = Framer::new(block.as_slice(), None, record_bytes);
            visit_records(
                file,
                lines.map_err(file.stopped())?,
                sample,
                &format,
                &mut add,
            )?;
        }
        let types = columns.into_types().map_err(|what| unfit(&what))?;
        // A file whose types conflict with those of the others is left out.
        let mut merged = all.clone();
        merged.merge(types);
        check_columns(&merged).map_err(|what| unfit(&what))?;
        all = merged;
        Ok(true)
    })?;
    let schema = all
        .schema()
        .map_err(StageError::with_code(ErrorCode::InputInvalid))?;
    Ok((schema, notes))
}

/// Checks that the columns have types and are not too many.
fn check_columns(types: &JsonTypes) -> Result<(), String> {
    let schema = types
        .schema()
        .map_err(|what| format!("the types of the first records conflict: {what}"))?;
    match schema.flattened_fields().len() {
        found if found > MAX_COLUMNS => Err(too_wide(&found.to_string())),
        _ => Ok(()),
    }
}

fn too_wide(found: &str) -> String {
    format!(
        "the first records have {found} different keys; at most {MAX_COLUMNS} are supported; use \
         lists"
    )
}

/// The columns of one file.
#[derive(Default)]
struct FileColumns {
    collector: JsonTypeCollector,
    /// The number of different keys of the objects that were added, at most.
    places: usize,
    /// Whether an object was left out because of its number of keys.
    has_large: bool,
}

impl FileColumns {
    /// Adds the objects of a batch.
    fn add(&mut self, batch: &TextBatch) -> Result<(), String> {
        for (_, text) in batch.texts() {
            let Ok(Some(size)) = scan_line(text, &mut ()) else {
                continue;
            };
            if size.keys > RECORD_KEYS {
                self.has_large = true;
            } else if size.keys <= MAX_COLUMNS as u64 {
                scan_line(text, &mut self.collector)?;
            } else {
                self.add_large(text)?;
            }
            self.places += usize::try_from(size.keys).unwrap_or(usize::MAX);
            if self.places > DIFFERENT_KEYS {
                self.places = self.collector.types().places();
            }
            if self.places > DIFFERENT_KEYS {
                return Err(too_wide(&format!("more than {DIFFERENT_KEYS}")));
            }
        }
        Ok(())
    }

    /// Adds an object of many keys, unless they would be too many columns.
    fn add_large(&mut self, text: &[u8]) -> Result<(), String> {
        let mut own = JsonTypeCollector::default();
        scan_line(text, &mut own)?;
        if own.types().places() <= MAX_COLUMNS {
            self.collector.merge(own.into_types());
        }
        Ok(())
    }

    fn into_types(self) -> Result<JsonTypes, String> {
        let types = self.collector.into_types();
        if !types.is_empty() {
            check_columns(&types)?;
            return Ok(types);
        }
        Err(if self.has_large {
            format!(
                "each of the first records has more than {RECORD_KEYS} keys; write the required \
                 columns to a smaller file first"
            )
        } else {
            "does not begin with JSON objects; expected one per line, from which the columns are \
             inferred"
                .to_owned()
        })
    }
}
