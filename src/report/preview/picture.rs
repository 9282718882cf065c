//! Pictures of a preview: reduced images, images in a page, and a sheet of several images.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use maud::{Markup, html};

use crate::image::{Channels, ImageError, OutputFormat, Pixels, ResizeMode, Resizer, encode};

/// The side in pixels below which images are enlarged.
const SMALL: usize = 128;
/// The distance of images on a sheet, in pixels.
const GAP: usize = 8;

/// The image, reduced to at most `max` pixels per side.
pub(super) fn reduced(image: Pixels, max: usize) -> Pixels {
    let longest = image.height.max(image.width);
    if longest <= max {
        return image;
    }
    let scaled = |side: usize| (side * max / longest).max(1);
    let (height, width) = (scaled(image.height), scaled(image.width));
    let mut resizer = Resizer::new(height, width, ResizeMode::Stretch);
    let data = match resizer.resize(&image) {
        Ok(data) => data.to_vec(),
        // The resizer refuses very long sides; some pixels are enough for display.
        Err(_) => some_pixels(&image, height, width),
    };
    Pixels {
        height,
        width,
        channels: image.channels,
        data,
    }
}

/// Evenly spaced pixels of an image.
fn some_pixels(image: &Pixels, height: usize, width: usize) -> Vec<u8> {
    let channels = image.channels.count();
    let mut data = Vec::with_capacity(height * width * channels);
    for y in 0..height {
        let row = y * image.height / height * image.width;
        for x in 0..width {
            let start = (row + x * image.width / width) * channels;
            data.extend_from_slice(&image.data[start..start + channels]);
        }
    }
    data
}

/// An image of a page with its caption; empty if it cannot be encoded.
pub(super) fn embedded(image: &Pixels, caption: &str) -> Markup {
    let Ok(png) = encode(image, OutputFormat::Png) else {
        return Markup::default();
    };
    let source = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&png));
    let class = (image.height.max(image.width) <= SMALL).then_some("small");
    html! {
        figure {
            img class=[class] width=(image.width) height=(image.height) src=(source) alt=(caption);
            figcaption { (caption) }
        }
    }
}

/// Rows of images on white, as a PNG. Small images are enlarged.
///
/// # Errors
/// If the sheet cannot be encoded.
pub(super) fn sheet(rows: Vec<Vec<&Pixels>>) -> Result<Vec<u8>, ImageError> {
    let rows: Vec<Vec<Pixels>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(enlarged).collect())
        .collect();
    let row_height = |row: &Vec<Pixels>| row.iter().map(|image| image.height).max().unwrap_or(0);
    let row_width = |row: &Vec<Pixels>| row.iter().map(|image| image.width + GAP).sum::<usize>();
    let width = rows.iter().map(row_width).max().unwrap_or(0) + GAP;
    let height = rows.iter().map(|row| row_height(row) + GAP).sum::<usize>() + GAP;
    let mut data = vec![255; height * width * 3];
    let mut top = GAP;
    for row in &rows {
        let mut left = GAP;
        for image in row {
            let line = image.width * 3;
            for (y, from) in image.data.chunks_exact(line.max(1)).enumerate() {
                let at = ((top + y) * width + left) * 3;
                data[at..at + line].copy_from_slice(from);
            }
            left += image.width + GAP;
        }
        top += row_height(row) + GAP;
    }
    let sheet = Pixels {
        width,
        height,
        channels: Channels::Rgb,
        data,
    };
    encode(&sheet, OutputFormat::Png)
}

/// The image in color. Pixels of small images are repeated.
fn enlarged(image: &Pixels) -> Pixels {
    let times = (2 * SMALL / image.height.max(image.width).max(1)).max(1);
    let (height, width, count) = (
        image.height * times,
        image.width * times,
        image.channels.count(),
    );
    let mut data = Vec::with_capacity(height * width * 3);
    for y in 0..height {
        for x in 0..width {
            let at = (y / times * image.width + x / times) * count;
            let pixel = &image.data[at..at + count];
            match pixel {
                [gray] => data.extend([*gray; 3]),
                color => data.extend_from_slice(color),
            }
        }
    }
    Pixels {
        width,
        height,
        channels: Channels::Rgb,
        data,
    }
}
