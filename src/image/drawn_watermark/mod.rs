//! Drawn watermarks: words of letters that are drawn with strokes, and logos, of any size, angle and
//! color, with or without an outline, single or tiled. Shapes are signed distances, so they are
//! smooth at each size and do not depend on a font.

mod letters;
mod stroke;

use rand::Rng;

use self::letters::{Glyph, letter, logo};

/// The watermark of one record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DrawnWatermark {
    /// The glyphs of a line, from left to right.
    glyphs: Vec<Glyph>,
    /// The height of a glyph, in pixels.
    size: f32,
    /// The cosine and sine of the angle at which the line rises.
    angle: (f32, f32),
    /// The pixel (x, y) at the center of a line.
    anchor: (f32, f32),
    /// The distances between copies along the line and between lines, in heights of a glyph, and
    /// the fraction of a distance by which each line is shifted relative to the line above; `None`
    /// for a single line.
    tiling: Option<([f32; 2], f32)>,
    /// Red, green and blue, from 0 to 1.
    color: [f32; 3],
    /// The color of the outline and its width, in pixels.
    outline: Option<([f32; 3], f32)>,
}

/// The probability of a word; other watermarks are logos.
const WORD_SHARE: f64 = 0.7;
/// The probability of a level line; the angle of others is at most 60 degrees.
const LEVEL_SHARE: f64 = 0.5;
const MAX_ANGLE: f32 = std::f32::consts::FRAC_PI_3;
/// The probability of a white, black or gray watermark.
const GRAY_SHARE: f64 = 0.6;
/// The probabilities of several copies and of an outline.
const TILED_SHARE: f64 = 0.4;
const OUTLINE_SHARE: f64 = 0.3;

impl DrawnWatermark {
    /// Draws a watermark for an image of this size; `size` is the height of its letters, in pixels.
    pub(crate) fn draw(height: usize, width: usize, size: f32, rng: &mut impl Rng) -> Self {
        let glyphs = match rng.random_bool(WORD_SHARE) {
            true => word(rng),
            false => vec![logo(rng)],
        };
        let level = rng.random_bool(LEVEL_SHARE);
        let angle: f32 = match level {
            true => 0.0,
            false => rng.random_range(-MAX_ANGLE..MAX_ANGLE),
        };
        let anchor = (
            width as f32 * rng.random::<f32>(),
            height as f32 * rng.random::<f32>(),
        );
        let length: f32 = glyphs.iter().map(|glyph| glyph.advance).sum();
        let tiling = rng.random_bool(TILED_SHARE).then(|| {
            let periods = [
                length + rng.random_range(0.5..4.0),
                1.0 + rng.random_range(0.5..4.0),
            ];
            (periods, rng.random())
        });
        let color = color(rng);
        let outline = rng.random_bool(OUTLINE_SHARE).then(|| {
            // An outline of the opposite shade, as captions have.
            let shade = if color.iter().sum::<f32>() > 1.5 {
                0.0
            } else {
                1.0
            };
            ([shade; 3], (size * rng.random_range(0.02..0.08)).max(1.0))
        });
        Self {
            glyphs,
            size,
            angle: (angle.cos(), angle.sin()),
            anchor,
            tiling,
            color,
            outline,
        }
    }

    /// Calls `paint` for each covered pixel, row by row, with the index of the pixel, the color and
    /// the covered fraction.
    pub(crate) fn paint(
        &self,
        height: usize,
        width: usize,
        mut paint: impl FnMut(usize, [f32; 3], f32),
    ) {
        let length: f32 = self.glyphs.iter().map(|glyph| glyph.advance).sum();
        let (cos, sin) = self.angle;
        for y in 0..height {
            for x in 0..width {
                let (u, v) = (
                    x as f32 + 0.5 - self.anchor.0,
                    y as f32 + 0.5 - self.anchor.1,
                );
                let along = (u * cos - v * sin) / self.size + length / 2.0;
                let below = (u * sin + v * cos) / self.size + 0.5;
                let distance = self.distance(along, below) * self.size;
                let inside = (0.5 - distance).clamp(0.0, 1.0);
                if inside > 0.0 {
                    paint(y * width + x, self.color, inside);
                }
                if let Some((color, thickness)) = self.outline {
                    let share = (0.5 - (distance - thickness)).clamp(0.0, 1.0) - inside;
                    if share > 0.0 {
                        paint(y * width + x, color, share);
                    }
                }
            }
        }
    }

    /// Returns the distance of a position to the shape, in heights of a glyph; negative inside.
    fn distance(&self, along: f32, below: f32) -> f32 {
        let (along, below) = match self.tiling {
            None => (along, below),
            Some(([period, line], stagger)) => {
                // A part of the gap above and to the left of a copy belongs to it, for its outline.
                let number = ((below + 0.25) / line).floor();
                let shifted = along + 0.25 - number * stagger * period;
                (shifted.rem_euclid(period) - 0.25, below - number * line)
            }
        };
        // Shapes do not reach far out of their line.
        if !(-0.5..=1.5).contains(&below) {
            return f32::INFINITY;
        }
        let mut start = 0.0;
        let mut nearest = f32::INFINITY;
        for glyph in &self.glyphs {
            // The neighbors of a glyph overlap with its outline.
            if along > start - 0.5 && along < start + glyph.advance + 0.5 {
                nearest = nearest.min(glyph.distance(along - start, below));
            }
            start += glyph.advance;
        }
        nearest
    }
}

/// Returns the letters of one or two words.
fn word(rng: &mut impl Rng) -> Vec<Glyph> {
    let thickness = rng.random_range(0.05..0.22);
    let aspect = rng.random_range(0.45..0.85);
    let gap = rng.random_range(0.08..0.3);
    let slant = if rng.random_bool(0.25) {
        rng.random_range(0.1..0.35)
    } else {
        0.0
    };
    let mut glyphs = Vec::new();
    for number in 0..rng.random_range(1..=2) {
        if number > 0 {
            glyphs.push(Glyph::space(aspect));
        }
        for _ in 0..rng.random_range(2..=8) {
            glyphs.push(letter(aspect, gap, thickness, slant, rng));
        }
    }
    glyphs
}

fn color(rng: &mut impl Rng) -> [f32; 3] {
    if rng.random_bool(GRAY_SHARE) {
        let shade = match rng.random_range(0..3) {
            0 => rng.random_range(0.0..0.2),
            1 => rng.random_range(0.0..1.0),
            _ => rng.random_range(0.8..1.0),
        };
        return [shade; 3];
    }
    [rng.random(), rng.random(), rng.random()]
}

#[cfg(test)]
mod tests;
