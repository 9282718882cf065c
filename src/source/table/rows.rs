//! Sends the rows of a table in batches: the columns of the plan, with the images of a column of
//! images.

use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};

use crate::batch::reject::{Reject, RejectCode};
use crate::source::batch_limits::{BatchLimits, arrow_bytes, too_large};
use crate::source::discovery::read_end::ReadEnd;
use crate::source::images::column::ImageColumn;
use crate::source::images::column::rows::ImageRows;
use crate::source::table::file_source::read_end::catch_panic;
use crate::source::table::file_source::{BatchOutput, FileRecords};

/// The limits of the batches of a table, and its column of images.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableRows {
    pub(crate) image: Option<ImageColumn>,
    pub(crate) batch_limits: BatchLimits,
    /// Maximum size of a record in bytes.
    pub(crate) record_bytes: u64,
}

impl TableRows {
    /// Sends the rows of `stored`, of which the first is row `first` of the file `file`; `columns`
    /// are their planned columns. A row that exceeds the size of a record is rejected.
    pub(crate) fn send(
        &self,
        (file, first): (&str, u64),
        stored: &RecordBatch,
        columns: Vec<ArrayRef>,
        output: &BatchOutput<'_>,
    ) -> Result<(), ReadEnd> {
        let rows_of = |part: &Range<usize>| first + part.start as u64..first + part.end as u64;
        let rows = match self.image {
            None => ImageRows::without_images(columns),
            Some(image) => match catch_panic(|| image.take(columns, file)) {
                Ok(rows) => rows,
                Err((code, reason)) => {
                    let code = if code == RejectCode::Panicked {
                        code
                    } else {
                        RejectCode::Unsupported
                    };
                    return output.reject_rows(rows_of(&(0..stored.num_rows())), code, reason);
                }
            },
        };
        let weigh = |part: Range<usize>| {
            arrow_bytes(stored, part.clone()) + rows.decoded_beyond_stored(part)
        };
        for part in self.batch_limits.split(stored.num_rows(), &weigh) {
            let numbers = rows_of(&part);
            if output.done(&numbers) {
                continue;
            }
            if part.len() == 1 {
                let bytes = arrow_bytes(stored, part.clone());
                if bytes > self.record_bytes {
                    let reason = too_large(bytes, self.record_bytes);
                    output.reject_rows(numbers, RejectCode::TooLarge, reason)?;
                    continue;
                }
            }
            let own = rows.of(part.clone());
            let slice = |column: &ArrayRef| column.slice(own.start, own.len());
            let records = FileRecords {
                columns: rows.columns.iter().map(slice).collect(),
                origin: rows.origin(part.clone()),
                rejects: rows.without_image(part.clone()).map(no_image).collect(),
                sources: rows.sources.as_ref().map(slice),
                pixels: rows.pixels(part),
            };
            output.send(numbers, records)?;
        }
        Ok(())
    }
}

fn no_image(ordinal: u32) -> Reject {
    let reason = "the list of images is empty; expected at least one image".to_owned();
    Reject::new(ordinal, RejectCode::Missing, reason)
}
