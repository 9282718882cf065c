//! The column of encoded images of a table: plain bytes, or the `struct<bytes, path>` of Hugging
//! Face datasets.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;

use crate::image::probe;
use crate::source::{IMAGE, PIXEL_BYTES};

/// The position and type of the image column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageColumn {
    index: usize,
    is_struct: bool,
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
            let is_struct = is_image_struct(data_type);
            (is_struct || is_bytes(data_type)).then_some(Self { index, is_struct })
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
                    "column `{name}` is {data_type}; expected binary, or a struct of `bytes` and \
                     `path`"
                )
            });
        }
        let structs: Vec<usize> = (0..columns.len())
            .filter(|&index| is_image_struct(columns[index].data_type()))
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

    /// Returns the columns with this one as binary `image`, and stores the sources and sizes of the
    /// images in `images`.
    pub(super) fn take(
        self,
        mut columns: Vec<ArrayRef>,
        file: &str,
        images: &mut ImageSizes,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let column = &columns[self.index];
        let bytes = if self.is_struct {
            let pair = column.as_struct();
            let part = |name: &str| {
                let part = pair.column_by_name(name).cloned();
                part.ok_or_else(|| {
                    ArrowError::SchemaError(format!(
                        "the struct of an image lacks the field `{name}`"
                    ))
                })
            };
            images.sources = Some(Arc::new(sources(
                &cast(&part("path")?, &DataType::Utf8)?,
                file,
            )));
            cast(&part("bytes")?, &DataType::Binary)?
        } else {
            cast(column, &DataType::Binary)?
        };
        images.measure(bytes.as_binary());
        columns[self.index] = bytes;
        Ok(columns)
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

fn is_image_struct(data_type: &DataType) -> bool {
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

/// Sources and sizes of the images of a batch before they are decoded.
#[derive(Default)]
pub(super) struct ImageSizes {
    /// The source of each image, if the images have paths.
    pub(super) sources: Option<ArrayRef>,
    /// Stored bytes of each image, and pixels according to its header; 0 pixels if the header
    /// cannot be read.
    sizes: Vec<(u64, u64)>,
}

impl ImageSizes {
    fn measure(&mut self, images: &BinaryArray) {
        let size = |bytes: Option<&[u8]>| {
            let bytes = bytes.unwrap_or_default();
            (
                bytes.len() as u64,
                probe(bytes).map_or(0, |header| header.charged_pixels()),
            )
        };
        self.sizes = images.iter().map(size).collect();
    }

    /// Pixels of the images in these rows.
    pub(super) fn pixels(&self, rows: Range<usize>) -> u64 {
        let sizes = self.sizes.get(rows).unwrap_or_default();
        sizes
            .iter()
            .fold(0, |total, (_, pixels)| total.saturating_add(*pixels))
    }

    /// Bytes by which the decoded images exceed the stored ones.
    pub(super) fn decoded_beyond_stored(&self, rows: Range<usize>) -> u64 {
        let sizes = self.sizes.get(rows).unwrap_or_default();
        let beyond = |(stored, pixels): &(u64, u64)| {
            pixels.saturating_mul(PIXEL_BYTES).saturating_sub(*stored)
        };
        sizes.iter().map(beyond).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
                is_struct: false
            }))
        );
        assert_eq!(
            find(&[&text, &pair("img")], None),
            Ok(Some(ImageColumn {
                index: 1,
                is_struct: true
            }))
        );
        assert_eq!(
            find(&[&pair("a"), &pair("b")], Some("b")),
            Ok(Some(ImageColumn {
                index: 1,
                is_struct: true
            }))
        );
        let fault = find(&[&pair("a"), &pair("b")], None).unwrap_err();
        assert_eq!(
            fault,
            "several columns hold images: a, b; name one of them, or choose `columns`"
        );
        assert_eq!(
            find(&[&text], Some("label")).unwrap_err(),
            "column `label` is Utf8; expected binary, or a struct of `bytes` and `path`"
        );
        assert_eq!(
            find(&[&text], Some("x")).unwrap_err(),
            "no column `x`; the table has: label"
        );
    }
}
