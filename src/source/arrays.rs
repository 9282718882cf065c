//! Arrays in files: what their headers say, and their rows as records.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanArray, FixedSizeListArray, PrimitiveArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::batch::RejectCode;
use crate::error::StageError;
use crate::plan_context::PipelineLimits;
use crate::source::batch_limits::BatchLimits;
use crate::source::file_source::{BatchOutput, FileRecords, ReadEnd, shorten};
use crate::source::{BatchSize, IMAGE, PIXEL_BYTES};
use crate::units::ByteSize;

/// The type of an array's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalarType {
    Bool,
    Int8,
    UInt8,
    Int16,
    UInt16,
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float32,
    Float64,
}

impl ScalarType {
    fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int8 => DataType::Int8,
            Self::UInt8 => DataType::UInt8,
            Self::Int16 => DataType::Int16,
            Self::UInt16 => DataType::UInt16,
            Self::Int32 => DataType::Int32,
            Self::UInt32 => DataType::UInt32,
            Self::Int64 => DataType::Int64,
            Self::UInt64 => DataType::UInt64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
        }
    }

    /// Bytes of a value in the file.
    fn bytes(self) -> u64 {
        match self {
            Self::Bool => 1,
            other => other.data_type().primitive_width().unwrap_or(1) as u64,
        }
    }

    /// The values that stand in `bytes`.
    fn values(self, bytes: &[u8], big_endian: bool) -> ArrayRef {
        macro_rules! numbers {
            ($arrow:ty) => {
                numbers::<$arrow, _>(bytes, |value| match big_endian {
                    true => <$arrow as ArrowPrimitiveType>::Native::from_be_bytes(value),
                    false => <$arrow as ArrowPrimitiveType>::Native::from_le_bytes(value),
                })
            };
        }
        match self {
            Self::Bool => Arc::new(
                bytes
                    .iter()
                    .map(|&byte| Some(byte != 0))
                    .collect::<BooleanArray>(),
            ),
            Self::Int8 => numbers!(Int8Type),
            Self::UInt8 => numbers!(UInt8Type),
            Self::Int16 => numbers!(Int16Type),
            Self::UInt16 => numbers!(UInt16Type),
            Self::Int32 => numbers!(Int32Type),
            Self::UInt32 => numbers!(UInt32Type),
            Self::Int64 => numbers!(Int64Type),
            Self::UInt64 => numbers!(UInt64Type),
            Self::Float32 => numbers!(Float32Type),
            Self::Float64 => numbers!(Float64Type),
        }
    }
}

fn numbers<T: ArrowPrimitiveType, const N: usize>(
    bytes: &[u8],
    of: impl Fn([u8; N]) -> T::Native,
) -> ArrayRef {
    let values: Vec<T::Native> = bytes.as_chunks().0.iter().map(|&value| of(value)).collect();
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), None))
}

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArrayHeader {
    element: ScalarType,
    big_endian: bool,
    /// Its values lie column after column, as in Fortran, rather than row after row.
    column_major: bool,
    /// Its first dimension: how many records it holds.
    pub(super) rows: u64,
    /// The other dimensions.
    row: Vec<usize>,
}

/// More rows are not believed; so no sum over files can overflow.
const MAX_ROWS: u64 = 1 << 40;

impl ArrayHeader {
    /// An array of this shape.
    ///
    /// # Errors
    /// Where it has no rows that could be records, in a sentence.
    pub(super) fn new(
        element: ScalarType,
        big_endian: bool,
        column_major: bool,
        shape: &[u64],
    ) -> Result<Self, String> {
        let Some((&rows, row)) = shape.split_first() else {
            return Err("is a single value; expected one or more of each record".to_owned());
        };
        if rows > MAX_ROWS {
            return Err(format!(
                "declares {rows} records; at most {MAX_ROWS} are believed"
            ));
        }
        let values = row
            .iter()
            .try_fold(element.bytes(), |product, &side| product.checked_mul(side));
        match values {
            Some(0) => {
                return Err(format!(
                    "has the shape {shape:?}: its records hold no value"
                ));
            }
            Some(bytes) if bytes <= i32::MAX as u64 => {}
            _ => {
                return Err(format!(
                    "has the shape {shape:?}: its records are larger than any can be"
                ));
            }
        }
        let row = row
            .iter()
            .map(|&side| usize::try_from(side).unwrap_or(usize::MAX))
            .collect();
        Ok(Self {
            element,
            big_endian,
            column_major,
            rows,
            row,
        })
    }

    /// Values of a record.
    fn len(&self) -> usize {
        self.row.iter().product()
    }

    /// Bytes of a record.
    fn bytes(&self) -> u64 {
        self.element.bytes() * self.len() as u64
    }

    /// Bytes that must be held to read it: all of it where a record's values do not lie together.
    pub(super) fn buffer_bytes(&self) -> u64 {
        let is_scattered = self.column_major && self.len() > 1;
        if is_scattered {
            self.bytes().saturating_mul(self.rows)
        } else {
            0
        }
    }

    /// Height, width and channels, where its records are images: bytes in two dimensions, or in
    /// three with one or three channels.
    fn image(&self) -> Option<[usize; 3]> {
        match (self.element, self.row.as_slice()) {
            (ScalarType::UInt8, &[height, width]) => Some([height, width, 1]),
            (ScalarType::UInt8, &[height, width, channels @ (1 | 3)]) => {
                Some([height, width, channels])
            }
            _ => None,
        }
    }

    /// Whether each record is one value.
    pub(super) fn is_single(&self) -> bool {
        self.row.is_empty()
    }

    /// Whether it gives the column of images.
    pub(super) fn is_image(&self) -> bool {
        self.image().is_some()
    }

    /// The column of its records: `image`, or else numbers under `name`, one of each or a list of
    /// fixed length.
    pub(super) fn field(&self, name: &str) -> Field {
        match (self.image(), self.row.as_slice()) {
            (Some(_), _) => Field::new(IMAGE, DataType::Binary, false),
            (None, []) => Field::new(name, self.element.data_type(), false),
            (None, _) => Field::new(
                name,
                DataType::FixedSizeList(self.item(), self.list_len()),
                false,
            ),
        }
    }

    fn item(&self) -> Arc<Field> {
        Arc::new(Field::new_list_field(self.element.data_type(), false))
    }

    /// The bytes of a record fit into an `i32`.
    fn list_len(&self) -> i32 {
        i32::try_from(self.len()).unwrap_or(i32::MAX)
    }

    /// The column of some records, from their bytes.
    fn column(&self, bytes: &[u8]) -> Result<ArrayRef, StageError> {
        let Some([height, width, channels]) = self.image() else {
            let values = self.element.values(bytes, self.big_endian);
            return match self.row.as_slice() {
                [] => Ok(values),
                _ => Ok(Arc::new(FixedSizeListArray::try_new(
                    self.item(),
                    self.list_len(),
                    values,
                    None,
                )?)),
            };
        };
        // The plainest format that there is: a line, and the pixels as they are.
        let head = format!(
            "P{} {width} {height} 255\n",
            if channels == 1 { 5 } else { 6 }
        );
        let each = self.len().max(1);
        let count = bytes.len() / each;
        let mut images = BinaryBuilder::with_capacity(count, count * (each + head.len()));
        let mut image = head.into_bytes();
        let start = image.len();
        for pixels in bytes.chunks_exact(each) {
            image.truncate(start);
            image.extend_from_slice(pixels);
            images.append_value(&image);
        }
        Ok(Arc::new(images.finish()))
    }
}

/// What arrays of equal length give together.
#[derive(Debug, Clone)]
pub(super) struct JoinedArrays {
    /// Records that travel together.
    step: u64,
    /// Pixels of a record's images, as far as they will be decoded.
    pixels: u64,
}

impl JoinedArrays {
    /// Checks that a record of these arrays can be held.
    ///
    /// # Errors
    /// What is wrong with their records, in a sentence.
    pub(super) fn new(
        headers: &[&ArrayHeader],
        batch: BatchSize,
        limits: &PipelineLimits,
    ) -> Result<Self, String> {
        let bytes = headers
            .iter()
            .fold(0, |total: u64, header| total.saturating_add(header.bytes()));
        let limit = limits.record_bytes.0.min(i32::MAX as u64);
        if bytes > limit {
            return Err(format!(
                "a record takes {}, more than {}; limits.record_bytes may raise that",
                ByteSize(bytes),
                ByteSize(limit)
            ));
        }
        let images = headers.iter().filter_map(|header| header.image());
        let pixels = images.fold(0, |total: u64, [height, width, _]| {
            total + height as u64 * width as u64
        });
        let pixels = if pixels > limits.pixels { 0 } else { pixels };
        let images = headers.iter().any(|header| header.is_image());
        let cut = if images {
            BatchLimits::images(batch)
        } else {
            BatchLimits::features(batch)
        };
        Ok(Self {
            step: cut.records_of(bytes.max(pixels.saturating_mul(PIXEL_BYTES))),
            pixels,
        })
    }
}

/// An array whose values are being read.
pub(super) struct ArrayReader<'a> {
    /// What it is called in messages.
    name: String,
    header: ArrayHeader,
    values: ArrayValues<'a>,
}

enum ArrayValues<'a> {
    /// Row after row.
    Rows(Box<dyn Read + 'a>),
    /// All of them, column after column.
    Held {
        bytes: Vec<u8>,
        /// For each value of a record, its place in the first one's.
        places: Vec<usize>,
        next: usize,
        rest: Box<dyn Read + 'a>,
    },
}

/// What could not be read, and why.
pub(super) type RejectReason = (RejectCode, String);

impl<'a> ArrayReader<'a> {
    /// The values of an array, from `stream`; they are read at once where records do not lie
    /// together.
    ///
    /// # Errors
    /// Where that fails.
    pub(super) fn new(
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
                format!("{name}: there is no memory for its {all} bytes"),
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
        let places = places(&header);
        Ok(Self {
            name,
            header,
            values: ArrayValues::Held {
                bytes,
                places,
                next: 0,
                rest: stream,
            },
        })
    }

    /// The bytes of the next `count` records, or of fewer and why there are no more.
    fn take(&mut self, count: u64) -> (Vec<u8>, Option<RejectReason>) {
        let size = usize::try_from(self.header.element.bytes()).unwrap_or(1);
        let mut taken = Vec::new();
        match &mut self.values {
            ArrayValues::Rows(stream) => {
                let wanted = count * self.header.bytes();
                let read = stream.take(wanted).read_to_end(&mut taken);
                let failed = match read {
                    Err(error) => Some(of_io(&self.name, &error)),
                    Ok(read) if (read as u64) < wanted => Some((
                        RejectCode::Truncated,
                        format!("{}: ends before them", self.name),
                    )),
                    Ok(_) => None,
                };
                let each = self.header.len() * size;
                taken.truncate(taken.len() / each.max(1) * each);
                (taken, failed)
            }
            ArrayValues::Held {
                bytes,
                places,
                next,
                ..
            } => {
                let end = *next + usize::try_from(count).unwrap_or(usize::MAX);
                taken.reserve((end - *next) * places.len() * size);
                for row in *next..end {
                    for place in places.iter() {
                        taken.extend_from_slice(&bytes[(place + row) * size..][..size]);
                    }
                }
                *next = end;
                (taken, None)
            }
        }
    }

    /// What is wrong behind the last record: that there is more, or a checksum.
    fn end(&mut self) -> Option<RejectReason> {
        let (ArrayValues::Rows(rest) | ArrayValues::Held { rest, .. }) = &mut self.values;
        let mut byte = [0];
        match rest.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => {
                let what = format!(
                    "{}: there is more behind the {} records of its header",
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

/// For each value of a record, counted row after row, where it stands among all values of the
/// array, column after column.
fn places(header: &ArrayHeader) -> Vec<usize> {
    // What all of them take was allocated, so it is no more than a `usize` holds.
    let mut stride = usize::try_from(header.rows).unwrap_or(usize::MAX);
    let mut sides = Vec::with_capacity(header.row.len());
    for &side in &header.row {
        sides.push((side, stride));
        stride *= side;
    }
    let place = |value: usize| {
        let step = |(left, place): (usize, usize), &(side, stride): &(usize, usize)| {
            (left / side, place + left % side * stride)
        };
        sides.iter().rev().fold((value, 0), step).1
    };
    (0..header.len()).map(place).collect()
}

/// Reads arrays of equal length, record by record. `check` stops at an error of the environment.
pub(super) fn read_together(
    mut arrays: Vec<ArrayReader<'_>>,
    together: &JoinedArrays,
    check: &dyn Fn() -> Result<(), ReadEnd>,
    output: &BatchOutput<'_>,
) -> Result<(), ReadEnd> {
    let rows = arrays.first().map_or(0, |array| array.header.rows);
    let mut row = 0;
    while row < rows {
        let count = together.step.min(rows - row);
        let taken: Vec<_> = arrays.iter_mut().map(|array| array.take(count)).collect();
        let whole = arrays
            .iter()
            .zip(&taken)
            .map(|(array, (bytes, _))| bytes.len() as u64 / array.header.bytes());
        let whole = whole.min().unwrap_or(0);
        let part = row..row + whole;
        if whole > 0 && !output.done(&part) {
            let column = |(array, (bytes, _)): (&ArrayReader<'_>, &(Vec<u8>, _))| {
                let size = usize::try_from(whole * array.header.bytes()).unwrap_or(usize::MAX);
                array.header.column(&bytes[..size])
            };
            let columns = arrays
                .iter()
                .zip(&taken)
                .map(column)
                .collect::<Result<Vec<_>, _>>()?;
            let origin = (0..u32::try_from(whole).unwrap_or(u32::MAX)).collect();
            let pixels = together.pixels * whole;
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
        row += whole;
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
