//! Runs one of our own parts a few times, for the instruction counts of `make bench-ci`:
//! `instructions NAME`.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use latentflow::coverage::RangeSet;
use latentflow::image::{Channels, PixelFormat, Pixels, ResizeMode, Resizer};
use latentflow::tensor::{fixed_column, vector_field};

/// The only function whose instructions are counted.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let mut work: Box<dyn FnMut()> = match name.as_str() {
        "resize" => resize(),
        "normalize" => normalize(),
        "coverage" => coverage(),
        "parquet" => parquet(),
        // `cargo bench` calls every benchmark with an option.
        _ => return,
    };
    // The first call fills caches and buffers.
    work();
    measured(&mut work);
}

fn image(width: usize, height: usize) -> Pixels {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = places.flat_map(|(x, y)| [x * y, x + y, x ^ y].map(|value| value as u8));
    Pixels {
        width,
        height,
        channels: Channels::Rgb,
        data: data.collect(),
    }
}

fn resize() -> Box<dyn FnMut()> {
    let image = image(481, 321);
    let mut resizer = Resizer::new(64, 64, ResizeMode::Stretch);
    Box::new(move || {
        black_box(resizer.resize(black_box(&image)).unwrap());
    })
}

fn normalize() -> Box<dyn FnMut()> {
    let image = image(224, 224);
    let mut values = vec![0.0; image.data.len()];
    Box::new(move || PixelFormat::default().normalize(black_box(&image.data), &mut values))
}

/// Batches that are committed out of order, and the gaps of a resumed run.
fn coverage() -> Box<dyn FnMut()> {
    Box::new(|| {
        let mut rows = RangeSet::default();
        for batch in 0_u64..10_000 {
            let start = (batch * 7919 % 10_000) * 32;
            rows.insert(black_box(start..start + 32));
        }
        for batch in 0_u64..10_000 {
            assert!(rows.contains(black_box(&(batch * 32..batch * 32 + 32))));
        }
    })
}

/// Writes a batch of latents to Parquet.
fn parquet() -> Box<dyn FnMut()> {
    let (rows, code) = (8192, 32);
    let schema = Arc::new(Schema::new(vec![
        Field::new("row", DataType::UInt64, false),
        vector_field("latent", code),
    ]));
    let latents = (0..rows * code).map(|place| ((place * 7919) as f32 / 37.0).sin());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(0..rows as u64)),
        fixed_column(code, latents.collect()).unwrap(),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    Box::new(move || {
        let mut writer = support::writer(std::io::sink(), &schema);
        writer.write(black_box(&batch)).unwrap();
        black_box(writer.close().unwrap());
    })
}
