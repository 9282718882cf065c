//! The floor of a run: its unavoidable parts in a plain loop on one thread, with the same libraries,
//! except for libjpeg-turbo, and without a pipeline. The cost of a run above the floor is overhead.
//!
//! ```text
//! floor images FOLDER MODEL OUT SIDE CHANNELS     image files -> latents
//! floor records FILE MODEL OUT COLUMNS            float32, in a list or in COLUMNS columns ->
//!                                                 latents and reconstruction error
//! floor denoise FOLDER MODEL OUT                  image files -> PNG files
//! floor --share 1/2 ...                           only the second half; shares count from 0/2
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

mod jpeg;
#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use latentflow::image::{
    Channels, CropBox, ImageFormat, OutputFormat, PixelFormat, Pixels, ResizeMode, Resizer, encode,
};
use latentflow::metrics::Metrics;
use latentflow::model::files::ModelPath;
use latentflow::model::{Model, ModelSpec, RuntimeSpec, Scaling, ort_library};
use latentflow::tensor::{fixed_column, vector_field};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use turbojpeg::Decompressor;

/// Images per batch: the default of the pipeline.
const IMAGES: usize = 32;
/// Records per batch: the default of the pipeline.
const RECORDS: usize = 8192;

fn main() {
    // The pipeline tunes the allocator, so the floor does as well.
    latentflow::system::tune_allocator();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words: &[&str] = &arguments.iter().map(String::as_str).collect::<Vec<_>>();
    let mut share = Share { number: 0, of: 1 };
    if let ["--share", written, rest @ ..] = words {
        let (number, of) = written.split_once('/').unwrap();
        (share, words) = (
            Share {
                number: number.parse().unwrap(),
                of: of.parse().unwrap(),
            },
            rest,
        );
    }
    match words {
        ["images", folder, model, out, side, channels] => {
            let channels = if *channels == "gray" {
                Channels::Gray
            } else {
                Channels::Rgb
            };
            images(
                &share.of(&files(folder)),
                &open(model),
                Path::new(out),
                side.parse().unwrap(),
                channels,
            );
        }
        ["records", file, model, out, _] => {
            records(Path::new(file), share, &open(model), Path::new(out))
        }
        ["denoise", folder, model, out] => {
            denoise(&share.of(&files(folder)), &open(model), Path::new(out))
        }
        _ => eprintln!("floor: unknown arguments; benches/compare.py calls it"),
    }
}

fn open(folder: &str) -> Model {
    let spec = RuntimeSpec::default();
    ort_library::init(&spec).unwrap();
    let model = ModelSpec {
        path: Some(PathBuf::from(folder)),
        ..ModelSpec::default()
    };
    Model::open("floor", &model, &spec, &Arc::new(Metrics::new())).unwrap()
}

/// A share of the work, for one loop per core.
#[derive(Clone, Copy)]
struct Share {
    number: usize,
    of: usize,
}

impl Share {
    /// The items of this share.
    fn of<T: Clone>(self, all: &[T]) -> Vec<T> {
        let start = |number: usize| all.len() * number / self.of;
        all[start(self.number)..start(self.number + 1)].to_vec()
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Decodes an image, which is resized to `side` x `side` pixels if there is one.
fn decode(
    decoder: &mut Decompressor,
    bytes: &[u8],
    channels: Channels,
    side: Option<usize>,
) -> (Pixels, CropBox) {
    if ImageFormat::from_bytes(bytes) == Some(ImageFormat::Jpeg) {
        return jpeg::decode(decoder, bytes, channels, side);
    }
    let pixels = latentflow::image::decode(bytes, channels, u64::MAX).unwrap();
    let area = CropBox::full(&pixels);
    (pixels, area)
}

fn images(files: &[PathBuf], model: &Model, out: &Path, side: usize, channels: Channels) {
    let format = PixelFormat {
        channels,
        ..PixelFormat::default()
    };
    let shape = format.shape(side, side);
    let (len, code) = (shape.iter().product::<usize>(), model.code_size().unwrap());
    let schema = Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("row", DataType::UInt64, false),
        vector_field("latent", code),
    ]));
    let mut writer = support::writer(File::create(out).unwrap(), &schema);
    let mut encoder = model.chain(ModelPath::Encode).unwrap();
    let mut decoder = Decompressor::new().unwrap();
    let mut resizer = Resizer::new(side, side, ResizeMode::Stretch);
    let mut values = vec![0.0; IMAGES * len];
    for chunk in files.chunks(IMAGES) {
        for (file, input) in chunk.iter().zip(values.chunks_exact_mut(len)) {
            let bytes = std::fs::read(file).unwrap();
            let (pixels, area) = decode(&mut decoder, &bytes, channels, Some(side));
            format.normalize(resizer.resize_box(&pixels, area).unwrap(), input);
        }
        let mut codes = Vec::with_capacity(chunk.len() * code);
        encoder
            .run(&values[..chunk.len() * len], &shape, &mut codes)
            .unwrap();
        let names = chunk
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(names)),
            Arc::new(UInt64Array::from(vec![0; chunk.len()])),
            fixed_column(code, codes).unwrap(),
        ];
        writer
            .write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap())
            .unwrap();
    }
    writer.close().unwrap();
}

fn records(file: &Path, share: Share, model: &Model, out: &Path) {
    let input = model.feature_input().unwrap();
    let code = model.code_size().unwrap();
    let schema = Arc::new(Schema::new(vec![
        Field::new("row", DataType::UInt64, false),
        vector_field("latent", code),
        Field::new("reconstruction_error", DataType::Float32, false),
    ]));
    let mut writer = support::writer(File::create(out).unwrap(), &schema);
    let (mut encoder, mut decoder) = (
        model.chain(ModelPath::Encode).unwrap(),
        model.chain(ModelPath::Decode).unwrap(),
    );
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let groups = reader
        .metadata()
        .row_groups()
        .iter()
        .map(|group| group.num_rows() as u64);
    let groups: Vec<(usize, u64)> = groups.enumerate().collect();
    let mine = share.of(&groups);
    let first = mine.first().map_or(0, |(first, _)| *first);
    let mut row: u64 = groups[..first].iter().map(|(_, rows)| rows).sum();
    let mine = mine.into_iter().map(|(group, _)| group).collect();
    let reader = reader
        .with_row_groups(mine)
        .with_batch_size(RECORDS)
        .build()
        .unwrap();
    let (mut scaled, mut back) = (Vec::new(), Vec::new());
    for batch in reader.map(Result::unwrap) {
        let len = scale(&batch, &input.scaling, &mut scaled);
        let mut codes = Vec::with_capacity(batch.num_rows() * code);
        encoder.run(&scaled, &[len], &mut codes).unwrap();
        back.clear();
        decoder.run(&codes, &[code], &mut back).unwrap();
        let pairs = scaled.chunks_exact(len).zip(back.chunks_exact(len));
        let errors: Float32Array = pairs
            .map(|(x, y)| Some(model.loss().error(x, y) as f32))
            .collect();
        let rows = UInt64Array::from_iter_values(row..row + batch.num_rows() as u64);
        row += batch.num_rows() as u64;
        let errors = Float32Array::new(errors.values().clone(), None);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows),
            fixed_column(code, codes).unwrap(),
            Arc::new(errors),
        ];
        writer
            .write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap())
            .unwrap();
    }
    writer.close().unwrap();
}

/// Replaces `scaled` with the scaled vectors of a batch; returns the length of one vector.
fn scale(batch: &RecordBatch, scaling: &Scaling, scaled: &mut Vec<f32>) -> usize {
    let list = batch.column(0).as_fixed_size_list_opt();
    let len = list.map_or(batch.num_columns(), |list| {
        usize::try_from(list.value_length()).unwrap()
    });
    let affine = (0..len).map(|place| scaling.feature(place)).map(|feature| {
        (
            feature.scale_difference(1.0) as f32,
            feature.scale(0.0) as f32,
        )
    });
    let affine: Vec<(f32, f32)> = affine.collect();
    scaled.clear();
    match list {
        Some(list) => {
            for record in list
                .values()
                .as_primitive::<Float32Type>()
                .values()
                .chunks_exact(len)
            {
                scaled.extend(
                    record
                        .iter()
                        .zip(&affine)
                        .map(|(value, (scale, offset))| value * scale + offset),
                );
            }
        }
        // 32 rows per pass, for which the pages of the columns and the vectors stay in the cache.
        None => {
            let columns: Vec<&[f32]> = batch
                .columns()
                .iter()
                .map(|column| &column.as_primitive::<Float32Type>().values()[..])
                .collect();
            scaled.resize(len * batch.num_rows(), 0.0);
            for (block, vectors) in scaled.chunks_mut(32 * len).enumerate() {
                for (place, (column, (scale, offset))) in columns.iter().zip(&affine).enumerate() {
                    let vectors = vectors.chunks_exact_mut(len);
                    vectors
                        .zip(&column[block * 32..])
                        .for_each(|(vector, value)| vector[place] = value * scale + offset);
                }
            }
        }
    }
    len
}

fn denoise(files: &[PathBuf], model: &Model, out: &Path) {
    std::fs::create_dir_all(out).unwrap();
    let format = PixelFormat::default();
    let mut decoder = Decompressor::new().unwrap();
    let mut denoiser = model.chain(ModelPath::Reconstruct).unwrap();
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        let (pixels, _) = decode(&mut decoder, &bytes, Channels::Rgb, None);
        let (height, width) = (pixels.height, pixels.width);
        let (even_height, even_width) = (height.next_multiple_of(2), width.next_multiple_of(2));
        let mut values = vec![0.0; 3 * height * width];
        format.normalize(&pixels.data, &mut values);
        let mut even = Vec::with_capacity(3 * even_height * even_width);
        for plane in values.chunks_exact(height * width) {
            for y in 0..even_height {
                let row = &plane[y.min(height - 1) * width..][..width];
                even.extend_from_slice(row);
                even.resize(even.len() + even_width - width, row[width - 1]);
            }
        }
        let mut clean = Vec::new();
        denoiser
            .run(&even, &[3, even_height, even_width], &mut clean)
            .unwrap();
        values.clear();
        let rows = clean
            .chunks_exact(even_width)
            .enumerate()
            .filter(|(row, _)| row % even_height < height);
        rows.for_each(|(_, row)| values.extend_from_slice(&row[..width]));
        let data = format.denormalize(&values);
        let png = encode(
            &Pixels {
                width,
                height,
                channels: Channels::Rgb,
                data,
            },
            OutputFormat::Png,
        )
        .unwrap();
        let name = format!("{}.png", file.file_stem().unwrap().to_str().unwrap());
        std::fs::write(out.join(name), png).unwrap();
    }
}
