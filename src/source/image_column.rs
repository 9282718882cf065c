//! A column of encoded images in a table: plain bytes, or the `struct<bytes, path>` of Hugging Face
//! datasets.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;

use crate::image::probe;
use crate::source::{IMAGE, PIXEL_BYTES};

/// Which of a table's columns it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageColumn {
    place: usize,
    is_struct: bool,
}

impl ImageColumn {
    /// The column of that name, or the one that looks like it; `None` where none does.
    pub(super) fn find(columns: &[FieldRef], name: Option<&str>) -> Result<Option<Self>, String> {
        let column = |place: usize| {
            let data_type = columns[place].data_type();
            let is_struct = is_image_struct(data_type);
            (is_struct || is_bytes(data_type)).then_some(Self { place, is_struct })
        };
        let place_of = |name: &str| columns.iter().position(|field| field.name() == name);
        if let Some(name) = name {
            let known = || {
                columns
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let place = place_of(name)
                .ok_or_else(|| format!("there is no column `{name}`; known: {}", known()))?;
            let data_type = columns[place].data_type();
            let found = column(place);
            return found.map(Some).ok_or_else(|| {
                format!("column `{name}` is {data_type}; expected binary, or a struct of `bytes` and `path`")
            });
        }
        let structs: Vec<usize> = (0..columns.len())
            .filter(|&at| is_image_struct(columns[at].data_type()))
            .collect();
        match structs.as_slice() {
            [] => Ok(place_of(IMAGE).and_then(column)),
            [place] => Ok(column(*place)),
            [..] => {
                let names: Vec<&str> = structs
                    .iter()
                    .map(|&place| columns[place].name().as_str())
                    .collect();
                Err(format!(
                    "several columns hold images: {}; say which, or choose `columns`",
                    names.join(", ")
                ))
            }
        }
    }

    /// Its name among the columns.
    pub(super) fn name(self, columns: &[FieldRef]) -> &str {
        columns[self.place].name()
    }

    /// The columns once this one is `image`.
    pub(super) fn schema(self, columns: &[FieldRef]) -> Schema {
        let mut columns = columns.to_vec();
        columns[self.place] = Arc::new(Field::new(IMAGE, DataType::Binary, true));
        Schema::new(columns)
    }

    /// The columns with this one as `image`; what is known of the images is put into `images`.
    pub(super) fn take(
        self,
        mut columns: Vec<ArrayRef>,
        file: &str,
        images: &mut ImageSizes,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let column = &columns[self.place];
        let bytes = if self.is_struct {
            let pair = column.as_struct();
            let part = |name: &str| {
                let part = pair.column_by_name(name).cloned();
                part.ok_or_else(|| ArrowError::SchemaError(format!("an image has no `{name}`")))
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
        columns[self.place] = bytes;
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
    let is_text = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        )
    };
    fields.len() == 2 && typed("bytes").is_some_and(is_bytes) && typed("path").is_some_and(is_text)
}

/// `<file>/<path>` where an image has a path of its own.
fn sources(paths: &ArrayRef, file: &str) -> StringArray {
    let paths = paths.as_string::<i32>();
    let source =
        |path: Option<&str>| path.map_or_else(|| file.to_owned(), |path| format!("{file}/{path}"));
    StringArray::from_iter_values(paths.iter().map(source))
}

/// What is known of a batch's images before they are decoded.
#[derive(Default)]
pub(super) struct ImageSizes {
    /// Where each came from, if it has a path of its own.
    pub(super) sources: Option<ArrayRef>,
    /// For each, stored bytes and pixels by its header; 0 pixels where the header cannot be read.
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

    /// Bytes that the images take decoded, beyond those that they take as they are stored.
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
    fn the_column_is_found_by_its_type_or_by_its_name() {
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
                place: 1,
                is_struct: false
            }))
        );
        assert_eq!(
            find(&[&text, &pair("img")], None),
            Ok(Some(ImageColumn {
                place: 1,
                is_struct: true
            }))
        );
        assert_eq!(
            find(&[&pair("a"), &pair("b")], Some("b")),
            Ok(Some(ImageColumn {
                place: 1,
                is_struct: true
            }))
        );
        let fault = find(&[&pair("a"), &pair("b")], None).unwrap_err();
        assert_eq!(
            fault,
            "several columns hold images: a, b; say which, or choose `columns`"
        );
        assert!(
            find(&[&text], Some("label"))
                .unwrap_err()
                .starts_with("column `label` is Utf8; expected binary")
        );
        assert_eq!(
            find(&[&text], Some("x")).unwrap_err(),
            "there is no column `x`; known: label"
        );
    }
}
