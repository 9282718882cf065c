//! The components of a run, measured separately: decoders, resizing, normalization, one inference
//! call, errors, Parquet, handover.
//!
//! ```text
//! cargo bench --bench micro                    all benchmarks
//! cargo bench --bench micro -- decode          benchmarks whose name contains the word
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use latentflow::image::ssim::ssim;
use latentflow::image::{
    Channels, JpegOptions, OutputFormat, PixelFormat, Pixels, ResizeMode, Resizer, decode, encode,
};
use latentflow::metrics::Metrics;
use latentflow::model::files::ModelPath;
use latentflow::model::{Loss, Model, ModelSpec, RuntimeSpec, ort_library};
use latentflow::system;
use latentflow::tensor::{fixed_column, vector_field};

/// Smooth colors with some grain, which encode to about the size of a photograph.
fn photograph(width: usize, height: usize, channels: Channels) -> Pixels {
    let mut grain = 1_u32;
    let value = |x: usize, y: usize, channel: usize| {
        grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let smooth =
            (x as f64 / 37.0 + channel as f64).sin() * (y as f64 / 29.0).cos() * 100.0 + 128.0;
        (smooth + f64::from(grain >> 28) - 8.0) as u8
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let samples =
        pixels.flat_map(|(x, y)| (0..channels.count()).map(move |channel| (x, y, channel)));
    let mut value = value;
    let data = samples
        .map(|(x, y, channel)| value(x, y, channel))
        .collect();
    Pixels {
        width,
        height,
        channels,
        data,
    }
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let formats = [
        ("jpeg", OutputFormat::Jpeg(JpegOptions::of_quality(90))),
        ("png", OutputFormat::Png),
        ("webp", OutputFormat::WebP),
    ];
    for (width, height, channels) in [
        (28, 28, Channels::Gray),
        (481, 321, Channels::Rgb),
        (1920, 1280, Channels::Rgb),
    ] {
        let pixels = photograph(width, height, channels);
        for (name, format) in formats {
            let bytes = encode(&pixels, format).unwrap();
            group.throughput(Throughput::Elements((width * height) as u64));
            group.bench_function(
                BenchmarkId::new(name, format!("{width}x{height}")),
                |bencher| {
                    bencher.iter(|| decode(black_box(&bytes), channels, u64::MAX).unwrap());
                },
            );
        }
    }
}

fn pixels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pixels");
    for (width, height, side) in [(481, 321, 64), (1920, 1280, 64), (1920, 1280, 224)] {
        let image = photograph(width, height, Channels::Rgb);
        let mut resizer = Resizer::new(side, side, ResizeMode::Stretch);
        group.bench_function(
            BenchmarkId::new("resize", format!("{width}x{height} to {side}x{side}")),
            |bencher| {
                bencher.iter(|| resizer.resize(black_box(&image)).unwrap().len());
            },
        );
    }
    for side in [64, 224] {
        let image = photograph(side, side, Channels::Rgb);
        let mut values = vec![0.0; image.data.len()];
        group.bench_function(
            BenchmarkId::new("normalize", format!("{side}x{side}")),
            |bencher| {
                bencher
                    .iter(|| PixelFormat::default().normalize(black_box(&image.data), &mut values));
            },
        );
    }
    group.bench_function("encode png/481x321", |bencher| {
        let image = photograph(481, 321, Channels::Rgb);
        bencher.iter(|| encode(black_box(&image), OutputFormat::Png).unwrap());
    });
    group.bench_function("ssim/481x321", |bencher| {
        let image = photograph(481, 321, Channels::Gray);
        let (x, y) = (
            |place: usize| f64::from(image.data[place]),
            |place: usize| f64::from(image.data[place] / 2),
        );
        bencher.iter(|| ssim(321, 481, x, y));
    });
}

fn open(name: &str) -> Model {
    let spec = RuntimeSpec::default();
    ort_library::init(&spec).unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("models")
        .join(name);
    let model = ModelSpec {
        path: Some(folder),
        ..ModelSpec::default()
    };
    Model::open(name, &model, &spec, &Arc::new(Metrics::new())).unwrap()
}

fn inference(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for name in ["photo-ae", "fashion-conv", "fashion-deep"] {
        let model = open(name);
        let (mut chain, shape) = (
            model.chain(ModelPath::Encode).unwrap(),
            model.input_shape().unwrap(),
        );
        for rows in [1, 8, 32, 128, 1024] {
            let records = vec![0.5; rows * shape.iter().product::<usize>()];
            let mut codes = Vec::new();
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                bencher.iter(|| {
                    codes.clear();
                    chain.run(black_box(&records), &shape, &mut codes).unwrap();
                });
            });
        }
    }
}

fn errors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reconstruction error");
    let len = 128;
    let one: Vec<f32> = (0..1024 * len)
        .map(|place| (place % 101) as f32 / 101.0)
        .collect();
    let other: Vec<f32> = one.iter().map(|value| value * 0.9 + 0.05).collect();
    for loss in [Loss::Mse, Loss::Bce] {
        group.throughput(Throughput::Elements(1024));
        group.bench_function(
            BenchmarkId::new(loss.as_str(), "1024 records of 128"),
            |bencher| {
                let pairs = || one.chunks_exact(len).zip(other.chunks_exact(len));
                bencher.iter(|| {
                    pairs()
                        .map(|(x, y)| loss.error(black_box(x), y))
                        .sum::<f64>()
                });
            },
        );
    }
}

fn parquet(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parquet");
    let (rows, code) = (65_536, 32);
    let schema = Arc::new(Schema::new(vec![
        Field::new("row", DataType::UInt64, false),
        vector_field("latent", code),
    ]));
    let latents: Vec<f32> = (0..rows * code)
        .map(|place| ((place * 7919) as f32 / 37.0).sin())
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(0..rows as u64)),
        fixed_column(code, latents).unwrap(),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    group.sample_size(20);
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function("encode 65,536 latents of 32", |bencher| {
        bencher.iter(|| {
            let mut writer = support::writer(std::io::sink(), &schema);
            // Written in batches, as the pipeline does.
            for start in (0..rows).step_by(8192) {
                writer.write(black_box(&batch.slice(start, 8192))).unwrap();
            }
            writer.close().unwrap()
        });
    });
}

/// The round trip of a batch to the thread of a worker and back.
fn handover(criterion: &mut Criterion) {
    let (work, inbox) = async_channel::bounded::<Box<[u8; 256]>>(4);
    let (done, outbox) = async_channel::unbounded();
    let worker = thread::spawn(move || {
        while let Ok(batch) = inbox.recv_blocking() {
            done.send_blocking(batch).unwrap();
        }
    });
    criterion.bench_function("hand-over between threads and back", |bencher| {
        bencher.iter(|| {
            work.send_blocking(Box::new([0; 256])).unwrap();
            outbox.recv_blocking().unwrap()
        });
    });
    drop(work);
    worker.join().unwrap();
}

criterion_group!(
    parts, decoding, pixels, inference, errors, parquet, handover
);

fn main() {
    system::tune_allocator();
    parts();
    Criterion::default().configure_from_args().final_summary();
}
