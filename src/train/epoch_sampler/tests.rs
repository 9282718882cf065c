//! Unit tests of the module `epoch_sampler`.

use super::*;
use crate::image::PixelFormat;
use crate::train::augmentation::Crop;

fn cut(crop: Crop) -> Vec<f32> {
    // Two rows of three pixels with one varying and one constant channel.
    let pixels: Vec<u8> = (0..6).flat_map(|pixel| [pixel, 100]).collect();
    let format = PixelFormat {
        channels: Channels::Gray,
        ..PixelFormat::default()
    };
    let format = PixelFormat {
        range: [0.0, 255.0],
        ..format
    };
    let mut out = Vec::new();
    crop.write(&format, &pixels, [2, 3, 2], &mut out);
    let (first, second) = out.split_at(out.len() / 2);
    assert!(second.iter().all(|&value| value == 100.0), "{second:?}");
    first.to_vec()
}

#[test]
fn crops_are_cut_and_flipped() {
    let crop = |mirror, upside_down, transpose| Crop {
        top: 0,
        left: 1,
        height: 2,
        width: 2,
        mirror,
        upside_down,
        transpose,
    };
    assert_eq!(cut(crop(false, false, false)), [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(cut(crop(true, false, false)), [2.0, 1.0, 5.0, 4.0]);
    assert_eq!(cut(crop(false, true, false)), [4.0, 5.0, 1.0, 2.0]);
    assert_eq!(cut(crop(false, false, true)), [1.0, 4.0, 2.0, 5.0]);
    assert_eq!(cut(crop(true, true, true)), [5.0, 2.0, 4.0, 1.0]);
}

#[test]
fn image_smaller_than_its_crop_is_extended_by_reflection() {
    let crop = Crop {
        top: 0,
        left: 0,
        height: 3,
        width: 5,
        mirror: false,
        upside_down: false,
        transpose: false,
    };
    let expected = [0, 1, 2, 2, 1, 3, 4, 5, 5, 4, 3, 4, 5, 5, 4].map(|value: u8| f32::from(value));
    assert_eq!(cut(crop), expected);
}
