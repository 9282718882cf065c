//! Tests of TIFF decoding, with files that the tests write.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::batch::reject::RejectCode;
use crate::image::decode::decode_with;
use crate::image::jpeg_encoding::JpegOptions;
use crate::image::{Channels, DecodeOptions, ImageError, Pixels, ValueRange};

/// The values of a tag.
#[derive(Clone)]
enum Values {
    Bytes(Vec<u8>),
    Short(Vec<u16>),
    Long(Vec<u32>),
    Float(Vec<f32>),
}

/// A TIFF of one strip, or one strip for each plane.
#[derive(Clone)]
struct TestTiff {
    tags: BTreeMap<u16, Values>,
    strips: Vec<Vec<u8>>,
    big_endian: bool,
}

const ORIENTATION: u16 = 274;
const FILL_ORDER: u16 = 266;
const COLOR_MAP: u16 = 320;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const RGB: u16 = 2;
const PALETTE: u16 = 3;
const CMYK: u16 = 5;
const YCBCR: u16 = 6;

impl TestTiff {
    /// A TIFF of a row of samples of `bits` bits; `samples` is their number in a pixel.
    fn row(bits: u16, photometric: u16, samples: u16, data: &[u8]) -> Self {
        let width = data.len() * 8 / usize::from(bits * samples);
        let mut tags = BTreeMap::new();
        tags.insert(256, Values::Long(vec![u32::try_from(width).unwrap()]));
        tags.insert(257, Values::Short(vec![1]));
        tags.insert(258, Values::Short(vec![bits; usize::from(samples)]));
        tags.insert(259, Values::Short(vec![1]));
        tags.insert(262, Values::Short(vec![photometric]));
        tags.insert(277, Values::Short(vec![samples]));
        Self {
            tags,
            strips: vec![data.to_vec()],
            big_endian: false,
        }
    }

    /// A TIFF of gray samples of 32-bit floats.
    fn floats(samples: &[f32]) -> Self {
        let data: Vec<u8> = samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        Self::row(32, BLACK_IS_ZERO, 1, &data).with(SAMPLE_FORMAT, Values::Short(vec![3]))
    }

    /// A TIFF of gray samples of 16 bits.
    fn words(samples: &[u16]) -> Self {
        let data: Vec<u8> = samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        Self::row(16, BLACK_IS_ZERO, 1, &data)
    }

    fn with(mut self, tag: u16, values: Values) -> Self {
        self.tags.insert(tag, values);
        self
    }

    /// Moves each sample of the pixels to a plane.
    fn planar(mut self, samples: usize, bytes: usize) -> Self {
        let chunky = self.strips.remove(0);
        let pixels: Vec<&[u8]> = chunky.chunks_exact(samples * bytes).collect();
        let plane = |sample: usize| {
            let part = |pixel: &&[u8]| pixel[sample * bytes..(sample + 1) * bytes].to_vec();
            pixels.iter().flat_map(part).collect()
        };
        self.strips = (0..samples).map(plane).collect();
        self.with(284, Values::Short(vec![2]))
    }

    fn number<const N: usize>(&self, little: [u8; N]) -> Vec<u8> {
        let mut bytes = little.to_vec();
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    fn encode(&self) -> Vec<u8> {
        let long = |value: usize| self.number(u32::try_from(value).unwrap().to_le_bytes());
        let short = |value: u16| self.number(value.to_le_bytes());
        let mut out = if self.big_endian { b"MM\0*" } else { b"II*\0" }.to_vec();
        out.extend([0; 4]);
        let mut tags = self.tags.clone();
        let mut offsets = Vec::new();
        for strip in &self.strips {
            offsets.push(u32::try_from(out.len()).unwrap());
            out.extend(strip);
        }
        let lengths = self
            .strips
            .iter()
            .map(|strip| u32::try_from(strip.len()).unwrap());
        tags.insert(273, Values::Long(offsets));
        tags.insert(279, Values::Long(lengths.collect()));
        let mut directory = short(u16::try_from(tags.len()).unwrap());
        for (tag, values) in tags {
            let (kind, count, bytes): (u16, usize, Vec<u8>) = match values {
                Values::Bytes(all) => (1, all.len(), all),
                Values::Short(all) => (3, all.len(), all.into_iter().flat_map(short).collect()),
                Values::Long(all) => (
                    4,
                    all.len(),
                    all.into_iter().flat_map(|one| long(one as usize)).collect(),
                ),
                Values::Float(all) => {
                    let bytes = all.iter().flat_map(|one| self.number(one.to_le_bytes()));
                    (11, all.len(), bytes.collect())
                }
            };
            directory.extend(short(tag).into_iter().chain(short(kind)).chain(long(count)));
            if bytes.len() > 4 {
                directory.extend(long(out.len()));
                out.extend(bytes);
            } else {
                directory.extend(&bytes);
                directory.resize(directory.len() + 4 - bytes.len(), 0);
            }
        }
        let start = long(out.len());
        out[4..8].copy_from_slice(&start);
        out.extend(directory);
        out.extend([0; 4]);
        out
    }

    fn decode(&self, channels: Channels, range: Option<[f64; 2]>) -> Result<Pixels, ImageError> {
        let options = DecodeOptions {
            channels,
            max_pixels: 1 << 16,
            value_range: range.map(|range| ValueRange::new(range).unwrap()),
        };
        decode_with(&self.encode(), &options)
    }

    fn gray(&self) -> Vec<u8> {
        self.decode(Channels::Gray, None).unwrap().data
    }

    fn rgb(&self) -> Vec<u8> {
        self.decode(Channels::Rgb, None).unwrap().data
    }

    fn reject(&self) -> (RejectCode, String) {
        let error = self.decode(Channels::Gray, None).unwrap_err();
        (error.code(), error.to_string())
    }
}

#[test]
fn gray_of_1_2_and_4_bits_is_scaled() {
    for (bits, data, expected) in [
        (1, 0b1010_0001, vec![255, 0, 255, 0, 0, 0, 0, 255]),
        (2, 0b0001_1011, vec![0, 85, 170, 255]),
        (4, 0x1f, vec![17, 255]),
    ] {
        let mut tiff = TestTiff::row(bits, BLACK_IS_ZERO, 1, &[data]);
        assert_eq!(tiff.gray(), expected);
        tiff.big_endian = true;
        assert_eq!(tiff.gray(), expected);
        let inverse: Vec<u8> = expected.iter().map(|level| 255 - level).collect();
        assert_eq!(
            TestTiff::row(bits, WHITE_IS_ZERO, 1, &[data]).gray(),
            inverse
        );
        let reversed = TestTiff::row(bits, BLACK_IS_ZERO, 1, &[data.reverse_bits()])
            .with(FILL_ORDER, Values::Short(vec![2]));
        assert_eq!(reversed.gray(), expected, "lowest bit first");
    }
    let bytes = TestTiff::row(8, WHITE_IS_ZERO, 1, &[0, 10, 255]);
    assert_eq!(bytes.gray(), [255, 245, 0]);
}

#[test]
fn palette_gives_the_colors_of_its_indices() {
    for (bits, data, indices) in [
        (1, 0b0100_0000, vec![0, 1, 0, 0, 0, 0, 0, 0]),
        (2, 0b0001_1011, vec![0, 1, 2, 3]),
        (4, 0x3f, vec![3, 15]),
        (8, 200, vec![200]),
    ] {
        let count = 1_u16 << bits;
        let colors: Vec<u16> = (0..3 * count).map(|at| (255 - at % 256) << 8 | 7).collect();
        for big_endian in [false, true] {
            let mut tiff = TestTiff::row(bits, PALETTE, 1, &[data])
                .with(COLOR_MAP, Values::Short(colors.clone()));
            tiff.big_endian = big_endian;
            let channel =
                |index: u16, at: u16| (colors[usize::from(at * count + index)] >> 8) as u8;
            let color = |&index: &u16| [0, 1, 2].map(|at| channel(index, at));
            let expected: Vec<u8> = indices.iter().flat_map(color).collect();
            assert_eq!(tiff.rgb(), expected, "{bits} bits");
        }
    }
    // Some writers store colors of 8 bits.
    let mut colors = vec![0; 12];
    (colors[1], colors[5], colors[9]) = (200, 100, 50);
    let tiff = TestTiff::row(2, PALETTE, 1, &[0b0100_0000]).with(COLOR_MAP, Values::Short(colors));
    assert_eq!(tiff.rgb()[..6], [200, 100, 50, 0, 0, 0]);
    let short = TestTiff::row(2, PALETTE, 1, &[0]).with(COLOR_MAP, Values::Short(vec![0; 9]));
    let reason = "malformed TIFF: its palette has 9 values; expected 12 for 2 bits per index";
    assert_eq!(short.reject(), (RejectCode::Malformed, reason.to_owned()));
}

#[test]
fn planes_are_interleaved() {
    let rgb = TestTiff::row(8, RGB, 3, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(rgb.rgb(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(rgb.planar(3, 1).rgb(), [1, 2, 3, 4, 5, 6]);
    let words: Vec<u8> = (20..26).flat_map(|level| [0, level]).collect();
    assert_eq!(
        TestTiff::row(16, RGB, 3, &words).planar(3, 2).rgb(),
        [20, 21, 22, 23, 24, 25]
    );
    let inks = [0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255, 100, 50, 0, 51];
    let cmyk = TestTiff::row(8, CMYK, 4, &inks);
    // (255 - 100) * (255 - 51) / 255 = 124, (255 - 50) * 204 / 255 = 164
    let expected = [255, 255, 255, 0, 255, 255, 0, 0, 0, 124, 164, 204];
    assert_eq!(cmyk.rgb(), expected);
    assert_eq!(cmyk.planar(4, 1).rgb(), expected);
}

#[test]
fn alpha_is_dropped_and_premultiplied_colors_are_divided() {
    let rgba = |extra: u16| {
        let tiff = TestTiff::row(8, RGB, 4, &[10, 20, 30, 255, 10, 20, 60, 51, 9, 9, 9, 0]);
        tiff.with(EXTRA_SAMPLES, Values::Short(vec![extra])).rgb()
    };
    for extra in [0, 2] {
        assert_eq!(rgba(extra), [10, 20, 30, 10, 20, 60, 9, 9, 9]);
    }
    // 10 * 255 / 51 = 50; 60 * 255 / 51 = 300, which is clipped.
    assert_eq!(rgba(1), [10, 20, 30, 50, 100, 255, 0, 0, 0]);
    let gray = TestTiff::row(8, BLACK_IS_ZERO, 2, &[7, 0, 8, 9]);
    assert_eq!(
        gray.with(EXTRA_SAMPLES, Values::Short(vec![2])).gray(),
        [7, 8]
    );
}

#[test]
fn ycbcr_is_converted() {
    let full = TestTiff::row(8, YCBCR, 3, &[76, 85, 255, 255, 128, 128]);
    let full = full.with(530, Values::Short(vec![1, 1]));
    assert_eq!(full.rgb(), [254, 0, 0, 255, 255, 255]);
    let subsampled = TestTiff::row(8, YCBCR, 3, &[76, 85, 255, 255, 128, 128]);
    assert_eq!(subsampled.reject().0, RejectCode::Unsupported);
}

#[test]
fn floats_need_a_range_beyond_0_to_1() {
    assert_eq!(
        TestTiff::floats(&[0.0, 0.5, 1.0, -0.001]).gray(),
        [0, 128, 255, 0]
    );
    let bytes = TestTiff::floats(&[0.0, 1.0, 128.0, 255.0]);
    let reason = "unsupported TIFF: a floating-point sample is 128, outside of 0..1, and no tag \
                  states the range of the samples; set `value_range`, such as [0, 255]";
    assert_eq!(bytes.reject(), (RejectCode::Unsupported, reason.to_owned()));
    let ranged = bytes.decode(Channels::Gray, Some([0.0, 255.0])).unwrap();
    assert_eq!(ranged.data, [0, 1, 128, 255]);
    let clipped = bytes.decode(Channels::Gray, Some([1.0, 128.0])).unwrap();
    assert_eq!(clipped.data, [0, 0, 255, 255]);
    let tagged = bytes
        .with(340, Values::Float(vec![0.0]))
        .with(341, Values::Float(vec![255.0]));
    assert_eq!(tagged.gray(), [0, 1, 128, 255]);
    // Tags precede the option.
    assert_eq!(
        tagged
            .decode(Channels::Gray, Some([0.0, 1.0]))
            .unwrap()
            .data,
        [0, 1, 128, 255]
    );
    let wrong = TestTiff::floats(&[0.0, 300.0]).with(341, Values::Float(vec![255.0]));
    let contradiction = "malformed TIFF: a sample is 300, but its tags state the range 0..255";
    assert_eq!(
        wrong.reject(),
        (RejectCode::Malformed, contradiction.to_owned())
    );
    for sample in [f32::NAN, f32::INFINITY] {
        assert_eq!(
            TestTiff::floats(&[sample]).reject().0,
            RejectCode::Unsupported
        );
    }
    let mut inverse = TestTiff::floats(&[0.0, 255.0]).with(341, Values::Float(vec![255.0]));
    inverse = inverse.with(262, Values::Short(vec![WHITE_IS_ZERO]));
    assert_eq!(inverse.gray(), [255, 0]);
}

#[test]
fn floats_of_16_and_64_bits_are_decoded() {
    let format = || Values::Short(vec![3]);
    let doubles: Vec<u8> = [0.0_f64, 0.2, 1.0]
        .iter()
        .flat_map(|one| one.to_le_bytes())
        .collect();
    let tiff = TestTiff::row(64, BLACK_IS_ZERO, 1, &doubles).with(SAMPLE_FORMAT, format());
    assert_eq!(tiff.gray(), [0, 51, 255]);
    // 0.5 and 1.0
    let halves = TestTiff::row(16, BLACK_IS_ZERO, 1, &[0, 0x38, 0, 0x3c]);
    assert_eq!(halves.with(SAMPLE_FORMAT, format()).gray(), [128, 255]);
}

#[test]
fn samples_of_12_in_16_bits_need_a_range() {
    let twelve = TestTiff::words(&[0, 2048, 4095]);
    let (code, reason) = twelve.reject();
    assert_eq!(code, RejectCode::Unsupported);
    assert_eq!(
        reason,
        "unsupported TIFF: its samples of 16 bits are at most 4095, as if they had 12 bits, and no \
         tag states their range; set `value_range`, such as [0, 4095], or [0, 65535] if the image \
         is dark"
    );
    for (option, expected) in [([0.0, 4095.0], [0, 128, 255]), ([0.0, 65535.0], [0, 8, 15])] {
        assert_eq!(
            twelve.decode(Channels::Gray, Some(option)).unwrap().data,
            expected
        );
    }
    let max = |value: u16| Values::Short(vec![value]);
    assert_eq!(twelve.clone().with(281, max(4095)).gray(), [0, 128, 255]);
    assert_eq!(twelve.clone().with(341, max(4095)).gray(), [0, 128, 255]);
    assert_eq!(twelve.clone().with(281, max(65535)).gray(), [0, 8, 15]);
    // Other values of MaxSampleValue are statistics.
    assert_eq!(
        twelve.with(281, max(3000)).reject().0,
        RejectCode::Unsupported
    );
    assert_eq!(
        TestTiff::words(&[0, 5000]).with(281, max(4095)).reject().0,
        RejectCode::Malformed
    );
    assert_eq!(TestTiff::words(&[0, 4096]).gray(), [0, 16]);
    assert_eq!(TestTiff::words(&[0, 0]).gray(), [0, 0]);
}

#[test]
fn signed_and_wide_integers_need_a_range() {
    let signed = TestTiff::row(8, BLACK_IS_ZERO, 1, &[0x80, 0, 0x7f])
        .with(SAMPLE_FORMAT, Values::Short(vec![2]));
    let (code, reason) = signed.reject();
    assert_eq!(code, RejectCode::Unsupported);
    assert!(
        reason.contains("set `value_range`, such as [-128, 127]"),
        "{reason}"
    );
    let levels = signed
        .decode(Channels::Gray, Some([-128.0, 127.0]))
        .unwrap();
    assert_eq!(levels.data, [0, 128, 255]);
    let wide = TestTiff::row(32, BLACK_IS_ZERO, 1, &[0, 0, 0, 0, 100, 0, 0, 0]);
    assert_eq!(wide.reject().0, RejectCode::Unsupported);
    assert_eq!(wide.with(341, Values::Long(vec![100])).gray(), [0, 255]);
}

#[test]
fn kinds_that_are_not_decoded_are_named() {
    let compressed = |method: u16| {
        let tiff = TestTiff::row(8, BLACK_IS_ZERO, 1, &[0; 8]);
        tiff.with(259, Values::Short(vec![method])).reject()
    };
    assert_eq!(
        compressed(3),
        (
            RejectCode::Unsupported,
            "unsupported TIFF: compression method Fax3 is unsupported".to_owned()
        )
    );
    assert_eq!(compressed(6).0, RejectCode::Unsupported);
    let lab = TestTiff::row(8, 8, 3, &[0; 6]).reject();
    assert_eq!(lab.0, RejectCode::Unsupported, "{}", lab.1);
    let inks = TestTiff::row(8, CMYK, 4, &[0; 4])
        .with(332, Values::Short(vec![2]))
        .reject();
    assert_eq!(
        inks,
        (
            RejectCode::Unsupported,
            "unsupported TIFF: its inks are not cyan, magenta, yellow and black".to_owned()
        )
    );
}

#[test]
fn jpeg_in_a_tiff_must_be_valid_and_complete() {
    use crate::image::{OutputFormat, encode};
    let pixels = Pixels {
        width: 24,
        height: 16,
        channels: Channels::Gray,
        data: (0..24 * 16).map(|at| (at % 24 * 10) as u8).collect(),
    };
    let jpeg = encode(&pixels, OutputFormat::Jpeg(JpegOptions::of_quality(95))).unwrap();
    let tiff = |strip: &[u8]| {
        let mut tiff = TestTiff::row(8, BLACK_IS_ZERO, 1, &[0; 24])
            .with(257, Values::Short(vec![16]))
            .with(259, Values::Short(vec![7]));
        tiff.strips = vec![strip.to_vec()];
        tiff
    };
    let decoded = tiff(&jpeg).gray();
    assert!(
        decoded
            .iter()
            .zip(&pixels.data)
            .all(|(one, other)| one.abs_diff(*other) <= 6)
    );
    let closed = [&jpeg[..jpeg.len() - 20], &[0xff, 0xd9]].concat();
    let (code, reason) = tiff(&closed).reject();
    assert_eq!(code, RejectCode::Malformed);
    assert!(
        reason.ends_with(", in a strip or tile of a TIFF"),
        "{reason}"
    );
    let two_samples = tiff(&jpeg)
        .with(258, Values::Short(vec![8, 8]))
        .with(277, Values::Short(vec![2]))
        .with(338, Values::Short(vec![2]));
    let mismatch = two_samples.reject();
    assert_eq!(mismatch.0, RejectCode::Unsupported, "{}", mismatch.1);
    assert!(
        mismatch.1.contains("1 components for 2 samples per pixel"),
        "{}",
        mismatch.1
    );
    let narrow = tiff(&jpeg).with(256, Values::Long(vec![16]));
    assert_eq!(narrow.reject().0, RejectCode::Malformed);
}

#[test]
fn orientation_may_be_short_or_long_or_in_xmp() {
    let image = TestTiff::row(8, BLACK_IS_ZERO, 1, &[1, 2, 3]);
    let xmp = Values::Bytes(b"<x tiff:Orientation=\"3\"/>".to_vec());
    for (tag, values) in [
        (ORIENTATION, Values::Short(vec![3])),
        (ORIENTATION, Values::Long(vec![3])),
        (700, xmp.clone()),
    ] {
        assert_eq!(image.clone().with(tag, values).gray(), [3, 2, 1]);
    }
    let upright = image
        .with(ORIENTATION, Values::Short(vec![1]))
        .with(700, xmp);
    assert_eq!(upright.gray(), [1, 2, 3]);
}

#[test]
fn mutated_bytes_give_complete_images_or_errors() {
    let colors = Values::Short((0..48).map(|at| at << 9).collect());
    let tiffs = [
        TestTiff::row(4, PALETTE, 1, &[0x12, 0x34]).with(COLOR_MAP, colors),
        TestTiff::floats(&[0.0, 0.5]),
        TestTiff::row(8, CMYK, 4, &[1; 8]).planar(4, 1),
        TestTiff::row(1, WHITE_IS_ZERO, 1, &[7, 9]).with(FILL_ORDER, Values::Short(vec![2])),
    ];
    for tiff in tiffs {
        let bytes = tiff.encode();
        for at in 0..bytes.len() * 8 {
            let mut mutated = bytes.clone();
            mutated[at / 8] ^= 1 << (at % 8);
            let options = DecodeOptions {
                channels: Channels::Rgb,
                max_pixels: 1 << 12,
                value_range: None,
            };
            if let Ok(pixels) = decode_with(&mutated, &options) {
                assert_eq!(pixels.data.len(), pixels.width * pixels.height * 3);
            }
        }
    }
}
