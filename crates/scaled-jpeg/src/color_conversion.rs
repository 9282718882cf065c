//! Conversion of a row of samples to pixels.
//!
//! The constants of YCbCr are those of ITU-R BT.601 with the full range, as in JFIF 1.02, with
//! 16 bits of fraction; libjpeg rounds in the same way.

use crate::{Channels, ColorModel};

const BITS: u32 = 16;

const fn fixed(value: f64) -> i32 {
    (value * (1 << BITS) as f64 + 0.5) as i32
}

const HALF: i32 = 1 << (BITS - 1);

#[inline(always)]
fn clamp(value: i16) -> u8 {
    value.clamp(0, 255) as u8
}

/// Converts a row. `rows` has the samples of each component, of the width of the image.
#[inline(always)]
pub(crate) fn convert(rows: &[&[u8]], model: ColorModel, channels: Channels, out: &mut [u8]) {
    match (channels, model, rows) {
        (Channels::Gray, _, [first, ..]) => out.copy_from_slice(first),
        (Channels::Rgb, ColorModel::Gray, [gray, ..]) => {
            for (pixel, value) in out.chunks_exact_mut(3).zip(*gray) {
                pixel.fill(*value);
            }
        }
        (Channels::Rgb, ColorModel::YCbCr, [y, cb, cr, ..]) => from_ycbcr(y, cb, cr, out),
        (Channels::Rgb, ColorModel::Rgb, [r, g, b, ..]) => interleave(r, g, b, out),
        (Channels::Rgb, ColorModel::Cmyk, [c, m, y, k]) => from_cmyk(c, m, y, k, out),
        (Channels::Rgb, ColorModel::Ycck, [y, cb, cr, k]) => from_ycck(y, cb, cr, k, out),
        (Channels::Components, _, [only]) => out.copy_from_slice(only),
        (Channels::Components, _, [a, b, c]) => interleave(a, b, c, out),
        (Channels::Components, _, rows) => {
            for (index, pixel) in out.chunks_exact_mut(rows.len().max(1)).enumerate() {
                for (value, row) in pixel.iter_mut().zip(rows) {
                    *value = row[index];
                }
            }
        }
        // The decoder has as many components as the color model.
        _ => {}
    }
}

/// The upper half of the product of two numbers of 16 bits.
#[inline(always)]
fn high_product(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 16) as i16
}

/// The product with `factor / 65536`, rounded, for differences of 8 bits.
#[inline(always)]
fn share(difference: i16, factor: i16) -> i16 {
    (high_product(2 * difference, factor) + 1) >> 1
}

// Factors of 16 bits: 1.402 is 1 and a share, 0.71414 is 1 less a share, 1.772 is 2 less a share.
const RED: i16 = (fixed(1.402) - (1 << BITS)) as i16;
const GREEN_CB: i32 = -fixed(0.344_14);
const GREEN_CR: i32 = (1 << BITS) - fixed(0.714_14);
const BLUE: i16 = (fixed(1.772) - (2 << BITS)) as i16;

#[inline(always)]
fn ycbcr(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i16::from(y), i16::from(cb) - 128, i16::from(cr) - 128);
    let green = (GREEN_CB * i32::from(cb) + GREEN_CR * i32::from(cr) + HALF) >> BITS;
    [
        clamp(y + cr + share(cr, RED)),
        clamp(y + green as i16 - cr),
        clamp(y + 2 * cb + share(cb, BLUE)),
    ]
}

/// Number of pixels that are converted at a time, in registers and the first cache.
const PART: usize = 64;

#[inline(always)]
fn from_ycbcr(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    let parts = y.chunks(PART).zip(cb.chunks(PART)).zip(cr.chunks(PART));
    for (((y, cb), cr), out) in parts.zip(out.chunks_mut(3 * PART)) {
        let mut planes = [[0; PART]; 3];
        let [red, green, blue] = &mut planes;
        for index in 0..y.len().min(cb.len()).min(cr.len()).min(PART) {
            [red[index], green[index], blue[index]] = ycbcr(y[index], cb[index], cr[index]);
        }
        interleave(red, green, blue, out);
    }
}

#[inline(always)]
fn interleave(red: &[u8], green: &[u8], blue: &[u8], out: &mut [u8]) {
    let samples = red.iter().zip(green).zip(blue);
    for (pixel, ((red, green), blue)) in out.chunks_exact_mut(3).zip(samples) {
        pixel[0] = *red;
        pixel[1] = *green;
        pixel[2] = *blue;
    }
}

/// `a * b / 255`, rounded.
#[inline(always)]
fn product(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    ((product + (product >> 8)) >> 8) as u8
}

/// Samples are the share of light that an ink lets through, as Adobe's programs store them.
#[inline(always)]
fn from_cmyk(c: &[u8], m: &[u8], y: &[u8], k: &[u8], out: &mut [u8]) {
    let samples = c.iter().zip(m).zip(y).zip(k);
    for (pixel, (((c, m), y), k)) in out.chunks_exact_mut(3).zip(samples) {
        for (value, ink) in pixel.iter_mut().zip([c, m, y]) {
            *value = k.saturating_sub(product(255 - ink, *k));
        }
    }
}

#[inline(always)]
fn from_ycck(y: &[u8], cb: &[u8], cr: &[u8], k: &[u8], out: &mut [u8]) {
    let samples = y.iter().zip(cb).zip(cr).zip(k);
    for (pixel, (((y, cb), cr), k)) in out.chunks_exact_mut(3).zip(samples) {
        // The inks are the complement of the colors.
        for (value, color) in pixel.iter_mut().zip(ycbcr(*y, *cb, *cr)) {
            *value = k.saturating_sub(product(color, *k));
        }
    }
}
