//! Small deterministic inputs for tests, with known invalid records.

use std::fs::{self, File};
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use image::{ImageFormat, RgbImage};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Whether the image with this number is broken.
pub fn is_broken(number: usize) -> bool {
    number % 7 == 3
}

/// The file name of the image with this number.
pub fn image_name(number: usize) -> String {
    format!(
        "{number:05}.{}",
        if number.is_multiple_of(3) {
            "png"
        } else {
            "pgm"
        }
    )
}

/// Writes `count` tiny images into a folder, some of them broken in one of several ways.
pub fn images(folder: &Path, count: usize) {
    fs::create_dir_all(folder).unwrap();
    for number in 0..count {
        let bytes = if is_broken(number) {
            broken_image(number)
        } else {
            valid_image(number)
        };
        fs::write(folder.join(image_name(number)), bytes).unwrap();
    }
}

fn valid_image(number: usize) -> Vec<u8> {
    let shade = |place: usize| u8::try_from((number * 31 + place * 7) % 256).unwrap();
    if image_name(number).ends_with(".pgm") {
        return b"P5 4 4 255\n"
            .iter()
            .copied()
            .chain((0..16).map(shade))
            .collect();
    }
    let pixels = RgbImage::from_raw(4, 4, (0..48).map(shade).collect()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn broken_image(number: usize) -> Vec<u8> {
    match number % 6 {
        0 => Vec::new(),
        1 => b"a letter, not an image".to_vec(),
        2 => b"P5 4 4 255\n\x01\x02".to_vec(),
        3 => b"P5 4 four 255\n".to_vec(),
        4 => b"P5 100000 100000 255\n\x01".to_vec(),
        _ => {
            let mut png = valid_image(0);
            let last = png.len() - 20;
            png[last] ^= 0xff;
            png
        }
    }
}

/// Whether a feature of the row with this number is null or not a number.
pub fn is_bad_row(number: u64) -> bool {
    number % 13 == 5 || number % 17 == 3
}

/// A feature without nulls, from 0 to 1.
pub fn share(number: u64) -> f32 {
    (number * 37 % 100) as f32 / 100.0
}

/// Writes rows with these numbers as a Parquet file with row groups of `group` rows: `id`, `a` (see
/// [`is_bad_row`]), `b` (see [`share`]).
pub fn table(path: &Path, rows: Range<u64>, group: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let a = rows.clone().map(|row| match row {
        row if !is_bad_row(row) => Some(row as f32 / 3.0),
        row if row % 13 == 5 => None,
        _ => Some(f32::NAN),
    });
    let columns: [(&str, ArrayRef); 3] = [
        (
            "id",
            Arc::new(Int64Array::from_iter_values(
                rows.clone().map(|row| i64::try_from(row).unwrap()),
            )),
        ),
        ("a", Arc::new(a.collect::<Float32Array>())),
        (
            "b",
            Arc::new(Float32Array::from_iter_values(rows.map(share))),
        ),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let mut writer = ArrowWriter::try_new(
        File::create(path).unwrap(),
        batch.schema(),
        Some(properties),
    )
    .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Whether the line with this number is invalid.
pub fn is_bad_line(number: u64) -> bool {
    number % 101 == 50
}

/// Whether the record of a line lacks its value `column`, which is `a` or `b`.
pub fn lacks(column: &str, number: u64) -> bool {
    number.is_multiple_of(if column == "a" { 11 } else { 7 })
}

/// Writes `lines` lines of `id`, `x` (see [`share`]), `a` and `b` (see [`lacks`]), as CSV.
pub fn csv(path: &Path, lines: u64) {
    let line = |number: u64| {
        let value = |column: &str| {
            if lacks(column, number) {
                String::new()
            } else {
                format!("{number}.25")
            }
        };
        match is_bad_line(number) {
            true => "not a number,,,\n".to_owned(),
            false => format!("{number},{},{},{}\n", share(number), value("a"), value("b")),
        }
    };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(
        path,
        format!("id,x,a,b\n{}", (0..lines).map(line).collect::<String>()),
    )
    .unwrap();
}

/// Writes the records of [`csv`] as JSON objects.
pub fn ndjson(path: &Path, lines: u64) {
    let line = |number: u64| {
        let value = |column: &str| {
            if lacks(column, number) {
                "null".to_owned()
            } else {
                format!("{number}.75")
            }
        };
        match is_bad_line(number) {
            true => "{\"id\": \n".to_owned(),
            false => format!(
                "{{\"id\": {number}, \"x\": {}, \"a\": {}, \"b\": {}}}\n",
                share(number),
                value("a"),
                value("b")
            ),
        }
    };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, (0..lines).map(line).collect::<String>()).unwrap();
}
