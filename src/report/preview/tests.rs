//! Unit tests of the module `preview`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::image::prepared::Sizing;
use crate::image::preprocess::Preprocessor;
use crate::image::{Channels, ColorSpace, OutputFormat, PixelFormat, encode};

/// A preparation that keeps the center of 2 x 2 pixels, with the channels blue, green and red.
fn center() -> ImagePreparation {
    let steps = serde_json::json!([{ "op": "center_crop", "size": 2 }]);
    let steps: Vec<_> = serde_json::from_value(steps).unwrap();
    ImagePreparation {
        format: PixelFormat {
            channels: Channels::Bgr,
            range: [0.0, 1.0],
            mean: vec![0.5, 0.5, 0.0],
            std: vec![0.5, 0.5, 1.0],
            ..PixelFormat::default()
        },
        sizing: Sizing::Steps(Preprocessor::new(&steps).unwrap()),
        max_pixels: 1000,
        value_range: None,
        color_space: ColorSpace::Stored,
    }
}

/// An image of 2 rows and 4 columns. The columns are red, green, blue and white.
fn image() -> Vec<u8> {
    let row = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255];
    let pixels = Pixels {
        width: 4,
        height: 2,
        channels: Channels::Rgb,
        data: [row, row].concat(),
    };
    encode(&pixels, OutputFormat::Png).unwrap()
}

#[test]
fn values_and_picture_are_those_of_the_tensor() {
    let stage = center();
    let preview = Preview::new("a.png".to_owned(), &image(), &[("pixels", &stage)]);
    assert_eq!(
        preview.text(),
        "a.png: PNG of 2 x 4 pixels (height x width)

pixels
  decode to rgb                  2 x 4      0 to 255
  center crop 2 x 2              2 x 2      0 to 255
  reverse channels to bgr        2 x 2      0 to 255
  scale to [0, 1]                2 x 2      0 to 1
  subtract mean [0.5, 0.5, 0.0]  2 x 2      -0.5 to 1
  divide by std [0.5, 0.5, 1.0]  2 x 2      -1 to 1
  float32 tensor                 3 x 2 x 2  -1 to 1
  blue   min -1  mean 0  max 1
  green  min -1  mean 0  max 1
  red    min 0  mean 0  max 0
"
    );
    let picture = &preview.stages[0].tensor.as_ref().unwrap().picture;
    let row = [0, 255, 0, 0, 0, 255];
    assert_eq!(picture.data, [row, row].concat());
    assert!(!preview.has_reject());
}

#[test]
fn sheet_has_original_and_tensor_side_by_side() {
    let stage = center();
    let preview = Preview::new("a.png".to_owned(), &image(), &[("pixels", &stage)]);
    let sheet = preview.picture().unwrap();
    let mut reader = stage.reader_of_originals();
    let error = reader.read(&sheet).unwrap_err();
    assert_eq!(error.code().as_str(), "too_large");
    let sheet = crate::image::decode(&sheet, Channels::Rgb, 1 << 20).unwrap();
    // The original of 2 x 4 pixels is enlarged 64 times, the tensor of 2 x 2 pixels 128 times.
    assert_eq!(
        (sheet.height, sheet.width),
        (8 + 256 + 8, 8 + 256 + 8 + 256 + 8)
    );
    let pixel = |y: usize, x: usize| &sheet.data[(y * sheet.width + x) * 3..][..3];
    assert_eq!(pixel(9, 9), [255, 0, 0]);
    assert_eq!(pixel(9, 8 + 256 + 8), [0, 255, 0]);
    assert_eq!(pixel(8 + 255, 8 + 256 + 8 + 255), [0, 0, 255]);
    assert_eq!(pixel(0, 0), [255, 255, 255]);
}

#[test]
fn very_long_image_is_previewed() {
    let pixels = Pixels {
        width: (1 << 20) + 1,
        height: 1,
        channels: Channels::Gray,
        data: vec![7; (1 << 20) + 1],
    };
    let png = encode(&pixels, OutputFormat::Png).unwrap();
    let stage = ImagePreparation {
        sizing: Sizing::Original,
        max_pixels: 1 << 21,
        ..center()
    };
    let preview = Preview::new("a.png".to_owned(), &png, &[("pixels", &stage)]);
    let picture = &preview.stages[0].tensor.as_ref().unwrap().picture;
    assert_eq!((picture.height, picture.width), (1, MAX_SIDE));
    assert!(picture.data.iter().all(|&value| value == 7));
}

#[test]
fn rejected_image_is_shown_with_its_reason() {
    let stage = center();
    let preview = Preview::new("a.png".to_owned(), &image()[..30], &[("pixels", &stage)]);
    assert!(preview.has_reject());
    let text = preview.text();
    let reason = text.lines().last().unwrap();
    assert!(
        reason.starts_with("  rejected (truncated): PNG ends after 30 bytes"),
        "{reason}"
    );
    let page = preview.page();
    assert!(
        page.contains(reason.trim()) && !page.contains("<img"),
        "{page}"
    );
    preview.picture().unwrap();
}

#[test]
fn page_embeds_the_pictures_of_each_stage() {
    let stage = center();
    let stages = [("one", &stage), ("two", &stage)];
    let page = Preview::new("<a>.png".to_owned(), &image(), &stages).page();
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 4);
    assert!(page.contains("&lt;a&gt;.png") && !page.contains("<a>"));
    assert!(page.contains("subtract mean [0.5, 0.5, 0.0]"));
}
