//! Bodies of one JSON object a line, read in small blocks: a line that is no record is refused
//! alone.

use arrow::compute::concat_batches;

use crate::source::batch_limits::BatchLimits;
use crate::source::http::columns::{BodyBudget, DecodedBody};
use crate::source::http::error_response::ErrorResponse;
use crate::source::http::rejected_lines::{RejectedLine, TruncatedList};
use crate::source::text::{Framer, TextBatches, TextFormat};

/// What is parsed together.
const BLOCK: BatchLimits = BatchLimits {
    records: 4096,
    bytes: 4 << 20,
    soft_max_records: 4096,
};
/// Bytes that a parser takes for each byte of what it makes: values as text, where they lie, and
/// columns that grow.
const PARSING: u64 = 4;
/// Bytes of a line that is refused, beside its text.
const PER_LINE: u64 = 512;

/// The records of the lines, and those that were refused.
///
/// # Errors
/// 413 where they are more than a request may have.
pub(super) fn parse(
    format: &impl TextFormat,
    line_bytes: u64,
    body: &[u8],
    most: &mut BodyBudget<'_>,
) -> Result<(DecodedBody, TruncatedList<RejectedLine>), ErrorResponse> {
    most.hold(body.len() as u64)?;
    let framer = Framer::new(body, None, line_bytes).map_err(ErrorResponse::failed)?;
    let mut blocks = TextBatches::new(framer, BLOCK);
    let (mut batches, mut bytes, mut refused, mut before) =
        (Vec::new(), 0, TruncatedList::default(), 0);
    while let Some(block) = blocks.next(format).map_err(ErrorResponse::failed)? {
        let rows = u64::from(block.rows());
        most.count(rows)?;
        let work = block
            .weight()
            .saturating_mul(PARSING)
            .saturating_add(PER_LINE * rows);
        most.hold(work)?;
        let parsed = block.parse(format).map_err(ErrorResponse::failed)?;
        for reject in parsed.rejects {
            let record = before + u64::from(reject.ordinal);
            refused.push(|| RejectedLine {
                record,
                code: reject.code.as_str(),
                reason: reject.reason,
            });
        }
        before += rows;
        most.free(work)?;
        if parsed.records.num_rows() > 0 {
            let taken = parsed.records.get_array_memory_size() as u64;
            most.hold(taken)?;
            bytes += taken;
            most.weigh(bytes)?;
            batches.push(parsed.records);
        }
    }
    most.hold(bytes)?;
    let columns = concat_batches(format.schema(), &batches).map_err(ErrorResponse::failed)?;
    Ok((
        DecodedBody {
            columns,
            held: bytes,
        },
        refused,
    ))
}
