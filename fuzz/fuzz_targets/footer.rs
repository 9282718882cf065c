//! Any bytes as what a run finds of earlier ones: a Parquet footer's key-value metadata, and the marker.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use latentflow::sink::{STATE, footer::Footer, marker};
use latentflow_fuzz::file;
use libfuzzer_sys::fuzz_target;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData};
use parquet::schema::types::{SchemaDescriptor, Type};

const KEYS: [&str; 6] = ["provenance", "pipeline", "stage", "digest", "models", "version"];

fuzz_target!(|text: &str| {
    // A line for each key, in order; an empty one for a key without a value, a missing one for no key.
    let entries = KEYS.iter().zip(text.split('\n')).map(|(key, value)| {
        KeyValue::new(format!("latentflow.{key}"), (!value.is_empty()).then(|| value.to_owned()))
    });
    if let Ok(Some(found)) = Footer::of(Path::new("part.parquet"), &metadata(entries.collect())) {
        let written = metadata(found.to_metadata());
        let again = Footer::of(Path::new("part.parquet"), &written).expect("what was written can be read");
        assert_eq!(again.as_ref(), Some(&found));
    }

    let place = file("marker", b"").parent().expect("a folder").to_path_buf();
    std::fs::create_dir_all(place.join(STATE)).expect("a folder");
    std::fs::write(place.join(STATE).join("coverage.json"), text).expect("a marker");
    if let Err(error) = marker::load(&place) {
        assert!(error.to_string().contains("coverage.json"));
    }
});

fn metadata(entries: Vec<KeyValue>) -> ParquetMetaData {
    let root = Type::group_type_builder("schema").build().expect("a schema");
    let schema = Arc::new(SchemaDescriptor::new(Arc::new(root)));
    ParquetMetaData::new(FileMetaData::new(2, 0, None, Some(entries), schema, None), Vec::new())
}
