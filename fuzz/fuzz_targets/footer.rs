//! Parses arbitrary text as the state of earlier runs: the key-value metadata of a Parquet footer,
//! and the coverage snapshot.
#![no_main]

use std::path::PathBuf;
use std::sync::Arc;

use latentflow::sink::parquet::coverage_snapshot::CoverageSnapshot;
use latentflow::sink::parquet::footer::ProvenanceFooter;
use latentflow::storage::Location;
use libfuzzer_sys::fuzz_target;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData};
use parquet::schema::types::{SchemaDescriptor, Type};

const KEYS: [&str; 7] = [
    "provenance",
    "pipeline",
    "stage",
    "digest",
    "models",
    "stages",
    "version",
];

fuzz_target!(|text: &str| {
    // One line per key, in order: an empty line is a key without a value, a missing line is a
    // missing key.
    let entries = KEYS.iter().zip(text.split('\n')).map(|(key, value)| {
        KeyValue::new(
            format!("latentflow.{key}"),
            (!value.is_empty()).then(|| value.to_owned()),
        )
    });
    let file = Location::Local(PathBuf::from("part.parquet"));
    if let Ok(Some(found)) = ProvenanceFooter::from_metadata(&file, &metadata(entries.collect())) {
        let written = metadata(found.to_metadata());
        let footer =
            ProvenanceFooter::from_metadata(&file, &written).expect("a written value is readable");
        let again = footer.expect("a written footer is recognized");
        assert_eq!(
            (again.coverage, again.version),
            (found.coverage, found.version)
        );
        assert_eq!(
            (again.identity.digest, again.identity.models),
            (found.identity.digest, found.identity.models)
        );
    }

    if let Ok(found) = CoverageSnapshot::parse(text.as_bytes()) {
        let written = serde_json::to_vec(&found).expect("a snapshot has a JSON form");
        let again = CoverageSnapshot::parse(&written).expect("a written value is readable");
        let coverage = |snapshot: CoverageSnapshot| {
            snapshot
                .history
                .writers
                .into_iter()
                .map(|(_, coverage)| coverage)
                .collect::<Vec<_>>()
        };
        assert_eq!(again.folded_below, found.folded_below);
        assert_eq!(coverage(again), coverage(found));
    }
});

fn metadata(entries: Vec<KeyValue>) -> ParquetMetaData {
    let root = Type::group_type_builder("schema")
        .build()
        .expect("a schema");
    let schema = Arc::new(SchemaDescriptor::new(Arc::new(root)));
    ParquetMetaData::new(
        FileMetaData::new(2, 0, None, Some(entries), schema, None),
        Vec::new(),
    )
}
