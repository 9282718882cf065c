//! Tests of JPEG decoding.

#![allow(clippy::unwrap_used)]

use super::test_encoder::{TestComponent, TestJpeg, ac_symbols};
use crate::batch::RejectCode;
use crate::image::{Channels, OutputFormat, Pixels, decode, encode, probe};

/// An image of noise, so that every row of blocks takes many bytes.
fn jpeg() -> Vec<u8> {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let data = std::iter::repeat_with(&mut noise)
        .take(64 * 64 * 3)
        .collect();
    let pixels = Pixels {
        width: 64,
        height: 64,
        channels: Channels::Rgb,
        data,
    };
    encode(&pixels, OutputFormat::Jpeg(90)).unwrap()
}

fn rejection(bytes: &[u8]) -> (RejectCode, String) {
    let error = decode(bytes, Channels::Rgb, 1 << 20).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn jpeg_cut_at_any_byte_is_truncated() {
    let whole = jpeg();
    assert!(decode(&whole, Channels::Rgb, 1 << 20).is_ok());
    for cut in (0..whole.len()).step_by(50).chain([whole.len() - 1]) {
        let (code, reason) = rejection(&whole[..cut]);
        // The format of an image cannot be detected from two bytes.
        assert!(code == RejectCode::Truncated || cut < 3, "{cut}: {reason}");
    }
    assert_eq!(
        rejection(&whole[..2000]).1,
        "JPEG ends after 2000 bytes, in the middle of scan 1"
    );
}

#[test]
fn cut_that_is_closed_with_an_end_marker_is_an_error() {
    let whole = jpeg();
    for cut in (1000..whole.len() - 1000).step_by(50) {
        let closed = [&whole[..cut], &[0xff, 0xd9]].concat();
        assert!(
            decode(&closed, Channels::Rgb, 1 << 20).is_err(),
            "closed after {cut} of {}",
            whole.len()
        );
    }
}

/// Color noise of 40 x 40 pixels in 10 scans, according to libjpeg's standard script.
const PROGRESSIVE: &[u8] = include_bytes!("../../../tests/suite/malformed_input/progressive.jpg");

#[test]
fn progressive_image_that_is_cut_and_closed_is_an_error() {
    assert!(decode(PROGRESSIVE, Channels::Rgb, 1 << 20).is_ok());
    let first_scan = PROGRESSIVE
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap();
    for cut in first_scan..PROGRESSIVE.len() - 8 {
        let closed = [&PROGRESSIVE[..cut], &[0xff, 0xd9]].concat();
        assert!(
            decode(&closed, Channels::Rgb, 1 << 20).is_err(),
            "closed after {cut} of {}",
            PROGRESSIVE.len()
        );
    }
    let last_scan = PROGRESSIVE
        .windows(2)
        .rposition(|pair| pair == [0xff, 0xda])
        .unwrap();
    let without = [&PROGRESSIVE[..last_scan], &[0xff, 0xd9]].concat();
    let expected = format!(
        "JPEG ends after {} bytes, before all of its scans are complete",
        without.len()
    );
    assert_eq!(rejection(&without), (RejectCode::Truncated, expected));
}

#[test]
fn bytes_after_the_image_are_ignored() {
    let whole = jpeg();
    let followed = [whole.as_slice(), b"a second image, or a film", &whole].concat();
    assert_eq!(
        decode(&followed, Channels::Rgb, 1 << 20),
        decode(&whole, Channels::Rgb, 1 << 20)
    );
}

#[test]
fn scans_and_segments_are_bounded() {
    let whole = jpeg();
    let mut scans = test_jpeg([(1, 1); 3]);
    (scans.progressive, scans.one_coefficient_per_scan) = (true, true);
    assert_eq!(
        rejection(&scans.encode()),
        (
            RejectCode::TooLarge,
            "JPEG has more than 64 scans, the maximum".to_owned()
        )
    );
    let segments = [&whole[..2], &[0xff, 0xfe, 0, 2].repeat(3000), &whole[2..]].concat();
    assert_eq!(
        rejection(&segments),
        (
            RejectCode::TooLarge,
            "JPEG has more than 2048 segments, the maximum".to_owned()
        )
    );
}

#[test]
fn unsupported_kinds_of_jpeg_are_named() {
    let start = [0xff, 0xd8, 0xff];
    let reason = |frame: &[u8]| probe(&[&start, frame].concat()).unwrap_err().to_string();
    assert_eq!(
        reason(&[0xc0, 0, 8, 12, 0, 8, 0, 8, 3]),
        "unsupported JPEG: it has 12 bits per sample"
    );
    assert_eq!(
        reason(&[0xc9, 0, 8, 8, 0, 8, 0, 8, 3]),
        "unsupported JPEG: it is arithmetic-coded"
    );
    assert_eq!(
        reason(&[0xc3, 0, 8, 8, 0, 8, 0, 8, 3]),
        "unsupported JPEG: it is lossless or hierarchical"
    );
    assert_eq!(
        reason(&[0xc0, 0, 8, 8, 0, 0, 0, 8, 3]),
        "unsupported JPEG: its height is stated only after its pixels (DNL marker)"
    );
}

const WIDTH: usize = 37;
const HEIGHT: usize = 21;

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

/// The largest difference of a decoded test image from the color at the center of each pixel.
fn largest_difference(pixels: &Pixels, color: impl Fn(f64, f64) -> [f64; 3]) -> f64 {
    assert_eq!((pixels.width, pixels.height), (WIDTH, HEIGHT));
    let differences = pixels
        .data
        .chunks_exact(3)
        .enumerate()
        .flat_map(|(index, pixel)| {
            let (x, y) = (index % WIDTH, index / WIDTH);
            let expected = color(x as f64 + 0.5, y as f64 + 0.5);
            let of_channel =
                |at: usize| (f64::from(pixel[at]) - expected[at].clamp(0.0, 255.0)).abs();
            [0, 1, 2].map(of_channel)
        });
    differences.fold(0.0, f64::max)
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
fn every_sampling_is_decoded_right_or_unsupported() {
    let factors: Vec<(usize, usize)> = (1..=4).flat_map(|h| (1..=4).map(move |v| (h, v))).collect();
    let mut decoded = Vec::new();
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
                    match decode(&image.encode(), Channels::Rgb, 1 << 20) {
                        Ok(pixels) => {
                            let worst = largest_difference(&pixels, color);
                            assert!(
                                worst < UPSAMPLING,
                                "off by {worst}: {of_luma:?}, {of_chroma:?}, {separate} \
                                 {progressive}"
                            );
                            decoded.push((of_luma, of_chroma, separate, progressive));
                        }
                        Err(error) => assert_eq!(error.code(), RejectCode::Unsupported, "{error}"),
                    }
                }
            }
        }
    }
    for of_luma in [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2)] {
        for kind in [(false, false), (false, true), (true, true)] {
            let usual = (of_luma, (1, 1), kind.0, kind.1);
            assert!(decoded.contains(&usual), "{usual:?}");
        }
    }
}

#[test]
fn chroma_components_may_have_different_sampling() {
    for (of_blue, of_red) in [((1, 1), (1, 2)), ((2, 1), (1, 1)), ((1, 2), (2, 1))] {
        let image = test_jpeg([(2, 2), of_blue, of_red]);
        let pixels = decode(&image.encode(), Channels::Rgb, 1 << 20).unwrap();
        assert!(largest_difference(&pixels, color) < UPSAMPLING);
    }
}

#[test]
fn baseline_scan_for_each_component_of_420_is_unsupported() {
    let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
    for scans in [vec![vec![0], vec![1], vec![2]], vec![vec![0], vec![1, 2]]] {
        image.scans = scans;
        let reason = format!(
            "unsupported JPEG: its 3 components are in {} scans; the components of a baseline \
             image must be in one scan",
            image.scans.len()
        );
        assert_eq!(
            rejection(&image.encode()),
            (RejectCode::Unsupported, reason)
        );
    }
}

#[test]
fn chroma_finer_than_luma_is_unsupported() {
    let reason = "unsupported JPEG: its components have the sampling factors 1x1, 2x2, 2x2; the \
                  first one must have the largest, and the others must divide them";
    assert_eq!(
        rejection(&test_jpeg([(1, 1), (2, 2), (2, 2)]).encode()),
        (RejectCode::Unsupported, reason.to_owned())
    );
}

#[test]
fn colors_follow_the_application_segments() {
    let direct = |x, y| [luma(x, y), blue(x, y), red(x, y)];
    let decoded = |image: &TestJpeg| decode(&image.encode(), Channels::Rgb, 1 << 20).unwrap();
    for progressive in [false, true] {
        let mut image = test_jpeg([(1, 1); 3]);
        image.progressive = progressive;
        for adobe in [None, Some(1)] {
            image.adobe = adobe;
            assert!(largest_difference(&decoded(&image), color) < 3.0);
        }
        image.adobe = Some(0);
        assert!(
            largest_difference(&decoded(&image), direct) < 3.0,
            "Adobe RGB"
        );
        image.jfif = true;
        assert!(largest_difference(&decoded(&image), color) < 3.0, "JFIF");
        (image.jfif, image.adobe) = (false, None);
        for (component, id) in image.components.iter_mut().zip(*b"RGB") {
            component.id = id;
        }
        assert!(
            largest_difference(&decoded(&image), direct) < 3.0,
            "components R, G, B"
        );
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
    image.progressive = true;
    let printed = |[r, g, b]: [f64; 3], k: f64| {
        [r, g, b].map(|level: f64| (255.0 - level.clamp(0.0, 255.0)) * k / 255.0)
    };
    let pixels = decode(&image.encode(), Channels::Rgb, 1 << 20).unwrap();
    let expected = |x, y| printed(color(x, y), black(x, y));
    assert!(largest_difference(&pixels, expected) < UPSAMPLING);
    (image.scans, image.progressive) = (vec![vec![0, 1, 2, 3]], false);
    image
        .components
        .iter_mut()
        .for_each(|part| part.sampling = (1, 1));
    for adobe in [None, Some(0)] {
        image.adobe = adobe;
        let cmyk = decode(&image.encode(), Channels::Rgb, 1 << 20).unwrap();
        let inverted =
            |x, y| [luma(x, y), blue(x, y), red(x, y)].map(|level| level * black(x, y) / 255.0);
        assert!(largest_difference(&cmyk, inverted) < 3.0, "{adobe:?}");
    }
}

#[test]
fn gray_image_may_have_any_sampling_factors() {
    for sampling in (1..=4).flat_map(|h| (1..=4).map(move |v| (h, v))) {
        for progressive in [false, true] {
            let mut image = test_jpeg([(1, 1); 3]);
            image.components.truncate(1);
            image.components[0].sampling = sampling;
            (image.scans, image.progressive) = (vec![vec![0]], progressive);
            let pixels = decode(&image.encode(), Channels::Rgb, 1 << 20).unwrap();
            let worst = largest_difference(&pixels, |x, y| [luma(x, y); 3]);
            assert!(worst < 3.0, "{sampling:?} {progressive}: off by {worst}");
        }
    }
}

#[test]
fn restart_markers_must_be_in_order() {
    for progressive in [false, true] {
        let mut image = test_jpeg([(2, 1), (1, 1), (1, 1)]);
        (image.progressive, image.restart) = (progressive, 2);
        let bytes = image.encode();
        let pixels = decode(&bytes, Channels::Rgb, 1 << 20).unwrap();
        assert!(largest_difference(&pixels, color) < UPSAMPLING);
        let marker = |number| {
            bytes
                .windows(2)
                .position(|pair| pair == [0xff, number])
                .unwrap()
        };
        let (first, second) = (marker(0xd0), marker(0xd1));
        let mut swapped = bytes.clone();
        (swapped[first + 1], swapped[second + 1]) = (0xd1, 0xd0);
        assert_eq!(rejection(&swapped).0, RejectCode::Malformed);
        let without = [&bytes[..first], &bytes[second..]].concat();
        assert_eq!(rejection(&without).0, RejectCode::Malformed);
    }
}

/// A gray image of one block with this entropy-coded data: numbers and their bit lengths.
fn one_block(fields: &[(usize, usize)]) -> Vec<u8> {
    let image = TestJpeg::new(
        8,
        8,
        vec![TestComponent {
            id: 1,
            sampling: (1, 1),
            value_at: |_, _| 128.0,
        }],
    );
    let bytes = image.encode();
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
fn corrupt_entropy_coded_data_is_malformed() {
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
    for fields in sound {
        let decoded = decode(&one_block(&fields), Channels::Gray, 64);
        assert!(decoded.is_ok(), "{fields:?}: {decoded:?}");
    }
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
    for (fields, reason) in corrupt {
        assert_eq!(
            rejection(&one_block(&fields)),
            (
                RejectCode::Malformed,
                format!("malformed JPEG: scan 1 is corrupt: {reason}")
            ),
            "{fields:?}"
        );
    }
}

#[test]
fn mutated_bytes_give_complete_images_or_errors() {
    for progressive in [false, true] {
        let mut image = test_jpeg([(2, 2), (1, 1), (1, 1)]);
        (image.progressive, image.restart) = (progressive, 1);
        let bytes = image.encode();
        let mut refused = 0;
        for at in 2..bytes.len() {
            let mut mutated = bytes.clone();
            mutated[at] ^= 1 << (at % 8);
            match decode(&mutated, Channels::Rgb, 1 << 16) {
                Ok(pixels) => assert_eq!(pixels.data.len(), pixels.width * pixels.height * 3),
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains("panicked"), "{at}: {error}");
                }
            }
        }
        assert!(refused > 0);
    }
}

#[test]
fn bytes_between_header_segments_are_ignored() {
    let whole = jpeg();
    let expected = decode(&whole, Channels::Rgb, 1 << 20);
    let mut with_junk = whole[..2].to_vec();
    let mut at = 2;
    while whole[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
        with_junk.extend(&whole[at..end]);
        with_junk.extend([0x12, 0x34, 0, 0xff, 0, 0x55, 0xff, 0xff]);
        at = end;
    }
    with_junk.extend(&whole[at..]);
    assert!(decode(&with_junk, Channels::Rgb, 1 << 20) == expected);
}

#[test]
fn orientation_in_xmp_turns_the_image() {
    let image = test_jpeg([(1, 1); 3]).encode();
    let xmp = b"http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation=\"6\"/>";
    let length = u16::try_from(xmp.len() + 2).unwrap().to_be_bytes();
    let turned = [&image[..2], &[0xff, 0xe1], &length, xmp, &image[2..]].concat();
    let pixels = decode(&turned, Channels::Rgb, 1 << 20).unwrap();
    assert_eq!((pixels.width, pixels.height), (HEIGHT, WIDTH));
}
