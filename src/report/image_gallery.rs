//! A gallery of example images: originals, inputs, outputs and differences, as embedded PNGs.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::html::{Html, HtmlElement, element, text};
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
) -> Html {
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
    let rows = rows.into_iter().filter_map(|(name, values)| {
        let cells: Vec<HtmlElement> = pictures
            .iter()
            .map(|picture| {
                let image = values(picture.record)
                    .and_then(|values| image(&values, picture.record, format));
                let image = image
                    .map(|image| image.attribute("alt", format_args!("{}, {name}", picture.name)));
                element("td").with(image.map_or_else(Html::default, Html::from))
            })
            .collect();
        let has_values = pictures
            .iter()
            .any(|picture| values(picture.record).is_some());
        has_values.then(|| {
            element("tr")
                .with(element("th").attribute("scope", "row").text(name))
                .all(cells)
        })
    });
    let heads = pictures.iter().map(|picture| {
        let name = element("th").attribute("scope", "col").text(&picture.name);
        name.with(element("br"))
            .with(text(&picture.error))
            .with(element("br"))
            .with(text(&picture.origin))
    });
    let heads = element("thead").with(element("tr").with(element("td")).all(heads));
    scroll(
        element("table")
            .class("gallery")
            .with(heads)
            .with(element("tbody").all(rows)),
    )
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

/// Encodes values in a pixel format as an image; `None` if their shape is not an image.
fn image(values: &[f32], record: &ExampleRecord, format: &PixelFormat) -> Option<HtmlElement> {
    let (height, width) = format.size(&record.shape)?;
    let data = format.denormalize(values);
    let pixels = Pixels {
        width,
        height,
        channels: format.channels,
        data,
    };
    let small = is_small((height, width));
    let shown = if small {
        pixels
    } else {
        pixels.center_crop(LARGE)
    };
    let png = encode(&shown, OutputFormat::Png).ok()?;
    let image = element("img").class(if small { "small" } else { "large" });
    let image = image
        .attribute("width", shown.width)
        .attribute("height", shown.height);
    Some(image.attribute(
        "src",
        format_args!("data:image/png;base64,{}", BASE64_STANDARD.encode(&png)),
    ))
}
