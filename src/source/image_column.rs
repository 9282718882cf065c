//! The column of encoded images of a table: plain bytes, the `struct<bytes, path>` of Hugging Face
//! datasets, or lists of either.

use std::iter::repeat_n;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, StringArray, StructArray, UInt32Array,
    UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::nullif::nullif;
use arrow::compute::{cast, take};
use arrow::datatypes::{ArrowNativeType as _, DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;

use crate::image::probe;
use crate::source::{IMAGE, PIXEL_BYTES};

/// The position and type of the image column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageColumn {
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
    pub(super) fn find(columns: &[FieldRef], name: Option<&str>) -> Result<Option<Self>, String> {
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
    pub(super) fn name(self, columns: &[FieldRef]) -> &str {
        columns[self.index].name()
    }

    /// The schema of `columns` with this column renamed to `image`.
    pub(super) fn schema(self, columns: &[FieldRef]) -> Schema {
        let mut columns = columns.to_vec();
        columns[self.index] = Arc::new(Field::new(IMAGE, DataType::Binary, true));
        Schema::new(columns)
    }

    /// Returns the columns with this one as binary `image`. Each image of a list becomes a row of
    /// its own, which repeats the values of the other columns.
    ///
    /// # Errors
    /// If the column does not have the type that was found at planning.
    pub(super) fn take(
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

pub(super) fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

/// The bytes of a column of images: of plain bytes, or of structs of `bytes` and `path`.
///
/// # Errors
/// If the structs have no field `bytes`.
pub(super) fn image_bytes(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
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
pub(super) fn is_image_struct(data_type: &DataType) -> bool {
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

/// The rows of a table, one for each image, before the images are decoded.
pub(super) struct ImageRows {
    /// All columns.
    pub(super) columns: Vec<ArrayRef>,
    /// The source of each image, if the images have paths.
    pub(super) sources: Option<ArrayRef>,
    /// Stored bytes of each image, and pixels according to its header; 0 pixels if the header
    /// cannot be read.
    sizes: Vec<(u64, u64)>,
    /// The number of images up to the end of each row of the table, if a row holds a list.
    ends: Option<Vec<usize>>,
}

impl ImageRows {
    /// Rows of a table without images.
    pub(super) fn without_images(columns: Vec<ArrayRef>) -> Self {
        Self {
            columns,
            sources: None,
            sizes: Vec::new(),
            ends: None,
        }
    }

    /// The rows that the rows `rows` of the table became.
    pub(super) fn of(&self, rows: Range<usize>) -> Range<usize> {
        let end = |row: usize| match (&self.ends, row) {
            (None, row) => row,
            (Some(_), 0) => 0,
            (Some(ends), row) => ends[row - 1],
        };
        end(rows.start)..end(rows.end)
    }

    /// For each of the rows that the rows `rows` of the table became, its row among `rows`.
    pub(super) fn origin(&self, rows: Range<usize>) -> Vec<u32> {
        let start = rows.start;
        let ordinal = |row: usize| u32::try_from(row - start).unwrap_or(u32::MAX);
        rows.flat_map(|row| repeat_n(ordinal(row), self.of(row..row + 1).len()))
            .collect()
    }

    /// Of the rows `rows` of the table, the ordinals of those that hold an empty list.
    pub(super) fn without_image(&self, rows: Range<usize>) -> impl Iterator<Item = u32> {
        let start = rows.start;
        rows.filter(|&row| self.of(row..row + 1).is_empty())
            .map(move |row| u32::try_from(row - start).unwrap_or(u32::MAX))
    }

    /// Pixels of the images in these rows of the table.
    pub(super) fn pixels(&self, rows: Range<usize>) -> u64 {
        let sizes = self.sizes.get(self.of(rows)).unwrap_or_default();
        sizes
            .iter()
            .fold(0, |total, (_, pixels)| total.saturating_add(*pixels))
    }

    /// Bytes by which the decoded images in these rows of the table exceed the stored ones.
    pub(super) fn decoded_beyond_stored(&self, rows: Range<usize>) -> u64 {
        let sizes = self.sizes.get(self.of(rows)).unwrap_or_default();
        let beyond = |(stored, pixels): &(u64, u64)| {
            pixels.saturating_mul(PIXEL_BYTES).saturating_sub(*stored)
        };
        sizes.iter().map(beyond).fold(0, u64::saturating_add)
    }
}

fn measure(images: &BinaryArray) -> Vec<(u64, u64)> {
    let size = |bytes: Option<&[u8]>| {
        let bytes = bytes.unwrap_or_default();
        (
            bytes.len() as u64,
            probe(bytes).map_or(0, |header| header.charged_pixels()),
        )
    };
    images.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::{Int32Array, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Int32Type;

    use super::*;

    fn pair(name: &str) -> FieldRef {
        let fields = [
            Field::new("bytes", DataType::Binary, true),
            Field::new("path", DataType::Utf8, true),
        ];
        Arc::new(Field::new(
            name,
            DataType::Struct(fields.into_iter().collect()),
            true,
        ))
    }

    #[test]
    fn image_column_is_found_by_type_or_name() {
        let text: FieldRef = Arc::new(Field::new("label", DataType::Utf8, true));
        let bytes: FieldRef = Arc::new(Field::new("image", DataType::Binary, true));
        let find = |columns: &[&FieldRef], name| {
            ImageColumn::find(
                &columns
                    .iter()
                    .map(|&field| field.clone())
                    .collect::<Vec<_>>(),
                name,
            )
        };
        assert_eq!(find(&[&text], None), Ok(None));
        assert_eq!(
            find(&[&text, &bytes], None),
            Ok(Some(ImageColumn {
                index: 1,
                is_struct: false,
                is_list: false,
            }))
        );
        assert_eq!(
            find(&[&text, &pair("img")], None),
            Ok(Some(ImageColumn {
                index: 1,
                is_struct: true,
                is_list: false,
            }))
        );
        assert_eq!(
            find(&[&pair("a"), &pair("b")], Some("b")),
            Ok(Some(ImageColumn {
                index: 1,
                is_struct: true,
                is_list: false,
            }))
        );
        let fault = find(&[&pair("a"), &pair("b")], None).unwrap_err();
        assert_eq!(
            fault,
            "several columns hold images: a, b; name one of them, or choose `columns`"
        );
        assert_eq!(
            find(&[&text], Some("label")).unwrap_err(),
            "column `label` is Utf8; expected binary, a struct of `bytes` and `path`, or lists of them"
        );
        assert_eq!(
            find(&[&text], Some("x")).unwrap_err(),
            "no column `x`; the table has: label"
        );
    }

    #[test]
    fn each_image_of_a_list_is_a_row() {
        let pairs = StructArray::try_new(
            vec![
                Field::new("bytes", DataType::Binary, true),
                Field::new("path", DataType::Utf8, true),
            ]
            .into(),
            vec![
                Arc::new(BinaryArray::from_iter_values([b"a", b"b", b"c", b"d"])),
                Arc::new(StringArray::from(vec![
                    Some("1"),
                    None,
                    Some("3"),
                    Some("4"),
                ])),
            ],
            Some(vec![true, true, true, false].into()),
        )
        .unwrap();
        let item = Arc::new(Field::new_list_field(pairs.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths([2, 0, 1, 1]);
        let lists = ListArray::try_new(item, offsets, Arc::new(pairs), None).unwrap();
        let labels: ArrayRef = Arc::new(Int32Array::from(vec![7, 8, 9, 10]));
        let fields = [
            Arc::new(Field::new("label", DataType::Int32, false)),
            Arc::new(Field::new("views", lists.data_type().clone(), true)),
        ];
        let column = ImageColumn::find(&fields, None).unwrap().unwrap();
        let images = column
            .take(vec![labels, Arc::new(lists)], "f.arrow")
            .unwrap();
        assert_eq!(
            images.columns[0].as_primitive::<Int32Type>().values(),
            &[7, 7, 9, 10]
        );
        let bytes: Vec<_> = images.columns[1].as_binary::<i32>().iter().collect();
        assert_eq!(bytes, [Some(&b"a"[..]), Some(b"b"), Some(b"c"), None]);
        let sources = images.sources.as_ref().unwrap().as_string::<i32>();
        assert_eq!(
            sources.iter().flatten().collect::<Vec<_>>(),
            ["f.arrow/1", "f.arrow", "f.arrow/3", "f.arrow/4"]
        );
        assert_eq!((images.of(0..1), images.of(1..4)), (0..2, 2..4));
        assert_eq!(images.origin(1..4), [1, 2]);
        assert_eq!(images.without_image(1..4).collect::<Vec<_>>(), [0]);
    }
}
