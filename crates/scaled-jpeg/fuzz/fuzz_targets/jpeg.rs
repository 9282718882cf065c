//! Decodes arbitrary bytes at every scale, and compares the pixels with those of `zune-jpeg`.
//!
//! ```sh
//! cargo +nightly fuzz run jpeg fuzz/corpus/jpeg SEEDS -- -max_total_time=600 -max_len=16384
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use scaled_jpeg::{Channels, ColorModel, Decoder, Error, Limits, Scale};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const LIMITS: Limits = Limits {
    pixels: 1 << 18,
    scans: 32,
    segments: 256,
};

/// The bytes of lists, of messages, and of tables that are kept for other images.
const OTHER_BYTES: u64 = 1 << 20;

/// The largest difference of samples of luma: both transforms round twice.
const LUMA_BOUND: u8 = 2;

/// The largest difference of colors: those of three samples, of which one is multiplied by 1.772.
const COLOR_BOUND: u8 = 6;

fuzz_target!(|bytes: &[u8]| {
    let Ok(decoder) = Decoder::new(bytes, LIMITS) else {
        return;
    };
    let full = decode(&decoder, Scale::Full, Channels::Rgb);
    for scale in [Scale::Half, Scale::Quarter, Scale::Eighth] {
        for channels in [Channels::Rgb, Channels::Gray, Channels::Components] {
            let decoded = decode(&decoder, scale, channels);
            assert_eq!(decoded.err(), full.clone().err(), "{scale:?} {channels:?}");
        }
    }
    if let Ok(full) = full {
        check_prefix(bytes, &full);
        compare(bytes, &decoder, &full);
    }
});

/// Decodes in bounded memory to pixels of the stated size.
fn decode(decoder: &Decoder<'_>, scale: Scale, channels: Channels) -> Result<Vec<u8>, Error> {
    MEMORY.reset_peak_usage();
    let before = MEMORY.peak_usage();
    let decoded = decoder.clone().decode(scale, channels);
    let used = (MEMORY.peak_usage() - before) as u64;
    let (width, height) = decoder.scaled_size(scale);
    let size = width as usize * height as usize * decoder.values_per_pixel(channels);
    let most = decoder.memory(scale) + size as u64 + OTHER_BYTES;
    assert!(used <= most, "{used} bytes, more than {most}");
    if let Ok(pixels) = &decoded {
        assert_eq!(pixels.len(), size);
    }
    decoded
}

/// A prefix is an error, or it has the whole image and bytes after it were cut.
fn check_prefix(bytes: &[u8], full: &[u8]) {
    let hash = bytes.iter().fold(0_usize, |hash, &byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    let prefix = &bytes[..hash % bytes.len()];
    let Ok(decoder) = Decoder::new(prefix, LIMITS) else {
        return;
    };
    if let Ok(pixels) = decoder.decode(Scale::Full, Channels::Rgb) {
        assert!(prefix.windows(2).any(|pair| pair == [0xff, 0xd9]));
        assert!(pixels == full, "a prefix has other pixels");
    }
}

/// Compares with another decoder, which interpolates chroma in its own way: only luma is compared,
/// unless chroma has the size of luma.
fn compare(bytes: &[u8], decoder: &Decoder<'_>, full: &[u8]) {
    let spaces: &[ColorSpace] = match decoder.color_model() {
        ColorModel::Gray => &[ColorSpace::Luma],
        ColorModel::YCbCr => &[ColorSpace::YCbCr, ColorSpace::RGB],
        _ => return,
    };
    let Some(sampling) = sampling(bytes) else {
        return;
    };
    // The other decoder is not right about further samplings, nor about narrow images.
    if !matches!(sampling.as_slice(), [0x11, rest @ ..] | [0x21, rest @ ..] | [0x22, rest @ ..]
        if rest.iter().all(|&factors| factors == 0x11))
        || decoder.size().0 <= 8
    {
        return;
    }
    let Some(theirs) = decode_with_zune(bytes, decoder, spaces[0]) else {
        return;
    };
    // Corrupt coefficients exceed the range of samples, and overflow in different ways. Where no
    // sample is clipped, all coefficients are valid.
    if theirs.iter().any(|&value| value == 0 || value == 255) {
        return;
    }
    let ours = decode(decoder, Scale::Full, Channels::Gray).expect("it was decoded in color");
    let luma = theirs.iter().step_by(spaces[0].num_components());
    assert_near(ours.iter().zip(luma), LUMA_BOUND);
    if let (Some(space), [0x11, ..]) = (spaces.get(1), sampling.as_slice()) {
        let Some(theirs) = decode_with_zune(bytes, decoder, *space) else {
            return;
        };
        assert_near(full.iter().zip(&theirs), COLOR_BOUND);
    }
}

fn assert_near<'p>(pairs: impl Iterator<Item = (&'p u8, &'p u8)>, bound: u8) {
    for (index, (ours, theirs)) in pairs.enumerate() {
        let distance = ours.abs_diff(*theirs);
        assert!(distance <= bound, "{ours} and {theirs} at {index}");
    }
}

fn decode_with_zune(bytes: &[u8], decoder: &Decoder<'_>, space: ColorSpace) -> Option<Vec<u8>> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(space);
    let mut other = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = other.decode().ok()?;
    let (width, height) = decoder.size();
    let is_same = other.dimensions() == Some((width as usize, height as usize))
        && pixels.len() == width as usize * height as usize * space.num_components();
    is_same.then_some(pixels)
}

/// The sampling factors of the components of an image whose segments follow each other. The other
/// decoder ends at an unknown marker between scans, and libjpeg does not.
fn sampling(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut sampling = None;
    let mut at = 2;
    loop {
        let (&[0xff, marker], rest) = bytes.get(at..)?.split_first_chunk::<2>()? else {
            return None;
        };
        if marker == 0xd9 {
            return sampling;
        }
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
        let body = rest.get(2..length)?;
        at += 2 + length;
        match marker {
            0xc0..=0xc2 => {
                let parts = body.get(6..)?.chunks_exact(3);
                sampling = Some(parts.map(|part| part[1]).collect());
            }
            0xda => {
                let data = bytes.get(at..)?.windows(2);
                let is_marker = |pair: &[u8]| {
                    pair[0] == 0xff && pair[1] != 0 && !(0xd0..=0xd7).contains(&pair[1])
                };
                at += data.into_iter().position(is_marker)?;
            }
            0xc4 | 0xdb | 0xdd | 0xe0..=0xef | 0xfe => {}
            _ => return None,
        }
    }
}
