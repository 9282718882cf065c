//! stub
use super::Sink;
use std::path::Path;
pub fn plan(_path: &Path) -> Box<dyn Sink> {
    unimplemented!()
}

#[derive(Debug)]
pub struct RejectEntry {
    pub source: String,
    pub row: u64,
    pub split: String,
    pub split_row: u64,
    pub stage: String,
    pub code: String,
    pub reason: String,
    pub record: Option<Vec<u8>>,
}
pub fn records(_entries: &[RejectEntry]) -> Result<arrow::array::RecordBatch, crate::error::StageError> {
    unimplemented!()
}
