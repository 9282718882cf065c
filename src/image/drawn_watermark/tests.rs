//! Tests of drawn watermarks.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

/// The share of each pixel that a watermark covers, and its colors.
fn painted(mark: &DrawnWatermark, side: usize) -> (Vec<f32>, Vec<[f32; 3]>) {
    let (mut shares, mut colors) = (vec![0.0; side * side], Vec::new());
    mark.paint(side, side, |pixel, color, share| {
        shares[pixel] += share;
        if !colors.contains(&color) {
            colors.push(color);
        }
    });
    (shares, colors)
}

#[test]
fn watermarks_differ_and_cover_a_part_of_the_image() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut covered, mut all_colors, mut empty) = (Vec::new(), 0, 0);
    for _ in 0..200 {
        let mark = DrawnWatermark::draw(160, 160, 24.0, &mut rng);
        let (shares, colors) = painted(&mark, 160);
        assert!(
            shares.iter().all(|share| (0.0..=1.0001).contains(share)),
            "{mark:?}"
        );
        assert!(colors.len() <= 2);
        let share = shares.iter().sum::<f32>() / shares.len() as f32;
        empty += usize::from(share == 0.0);
        all_colors += usize::from(colors.iter().any(|[r, g, b]| r != g || g != b));
        covered.push(share);
    }
    covered.sort_by(f32::total_cmp);
    assert!(empty < 20, "{empty} of 200 are outside of the image");
    assert!((0.005..0.1).contains(&covered[100]), "{}", covered[100]);
    assert!(covered[199] < 0.7, "{}", covered[199]);
    assert!(
        (40..130).contains(&all_colors),
        "{all_colors} of 200 have a color"
    );
}

#[test]
fn height_of_a_logo_is_its_size() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for size in [8.0_f32, 40.0, 120.0] {
        let mark = DrawnWatermark {
            glyphs: vec![logo(&mut rng)],
            size,
            angle: (1.0, 0.0),
            anchor: (100.0, 100.0),
            tiling: None,
            color: [1.0; 3],
            outline: None,
        };
        let (shares, _) = painted(&mark, 200);
        let rows: Vec<usize> = (0..200)
            .filter(|y| {
                shares[y * 200..(y + 1) * 200]
                    .iter()
                    .any(|share| *share > 0.5)
            })
            .collect();
        let height = (rows[rows.len() - 1] - rows[0] + 1) as f32;
        assert!(height <= size + 2.0, "{height} for {size}");
        assert!(height >= size * 0.3, "{height} for {size}");
    }
}

#[test]
fn tiled_watermark_has_copies_in_all_parts_of_the_image() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mark = DrawnWatermark {
        glyphs: vec![logo(&mut rng)],
        size: 10.0,
        angle: (1.0, 0.0),
        anchor: (0.0, 0.0),
        tiling: Some(([2.0, 2.0], 0.3)),
        color: [0.2, 0.4, 0.6],
        outline: Some(([0.0; 3], 1.0)),
    };
    let (shares, colors) = painted(&mark, 120);
    for (top, left) in [(0, 0), (0, 80), (80, 0), (80, 80)] {
        let part = (top..top + 40).flat_map(|y| (left..left + 40).map(move |x| (y, x)));
        let sum: f32 = part.map(|(y, x)| shares[y * 120 + x]).sum();
        assert!(sum > 20.0, "{sum} at {top}, {left}");
    }
    assert_eq!(colors.len(), 2);
}
