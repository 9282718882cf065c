//! The column of encoded images of a table: plain bytes, the `struct<bytes, path>` of Hugging Face
//! datasets, or lists of either.

pub(crate) mod rows;

use std::iter::repeat_n;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, StringArray, StructArray, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::nullif::nullif;
use arrow::compute::{cast, take};
use arrow::datatypes::{ArrowNativeType as _, DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;

use crate::columns::IMAGE;
use crate::source::images::column::rows::{ImageRows, measure};

/// The position and type of the image column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageColumn {
    index: usize,
    is_struct: bool,
    /// Whether a record holds a list of images.
    is_list: bool,
}

impl ImageColumn {
    /// Finds the column `name`, or without a name the only struct of images or the binary column
    /// `image`; `None` if the table has neither.
    ///
    /// # Errors
    /// If `name` does not exist or has another type, or if several columns hold images.
    pub(in crate::source) fn find(
        columns: &[FieldRef],
        name: Option<&str>,
    ) -> Result<Option<Self>, String> {
        let column = |index: usize| {
            let data_type = columns[index].data_type();
            let item = item_type(data_type);
            let image = item.unwrap_or(data_type);
            let is_struct = is_image_struct(image);
            (is_struct || is_bytes(image)).then_some(Self {
                index,
                is_struct,
                is_list: item.is_some(),
            })
        };
        let index_of =
            |column_name: &str| columns.iter().position(|field| field.name() == column_name);
        if let Some(name) = name {
            let known = || {
                columns
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let index = index_of(name)
                .ok_or_else(|| format!("no column `{name}`; the table has: {}", known()))?;
            let data_type = columns[index].data_type();
            let found = column(index);
            return found.map(Some).ok_or_else(|| {
                format!(
                    "column `{name}` is {data_type}; expected binary, a struct of `bytes` and \
                     `path`, or lists of them"
                )
            });
        }
        let structs: Vec<usize> = (0..columns.len())
            .filter(|&index| {
                let data_type = columns[index].data_type();
                is_image_struct(item_type(data_type).unwrap_or(data_type))
            })
            .collect();
        match structs.as_slice() {
            [] => Ok(index_of(IMAGE).and_then(column)),
            [index] => Ok(column(*index)),
            [..] => {
                let names: Vec<&str> = structs
                    .iter()
                    .map(|&index| columns[index].name().as_str())
                    .collect();
                Err(format!(
                    "several columns hold images: {}; name one of them, or choose `columns`",
                    names.join(", ")
                ))
            }
        }
    }

    /// Its name in `columns`.
    pub(crate) fn name(self, columns: &[FieldRef]) -> &str {
        columns[self.index].name()
    }

    /// The schema of `columns` with this column renamed to `image`.
    pub(crate) fn schema(self, columns: &[FieldRef]) -> Schema {
        let mut columns = columns.to_vec();
        columns[self.index] = Arc::new(Field::new(IMAGE, DataType::Binary, true));
        Schema::new(columns)
    }

    /// Returns the columns with this one as binary `image`. Each image of a list becomes a row of
    /// its own, which repeats the values of the other columns.
    ///
    /// # Errors
    /// If the column does not have the type that was found at planning.
    pub(crate) fn take(
        self,
        mut columns: Vec<ArrayRef>,
        file: &str,
    ) -> Result<ImageRows, ArrowError> {
        let mut ends = None;
        if self.is_list {
            let (images, lists) = flatten(&columns[self.index])?;
            let rows: Vec<u32> = (0..)
                .zip(&lists)
                .flat_map(|(row, len)| repeat_n(row, *len))
                .collect();
            let rows = UInt32Array::from(rows);
            columns = columns
                .iter()
                .enumerate()
                .map(|(index, column)| {
                    if index == self.index {
                        Ok(ArrayRef::clone(&images))
                    } else {
                        take(column, &rows, None)
                    }
                })
                .collect::<Result<_, _>>()?;
            let mut end = 0;
            ends = Some(
                lists
                    .iter()
                    .map(|len| {
                        end += len;
                        end
                    })
                    .collect(),
            );
        }
        let column = &columns[self.index];
        let mut found = None;
        let bytes = if self.is_struct {
            let paths = cast(&field_of(column.as_struct(), "path")?, &DataType::Utf8)?;
            found = Some(Arc::new(sources(&paths, file)) as ArrayRef);
            cast(&image_bytes(column)?, &DataType::Binary)?
        } else {
            cast(column, &DataType::Binary)?
        };
        let sizes = measure(bytes.as_binary());
        columns[self.index] = bytes;
        Ok(ImageRows {
            columns,
            sources: found,
            sizes,
            ends,
        })
    }
}

/// The images of a column of lists, and the number of images of each row.
fn flatten(column: &ArrayRef) -> Result<(ArrayRef, Vec<usize>), ArrowError> {
    let item = match column.data_type() {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Arc::clone(item),
        other => {
            return Err(ArrowError::SchemaError(format!(
                "the column of images is {other}; expected lists"
            )));
        }
    };
    let lists = cast(column, &DataType::LargeList(item))?;
    let lists = lists.as_list::<i64>();
    let lengths: Vec<usize> = (0..lists.len())
        .map(|row| {
            if lists.is_null(row) {
                0
            } else {
                lists.value_length(row).as_usize()
            }
        })
        .collect();
    let places = (0..lists.len()).flat_map(|row| {
        let start = lists.value_offsets()[row].as_usize() as u64;
        start..start + lengths[row] as u64
    });
    let images = take(lists.values(), &UInt64Array::from_iter_values(places), None)?;
    Ok((images, lengths))
}

/// The values, null where the struct around them is null.
fn masked(values: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    match nulls {
        Some(nulls) => nullif(values, &BooleanArray::new(!nulls.inner(), None)),
        None => Ok(ArrayRef::clone(values)),
    }
}

/// The type of the items of a list.
fn item_type(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

/// The bytes of a column of images: of plain bytes, or of structs of `bytes` and `path`.
///
/// # Errors
/// If the structs have no field `bytes`.
pub(crate) fn image_bytes(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.as_struct_opt() {
        Some(pair) => masked(&field_of(pair, "bytes")?, pair.nulls()),
        None => Ok(ArrayRef::clone(column)),
    }
}

fn field_of(pair: &StructArray, name: &str) -> Result<ArrayRef, ArrowError> {
    let part = pair.column_by_name(name).cloned();
    part.ok_or_else(|| {
        ArrowError::SchemaError(format!("the struct of an image lacks the field `{name}`"))
    })
}

/// Whether a type is the struct of an image of Hugging Face: `bytes` and `path`.
pub(crate) fn is_image_struct(data_type: &DataType) -> bool {
    let DataType::Struct(fields) = data_type else {
        return false;
    };
    let typed = |name: &str| fields.find(name).map(|(_, field)| field.data_type());
    let is_text = |field_type: &DataType| {
        matches!(
            field_type,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        )
    };
    fields.len() == 2 && typed("bytes").is_some_and(is_bytes) && typed("path").is_some_and(is_text)
}

/// The source of each image: `<file>/<path>` if it has a path, else `<file>`.
fn sources(paths: &ArrayRef, file: &str) -> StringArray {
    let paths = paths.as_string::<i32>();
    let source =
        |path: Option<&str>| path.map_or_else(|| file.to_owned(), |path| format!("{file}/{path}"));
    StringArray::from_iter_values(paths.iter().map(source))
}

#[cfg(test)]
mod tests;
