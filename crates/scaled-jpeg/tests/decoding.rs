//! Tests of decoding, on images that the tests encode.

#![allow(clippy::unwrap_used, missing_docs)]

mod encoder;

use encoder::{TestComponent, TestJpeg, ac_symbols};
use scaled_jpeg::{Channels, Decoder, Error, Limits, Scale, read_size};

const WIDTH: usize = 37;
const HEIGHT: usize = 21;

fn decode_at(bytes: &[u8], scale: Scale, channels: Channels) -> Result<Vec<u8>, Error> {
    Decoder::new(bytes, Limits::default())?.decode(scale, channels)
}

fn decode(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    decode_at(bytes, Scale::Full, Channels::Rgb)
}

fn luma(x: f64, y: f64) -> f64 {
    60.0 + 2.0 * x + y
}

fn blue(x: f64, y: f64) -> f64 {
    100.0 + 0.5 * x + 0.9 * y
}

fn red(x: f64, y: f64) -> f64 {
    160.0 - 0.7 * x + 0.2 * y
}

fn black(x: f64, y: f64) -> f64 {
    200.0 - x + 0.2 * y
}

/// An image of smooth YCbCr, for which every way of upsampling gives nearly the same pixels.
fn test_jpeg(sampling: [(usize, usize); 3]) -> TestJpeg {
    let parts = (1..).zip(sampling).zip([luma, blue, red]);
    let components = parts.map(|((id, factors), value_at)| TestComponent {
        id,
        sampling: factors,
        value_at,
    });
    TestJpeg::new(WIDTH, HEIGHT, components.collect())
}

/// The largest difference of a decoded test image from the color at the center of each pixel. The
/// edges of reduced images are left out, since their pixels cover more than the image.
fn largest_difference(data: &[u8], scale: Scale, color: impl Fn(f64, f64) -> [f64; 3]) -> f64 {
    let by = scale.divisor() as usize;
    let (width, height) = (WIDTH.div_ceil(by), HEIGHT.div_ceil(by));
    assert_eq!(data.len(), width * height * 3);
    let mut largest = 0.0_f64;
    for (index, pixel) in data.chunks_exact(3).enumerate() {
        let (x, y) = (index % width, index / width);
        if scale != Scale::Full && ((x + 1) * by > WIDTH || (y + 1) * by > HEIGHT) {
            continue;
        }
        let expected = color((x as f64 + 0.5) * by as f64, (y as f64 + 0.5) * by as f64);
        for (value, expected) in pixel.iter().zip(expected) {
            largest = largest.max((f64::from(*value) - expected.clamp(0.0, 255.0)).abs());
        }
    }
    largest
}

/// The color of YCbCr (JFIF).
fn rgb(y: f64, cb: f64, cr: f64) -> [f64; 3] {
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
}

fn color(x: f64, y: f64) -> [f64; 3] {
    rgb(luma(x, y), blue(x, y), red(x, y))
}

/// The difference that upsampling causes at most: two columns of the coarsest chroma at the edge.
const UPSAMPLING: f64 = 9.0;

#[test]
fn every_sampling_is_decoded_at_every_scale() {
    let factors: Vec<(usize, usize)> = (1..=4).flat_map(|h| (1..=4).map(move |v| (h, v))).collect();
    let mut decoded = 0;
    for &of_luma in &factors {
        for &of_chroma in &factors {
            let mut image = test_jpeg([of_luma, of_chroma, of_chroma]);
            for separate in [false, true] {
                if separate {
                    image.scans = (0..3).map(|index| vec![index]).collect();
                } else if image.blocks_per_mcu() > 10 {
                    continue;
                }
                for progressive in [false, true] {
                    image.progressive = progressive;
                    let bytes = image.encode();
                    for scale in Scale::ALL {
                        let pixels = decode_at(&bytes, scale, Channels::Rgb).unwrap();
                        let worst = largest_difference(&pixels, scale, color);
                        // Repeated samples cover more of the image at a smaller scale.
                        let most = UPSAMPLING + 5.0 * f64::from(scale.divisor());
                        assert!(
                            worst < most,
                            "off by {worst}: {of_luma:?}, {of_chroma:?}, {separate} {progressive} {scale:?}"
                        );
                        decoded += 1;
                    }
                }
            }
        }
    }
    assert!(decoded > 2500, "{decoded}");
}

#[test]
fn usual_samplings_are_near_the_image() {
    for of_luma in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        for scale in Scale::ALL {
            let bytes = test_jpeg([of_luma, (1, 1), (1, 1)]).encode();
            let pixels = decode_at(&bytes, scale, Channels::Rgb).unwrap();
            let worst = largest_difference(&pixels, scale, color);
            // The outer samples of chroma are repeated, a quarter of their size beyond their centers.
            let most = 3.0 + 0.5 * f64::from(scale.divisor());
            assert!(worst < most, "off by {worst}: {of_luma:?} {scale:?}");
        }
    }
}

#[test]
fn chroma_components_may_have_different_sampling() {
    for (of_blue, of_red) in [((1, 1), (1, 2)), ((2, 1), (1, 1)), ((1, 2), (2, 1))] {
        let image = test_jpeg([(2, 2), of_blue, of_red]);
        let pixels = decode(&image.encode()).unwrap();
        assert!(largest_difference(&pixels, Scale::Full, color) < UPSAMPLING);
    }
}

#[test]
fn gray_is_the_first_component() {
    for scale in Scale::ALL {
        for progressive in [false, true] {
            let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
            image.progressive = progressive;
            let gray = decode_at(&image.encode(), scale, Channels::Gray).unwrap();
            let pixels: Vec<u8> = gray.iter().flat_map(|value| [*value; 3]).collect();
            let worst = largest_difference(&pixels, scale, |x, y| [luma(x, y); 3]);
            assert!(worst < 3.0, "off by {worst}: {scale:?} {progressive}");
        }
    }
}

#[test]
fn colors_follow_the_application_segments() {
    let direct = |x, y| [luma(x, y), blue(x, y), red(x, y)];
    let difference = |image: &TestJpeg, color: fn(f64, f64) -> [f64; 3]| {
        largest_difference(&decode(&image.encode()).unwrap(), Scale::Full, color)
    };
    for progressive in [false, true] {
        let mut image = test_jpeg([(1, 1); 3]);
        image.progressive = progressive;
        for adobe in [None, Some(1)] {
            image.adobe = adobe;
            assert!(difference(&image, color) < 3.0);
        }
        image.adobe = Some(0);
        assert!(difference(&image, direct) < 3.0, "Adobe RGB");
        image.jfif = true;
        assert!(difference(&image, color) < 3.0, "JFIF");
        (image.jfif, image.adobe) = (false, None);
        for (component, id) in image.components.iter_mut().zip(*b"RGB") {
            component.id = id;
        }
        assert!(difference(&image, direct) < 3.0, "components R, G, B");
    }
}

#[test]
fn four_components_are_inverted_cmyk_or_ycck() {
    let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
    image.components.push(TestComponent {
        id: 4,
        sampling: (2, 2),
        value_at: black,
    });
    (image.scans, image.adobe) = (vec![vec![0], vec![1], vec![2], vec![3]], Some(2));
    let expected = |x, y| {
        color(x, y).map(|level: f64| (255.0 - level.clamp(0.0, 255.0)) * black(x, y) / 255.0)
    };
    for progressive in [false, true] {
        image.progressive = progressive;
        let pixels = decode(&image.encode()).unwrap();
        assert!(largest_difference(&pixels, Scale::Full, expected) < UPSAMPLING);
    }
    (image.scans, image.progressive) = (vec![vec![0, 1, 2, 3]], false);
    image
        .components
        .iter_mut()
        .for_each(|part| part.sampling = (1, 1));
    for adobe in [None, Some(0)] {
        image.adobe = adobe;
        let cmyk = decode(&image.encode()).unwrap();
        let inverted =
            |x, y| [luma(x, y), blue(x, y), red(x, y)].map(|level| level * black(x, y) / 255.0);
        assert!(
            largest_difference(&cmyk, Scale::Full, inverted) < 3.0,
            "{adobe:?}"
        );
    }
}

#[test]
fn components_are_not_converted() {
    for count in [1, 3, 4] {
        let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
        let black = TestComponent {
            id: 4,
            sampling: (1, 1),
            value_at: black,
        };
        image.components.push(black);
        image.components.truncate(count);
        (image.scans, image.adobe) = (vec![(0..count).collect()], Some(2));
        let bytes = image.encode();
        let decoder = Decoder::new(&bytes, Limits::default()).unwrap();
        assert_eq!(decoder.values_per_pixel(Channels::Components), count);
        let values = decode_at(&bytes, Scale::Full, Channels::Components).unwrap();
        assert_eq!(values.len(), WIDTH * HEIGHT * count);
        for (index, pixel) in values.chunks_exact(count).enumerate() {
            let (x, y) = ((index % WIDTH) as f64 + 0.5, (index / WIDTH) as f64 + 0.5);
            for (value, part) in pixel.iter().zip(&image.components) {
                let expected = (part.value_at)(x, y).clamp(0.0, 255.0);
                assert!((f64::from(*value) - expected).abs() < UPSAMPLING, "{count}");
            }
        }
    }
}

#[test]
fn size_is_read_without_tables() {
    let read = |bytes: &[u8]| read_size(bytes, Limits::default());
    let bytes = test_jpeg([(2, 2), (1, 1), (1, 1)]).encode();
    let frame = bytes
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    assert_eq!(
        read(&bytes[..frame + 19]),
        Ok((WIDTH as u32, HEIGHT as u32))
    );
    assert!(matches!(
        read(&bytes[..frame + 9]),
        Err(Error::Truncated { .. })
    ));
    let without_frame = [&bytes[..frame], &bytes[frame + 19..]].concat();
    assert!(matches!(read(&without_frame), Err(Error::Malformed(_))));
    assert!(matches!(
        read(b"\xff\xd8\xff\xd9"),
        Err(Error::Malformed(_))
    ));
}

#[test]
fn gray_image_may_have_any_sampling_factors() {
    for sampling in (1..=4).flat_map(|h| (1..=4).map(move |v| (h, v))) {
        for progressive in [false, true] {
            let mut image = test_jpeg([(1, 1); 3]);
            image.components.truncate(1);
            image.components[0].sampling = sampling;
            (image.scans, image.progressive) = (vec![vec![0]], progressive);
            let pixels = decode(&image.encode()).unwrap();
            let worst = largest_difference(&pixels, Scale::Full, |x, y| [luma(x, y); 3]);
            assert!(worst < 3.0, "{sampling:?} {progressive}: off by {worst}");
        }
    }
}

#[test]
fn height_may_follow_the_first_scan() {
    for progressive in [false, true] {
        let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
        image.progressive = progressive;
        let expected = decode(&image.encode());
        image.height_after_scan = true;
        let bytes = image.encode();
        let decoder = Decoder::new(&bytes, Limits::default()).unwrap();
        assert_eq!(decoder.size(), (WIDTH as u32, HEIGHT as u32));
        let size = read_size(&bytes, Limits::default());
        assert_eq!(size, Ok((WIDTH as u32, HEIGHT as u32)));
        assert_eq!(decode(&bytes), expected);
    }
}

#[test]
fn every_proper_prefix_is_an_error_at_every_scale() {
    for progressive in [false, true] {
        for restart in [0, 2] {
            let mut image = test_jpeg([(2, 1), (1, 1), (1, 1)]);
            (image.progressive, image.restart) = (progressive, restart);
            let bytes = image.encode();
            for scale in Scale::ALL {
                assert!(decode_at(&bytes, scale, Channels::Gray).is_ok());
                for end in 0..bytes.len() {
                    for channels in [Channels::Gray, Channels::Rgb] {
                        let cut = decode_at(&bytes[..end], scale, channels);
                        assert!(cut.is_err(), "{end} of {} bytes, {scale:?}", bytes.len());
                    }
                    let closed = [&bytes[..end], &[0xff, 0xd9]].concat();
                    let is_whole = end >= bytes.len() - 2;
                    let decoded = decode_at(&closed, scale, Channels::Rgb);
                    assert_eq!(decoded.is_ok(), is_whole, "closed after {end}, {scale:?}");
                }
            }
        }
    }
}

#[test]
fn restart_markers_must_be_in_order() {
    for progressive in [false, true] {
        let mut image = test_jpeg([(2, 1), (1, 1), (1, 1)]);
        (image.progressive, image.restart) = (progressive, 2);
        let bytes = image.encode();
        let pixels = decode(&bytes).unwrap();
        assert!(largest_difference(&pixels, Scale::Full, color) < UPSAMPLING);
        let marker = |number| {
            bytes
                .windows(2)
                .position(|pair| pair == [0xff, number])
                .unwrap()
        };
        let (first, second) = (marker(0xd0), marker(0xd1));
        let mut swapped = bytes.clone();
        (swapped[first + 1], swapped[second + 1]) = (0xd1, 0xd0);
        assert!(matches!(decode(&swapped), Err(Error::Malformed(_))));
        let without = [&bytes[..first], &bytes[second..]].concat();
        assert!(matches!(decode(&without), Err(Error::Malformed(_))));
    }
}

#[test]
fn scans_and_segments_and_pixels_are_bounded() {
    let mut image = test_jpeg([(1, 1); 3]);
    let whole = image.encode();
    (image.progressive, image.one_coefficient_per_scan) = (true, true);
    let too_large = |bytes: &[u8], reason: &str| {
        assert_eq!(decode(bytes), Err(Error::TooLarge(reason.to_owned())));
    };
    too_large(&image.encode(), "it has more than 64 scans, the maximum");
    let segments = [&whole[..2], &[0xff, 0xfe, 0, 2].repeat(3000), &whole[2..]].concat();
    too_large(&segments, "it has more than 2048 segments, the maximum");
    let limits = Limits {
        pixels: 776,
        ..Limits::default()
    };
    let error = Decoder::new(&whole, limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it has 37 x 21 pixels, more than 776, the maximum"
    );
}

/// A gray image of one block with this entropy-coded data: numbers and their bit lengths.
fn one_block(fields: &[(usize, usize)]) -> Vec<u8> {
    let component = TestComponent {
        id: 1,
        sampling: (1, 1),
        value_at: |_, _| 128.0,
    };
    let bytes = TestJpeg::new(8, 8, vec![component]).encode();
    let header = bytes
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap()
        + 10;
    let bits: String = fields
        .iter()
        .map(|&(value, length)| format!("{value:0length$b}"))
        .collect();
    let padded = bits.len().next_multiple_of(8);
    let bits = format!("{bits:1<padded$}");
    let data = (0..padded / 8).map(|at| u8::from_str_radix(&bits[at * 8..at * 8 + 8], 2).unwrap());
    [bytes[..header].to_vec(), data.collect(), vec![0xff, 0xd9]].concat()
}

/// The code of a symbol of AC coefficients.
fn ac(symbol: u8) -> (usize, usize) {
    let known = ac_symbols();
    (known.iter().position(|&each| each == symbol).unwrap(), 8)
}

#[test]
fn corrupt_entropy_coded_data_is_malformed_at_every_scale() {
    let dc = (0, 4);
    let one = (1, 1);
    let far = [ac(0xf1), one];
    let far_four_times = [&[dc], &far[..], &far, &far, &far].concat();
    let sound = [
        vec![dc, ac(0)],
        vec![dc, ac(0x01), one, ac(0x21), one, ac(0)],
        // The last coefficient needs no end of the block.
        [&[dc], &far[..], &far, &far, &[ac(0xe1), one]].concat(),
    ];
    let code = "its bits are not a Huffman code";
    let run = "a run of coefficients exceeds its block";
    let early = "its data ends before its last block";
    let corrupt = [
        (vec![(0b1111, 4), ac(0)], code),
        (vec![dc, (0b1111_0000, 8)], code),
        (vec![dc, ac(0x30), ac(0)], code),
        (far_four_times, run),
        (vec![dc, ac(0xf0), ac(0xf0), ac(0xf0), ac(0xf0)], run),
        (vec![dc], code),
        ([&[dc], &[ac(0x01), one].repeat(4)[..]].concat(), early),
        (vec![dc, ac(0), (0, 8)], "data is left after its last block"),
    ];
    for scale in Scale::ALL {
        for fields in &sound {
            let decoded = decode_at(&one_block(fields), scale, Channels::Gray);
            assert!(decoded.is_ok(), "{fields:?}: {decoded:?}");
        }
        for (fields, reason) in &corrupt {
            let decoded = decode_at(&one_block(fields), scale, Channels::Gray);
            let expected = Error::Malformed(format!("scan 1 is corrupt: {reason}"));
            assert_eq!(decoded, Err(expected), "{fields:?} {scale:?}");
        }
    }
}

#[test]
fn mutated_bytes_have_the_same_verdict_at_every_scale() {
    for progressive in [false, true] {
        let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
        (image.progressive, image.restart) = (progressive, 1);
        let bytes = image.encode();
        let (mut refused, mut accepted) = (0, 0);
        for at in 2..bytes.len() {
            let mut mutated = bytes.clone();
            mutated[at] ^= 1 << (at % 8);
            let limits = Limits {
                pixels: 1 << 16,
                ..Limits::default()
            };
            let verdict = |scale| {
                let decoder = Decoder::new(&mutated, limits)?;
                decoder.decode(scale, Channels::Rgb).map(drop)
            };
            let expected = verdict(Scale::Full);
            match expected {
                Ok(()) => accepted += 1,
                Err(_) => refused += 1,
            }
            for scale in Scale::ALL {
                assert_eq!(verdict(scale), expected, "byte {at}, {scale:?}");
            }
        }
        assert!(refused > 100 && accepted > 100, "{refused} {accepted}");
    }
}

#[test]
fn bytes_between_header_segments_are_ignored() {
    let whole = test_jpeg([(1, 1); 3]).encode();
    let mut with_junk = whole[..2].to_vec();
    let mut at = 2;
    while whole[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
        with_junk.extend(&whole[at..end]);
        with_junk.extend([0x12, 0x34, 0, 0xff, 0, 0x55, 0xff, 0xff]);
        at = end;
    }
    with_junk.extend(&whole[at..]);
    assert!(decode(&with_junk).is_ok());
    assert_eq!(decode(&with_junk), decode(&whole));
}

#[test]
fn long_scans_are_read_in_parts() {
    // Noise fills more than the copied part of a scan.
    fn noise(x: f64, y: f64) -> f64 {
        ((x * 12.9898 + y * 78.233).sin() * 43758.5453).rem_euclid(1.0) * 255.0
    }
    let component = |id, sampling| TestComponent {
        id,
        sampling,
        value_at: noise,
    };
    let parts = vec![
        component(1, (2, 2)),
        component(2, (1, 1)),
        component(3, (1, 1)),
    ];
    let mut image = TestJpeg::new(500, 300, parts);
    let sequential = image.encode();
    assert!(sequential.len() > 3 * (64 << 10));
    image.progressive = true;
    assert_eq!(decode(&sequential), decode(&image.encode()));
    image.progressive = false;
    image.restart = 37;
    assert_eq!(decode(&sequential), decode(&image.encode()));
}

#[test]
fn rows_are_passed_from_the_top_in_little_memory() {
    let image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
    let bytes = image.encode();
    let expected = decode(&bytes).unwrap();
    let mut rows = Vec::new();
    let decoder = Decoder::new(&bytes, Limits::default()).unwrap();
    let memory = decoder.memory(Scale::Full);
    decoder
        .decode_rows(Scale::Full, Channels::Rgb, |row| {
            rows.extend_from_slice(row)
        })
        .unwrap();
    assert_eq!(rows, expected);
    assert!(memory < 300 << 10, "{memory}");
}
