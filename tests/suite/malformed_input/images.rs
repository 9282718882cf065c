//! Tests of image files that declare wrong sizes, decompress to more than their pixels, or are
//! truncated.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{DynamicImage, ImageFormat, RgbImage};
use tempfile::TempDir;

use super::run::{RunResult, run};

/// Color noise of 40 x 40 pixels in the 10 scans of the standard script of libjpeg.
const PROGRESSIVE: &[u8] = include_bytes!("progressive.jpg");

/// The memory bound of a run without large images, which also holds with decompression bombs.
const USUAL_MEBIBYTES: u64 = 128;

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join("in").join(name), bytes).unwrap();
    }
    folder
}

/// Runs a pipeline that decodes the images of `in` to 8 x 8 pixels.
fn decode(folder: &Path) -> RunResult {
    let pipeline = "[stages.files]\nkind = \"images\"\npath = \"in\"\n\
        [stages.pixels]\nkind = \"pixels\"\ninputs = [\"files\"]\nsize = [8, 8]\n\
        [stages.out]\nkind = \"parquet\"\ninputs = [\"pixels\"]\npath = \"out\"\n\
        [rejects]\npath = \"bad\"\n";
    run(folder, pipeline, &[])
}

fn png_chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(kind);
    sum.update(body);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length, kind.as_slice(), body, &sum.sum().to_be_bytes()].concat()
}

/// A PNG of 8-bit RGB with these chunks between its header and its end.
fn png(width: u32, height: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    let start = [b"\x89PNG\r\n\x1a\n".to_vec(), png_chunk(b"IHDR", &header)].concat();
    [start, chunks.concat(), png_chunk(b"IEND", &[])].concat()
}

/// `mebibytes` MiB of zeros, compressed by a factor of about 1000.
fn zeros(mebibytes: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    (0..mebibytes).for_each(|_| encoder.write_all(&[0; 1 << 20]).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn excessive_image_sizes_are_rejected_before_allocation() {
    let tiff = |side: u32| {
        let entry = |tag: u16, value: u32| {
            [
                &tag.to_le_bytes()[..],
                &4_u16.to_le_bytes(),
                &1_u32.to_le_bytes(),
                &value.to_le_bytes(),
            ]
            .concat()
        };
        let fields = [
            (256, side),
            (257, side),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, 8),
            (277, 1),
            (278, side),
            (279, 4),
        ];
        let entries = fields.map(|(tag, value)| entry(tag, value)).concat();
        [b"II\x2a\0\x08\0\0\0\x09\0".as_slice(), &entries, &[0; 8]].concat()
    };
    let bmp = |side: i32| {
        let sides = [side.to_le_bytes(), side.to_le_bytes()].concat();
        [
            b"BM\x7a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".as_slice(),
            &sides,
            b"\x01\0\x18\0",
            &[0; 64],
        ]
        .concat()
    };
    let jpeg = b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\
                 \xff\xda\0\x08\x01\x01\0\0\x3f\0\0\xff\xd9";
    // 14 bits each for width and height, both less 1.
    let webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xfe\xbf\xff\x0f\0\0\0\0\0\0\0\0\0";
    let gif = b"GIF89a\xff\xff\xff\xff\0\0\0\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0\x3b";
    let idat = png_chunk(b"IDAT", &zeros(1));
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("a.png", png(65_535, 65_535, std::slice::from_ref(&idat))),
        ("b.png", png(0x7fff_ffff, 0x7fff_ffff, &[idat])),
        ("a.bmp", bmp(65_535)),
        ("a.tif", tiff(65_535)),
        ("b.tif", tiff(u32::MAX)),
        ("a.webp", webp.to_vec()),
        ("a.gif", gif.to_vec()),
        ("a.ppm", b"P6 65535 65535 255\nabc".to_vec()),
        ("b.ppm", b"P6 4294967295 4294967295 65535\nabc".to_vec()),
        ("a.pbm", b"P4 65535 65535\nabc".to_vec()),
        ("a.jpg", jpeg.to_vec()),
    ];
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();
    let folder = folder(&files);
    let result = decode(folder.path());
    result.assert_complete();
    assert_eq!((result.records, result.written), (11, 0));
    for reject in &result.rejects {
        let by_limit = reject
            .reason
            .contains("more than the limit of 100000000 pixels");
        // The decoder itself refuses sizes whose product exceeds 64 bits.
        let by_decoder = reject.source == "b.ppm" && reject.reason.ends_with("are too large");
        assert!(
            by_limit && reject.code == "too_large" || by_decoder,
            "{reject:?}"
        );
    }
    result.assert_memory_within(USUAL_MEBIBYTES);
}

#[test]
fn decompression_bombs_in_png_chunks_take_bounded_memory() {
    let pixel = png_chunk(b"IDAT", &{
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&[0, 1, 2, 3]).unwrap();
        encoder.finish().unwrap()
    });
    let bomb = zeros(256);
    let text = png_chunk(b"zTXt", &[b"Comment\0\0".as_slice(), &bomb].concat());
    let international = png_chunk(
        b"iTXt",
        &[b"Comment\0\x01\0\0\0".as_slice(), &bomb].concat(),
    );
    let profile = png_chunk(b"iCCP", &[b"Profile\0\0".as_slice(), &bomb].concat());
    let folder = folder(&[
        ("pixels.png", &png(1, 1, &[png_chunk(b"IDAT", &bomb)])),
        (
            "text.png",
            &png(1, 1, &[text, international, pixel.clone()]),
        ),
        ("profile.png", &png(1, 1, &[profile, pixel.clone()])),
        ("valid.png", &png(1, 1, &[pixel])),
    ]);
    let result = decode(folder.path());
    result.assert_complete();
    assert!(
        !result.codes().contains_key("valid.png"),
        "{:?}",
        result.rejects
    );
    // Chunks other than those of the pixels are skipped.
    assert!(
        !result.codes().contains_key("text.png") && !result.codes().contains_key("profile.png"),
        "{:?}",
        result.rejects
    );
    result.assert_memory_within(USUAL_MEBIBYTES);
}

/// A gray JPEG in units of 8 x 8 pixels with codes of two bits; `unit` returns the bytes of a unit
/// and its restart marker.
fn jpeg_of_units(side: u16, interval: u16, unit: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let table = |class: u8| {
        let lengths = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        [&[0xff, 0xc4, 0, 20, class], lengths.as_slice(), &[0]].concat()
    };
    let quantizers = [&[0xff, 0xdb, 0, 67, 0], [1; 64].as_slice()].concat();
    let [high, low] = side.to_be_bytes();
    let frame = [0xff, 0xc0, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0];
    let [up, down] = interval.to_be_bytes();
    let restarts = [0xff, 0xdd, 0, 4, up, down];
    let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0];
    let units = usize::from(side.div_ceil(8)).pow(2);
    let data: Vec<u8> = (0..units).flat_map(unit).collect();
    let start = [
        &[0xff, 0xd8],
        quantizers.as_slice(),
        &table(0x00),
        &table(0x10),
        &frame,
        &restarts,
        &scan,
    ]
    .concat();
    [start.as_slice(), &data, &[0xff, 0xd9]].concat()
}

#[test]
fn jpegs_of_thousands_of_scans_or_segments_are_rejected() {
    let end = PROGRESSIVE.len() - 2;
    let first_scan = PROGRESSIVE
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap();
    let second_scan = first_scan
        + 2
        + PROGRESSIVE[first_scan + 2..]
            .windows(2)
            .position(|p| p == [0xff, 0xc4])
            .unwrap();
    let scan = &PROGRESSIVE[first_scan..second_scan];
    let scans = [&PROGRESSIVE[..end], &scan.repeat(5000), &PROGRESSIVE[end..]].concat();
    let segments = [
        &PROGRESSIVE[..2],
        &b"\xff\xe1\0\x08Exif\0\0".repeat(100_000),
        &PROGRESSIVE[2..],
    ]
    .concat();
    let restarts = jpeg_of_units(1024, 1, |unit| vec![0x3f, 0xff, 0xd0 | (unit % 8) as u8]);
    let storm = jpeg_of_units(1024, 1, |_| [0xff, 0xd0].repeat(64));
    let folder = folder(&[
        ("scans.jpg", &scans),
        ("segments.jpg", &segments),
        ("restarts.jpg", &restarts),
        ("storm.jpg", &storm),
        ("valid.jpg", PROGRESSIVE),
    ]);
    let result = decode(folder.path());
    result.assert_complete();
    let codes = result.codes();
    assert_eq!(
        (codes.get("scans.jpg"), codes.get("segments.jpg")),
        (Some(&"malformed"), Some(&"too_large"))
    );
    assert!(
        !codes.contains_key("valid.jpg") && !codes.contains_key("restarts.jpg"),
        "{:?}",
        result.rejects
    );
    result.assert_memory_within(USUAL_MEBIBYTES);
}

/// Noise, so that every byte of a compressed file is needed.
fn noise() -> DynamicImage {
    let mut state = 1_u32;
    DynamicImage::ImageRgb8(RgbImage::from_fn(40, 30, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [a, b, c, _] = state.to_be_bytes();
        image::Rgb([a, b, c])
    }))
}

#[test]
fn truncated_image_of_any_format_is_a_reject() {
    let formats = [
        ("png", ImageFormat::Png),
        ("jpg", ImageFormat::Jpeg),
        ("webp", ImageFormat::WebP),
        ("bmp", ImageFormat::Bmp),
        ("gif", ImageFormat::Gif),
        ("tif", ImageFormat::Tiff),
        ("ppm", ImageFormat::Pnm),
    ];
    let mut files = vec![("progressive".to_owned(), "jpg", PROGRESSIVE.to_vec())];
    for (extension, format) in formats {
        let mut bytes = std::io::Cursor::new(Vec::new());
        noise().write_to(&mut bytes, format).unwrap();
        files.push(("whole".to_owned(), extension, bytes.into_inner()));
    }
    let folder = folder(&[]);
    let mut whole = 0;
    let mut cut = 0;
    for (name, extension, bytes) in &files {
        let write = |stem: String, content: &[u8]| {
            fs::write(
                folder.path().join("in").join(format!("{stem}.{extension}")),
                content,
            )
            .unwrap();
        };
        write(name.clone(), bytes);
        whole += 1;
        for part in 0..20 {
            write(
                format!("{name}-cut{part:02}"),
                &bytes[..bytes.len() * part / 20],
            );
            cut += 1;
        }
    }
    let result = decode(folder.path());
    result.assert_complete();
    assert_eq!(
        (result.records, result.written),
        (whole + cut, whole),
        "{:?}",
        result.rejects
    );
    assert!(
        result
            .rejects
            .iter()
            .all(|reject| reject.source.contains("-cut")),
        "{:?}",
        result.rejects
    );
    assert!(
        result
            .rejects
            .iter()
            .any(|reject| reject.reason == "the image is empty: it has 0 bytes"),
        "{:?}",
        result.rejects
    );
}

#[test]
fn truncated_progressive_jpeg_with_end_marker_is_a_reject() {
    let first_scan = PROGRESSIVE
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap();
    let folder = folder(&[("whole.jpg", PROGRESSIVE)]);
    let mut closed = 0;
    // The last bytes may be padding or bits that no coefficient uses.
    for cut in (first_scan..PROGRESSIVE.len() - 8).step_by(7) {
        let bytes = [&PROGRESSIVE[..cut], &[0xff, 0xd9]].concat();
        fs::write(folder.path().join(format!("in/cut{cut:04}.jpg")), bytes).unwrap();
        closed += 1;
    }
    let result = decode(folder.path());
    result.assert_complete();
    assert_eq!(
        (result.records, result.written),
        (closed + 1, 1),
        "{:?}",
        result.codes()
    );
}

#[test]
fn other_content_with_the_extension_of_an_image_is_a_reject() {
    let nonsense = [7; 3000];
    let inner = tar_of(&[("x.jpg", &nonsense)]);
    let zip =
        b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0\x05\0\0\0\x05\0\0\0x.zipPK\x05\x06"
            .to_vec();
    let folder = folder(&[
        ("a.jpg", &tar_of(&[("inner.tar", &inner)])),
        ("b.png", &zip),
        ("c.gif", b""),
        ("d.webp", b"RIFF"),
        ("e.bmp", b"BM"),
        ("f.tif", b"II\x2a\0\xff\xff\xff\xff"),
        ("g.ppm", b"P6"),
        ("h.jpeg", b"\xff\xd8\xff"),
        (
            "i.pnm",
            &[b"P6 1 1 ".as_slice(), &b"9".repeat(1 << 20)].concat(),
        ),
        (
            "j.pgm",
            &[b"P5\n#".as_slice(), &b"#".repeat(1 << 20)].concat(),
        ),
    ]);
    let result = decode(folder.path());
    result.assert_complete();
    assert_eq!((result.records, result.written), (10, 0));
    assert!(
        result
            .rejects
            .iter()
            .all(|reject| !reject.reason.is_empty())
    );
    result.assert_memory_within(USUAL_MEBIBYTES);
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}
