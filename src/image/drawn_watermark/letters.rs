//! Random letters and logos.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

use rand::Rng;

use super::stroke::Stroke;

/// A letter or a logo of height 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Glyph {
    strokes: Vec<Stroke>,
    thickness: f32,
    /// The distance to the next glyph.
    pub(super) advance: f32,
    /// The distance by which the top lies to the right of the bottom.
    slant: f32,
}

impl Glyph {
    /// Returns a gap between words.
    pub(super) fn space(advance: f32) -> Self {
        Self {
            strokes: Vec::new(),
            thickness: 0.0,
            advance,
            slant: 0.0,
        }
    }

    /// Returns the distance of a point to the glyph; negative inside.
    pub(super) fn distance(&self, along: f32, below: f32) -> f32 {
        let point = [along - (0.5 - below) * self.slant, below];
        let distances = self
            .strokes
            .iter()
            .map(|stroke| stroke.distance(point, self.thickness));
        distances.fold(f32::INFINITY, f32::min)
    }
}

/// Returns strokes as letters have them: stems, bars, diagonals and bowls.
pub(super) fn letter(
    width: f32,
    gap: f32,
    thickness: f32,
    slant: f32,
    rng: &mut impl Rng,
) -> Glyph {
    let inset = thickness / 2.0;
    let (left, right) = (inset, (width - inset).max(inset + 0.1));
    let (top, bottom) = (inset, 1.0 - inset);
    let columns = [left, f32::midpoint(left, right), right];
    let rows = [top, 0.5, bottom];
    let mut strokes = Vec::new();
    for number in 0..rng.random_range(1..=4) {
        let kind = if number == 0 && rng.random_bool(0.6) {
            0
        } else {
            rng.random_range(0..4)
        };
        strokes.push(match kind {
            0 => {
                let x = columns[if number == 0 {
                    0
                } else {
                    rng.random_range(0..3)
                }];
                Stroke::Segment {
                    from: [x, top],
                    to: [x, bottom],
                }
            }
            1 => {
                let y = rows[rng.random_range(0..3)];
                Stroke::Segment {
                    from: [left, y],
                    to: [right, y],
                }
            }
            2 => Stroke::Segment {
                from: [
                    columns[rng.random_range(0..3)],
                    rows[rng.random_range(0..2)],
                ],
                to: [columns[rng.random_range(0..3)], rows[2]],
            },
            _ => bowl([left, right], [top, bottom], rng),
        });
    }
    Glyph {
        strokes,
        thickness,
        advance: width + gap,
        slant,
    }
}

/// Returns a half or whole circle in the upper half, the lower half, or the whole height.
fn bowl([left, right]: [f32; 2], [top, bottom]: [f32; 2], rng: &mut impl Rng) -> Stroke {
    let center = f32::midpoint(left, right);
    let widest = (right - left) / 2.0;
    let (y, highest) = match rng.random_range(0..3) {
        0 => (f32::midpoint(top, 0.5), (0.5 - top) / 2.0),
        1 => (f32::midpoint(0.5, bottom), (bottom - 0.5) / 2.0),
        _ => (0.5, (bottom - top) / 2.0),
    };
    let sweep = [PI, PI * 1.5, TAU][rng.random_range(0..3)];
    Stroke::Arc {
        center: [center, y],
        radius: widest.min(highest),
        from: [-FRAC_PI_2, FRAC_PI_2, 0.0, PI][rng.random_range(0..4)],
        sweep,
    }
}

/// Returns a circle, a star, a polygon or a disk, some of them with a letter inside.
pub(super) fn logo(rng: &mut impl Rng) -> Glyph {
    let thickness = rng.random_range(0.04..0.14);
    let (center, radius) = ([0.5, 0.5], 0.5 - thickness / 2.0);
    let mut strokes = match rng.random_range(0..4) {
        0 => vec![Stroke::ring(center, radius)],
        1 => vec![Stroke::Disk {
            center,
            radius: rng.random_range(0.2..0.5),
        }],
        2 => polygon(rng.random_range(3..=6), 1, radius, rng.random()),
        _ => polygon(5, 2, radius, rng.random()),
    };
    if rng.random_bool(0.5) {
        let inner = letter(0.5, 0.0, thickness, 0.0, rng);
        // The letter is half as high as the logo, in its center.
        strokes.extend(inner.strokes.into_iter().map(shrunk));
    }
    Glyph {
        strokes,
        thickness,
        advance: 1.2,
        slant: 0.0,
    }
}

/// Returns the sides of a regular polygon, or of a star if each side skips corners.
fn polygon(corners: usize, step: usize, radius: f32, turn: f32) -> Vec<Stroke> {
    let corner = |number: usize| {
        let angle = TAU * (number as f32 / corners as f32 + turn);
        [0.5 + radius * angle.cos(), 0.5 + radius * angle.sin()]
    };
    let side = |number| Stroke::Segment {
        from: corner(number),
        to: corner((number + step) % corners),
    };
    (0..corners).map(side).collect()
}

/// Moves a stroke of a letter of width 0.5 into the center of a logo, at half its size.
fn shrunk(stroke: Stroke) -> Stroke {
    let at = |point: [f32; 2]| [0.375 + point[0] / 2.0, 0.25 + point[1] / 2.0];
    match stroke {
        Stroke::Segment { from, to } => Stroke::Segment {
            from: at(from),
            to: at(to),
        },
        Stroke::Arc {
            center,
            radius,
            from,
            sweep,
        } => Stroke::Arc {
            center: at(center),
            radius: radius / 2.0,
            from,
            sweep,
        },
        Stroke::Disk { center, radius } => Stroke::Disk {
            center: at(center),
            radius: radius / 2.0,
        },
    }
}
