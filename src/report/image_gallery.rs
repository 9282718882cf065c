//! Images in a report: originals above what the model was given and what it made of them, as PNGs
//! inside the page.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::html::{Html, HtmlElement, element, text};
use super::page::scroll;
use crate::evaluate::ExampleRecord;
use crate::image::{OutputFormat, PixelFormat, Pixels, encode};

/// Sides up to which images are shown whole, several beside one another.
const SMALL: usize = 128;
/// Of larger ones the middle is shown, up to this side: noise would not survive being scaled down.
const LARGE: usize = 224;

/// A column of the gallery: a record, and what is said of it.
pub(super) struct GalleryImage<'a> {
    pub(super) record: &'a ExampleRecord,
    pub(super) name: String,
    pub(super) error: String,
}

/// Whether images of this size are shown whole.
pub(super) fn is_small((height, width): (usize, usize)) -> bool {
    height.max(width) <= SMALL
}

/// The values of a record at some stage of its way; `None` where it has no such stage.
type PixelSource<'a> = &'a dyn Fn(&ExampleRecord) -> Option<Vec<f32>>;

/// The gallery: a row per stage of the way through the model, a column per record. `corruption`
/// says what was done.
pub(super) fn gallery(
    pictures: &[GalleryImage<'_>],
    format: &PixelFormat,
    corruption: Option<&str>,
) -> Html {
    let gray = corruption.is_some();
    let rows: [(&str, PixelSource<'_>); 4] = [
        ("original", &|record| Some(record.clean.clone())),
        ("corrupted", &|record| record.corrupted.clone()),
        (
            if gray { "restored" } else { "reconstruction" },
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
        let is_there = pictures
            .iter()
            .any(|picture| values(picture.record).is_some());
        is_there.then(|| {
            element("tr")
                .with(element("th").attribute("scope", "row").text(name))
                .all(cells)
        })
    });
    let heads = pictures.iter().map(|picture| {
        let name = element("th").attribute("scope", "col").text(&picture.name);
        name.with(element("br")).with(text(&picture.error))
    });
    let heads = element("thead").with(element("tr").with(element("td")).all(heads));
    scroll(
        element("table")
            .class("gallery")
            .with(heads)
            .with(element("tbody").all(rows)),
    )
}

/// Four times the distance from the original, around the middle gray.
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

/// An image whose values stand as `format` says; `None` where they are none.
fn image(values: &[f32], record: &ExampleRecord, format: &PixelFormat) -> Option<HtmlElement> {
    let (height, width) = format.size(&record.shape)?;
    let data = format.denormalize(values);
    let whole = Pixels {
        width,
        height,
        channels: format.channels,
        data,
    };
    let small = is_small((height, width));
    let shown = if small {
        whole
    } else {
        whole.center_crop(LARGE)
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
