//! Bodies with one JSON object per line, parsed in small blocks; an invalid line is rejected alone.

use arrow::compute::concat_batches;

use crate::source::batch_limits::BatchLimits;
use crate::source::http::body::budget::BodyBudget;
use crate::source::http::body::decoded::DecodedBody;
use crate::source::http::body::rejected_lines::{RejectedLine, TruncatedList};
use crate::source::http::error_response::ErrorResponse;
use crate::source::table::text::framer::Framer;
use crate::source::table::text::{TextBatches, TextFormat};

/// Limits of a block that is parsed together.
const BLOCK: BatchLimits = BatchLimits {
    records: 4096,
    bytes: 4 << 20,
    soft_max_records: 4096,
};
/// Bytes that a parser allocates per byte of input: values as text, their positions, and growing
/// columns.
const PARSING: u64 = 4;
/// Bytes of a rejected line in addition to its text.
const PER_LINE: u64 = 512;

/// The records of the lines, and the rejected lines.
///
/// # Errors
/// Returns 413 if the records exceed the limits of a request.
pub(crate) fn parse(
    format: &impl TextFormat,
    line_bytes: u64,
    body: &[u8],
    budget: &mut BodyBudget<'_>,
) -> Result<(DecodedBody, TruncatedList<RejectedLine>), ErrorResponse> {
    budget.hold(body.len() as u64)?;
    let framer = Framer::new(body, None, line_bytes).map_err(ErrorResponse::failed)?;
    let mut blocks = TextBatches::new(framer, BLOCK);
    let (mut batches, mut bytes, mut rejected, mut before) =
        (Vec::new(), 0, TruncatedList::default(), 0);
    while let Some(block) = blocks.next(format).map_err(ErrorResponse::failed)? {
        let rows = u64::from(block.rows());
        budget.count(rows)?;
        let work = block
            .weight()
            .saturating_mul(PARSING)
            .saturating_add(PER_LINE * rows);
        budget.hold(work)?;
        let parsed = block.parse(format).map_err(ErrorResponse::failed)?;
        for reject in parsed.rejects {
            let record = before + u64::from(reject.ordinal);
            rejected.push(|| RejectedLine {
                record,
                code: reject.code.as_str(),
                reason: reject.reason,
            });
        }
        before += rows;
        budget.free(work)?;
        if parsed.records.num_rows() > 0 {
            let taken = parsed.records.get_array_memory_size() as u64;
            budget.hold(taken)?;
            bytes += taken;
            budget.weigh(bytes)?;
            batches.push(parsed.records);
        }
    }
    budget.hold(bytes)?;
    let columns = concat_batches(format.schema(), &batches).map_err(ErrorResponse::failed)?;
    Ok((
        DecodedBody {
            columns,
            held: bytes,
        },
        rejected,
    ))
}
