//! A gallery of example images: originals, inputs, outputs and differences, as embedded PNGs.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use maud::{Markup, html};

use super::page::scroll;
use crate::evaluate::ExampleRecord;
use crate::image::{OutputFormat, PixelFormat, Pixels, encode};

/// Maximum side in pixels of images that are shown completely and several in a row.
const SMALL: usize = 128;
/// Maximum side in pixels of the center that is shown of larger images. They are not scaled down,
/// because this would remove noise.
const LARGE: usize = 224;

/// A column of the gallery: a record with its caption.
pub(super) struct GalleryImage<'a> {
    pub(super) record: &'a ExampleRecord,
    pub(super) name: String,
    /// The origin of the record; may be empty.
    pub(super) origin: String,
    pub(super) error: String,
}

/// Whether images of this size are shown completely.
pub(super) fn is_small((height, width): (usize, usize)) -> bool {
    height.max(width) <= SMALL
}

/// Returns the pixel values of a record for one row of the gallery; `None` if it has none.
type PixelSource<'a> = &'a dyn Fn(&ExampleRecord) -> Option<Vec<f32>>;

/// Returns the gallery, with one row for each step through the model and one column for each
/// record. `corruption` describes the corruption of the inputs, if they are corrupted.
pub(super) fn gallery(
    pictures: &[GalleryImage<'_>],
    format: &PixelFormat,
    corruption: Option<&str>,
) -> Markup {
    let is_corrupted = corruption.is_some();
    let rows: [(&str, PixelSource<'_>); 4] = [
        ("original", &|record| Some(record.clean.clone())),
        ("corrupted", &|record| record.corrupted.clone()),
        (
            if is_corrupted {
                "restored"
            } else {
                "reconstruction"
            },
            &|record| Some(record.output.clone()),
        ),
        ("difference", &|record| Some(difference(record, format))),
    ];
    let has_values = |values: PixelSource<'_>| {
        pictures
            .iter()
            .any(|picture| values(picture.record).is_some())
    };
    let rows = rows.into_iter().filter(|(_, values)| has_values(values));
    scroll(&html! {
        table.gallery {
            thead {
                tr {
                    td {}
                    @for picture in pictures {
                        th scope="col" {
                            (picture.name)
                            br;
                            (picture.error)
                            br;
                            (picture.origin)
                        }
                    }
                }
            }
            tbody {
                @for (name, values) in rows {
                    tr {
                        th scope="row" { (name) }
                        @for picture in pictures {
                            td {
                                @if let Some(values) = values(picture.record) {
                                    (image(&values, picture, name, format))
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}

/// Returns the output minus the original, multiplied by four and added to middle gray.
fn difference(record: &ExampleRecord, format: &PixelFormat) -> Vec<f32> {
    let middle = format.range[0].midpoint(format.range[1]);
    let (clean, output) = (
        format.denormalize(&record.clean),
        format.denormalize(&record.output),
    );
    let bytes: Vec<u8> = clean
        .iter()
        .zip(&output)
        .map(|(&clean, &output)| {
            (127.5 + 4.0 * (f32::from(output) - f32::from(clean))).clamp(0.0, 255.0) as u8
        })
        .collect();
    let mut values = vec![middle; bytes.len()];
    format.normalize(&bytes, &mut values);
    values
}

/// Encodes values in a pixel format as an image; empty if their shape is not an image.
fn image(values: &[f32], picture: &GalleryImage<'_>, row: &str, format: &PixelFormat) -> Markup {
    let Some(size) = format.size(&picture.record.shape) else {
        return Markup::default();
    };
    let pixels = Pixels {
        width: size.1,
        height: size.0,
        channels: format.channels.decoded(),
        data: format.denormalize(values),
    };
    let small = is_small(size);
    let shown = if small {
        pixels
    } else {
        pixels.center_crop(LARGE)
    };
    let Ok(png) = encode(&shown, OutputFormat::Png) else {
        return Markup::default();
    };
    let class = if small { "small" } else { "large" };
    let source = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&png));
    let (width, height) = (shown.width, shown.height);
    let text = format!("{}, {row}", picture.name);
    html! {
        img class=(class) width=(width) height=(height) src=(source) alt=(text);
    }
}
