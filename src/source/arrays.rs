//! Arrays in files: their headers, and the conversion of their rows into records.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanArray, FixedSizeListArray,
    PrimitiveArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::batch::RejectCode;
use crate::error::StageError;
use crate::plan_context::PipelineLimits;
use crate::source::batch_limits::BatchLimits;
use crate::source::file_source::{BatchOutput, FileRecords, ReadEnd, shorten};
use crate::source::{BatchSize, IMAGE, PIXEL_BYTES};
use crate::tensor::with_tensor_shape;
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
    /// Decoded as 32-bit floats, which hold each value.
    Float16,
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
            Self::Float16 | Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
        }
    }

    /// Size of a value in the file in bytes.
    fn bytes(self) -> u64 {
        match self {
            Self::Bool => 1,
            Self::Float16 => 2,
            other => other.data_type().primitive_width().unwrap_or(1) as u64,
        }
    }

    /// Decodes the values in `bytes`.
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
            Self::Float16 => {
                let halves: ArrayRef = numbers!(Float16Type);
                Arc::new(
                    halves
                        .as_primitive::<Float16Type>()
                        .unary::<_, Float32Type>(f32::from),
                )
            }
            Self::Float32 => numbers!(Float32Type),
            Self::Float64 => numbers!(Float64Type),
        }
    }
}

fn numbers<T: ArrowPrimitiveType, const N: usize>(
    bytes: &[u8],
    decode: impl Fn([u8; N]) -> T::Native,
) -> ArrayRef {
    let chunks = bytes.as_chunks().0.iter();
    let values: Vec<T::Native> = chunks.map(|&value| decode(value)).collect();
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), None))
}

/// The header of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArrayHeader {
    element: ScalarType,
    big_endian: bool,
    /// Whether its values are in column-major order, as in Fortran.
    column_major: bool,
    /// Its first dimension: the number of its records.
    pub(super) rows: u64,
    /// The other dimensions: the shape of a record.
    row: Vec<usize>,
}

/// Maximum number of rows, so that sums over files cannot overflow.
const MAX_ROWS: u64 = 1 << 40;

impl ArrayHeader {
    /// Creates the header of an array of this shape.
    ///
    /// # Errors
    /// A sentence without its subject, the array, if the rows of the array cannot be records.
    pub(super) fn new(
        element: ScalarType,
        big_endian: bool,
        column_major: bool,
        shape: &[u64],
    ) -> Result<Self, String> {
        let Some((&rows, row)) = shape.split_first() else {
            return Err("is a single value; expected one or more values per record".to_owned());
        };
        if rows > MAX_ROWS {
            return Err(format!(
                "declares {rows} records; at most {MAX_ROWS} are supported"
            ));
        }
        let values = row
            .iter()
            .try_fold(element.bytes(), |product, &side| product.checked_mul(side));
        match values {
            Some(0) => {
                return Err(format!(
                    "has the shape {shape:?}; expected at least one value per record"
                ));
            }
            Some(bytes) if bytes <= i32::MAX as u64 => {}
            _ => {
                return Err(format!(
                    "has the shape {shape:?}; a record of it exceeds the maximum of {} bytes",
                    i32::MAX
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

    /// Number of values of a record.
    fn len(&self) -> usize {
        self.row.iter().product()
    }

    /// Size of a record in bytes.
    fn bytes(&self) -> u64 {
        self.element.bytes() * self.len() as u64
    }

    /// Memory in bytes that is needed to read it: its size if the values of a record are scattered,
    /// otherwise 0.
    pub(super) fn buffer_bytes(&self) -> u64 {
        let is_scattered = self.column_major && self.len() > 1;
        if is_scattered {
            self.bytes().saturating_mul(self.rows)
        } else {
            0
        }
    }

    /// Height, width and channels, if its records are images: bytes in two dimensions, or in three
    /// dimensions with one or three channels.
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

    /// Whether its records are images.
    pub(super) fn is_image(&self) -> bool {
        self.image().is_some()
    }

    /// The column of its records: `image`, or the column `name` with a number, a list of fixed
    /// length or a tensor per record.
    pub(super) fn field(&self, name: &str) -> Field {
        match (self.image(), self.row.as_slice()) {
            (Some(_), _) => Field::new(IMAGE, DataType::Binary, false),
            (None, []) => Field::new(name, self.element.data_type(), false),
            (None, shape) => {
                let list = DataType::FixedSizeList(self.item(), self.list_len());
                let field = Field::new(name, list, false);
                if shape.len() > 1 {
                    with_tensor_shape(field, shape)
                } else {
                    field
                }
            }
        }
    }

    fn item(&self) -> Arc<Field> {
        Arc::new(Field::new_list_field(self.element.data_type(), false))
    }

    /// The length of a list. It fits into an `i32`, since the bytes of a record do.
    fn list_len(&self) -> i32 {
        i32::try_from(self.len()).unwrap_or(i32::MAX)
    }

    /// Decodes the column of some records from their bytes.
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
        // Netpbm, the simplest image format: a header line and the raw pixels.
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

/// The batches of records that are joined from arrays of equal length.
#[derive(Debug, Clone)]
pub(super) struct JoinedArrays {
    /// Number of records in a batch.
    step: u64,
    /// Number of pixels of the images of a record; 0 if they exceed `limits.pixels` and are not
    /// decoded.
    pixels: u64,
}

impl JoinedArrays {
    /// Joins arrays and checks that a record of them does not exceed the limit.
    ///
    /// # Errors
    /// A sentence that states the size and the limit.
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
                "a record takes {}, more than {}; increase limits.record_bytes to read it",
                ByteSize(bytes),
                ByteSize(limit)
            ));
        }
        let images = headers.iter().filter_map(|header| header.image());
        let pixels = images.fold(0, |total: u64, [height, width, _]| {
            total + height as u64 * width as u64
        });
        let pixels = if pixels > limits.pixels { 0 } else { pixels };
        let has_images = headers.iter().any(|header| header.is_image());
        let cut = if has_images {
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
pub(super) type RejectReason = (RejectCode, String);

impl<'a> ArrayReader<'a> {
    /// Creates a reader of the values in `stream`. If the values of a record are scattered, all
    /// values are read into memory here.
    ///
    /// # Errors
    /// The reason if that fails.
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
pub(super) fn read_together(
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
