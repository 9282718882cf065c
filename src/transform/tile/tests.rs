//! Unit tests of the module `tile`.

use super::*;
use crate::image::pixel_format::Channels;

fn format(layout: TensorLayout) -> PixelFormat {
    PixelFormat {
        layout,
        channels: Channels::Rgb,
        ..PixelFormat::default()
    }
}

/// Cuts an image into tiles, merges the unchanged tiles, and checks that the result equals the
/// image.
fn cut_and_merge(
    layout: TensorLayout,
    height: usize,
    width: usize,
    cut: TileCut,
) -> (usize, (usize, usize)) {
    let tiling = Tiling::new(&format(layout), (height, width), cut);
    let image: Vec<f32> = (0..3 * height * width)
        .map(|value| (value % 251) as f32)
        .collect();
    let mut back = vec![0.0; image.len()];
    for tile in 0..tiling.count() {
        let mut values = Vec::new();
        tiling.cut(&image, tile, &mut values);
        assert_eq!(values.len(), 3 * tiling.side().0 * tiling.side().1);
        tiling.blend(&values, tile, &mut back);
    }
    let worst = image
        .iter()
        .zip(&back)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 1e-4, "off by {worst}");
    (tiling.count(), tiling.side())
}

#[test]
fn image_is_restored_from_tiles_in_all_layouts_and_sizes() {
    for layout in [TensorLayout::Nchw, TensorLayout::Nhwc] {
        let cut = TileCut {
            tile: 16,
            overlap: 4,
            multiple: 4,
        };
        assert_eq!(cut_and_merge(layout, 16, 16, cut), (1, (16, 16)));
        assert_eq!(cut_and_merge(layout, 5, 7, cut), (1, (8, 8)));
        assert_eq!(cut_and_merge(layout, 1, 1, cut), (1, (4, 4)));
        assert_eq!(cut_and_merge(layout, 17, 40, cut), (6, (12, 16)));
        assert_eq!(cut_and_merge(layout, 100, 3, cut), (8, (16, 4)));
        assert_eq!(
            cut_and_merge(layout, 33, 33, TileCut { overlap: 0, ..cut }),
            (9, (12, 12))
        );
    }
}

#[test]
fn blending_weights_are_linear() {
    let axis = TileAxis::new(
        13,
        TileCut {
            tile: 8,
            overlap: 3,
            multiple: 1,
        },
    );
    let weights: Vec<&[f32]> = axis
        .spans
        .iter()
        .map(|span| span.weights.as_slice())
        .collect();
    assert_eq!(
        weights,
        [
            &[1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25],
            &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
        ]
    );
}

#[test]
fn small_image_is_padded_with_its_edges() {
    let gray = PixelFormat {
        channels: Channels::Gray,
        ..PixelFormat::default()
    };
    let tiling = Tiling::new(
        &gray,
        (2, 3),
        TileCut {
            tile: 4,
            overlap: 0,
            multiple: 4,
        },
    );
    let mut padded = Vec::new();
    tiling.cut(&[1., 2., 3., 4., 5., 6.], 0, &mut padded);
    assert_eq!(
        padded,
        [
            1., 2., 3., 3., 4., 5., 6., 6., 4., 5., 6., 6., 4., 5., 6., 6.
        ]
    );
}
