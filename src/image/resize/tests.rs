//! Unit tests of the module `resize`.

#![allow(clippy::unwrap_used)]

use super::*;

fn gray(width: usize, data: &[u8]) -> Pixels {
    Pixels {
        width,
        height: data.len() / width,
        channels: Channels::Gray,
        data: data.to_vec(),
    }
}

#[test]
fn half_the_width_is_the_weighted_mean_of_the_pixels() {
    // The filter is a triangle two pixels wide, with weights 0.75, 0.75, 0.25 over 1.75, so
    // that the second pixel adds (70 * 0.75 + 140 * 0.25) / 1.75 = 50.
    let mut resizer = Resizer::new(1, 2, ResizeMode::Stretch);
    assert_eq!(
        resizer.resize(&gray(4, &[0, 70, 140, 210])).unwrap(),
        [50, 160]
    );
}

#[test]
fn long_line_is_resized_without_large_intermediate_image() {
    let line = gray(1 << 20, &vec![200; 1 << 20]);
    let mut resizer = Resizer::new(64, 64, ResizeMode::Stretch);
    assert_eq!(resizer.resize(&line).unwrap(), [200; 64 * 64]);
    // The results of both orders of the passes differ by at most 1, the rounding of a pass.
    let ramp: Vec<u8> = (0..300_000).map(|at| (at / 1200) as u8).collect();
    let ramp = gray(100_000, &ramp);
    let (wide, square) = (
        Resizer::new(200, 10, ResizeMode::Stretch)
            .resize(&ramp)
            .unwrap()
            .to_vec(),
        200 * 10,
    );
    let mut once = vec![0; square];
    let mut inner = fast_image_resize::Resizer::new();
    scale_both(
        &mut inner,
        &ramp,
        CropBox::full(&ramp),
        (200, 10),
        &mut once,
    )
    .unwrap();
    assert!(wide.iter().zip(&once).all(|(a, b)| a.abs_diff(*b) <= 1));
    let longer = gray((1 << 20) + 1, &vec![0; (1 << 20) + 1]);
    assert_eq!(
        resizer.resize(&longer),
        Err(ImageError::TooLarge(
            "an image with a side of 1048577 pixels cannot be resized; \
                 the maximum is 1048576"
                .to_owned()
        ))
    );
}

#[test]
fn image_of_target_size_is_unchanged() {
    let colors = Pixels {
        width: 2,
        height: 1,
        channels: Channels::Rgb,
        data: vec![1, 2, 3, 4, 5, 6],
    };
    for fit in [ResizeMode::Stretch, ResizeMode::Crop, ResizeMode::Pad] {
        assert_eq!(
            Resizer::new(1, 2, fit).resize(&colors).unwrap(),
            [1, 2, 3, 4, 5, 6]
        );
    }
}

#[test]
fn crop_keeps_the_center_of_the_long_side() {
    let mut resizer = Resizer::new(1, 2, ResizeMode::Crop);
    assert_eq!(
        resizer.resize(&gray(4, &[0, 70, 140, 210])).unwrap(),
        [70, 140]
    );
}

#[test]
fn pad_adds_black_at_both_ends_of_the_short_side() {
    let mut resizer = Resizer::new(4, 2, ResizeMode::Pad);
    assert_eq!(
        resizer.resize(&gray(1, &[9])).unwrap(),
        [0, 0, 9, 9, 9, 9, 0, 0]
    );
    // The buffers are reused: the result must not contain pixels of the previous image.
    assert_eq!(
        resizer.resize(&gray(1, &[5, 5, 5, 5])).unwrap(),
        [5, 0, 5, 0, 5, 0, 5, 0]
    );
    assert_eq!(
        resizer.resize(&gray(1, &[9])).unwrap(),
        [0, 0, 9, 9, 9, 9, 0, 0]
    );
}

#[test]
fn line_is_padded_to_a_line() {
    let mut resizer = Resizer::new(3, 3, ResizeMode::Pad);
    assert_eq!(
        resizer.resize(&gray(1000, &[7; 1000])).unwrap(),
        [0, 0, 0, 7, 7, 7, 0, 0, 0]
    );
}

#[test]
fn image_with_missing_pixels_is_malformed() {
    let short = Pixels {
        width: 9,
        height: 9,
        channels: Channels::Gray,
        data: vec![1],
    };
    assert!(matches!(
        Resizer::new(2, 2, ResizeMode::Stretch).resize(&short),
        Err(ImageError::Malformed(_))
    ));
}
