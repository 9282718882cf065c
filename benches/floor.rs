//! The floor of a run: its unavoidable parts in a plain loop on one thread, the same libraries, no pipeline around them.
//! What a run costs above this is overhead.
//!
//! ```text
//! floor images FOLDER MODEL OUT SIDE CHANNELS     image files -> latents
//! floor records FILE MODEL OUT                    a list column of float32 -> latents and reconstruction error
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};
use latentflow::image::{Channels, Fit, PixelFormat, Resizer, decode};
use latentflow::metrics::Metrics;
use latentflow::model::{Model, ModelSpec, Pass, RuntimeSpec, runtime};
use latentflow::tensor::{fixed_column, vector_field};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// Images of a batch: as many as the pipeline's default.
const IMAGES: usize = 32;
/// Records of a batch, likewise.
const RECORDS: usize = 8192;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["images", folder, model, out, side, channels] => {
            let channels = if *channels == "gray" { Channels::Gray } else { Channels::Rgb };
            images(Path::new(folder), &open(model), Path::new(out), side.parse().unwrap(), channels);
        }
        ["records", file, model, out] => records(Path::new(file), &open(model), Path::new(out)),
        // `cargo bench` calls every benchmark without arguments.
        _ => eprintln!("floor: nothing to do; benches/compare.py calls it with arguments"),
    }
}

fn open(folder: &str) -> Model {
    let spec = RuntimeSpec::default();
    runtime::init(&spec).unwrap();
    let model = ModelSpec { path: Some(PathBuf::from(folder)), ..ModelSpec::default() };
    Model::open("floor", &model, &spec, &Arc::new(Metrics::new())).unwrap()
}

fn writer(out: &Path, schema: &Arc<Schema>, latent: &str) -> ArrowWriter<File> {
    let floats = [format!("{latent}.list.element"), "reconstruction_error".to_owned()];
    let mut properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    for column in floats {
        properties = properties
            .set_column_encoding(column.clone().into(), Encoding::BYTE_STREAM_SPLIT)
            .set_column_dictionary_enabled(column.into(), false);
    }
    ArrowWriter::try_new(File::create(out).unwrap(), Arc::clone(schema), Some(properties.build())).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn images(folder: &Path, model: &Model, out: &Path, side: usize, channels: Channels) {
    let format = PixelFormat { channels, ..PixelFormat::default() };
    let shape = format.shape(side, side);
    let (len, code) = (shape.iter().product::<usize>(), model.code_size().unwrap());
    let schema = Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("row", DataType::UInt64, false),
        vector_field("latent", code),
    ]));
    let mut writer = writer(out, &schema, "latent");
    let mut encoder = model.chain(Pass::Encode).unwrap();
    let mut resizer = Resizer::new(side, side, Fit::Stretch);
    let mut values = vec![0.0; IMAGES * len];
    for files in files(folder).chunks(IMAGES) {
        for (file, values) in files.iter().zip(values.chunks_exact_mut(len)) {
            let pixels = decode(&std::fs::read(file).unwrap(), channels, u64::MAX).unwrap();
            format.normalise(resizer.resize(&pixels).unwrap(), values);
        }
        let mut codes = Vec::with_capacity(files.len() * code);
        encoder.run(&values[..files.len() * len], &shape, &mut codes).unwrap();
        let names = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(names)),
            Arc::new(UInt64Array::from(vec![0; files.len()])),
            fixed_column(code, codes).unwrap(),
        ];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
    }
    writer.close().unwrap();
}

fn records(file: &Path, model: &Model, out: &Path) {
    let input = model.feature_input().unwrap();
    let code = model.code_size().unwrap();
    let schema = Arc::new(Schema::new(vec![
        Field::new("row", DataType::UInt64, false),
        vector_field("latent", code),
        Field::new("reconstruction_error", DataType::Float32, false),
    ]));
    let mut writer = writer(out, &schema, "latent");
    let (mut encoder, mut decoder) = (model.chain(Pass::Encode).unwrap(), model.chain(Pass::Decode).unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let columns = ProjectionMask::roots(reader.parquet_schema(), [0]);
    let reader = reader.with_projection(columns).with_batch_size(RECORDS).build().unwrap();
    let (mut row, mut scaled, mut back) = (0, Vec::new(), Vec::new());
    for batch in reader.map(Result::unwrap) {
        let list = batch.column(0).as_fixed_size_list();
        let values = list.values().as_primitive::<Float32Type>().values();
        let len = usize::try_from(list.value_length()).unwrap();
        let affine: Vec<(f32, f32)> = (0..len)
            .map(|place| input.scaling.affine(place))
            .map(|(scale, offset)| (scale as f32, offset as f32))
            .collect();
        scaled.clear();
        for record in values.chunks_exact(len) {
            scaled.extend(record.iter().zip(&affine).map(|(value, (scale, offset))| value * scale + offset));
        }
        let mut codes = Vec::with_capacity(batch.num_rows() * code);
        encoder.run(&scaled, &[len], &mut codes).unwrap();
        back.clear();
        decoder.run(&codes, &[code], &mut back).unwrap();
        let pairs = scaled.chunks_exact(len).zip(back.chunks_exact(len));
        let errors: Float32Array = pairs.map(|(x, y)| Some(model.loss().error(x, y) as f32)).collect();
        let rows = UInt64Array::from_iter_values(row..row + batch.num_rows() as u64);
        row += batch.num_rows() as u64;
        let errors = Float32Array::new(errors.values().clone(), None);
        let columns: Vec<ArrayRef> = vec![Arc::new(rows), fixed_column(code, codes).unwrap(), Arc::new(errors)];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
    }
    writer.close().unwrap();
}
