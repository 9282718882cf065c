//! Datasets of latents for unit tests.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::search::latent_dataset::LatentDataset;
use crate::storage::Location;
use crate::tensor::{fixed_column, vector_field};

/// Deterministic values between -1 and 1.
pub(crate) fn noise(len: usize, seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    })
}

/// Writes latents to files of `rows` rows with two row groups each, and opens them.
pub(crate) fn dataset(folder: &Path, latents: &[Vec<f32>], rows: usize) -> LatentDataset {
    let width = latents[0].len();
    for (index, part) in latents.chunks(rows).enumerate() {
        let first = (index * rows) as u64;
        let numbers = UInt64Array::from_iter_values(first..first + part.len() as u64);
        let schema = Arc::new(Schema::new(vec![
            Field::new("row", DataType::UInt64, false),
            vector_field("latent", width),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(numbers),
            fixed_column(width, part.concat()).unwrap(),
        ];
        let records = RecordBatch::try_new(schema, columns).unwrap();
        let path = folder.join(format!("part-{index:04}.parquet"));
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(rows.div_ceil(2)))
            .build();
        let file = File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(file, records.schema(), Some(properties)).unwrap();
        writer.write(&records).unwrap();
        writer.close().unwrap();
    }
    LatentDataset::open(&Location::from_path(folder).unwrap(), None).unwrap()
}
