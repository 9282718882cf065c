//! Reads the rows of arrays.

use std::io::{ErrorKind, Read};

use crate::batch::reject::RejectCode;
use crate::source::discovery::read_end::ReadEnd;
use crate::source::table::arrays::JoinedArrays;
use crate::source::table::arrays::header::ArrayHeader;
use crate::source::table::file_source::{BatchOutput, FileRecords};
use crate::text_excerpt::shorten;

/// An array whose values are being read.
pub(crate) struct ArrayReader<'a> {
    /// Its name in messages.
    name: String,
    header: ArrayHeader,
    values: ArrayValues<'a>,
}

enum ArrayValues<'a> {
    /// In row-major order.
    Rows(Box<dyn Read + 'a>),
    /// All values in column-major order, in memory.
    Held {
        bytes: Vec<u8>,
        /// The position of each value of the first record.
        positions: Vec<usize>,
        next: usize,
        rest: Box<dyn Read + 'a>,
    },
}

/// A reject code and its reason.
pub(crate) type RejectReason = (RejectCode, String);

impl<'a> ArrayReader<'a> {
    /// Creates a reader of the values in `stream`. If the values of a record are scattered, all
    /// values are read into memory here.
    ///
    /// # Errors
    /// The reason if that fails.
    pub(crate) fn new(
        name: &str,
        header: ArrayHeader,
        stream: Box<dyn Read + 'a>,
    ) -> Result<Self, RejectReason> {
        let name = name.to_owned();
        let all = header.buffer_bytes();
        if all == 0 {
            return Ok(Self {
                name,
                header,
                values: ArrayValues::Rows(stream),
            });
        }
        let mut bytes = Vec::new();
        let no_memory = |_| {
            (
                RejectCode::TooLarge,
                format!("{name}: cannot allocate memory for its {all} bytes"),
            )
        };
        bytes
            .try_reserve_exact(usize::try_from(all).unwrap_or(usize::MAX))
            .map_err(no_memory)?;
        let mut stream = stream;
        if let Err(error) = (&mut stream).take(all).read_to_end(&mut bytes) {
            return Err(of_io(&name, &error));
        }
        if bytes.len() as u64 != all {
            let what = format!("{name}: ends after {} of {all} bytes", bytes.len());
            return Err((RejectCode::Truncated, what));
        }
        let positions = positions(&header);
        Ok(Self {
            name,
            header,
            values: ArrayValues::Held {
                bytes,
                positions,
                next: 0,
                rest: stream,
            },
        })
    }

    /// Reads the bytes of the next `count` records, or of fewer records and the reason.
    fn take(&mut self, count: u64) -> (Vec<u8>, Option<RejectReason>) {
        let size = usize::try_from(self.header.element.bytes()).unwrap_or(1);
        let mut taken = Vec::new();
        match &mut self.values {
            ArrayValues::Rows(stream) => {
                let requested = count * self.header.bytes();
                let read = stream.take(requested).read_to_end(&mut taken);
                let failed = match read {
                    Err(error) => Some(of_io(&self.name, &error)),
                    Ok(read) if (read as u64) < requested => Some((
                        RejectCode::Truncated,
                        format!("{}: ends before these records", self.name),
                    )),
                    Ok(_) => None,
                };
                let each = self.header.len() * size;
                taken.truncate(taken.len() / each.max(1) * each);
                (taken, failed)
            }
            ArrayValues::Held {
                bytes,
                positions,
                next,
                ..
            } => {
                let end = *next + usize::try_from(count).unwrap_or(usize::MAX);
                taken.reserve((end - *next) * positions.len() * size);
                for row in *next..end {
                    for position in positions.iter() {
                        taken.extend_from_slice(&bytes[(position + row) * size..][..size]);
                    }
                }
                *next = end;
                (taken, None)
            }
        }
    }

    /// Checks the end of the array; returns the reason if data follows the last record or a
    /// checksum does not match.
    fn end(&mut self) -> Option<RejectReason> {
        let (ArrayValues::Rows(rest) | ArrayValues::Held { rest, .. }) = &mut self.values;
        let mut byte = [0];
        match rest.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => {
                let what = format!(
                    "{}: data follows the {} records that the header declares",
                    self.name, self.header.rows
                );
                Some((RejectCode::Malformed, what))
            }
            Err(error) => Some(of_io(&self.name, &error)),
        }
    }
}

fn of_io(name: &str, error: &std::io::Error) -> RejectReason {
    let code = if error.kind() == ErrorKind::UnexpectedEof {
        RejectCode::Truncated
    } else {
        RejectCode::Malformed
    };
    (code, format!("{name}: {}", shorten(&error.to_string())))
}

/// The position of each value of the first record in the column-major values of the array. The
/// values of a record are counted in row-major order.
fn positions(header: &ArrayHeader) -> Vec<usize> {
    // The memory for all values was allocated, so every position fits into a `usize`.
    let mut next_stride = usize::try_from(header.rows).unwrap_or(usize::MAX);
    let mut sides = Vec::with_capacity(header.row.len());
    for &side in &header.row {
        sides.push((side, next_stride));
        next_stride *= side;
    }
    let position = |value: usize| {
        let step = |(left, position): (usize, usize), &(side, stride): &(usize, usize)| {
            (left / side, position + left % side * stride)
        };
        sides.iter().rev().fold((value, 0), step).1
    };
    (0..header.len()).map(position).collect()
}

/// Reads arrays of equal length, batch by batch. `check` returns an error of the environment, which
/// is not a reject.
pub(crate) fn read_together(
    mut arrays: Vec<ArrayReader<'_>>,
    joined: &JoinedArrays,
    check: &dyn Fn() -> Result<(), ReadEnd>,
    output: &BatchOutput<'_>,
) -> Result<(), ReadEnd> {
    let rows = arrays.first().map_or(0, |array| array.header.rows);
    let mut row = 0;
    while row < rows {
        let count = joined.step.min(rows - row);
        let taken: Vec<_> = arrays.iter_mut().map(|array| array.take(count)).collect();
        let complete = arrays
            .iter()
            .zip(&taken)
            .map(|(array, (bytes, _))| bytes.len() as u64 / array.header.bytes());
        let complete = complete.min().unwrap_or(0);
        let part = row..row + complete;
        if complete > 0 && !output.done(&part) {
            let column = |(array, (bytes, _)): (&ArrayReader<'_>, &(Vec<u8>, _))| {
                let size = usize::try_from(complete * array.header.bytes()).unwrap_or(usize::MAX);
                array.header.column(&bytes[..size])
            };
            let columns = arrays
                .iter()
                .zip(&taken)
                .map(column)
                .collect::<Result<Vec<_>, _>>()?;
            let origin = (0..u32::try_from(complete).unwrap_or(u32::MAX)).collect();
            let pixels = joined.pixels * complete;
            output.send(
                part,
                FileRecords {
                    columns,
                    origin,
                    pixels,
                    ..FileRecords::default()
                },
            )?;
        }
        row += complete;
        if let Some((code, what)) = taken.into_iter().find_map(|(_, failed)| failed) {
            check()?;
            return output.reject_rows(row..rows, code, what);
        }
    }
    if let Some((code, what)) = arrays.iter_mut().find_map(ArrayReader::end) {
        check()?;
        return output.reject_rows(rows..rows + 1, code, what);
    }
    Ok(())
}
