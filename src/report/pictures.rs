//! Images in a report: originals above what the model was given and what it made of them, as PNGs inside the page.

use super::html::{Element, Html, element, text};
use super::page::scroll;
use crate::evaluate::ShownRecord;
use crate::image::{OutputFormat, PixelFormat, Pixels, encode};

/// Sides up to which images are shown whole, several beside one another.
const SMALL: usize = 128;
/// Of larger ones the middle is shown, up to this side: noise would not survive being scaled down.
const LARGE: usize = 224;

/// A column of the gallery: a record, and what is said of it.
pub(super) struct Picture<'a> {
    pub(super) record: &'a ShownRecord,
    pub(super) name: String,
    pub(super) error: String,
}

/// Whether images of this size are shown whole.
pub(super) fn is_small((height, width): (usize, usize)) -> bool {
    height.max(width) <= SMALL
}

/// The values of a record at some stage of its way; `None` where it has no such stage.
type Stage<'a> = &'a dyn Fn(&ShownRecord) -> Option<Vec<f32>>;

/// The gallery: a row per stage of the way through the model, a column per record. `corruption` says what was done.
pub(super) fn gallery(pictures: &[Picture<'_>], format: &PixelFormat, corruption: Option<&str>) -> Html {
    let gray = corruption.is_some();
    let rows: [(&str, Stage<'_>); 4] = [
        ("original", &|record| Some(record.clean.clone())),
        ("corrupted", &|record| record.corrupted.clone()),
        (if gray { "restored" } else { "reconstruction" }, &|record| Some(record.output.clone())),
        ("difference", &|record| Some(difference(record, format))),
    ];
    let rows = rows.into_iter().filter_map(|(name, values)| {
        let cells: Vec<Element> = pictures
            .iter()
            .map(|picture| {
                let image = values(picture.record).and_then(|values| image(&values, picture.record, format));
                let image = image.map(|image| image.attribute("alt", format_args!("{}, {name}", picture.name)));
                element("td").with(image.map_or_else(Html::default, Html::from))
            })
            .collect();
        let is_there = pictures.iter().any(|picture| values(picture.record).is_some());
        is_there.then(|| element("tr").with(element("th").attribute("scope", "row").text(name)).all(cells))
    });
    let heads = pictures.iter().map(|picture| {
        let name = element("th").attribute("scope", "col").text(&picture.name);
        name.with(element("br")).with(text(&picture.error))
    });
    let heads = element("thead").with(element("tr").with(element("td")).all(heads));
    scroll(element("table").class("gallery").with(heads).with(element("tbody").all(rows)))
}

/// Four times the distance from the original, around the middle gray.
fn difference(record: &ShownRecord, format: &PixelFormat) -> Vec<f32> {
    let middle = format.range[0].midpoint(format.range[1]);
    let (clean, output) = (format.denormalise(&record.clean), format.denormalise(&record.output));
    let bytes: Vec<u8> = clean
        .iter()
        .zip(&output)
        .map(|(&clean, &output)| (127.5 + 4.0 * (f32::from(output) - f32::from(clean))).clamp(0.0, 255.0) as u8)
        .collect();
    let mut values = vec![middle; bytes.len()];
    format.normalise(&bytes, &mut values);
    values
}

/// An image whose values stand as `format` says; `None` where they are none.
fn image(values: &[f32], record: &ShownRecord, format: &PixelFormat) -> Option<Element> {
    let (height, width) = format.size(&record.shape)?;
    let data = format.denormalise(values);
    let whole = Pixels { width, height, channels: format.channels, data };
    let small = is_small((height, width));
    let shown = if small { whole } else { middle(&whole, LARGE) };
    let png = encode(&shown, OutputFormat::Png).ok()?;
    let image = element("img").class(if small { "small" } else { "large" });
    let image = image.attribute("width", shown.width).attribute("height", shown.height);
    Some(image.attribute("src", format_args!("data:image/png;base64,{}", base64(&png))))
}

/// The middle of an image, at most so many pixels wide and high.
fn middle(image: &Pixels, side: usize) -> Pixels {
    let (width, height) = (image.width.min(side), image.height.min(side));
    let (left, top) = ((image.width - width) / 2, (image.height - height) / 2);
    let channels = image.channels.count();
    let row = |y: usize| {
        let start = ((top + y) * image.width + left) * channels;
        &image.data[start..start + width * channels]
    };
    let data = (0..height).flat_map(row).copied().collect();
    Pixels { width, height, channels: image.channels, data }
}

/// Base64 as in RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Channels;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let all = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(all, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn the_middle_of_a_large_image_is_cut_out() {
        let image = Pixels { width: 5, height: 3, channels: Channels::Gray, data: (0..15).collect() };
        let cut = middle(&image, 2);
        assert_eq!((cut.width, cut.height, cut.data), (2, 2, vec![1, 2, 6, 7]));
        assert_eq!(middle(&image, 9), image);
    }
}
