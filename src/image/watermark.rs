//! Fixed watermarks: the pixels of an image that a repeated text or a grid covers.

use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};

use crate::image::option_error::ImageOptionError;

/// The repeated pattern of a watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Watermark {
    /// Lines of text that rise to the right, as glyphs of an 8x8 font.
    Text(Vec<[u8; 8]>),
    /// Horizontal and vertical lines.
    Grid,
}

/// The side of a glyph, in dots.
pub(super) const GLYPH: f32 = 8.0;
/// The gap between two copies of the text in a line, in dots.
const GAP: f32 = 2.0 * GLYPH;
/// The distance between two lines of text, in dots.
const LINE: f32 = 3.0 * GLYPH;
/// The cosine and sine of the angle at which the text rises, 30 degrees.
const ANGLE: (f32, f32) = (0.866_025_4, 0.5);

impl Watermark {
    /// Creates a watermark of the text.
    ///
    /// # Errors
    /// If the text is blank, or contains a character that the font lacks.
    pub fn text(text: &str) -> Result<Self, ImageOptionError> {
        let glyphs = text
            .chars()
            .map(|c| glyph(c).ok_or(ImageOptionError::UnknownCharacter(c)))
            .collect::<Result<Vec<_>, _>>()?;
        if text.trim().is_empty() {
            return Err(ImageOptionError::BlankText);
        }
        Ok(Self::Text(glyphs))
    }

    /// Calls `paint` with the index of each covered pixel, row by row. `shift` moves the pattern
    /// along each of its axes by a fraction of its period, 0 to 1.
    pub(crate) fn draw(
        &self,
        height: usize,
        width: usize,
        shift: [f32; 2],
        mut paint: impl FnMut(usize),
    ) {
        let side = height.min(width) as f32;
        // A dot of the font and a line of the grid are one pixel wide for images of up to 160
        // pixels, and grow with larger images.
        let dot = (side / 160.0).max(1.0);
        let spacing = (side / 6.0).max(8.0);
        for y in 0..height {
            for x in 0..width {
                let (u, v) = (x as f32 + 0.5, y as f32 + 0.5);
                let covered = match self {
                    Self::Text(glyphs) => in_text(glyphs, u / dot, v / dot, shift),
                    Self::Grid => {
                        let on_line = |at: f32, offset: f32| {
                            (at + offset * spacing).rem_euclid(spacing) < dot
                        };
                        on_line(u, shift[0]) || on_line(v, shift[1])
                    }
                };
                if covered {
                    paint(y * width + x);
                }
            }
        }
    }
}

/// The dots of a character, row by row with the lowest bit leftmost; `None` if the font lacks it.
pub(super) fn glyph(c: char) -> Option<[u8; 8]> {
    BASIC_FONTS
        .get(c)
        .or_else(|| LATIN_FONTS.get(c))
        .filter(|_| !c.is_control())
}

/// Whether a point, in dots, lies on a glyph.
fn in_text(glyphs: &[[u8; 8]], x: f32, y: f32, shift: [f32; 2]) -> bool {
    let period = glyphs.len() as f32 * GLYPH + GAP;
    let down = x * ANGLE.1 + y * ANGLE.0 + shift[1] * LINE;
    let (line, row) = ((down / LINE).floor(), down.rem_euclid(LINE));
    // Every line is shifted relative to the line above, so that the copies do not align in columns.
    let along = (x * ANGLE.0 - y * ANGLE.1 + (shift[0] + line * 0.4) * period).rem_euclid(period);
    let glyph = glyphs.get((along / GLYPH) as usize);
    // The lowest bit is the leftmost dot.
    glyph.is_some_and(|rows| {
        rows.get(row as usize)
            .is_some_and(|dots| dots >> (along % GLYPH) as u32 & 1 == 1)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn render(mark: &Watermark, height: usize, width: usize) -> String {
        let mut dots = vec!['.'; height * width];
        mark.draw(height, width, [0.0, 0.0], |pixel| dots[pixel] = '#');
        dots.chunks(width)
            .map(|row| row.iter().collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn grid_has_lines_at_equal_distances() {
        expect_test::expect![[r"
            #############
            #.......#....
            #.......#....
            #.......#....
        "]]
        .assert_eq(&render(&Watermark::Grid, 4, 13));
    }

    #[test]
    fn text_rises_to_the_right() {
        expect_test::expect![[r#"
            ####...#...##...........................
            ..##...##.#.............................
            ...##..###..............................
            ...##.##................................
            ....##..................................
            ...#..................................##
            .....................................##.
            ....................................###.
            .....................................###
            ......................................##
            ..............................##.......#
            .............................###....#..#
            ...............................##...#..#
            ...............................##...##..
            ................................##.##...
            ................................###.....
            ................................#.......
            ........................................
            ........................................
            ........................................
            ............##..........................
            ...........##.#.........................
            .........##.............................
            ........###..#..........................
        "#]]
        .assert_eq(&render(&Watermark::text("LF").unwrap(), 24, 40));
    }

    #[test]
    fn blank_text_and_unknown_characters_are_errors() {
        assert_eq!(
            Watermark::text("  ").unwrap_err().to_string(),
            "the text is blank; write at least one visible character"
        );
        assert_eq!(
            Watermark::text("a水").unwrap_err().to_string(),
            "the font has no glyph for `水`; it contains ASCII and Latin-1"
        );
        assert_eq!(
            Watermark::text("a\n").unwrap_err().to_string(),
            "the font has no glyph for `\\n`; it contains ASCII and Latin-1"
        );
        assert!(Watermark::text("© Zoë 2024").is_ok());
    }

    #[test]
    fn empty_image_paints_nothing() {
        Watermark::Grid.draw(0, 5, [0.0, 0.0], |_| panic!("a pixel was painted"));
    }
}
