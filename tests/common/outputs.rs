//! Functions that read the outputs of runs: records by their identity, with all values to the bit.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// The identity of a record, and its values.
pub type Record = (String, Box<[u8]>);

/// The data files directly in a folder, by name.
pub fn data_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let hidden = |path: &PathBuf| path.file_name().unwrap().as_encoded_bytes()[0] == b'.';
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "parquet") && !hidden(path))
        .collect();
    files.sort();
    files
}

/// The records of all Parquet files of a folder, sorted. The values of the columns `id` are the
/// identity of a record.
pub fn records(folder: &Path, id: &[&str]) -> Vec<Record> {
    let mut records = Vec::new();
    for path in data_files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap())
            .unwrap()
            .build()
            .unwrap();
        for batch in reader.map(Result::unwrap) {
            let fields = batch
                .schema()
                .fields()
                .iter()
                .map(|field| SortField::new(field.data_type().clone()))
                .collect();
            // The row format encodes floats by their bits, so different values differ in it.
            let rows = RowConverter::new(fields)
                .unwrap()
                .convert_columns(batch.columns())
                .unwrap();
            for (place, row) in rows.iter().enumerate() {
                let value = |name: &&str| array_value_to_string(&batch[*name], place).unwrap();
                let id: Vec<String> = id.iter().map(value).collect();
                records.push((id.join(" "), row.as_ref().into()));
            }
        }
    }
    records.sort();
    records
}

/// Every file below a folder except for those of `_latentflow`, as records with their paths as
/// identities.
pub fn files(folder: &Path) -> Vec<Record> {
    let files = below(folder).into_iter().map(|path| {
        let name = path
            .strip_prefix(folder)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        (name, fs::read(path).unwrap().into())
    });
    let mut files: Vec<Record> = files
        .filter(|(name, _): &Record| !name.starts_with("_latentflow"))
        .collect();
    files.sort();
    files
}

/// The identities of records.
pub fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|(id, _)| id.as_str()).collect()
}

/// The files below a folder, by name.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}
