//! Tests of small files of every kind with random mutations, and of files that decompress to far
//! more than their size: each gives records or rejects within the memory that `check` prints.

use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, Float32Array, Int32Array, Int64Array, ListArray,
    NullArray, RecordBatch, RunArray, StringArray,
};
use arrow::datatypes::{Float32Type, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use image::{DynamicImage, ImageFormat};
use parquet::arrow::ArrowWriter;
use parquet::basic::ZstdLevel;
use parquet::file::properties::WriterProperties;
use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::run::{RunResult, run, watch};

/// Memory that the peak may exceed the printed bound by, in bytes.
const MARGIN: u64 = 64 << 20;

/// A xorshift generator: the same numbers on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below.max(1) as u64).unwrap()
    }

    /// A copy with bytes changed, removed at the end, repeated, or replaced by extreme numbers.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.next(4) {
            let at = self.next(bytes.len());
            match self.next(8) {
                0 => bytes.truncate(at.max(1)),
                1 => {
                    let end = bytes.len().min(at + 1 + self.next(64));
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                2..=4 => {
                    let extremes: [&[u8]; 5] = [
                        &[0xff; 8],
                        &[0xff, 0xff, 0xff, 0x7f],
                        &[0; 8],
                        &[0x7f; 4],
                        &[0x80, 0, 0, 0],
                    ];
                    let value = extremes[self.next(5)];
                    let end = bytes.len().min(at + value.len());
                    bytes[at..end].copy_from_slice(&value[..end - at]);
                }
                _ => bytes[at] ^= 1 << self.next(8),
            }
        }
        bytes
    }
}

fn stages(kind: &str, images: bool) -> String {
    let pixels = "[stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [8, 8]\n";
    let (pixels, from) = if images {
        (pixels, "pixels")
    } else {
        ("", "in")
    };
    format!(
        "[stages.in]\nkind = \"{kind}\"\npath = \"in\"\n{pixels}\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"{from}\"]\npath = \"out\"\n[rejects]\n\
         path = \"bad\"\n"
    )
}

/// The memory bound that `check` prints, in bytes.
fn printed_bound(folder: &Path) -> u64 {
    let (status, log, _) = watch(folder, &["check", "p.toml"]);
    assert!(status.success(), "{log}");
    let text = fs::read_to_string(folder.join("stdout")).unwrap();
    let bound = text
        .split("at most ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    bound.parse::<bytesize::ByteSize>().unwrap().as_u64()
}

/// Runs the pipeline, and asserts exit code 0 or 3 and memory within the printed bound.
fn run_within_bound(folder: &Path, pipeline: &str) -> RunResult {
    fs::write(folder.join("p.toml"), pipeline).unwrap();
    let bound = printed_bound(folder);
    let result = run(folder, pipeline, &["--workers", "2"]);
    assert!(
        matches!(result.code, Some(0 | 3)),
        "{:?}: {}",
        result.code,
        result.log
    );
    let (peak, mebibytes) = (result.peak >> 20, bound >> 20);
    assert!(
        result.peak <= bound + MARGIN,
        "{peak} MiB resident, {mebibytes} MiB printed by `check`"
    );
    result
}

/// Reads each file and `count` mutated copies of it, and asserts that the unchanged files are read.
fn assert_survives(kind: &str, images: bool, files: &[(&str, Vec<u8>)], count: usize) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for (name, bytes) in files {
        fs::write(folder.path().join(format!("in/0-{name}")), bytes).unwrap();
        for copy in 0..count {
            fs::write(
                folder.path().join(format!("in/{}-{name}", copy + 1)),
                numbers.mutate(bytes),
            )
            .unwrap();
        }
    }
    let pipeline = format!(
        "workers = 2\n[limits]\nmemory = \"96MiB\"\n{}",
        stages(kind, images)
    );
    let result = run_within_bound(folder.path(), &pipeline);
    assert!(
        result.written >= files.len() as u64,
        "expected the unchanged files to be read: {}",
        result.log
    );
    assert!(
        !result.rejects.is_empty(),
        "expected rejects of mutated files"
    );
}

fn records() -> RecordBatch {
    let words: DictionaryArray<Int32Type> = (0..40)
        .map(|row| if row % 3 == 0 { "red" } else { "green" })
        .collect();
    let lists = (0..40).map(|row| {
        Some(
            (0..row % 5)
                .map(|value| Some(value as f32))
                .collect::<Vec<_>>(),
        )
    });
    let columns: [(&str, ArrayRef); 5] = [
        ("n", Arc::new(Int64Array::from_iter_values(0..40))),
        (
            "x",
            Arc::new(Float32Array::from_iter_values(
                (0..40).map(|row| row as f32),
            )),
        ),
        ("w", Arc::new(words)),
        (
            "s",
            Arc::new(StringArray::from_iter_values(
                (0..40).map(|row| format!("row {row}")),
            )),
        ),
        (
            "l",
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists)),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn parquet_of(batch: &RecordBatch, compression: parquet::basic::Compression) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn arrow_of(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default()
        .try_with_compression(compression)
        .unwrap();
    let mut writer =
        FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn npy(shape: &str, fortran: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [
        b"\x93NUMPY\x01\x00",
        length.as_slice(),
        header.as_bytes(),
        values,
    ]
    .concat()
}

fn npz(array: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    let (mut entry, config) = archive
        .new_file("x.npy")
        .compression_method(CompressionMethod::DEFLATE)
        .start()
        .unwrap();
    let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::fast()));
    writer.write_all(array).unwrap();
    let (encoder, descriptor) = writer.finish().unwrap();
    encoder.finish().unwrap();
    entry.finish(descriptor).unwrap();
    archive.finish().unwrap();
    bytes
}

fn image(format: ImageFormat) -> Vec<u8> {
    let image = image::RgbImage::from_fn(24, 16, |x, y| {
        image::Rgb([x as u8 * 10, y as u8 * 15, (x * y) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image)
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn mutated_parquet_ends_within_the_bound() {
    let zstd = parquet::basic::Compression::ZSTD(ZstdLevel::default());
    let plain = parquet_of(&records(), parquet::basic::Compression::UNCOMPRESSED);
    assert_survives(
        "parquet",
        false,
        &[
            ("a.parquet", plain),
            ("b.parquet", parquet_of(&records(), zstd)),
        ],
        150,
    );
}

#[test]
fn mutated_arrow_ends_within_the_bound() {
    let packed = arrow_of(&records(), Some(CompressionType::LZ4_FRAME));
    assert_survives(
        "arrow",
        false,
        &[("a.arrow", arrow_of(&records(), None)), ("b.arrow", packed)],
        150,
    );
}

#[test]
fn mutated_numpy_arrays_end_within_the_bound() {
    let values: Vec<u8> = (0..60_u16)
        .flat_map(|value| f32::from(value).to_le_bytes())
        .collect();
    let rows = npy("(20, 3)", "False", &values);
    assert_survives(
        "npz",
        false,
        &[
            ("a.npz", npz(&rows)),
            ("b.npz", npz(&npy("(20, 3)", "True", &values))),
        ],
        150,
    );
}

#[test]
fn mutated_idx_ends_within_the_bound() {
    let bytes = [
        &[0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0, 5][..],
        &[7; 120],
    ]
    .concat();
    assert_survives("idx", true, &[("a.idx", bytes)], 300);
}

#[test]
fn mutated_text_ends_within_the_bound() {
    let rows: String = (0..40)
        .map(|row| format!("{row},\"word, {row}\",{row}.5\n"))
        .collect();
    assert_survives(
        "csv",
        false,
        &[("a.csv", format!("n,s,x\n{rows}").into_bytes())],
        300,
    );
    let lines: String = (0..40)
        .map(|row| format!("{{\"n\": {row}, \"l\": [1, {row}], \"s\": \"a\\u0041\"}}\n"))
        .collect();
    assert_survives("ndjson", false, &[("a.ndjson", lines.into_bytes())], 300);
}

#[test]
fn mutated_shards_end_within_the_bound() {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("a.png", image(ImageFormat::Png)),
        ("b.jpg", image(ImageFormat::Jpeg)),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder
            .append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    assert_survives(
        "tar",
        true,
        &[("a.tar", builder.into_inner().unwrap())],
        300,
    );
}

#[test]
fn mutated_images_end_within_the_bound() {
    let formats = [
        ("a.jpg", ImageFormat::Jpeg),
        ("a.png", ImageFormat::Png),
        ("a.webp", ImageFormat::WebP),
        ("a.gif", ImageFormat::Gif),
        ("a.bmp", ImageFormat::Bmp),
        ("a.tiff", ImageFormat::Tiff),
        ("a.ppm", ImageFormat::Pnm),
    ];
    let files = formats.map(|(name, format)| (name, image(format)));
    assert_survives("images", true, &files, 100);
}

/// Reads a file that decompresses to far more than its size under the default limits, and asserts
/// that at most `max_mebibytes` are resident.
fn read_bomb(kind: &str, name: &str, bytes: &[u8], max_mebibytes: u64) -> RunResult {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(folder.path().join("in").join(name), bytes).unwrap();
    let result = run_within_bound(folder.path(), &stages(kind, kind == "images"));
    let peak = result.peak >> 20;
    eprintln!(
        "{kind} {name}: {} bytes, peak {peak} MiB, {} MiB printed, {} written, {:?}",
        bytes.len(),
        printed_bound(folder.path()) >> 20,
        result.written,
        result.rejects
    );
    assert!(
        peak <= max_mebibytes,
        "{name}: {peak} MiB resident, expected at most {max_mebibytes} MiB"
    );
    result
}

/// The code of the only reject; asserts that no record is written.
fn reject_code(result: &RunResult) -> &str {
    assert_eq!(
        (result.written, result.rejects.len()),
        (0, 1),
        "{:?}",
        result.rejects
    );
    &result.rejects[0].code
}

#[test]
fn records_that_decompress_beyond_limits_are_too_large() {
    let zstd = parquet::basic::Compression::ZSTD(ZstdLevel::default());
    let zeros = Arc::new(Float32Array::from(vec![0.0; 30_000_000]));
    let field = Arc::new(arrow::datatypes::Field::new_list_field(
        arrow::datatypes::DataType::Float32,
        true,
    ));
    let lists = ListArray::new(
        field,
        arrow::buffer::OffsetBuffer::from_lengths([zeros.len()]),
        zeros,
        None,
    );
    let list = RecordBatch::try_from_iter([("v", Arc::new(lists) as ArrayRef)]).unwrap();
    assert_eq!(
        reject_code(&read_bomb(
            "parquet",
            "list.parquet",
            &parquet_of(&list, zstd),
            256
        )),
        "too_large"
    );
    let packed = arrow_of(&list, Some(CompressionType::ZSTD));
    assert_eq!(
        reject_code(&read_bomb("arrow", "list.arrow", &packed, 400)),
        "too_large"
    );
    drop(list);
    let blob = vec![0; 300_000_000];
    let blob = RecordBatch::try_from_iter([(
        "b",
        Arc::new(BinaryArray::from_iter_values([blob])) as ArrayRef,
    )])
    .unwrap();
    assert_eq!(
        reject_code(&read_bomb(
            "parquet",
            "blob.parquet",
            &parquet_of(&blob, zstd),
            256
        )),
        "too_large"
    );
}

#[test]
fn declared_rows_without_bytes_are_too_large() {
    let nulls = RecordBatch::try_from_iter([(
        "x",
        Arc::new(NullArray::new(i32::MAX as usize)) as ArrayRef,
    )])
    .unwrap();
    assert_eq!(
        reject_code(&read_bomb(
            "arrow",
            "null.arrow",
            &arrow_of(&nulls, None),
            160
        )),
        "too_large"
    );
    let runs = RunArray::try_new(
        &Int32Array::from(vec![i32::MAX]),
        &Float32Array::from(vec![1.5]),
    )
    .unwrap();
    let runs = RecordBatch::try_from_iter([("x", Arc::new(runs) as ArrayRef)]).unwrap();
    assert_eq!(
        reject_code(&read_bomb(
            "arrow",
            "runs.arrow",
            &arrow_of(&runs, None),
            160
        )),
        "too_large"
    );
}

#[test]
fn highly_compressed_column_of_one_value_is_read() {
    let zeros = RecordBatch::try_from_iter([(
        "x",
        Arc::new(Float32Array::from(vec![0.0; 2_000_000])) as ArrayRef,
    )])
    .unwrap();
    let packed = arrow_of(&zeros, Some(CompressionType::ZSTD));
    assert_eq!(
        read_bomb("arrow", "zeros.arrow", &packed, 200).written,
        2_000_000
    );
    let zstd = parquet::basic::Compression::ZSTD(ZstdLevel::default());
    assert_eq!(
        read_bomb("parquet", "zeros.parquet", &parquet_of(&zeros, zstd), 200).written,
        2_000_000
    );
}

#[test]
fn image_of_one_color_takes_the_reserved_memory() {
    // Lossless WebP of one color: codes of 0 bits for any number of pixels.
    let webp = |side: u32| {
        let size = (side - 1) | (side - 1) << 14;
        let stream = [&[0x2f][..], &size.to_le_bytes(), &[0x88, 0x88, 0x08]].concat();
        [b"RIFF\x14\0\0\0WEBPVP8L\x08\0\0\0".as_slice(), &stream].concat()
    };
    assert_eq!(
        read_bomb("images", "plain.webp", &webp(4000), 300).written,
        1
    );
    assert_eq!(
        reject_code(&read_bomb("images", "wide.webp", &webp(10_001), 160)),
        "too_large"
    );
}

#[test]
fn thousands_of_rejected_lines_take_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let mut file = File::create(folder.path().join("in/x.ndjson")).unwrap();
    file.write_all(b"{\"a\": 1}\n").unwrap();
    file.write_all(&b"x\n".repeat(100_000)).unwrap();
    drop(file);
    let result = run_within_bound(folder.path(), &stages("ndjson", false));
    assert_eq!((result.written, result.rejects.len()), (1, 100_000));
    result.assert_memory_within(256);
}
