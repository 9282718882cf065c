//! The header of an array: the type and the shape of its values.

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

use crate::columns::IMAGE;
use crate::error::StageError;
use crate::tensor::with_tensor_shape;

/// The type of an array's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarType {
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
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Bool => 1,
            Self::Float16 => 2,
            other => other.data_type().primitive_width().unwrap_or(1) as u64,
        }
    }

    /// Decodes the values in `bytes`.
    pub(super) fn values(self, bytes: &[u8], big_endian: bool) -> ArrayRef {
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
pub(crate) struct ArrayHeader {
    pub(super) element: ScalarType,
    big_endian: bool,
    /// Whether its values are in column-major order, as in Fortran.
    column_major: bool,
    /// Its first dimension: the number of its records.
    pub(crate) rows: u64,
    /// The other dimensions: the shape of a record.
    pub(super) row: Vec<usize>,
}

/// Maximum number of rows, so that sums over files cannot overflow.
const MAX_ROWS: u64 = 1 << 40;

impl ArrayHeader {
    /// Creates the header of an array of this shape.
    ///
    /// # Errors
    /// A sentence without its subject, the array, if the rows of the array cannot be records.
    pub(in crate::source) fn new(
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
    pub(super) fn len(&self) -> usize {
        self.row.iter().product()
    }

    /// Size of a record in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.element.bytes() * self.len() as u64
    }

    /// Memory in bytes that is needed to read it: its size if the values of a record are scattered,
    /// otherwise 0.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        let is_scattered = self.column_major && self.len() > 1;
        if is_scattered {
            self.bytes().saturating_mul(self.rows)
        } else {
            0
        }
    }

    /// Height, width and channels, if its records are images: bytes in two dimensions, or in three
    /// dimensions with one or three channels.
    pub(super) fn image(&self) -> Option<[usize; 3]> {
        match (self.element, self.row.as_slice()) {
            (ScalarType::UInt8, &[height, width]) => Some([height, width, 1]),
            (ScalarType::UInt8, &[height, width, channels @ (1 | 3)]) => {
                Some([height, width, channels])
            }
            _ => None,
        }
    }

    /// Whether each record is one value.
    pub(crate) fn is_single(&self) -> bool {
        self.row.is_empty()
    }

    /// Whether its records are images.
    pub(crate) fn is_image(&self) -> bool {
        self.image().is_some()
    }

    /// The column of its records: `image`, or the column `name` with a number, a list of fixed
    /// length or a tensor per record.
    pub(crate) fn field(&self, name: &str) -> Field {
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
    pub(super) fn column(&self, bytes: &[u8]) -> Result<ArrayRef, StageError> {
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
