//! Random watermarks: texts and grids of random size, position, angle and shade, with smooth edges.

use rand::Rng;

use super::watermark::{GLYPH, glyph};

/// The watermark of one record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RandomWatermark {
    pattern: WatermarkPattern,
    /// The cosine and sine of the angle at which the pattern rises.
    angle: (f32, f32),
    /// The pixel (x, y) at the origin of the pattern.
    anchor: (f32, f32),
    shade: f32,
}

#[derive(Debug, Clone, PartialEq)]
enum WatermarkPattern {
    Text {
        glyphs: Vec<[u8; 8]>,
        /// The side of a dot of the font, in pixels.
        dot: f32,
        /// The distance between two copies in a line, in dots.
        period: usize,
        /// The distance between two lines, in dots.
        line: f32,
        /// The fraction of a period by which each line is shifted relative to the line above.
        stagger: f32,
        /// The level above which the smooth edge belongs to a stroke: a lower level gives bolder
        /// text.
        threshold: f32,
    },
    Grid {
        /// The distance between two lines along both axes, in pixels.
        spacing: [f32; 2],
        /// The thickness of a line, in pixels.
        thickness: f32,
    },
}

/// The probability of a text: three times that of a grid, because texts are more diverse and thus
/// harder to learn.
const TEXT_SHARE: f64 = 0.75;
/// The maximum angle of rise or fall: 45 degrees.
const MAX_ANGLE: f32 = std::f32::consts::FRAC_PI_4;

impl RandomWatermark {
    /// Draws a watermark for an image of this size.
    pub(crate) fn draw(height: usize, width: usize, rng: &mut impl Rng) -> Self {
        let (height, width) = (height as f32, width as f32);
        let pattern = match rng.random_bool(TEXT_SHARE) {
            true => WatermarkPattern::text(height, width, rng),
            false => WatermarkPattern::grid(height.min(width), rng),
        };
        let level = rng.random_bool(0.4);
        let angle: f32 = if level {
            0.0
        } else {
            rng.random_range(-MAX_ANGLE..MAX_ANGLE)
        };
        let anchor = (width * rng.random::<f32>(), height * rng.random::<f32>());
        let light = rng.random_bool(0.67);
        let shade = if light {
            rng.random_range(0.8..1.0)
        } else {
            rng.random_range(0.0..0.2)
        };
        Self {
            pattern,
            angle: (angle.cos(), angle.sin()),
            anchor,
            shade,
        }
    }

    /// The shade, from 0 (black) to 1 (white).
    pub fn shade(&self) -> f32 {
        self.shade
    }

    /// Calls `paint` for each covered pixel, row by row, with the index of the pixel and the
    /// covered fraction.
    pub(crate) fn paint(&self, height: usize, width: usize, mut paint: impl FnMut(usize, f32)) {
        for y in 0..height {
            for x in 0..width {
                let (u, v) = (
                    x as f32 + 0.5 - self.anchor.0,
                    y as f32 + 0.5 - self.anchor.1,
                );
                let (cos, sin) = self.angle;
                let share = self.pattern.covers(u * cos - v * sin, u * sin + v * cos);
                if share > 0.0 {
                    paint(y * width + x, share);
                }
            }
        }
    }
}

impl WatermarkPattern {
    fn text(height: f32, width: f32, rng: &mut impl Rng) -> Self {
        let glyphs: Vec<[u8; 8]> = words(rng).filter_map(glyph).collect();
        // The sizes range from that of the font to that of a word that fills a photograph.
        let dot = between(rng, 1.0, (height.min(width) / 100.0).max(4.0));
        // A distance of the diagonal of the image leaves no second copy.
        let alone = rng.random_bool(0.25).then(|| height.hypot(width) / dot);
        let gap = alone.unwrap_or_else(|| between(rng, 4.0, 40.0));
        let line = alone.unwrap_or_else(|| between(rng, 2.0, 40.0)) + GLYPH;
        let period = glyphs.len() * 8 + gap.ceil() as usize;
        Self::Text {
            glyphs,
            dot,
            period,
            line,
            stagger: rng.random(),
            threshold: rng.random_range(0.3..0.5),
        }
    }

    fn grid(side: f32, rng: &mut impl Rng) -> Self {
        let mut spacing = || between(rng, 6.0, (side / 4.0).max(24.0));
        let spacing = [spacing(), spacing()];
        Self::Grid {
            spacing,
            thickness: rng.random_range(1.0..3.0),
        }
    }

    /// The covered fraction of the pixel at the distance `along` and `below` the origin of the
    /// pattern, in pixels.
    fn covers(&self, along: f32, below: f32) -> f32 {
        match self {
            Self::Grid { spacing, thickness } => {
                let line = |at: f32, period: f32| {
                    let distance = (at - (at / period).round() * period).abs();
                    (0.5 + thickness / 2.0 - distance).clamp(0.0, 1.0)
                };
                line(along, spacing[0]).max(line(below, spacing[1]))
            }
            Self::Text {
                glyphs,
                dot,
                period,
                line,
                stagger,
                threshold,
            } => {
                // The origin is the center of a text.
                let below = below / dot + GLYPH / 2.0;
                let number = (below / line).floor();
                let row = below - number * line;
                if row > GLYPH + 1.0 && row < line - 1.0 {
                    return 0.0;
                }
                let along = along / dot
                    + (glyphs.len() * 8) as f32 / 2.0
                    + number * stagger * *period as f32;
                let level = smooth(glyphs, *period, along, row);
                // The smooth edge is one dot wide. It is sharpened to the width of one pixel, and
                // is 0 far from any dot.
                let sharpness = dot.max(0.5 / threshold);
                ((level - threshold) * sharpness + 0.5).clamp(0.0, 1.0)
            }
        }
    }
}

/// The level at a position, 0 to 1: bilinear interpolation between the centers of the four dots
/// around it, so that a large glyph is round instead of composed of squares.
fn smooth(glyphs: &[[u8; 8]], period: usize, x: f32, y: f32) -> f32 {
    let (x, y) = (x.rem_euclid(period as f32) - 0.5, y - 0.5);
    let (left, top) = (x.floor(), y.floor());
    let (right, down) = (x - left, y - top);
    let lit = |column: f32, row: f32| {
        let column = if column < 0.0 {
            period - 1
        } else {
            column as usize % period
        };
        let dots = glyphs.get(column / 8).and_then(|rows| {
            if row < 0.0 {
                None
            } else {
                rows.get(row as usize)
            }
        });
        // The lowest bit is the leftmost dot.
        dots.map_or(0.0, |dots| f32::from(dots >> (column % 8) & 1))
    };
    let above = lit(left, top) * (1.0 - right) + lit(left + 1.0, top) * right;
    let under = lit(left, top + 1.0) * (1.0 - right) + lit(left + 1.0, top + 1.0) * right;
    above * (1.0 - down) + under * down
}

/// One to three words of letters or digits, in upper, title, mixed or lower case.
fn words(rng: &mut impl Rng) -> impl Iterator<Item = char> {
    let mut text = String::new();
    let case = rng.random_range(0..4);
    for word in 0..rng.random_range(1..=3) {
        if word > 0 {
            text.push(' ');
        }
        let number = rng.random_bool(0.15);
        for position in 0..rng.random_range(2..=9) {
            let letter = char::from(b'a' + rng.random_range(0..26));
            let digit = char::from(b'0' + rng.random_range(0..10));
            let upper =
                case == 0 || (case == 1 && position == 0) || (case == 2 && rng.random_bool(0.3));
            text.push(match (number, upper) {
                (true, _) => digit,
                (false, true) => letter.to_ascii_uppercase(),
                (false, false) => letter,
            });
        }
    }
    text.chars().collect::<Vec<_>>().into_iter()
}

/// A random number between `low` and `high`, log-uniformly distributed.
fn between(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    low * (high / low).powf(rng.random::<f32>())
}

#[cfg(test)]
mod tests;
