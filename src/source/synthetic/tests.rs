//! Unit tests of the module `synthetic`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use expect_test::{Expect, expect};
use tokio_stream::StreamExt;

use super::*;
use crate::coverage::Coverage;
use crate::error::config_error::ConfigError;
use crate::plan_context::{PipelineLimits, PlanContext};
use crate::registry::parse_options;
use crate::source::SourceConfig;
use crate::source::batch_size::BatchSize;
use crate::source::synthetic::config::SyntheticSourceConfig;

fn plan(written: &str, records: Option<u32>) -> Result<Box<dyn Source>, Vec<ConfigError>> {
    let context = PlanContext::new(BTreeMap::new(), PipelineLimits::default());
    let batch = BatchSize {
        records: records.and_then(std::num::NonZeroU32::new),
        ..BatchSize::default()
    };
    parse_options::<SyntheticSourceConfig>(serde_json::from_str(written).unwrap())?
        .plan("demo", batch, &context)
}

fn batches(
    written: &str,
    records: Option<u32>,
    resume: &ResumeState,
) -> (Vec<SourceBatch>, Option<u64>) {
    let source = plan(written, records).unwrap_or_else(|faults| panic!("{faults:?}"));
    let mut opened = source.open(resume).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batches = runtime.block_on(opened.batches.collect::<Vec<_>>());
    (
        batches.into_iter().map(Result::unwrap).collect(),
        opened.total.known(),
    )
}

fn all(written: &str, records: Option<u32>) -> RecordBatch {
    let (batches, _) = batches(written, records, &ResumeState::default());
    concat_batches(
        &plan(written, None).unwrap().schema(),
        batches.iter().map(|batch| &batch.batch.records),
    )
    .unwrap()
}

const IMAGES: &str = r#"{"content": "images", "records": 5, "size": [20, 30]}"#;
const FEATURES: &str = r#"{"content": "features", "records": 5, "width": 4, "outliers": 0.5}"#;

#[test]
fn images_have_the_configured_size_and_format() {
    for (name, format) in [
        ("png", image::ImageFormat::Png),
        ("jpeg", image::ImageFormat::Jpeg),
        ("bmp", image::ImageFormat::Bmp),
    ] {
        let records = all(
            &format!(
                r#"{{"content": "images", "records": 2, "size": [20, 30], "format": "{name}"}}"#
            ),
            None,
        );
        let bytes = records.column(2).as_binary::<i32>().value(1);
        assert_eq!(image::guess_format(bytes).unwrap(), format);
        let decoded = image::load_from_memory(bytes).unwrap();
        assert_eq!((decoded.height(), decoded.width()), (20, 30));
    }
    let records = all(IMAGES, None);
    assert_eq!(
        records.column(0).as_string::<i32>().value(3),
        "image-000000003.png"
    );
}

#[test]
fn record_depends_only_on_the_seed_and_its_number() {
    for written in [IMAGES, FEATURES] {
        let whole = all(written, None);
        assert_eq!(whole.num_rows(), 5);
        assert_eq!(whole, all(written, Some(2)));
        let fewer = all(&written.replace("\"records\": 5", "\"records\": 3"), None);
        assert_eq!(whole.slice(0, 3), fewer);
        let other = written.replace("\"records\"", "\"seed\": 1, \"records\"");
        assert_ne!(whole.column(2), all(&other, None).column(2));
    }
}

#[test]
fn layout_changes_the_columns_and_not_the_values() {
    let vectors = all(FEATURES, None);
    let columns = all(
        &FEATURES.replace("\"width\"", "\"layout\": \"columns\", \"width\""),
        None,
    );
    let values = crate::tensor::fixed_values(vectors.column(2)).unwrap();
    let f1 = columns
        .column_by_name("f1")
        .unwrap()
        .as_primitive::<arrow::datatypes::Float32Type>();
    assert_eq!(
        f1.values()[..],
        [values[1], values[5], values[9], values[13], values[17]]
    );
    assert_eq!(
        vectors.column_by_name("outlier"),
        columns.column_by_name("outlier")
    );
}

#[test]
fn batches_that_every_sink_has_committed_are_skipped() {
    let (sent, total) = batches(IMAGES, Some(2), &ResumeState::default());
    let rows = |batches: &[SourceBatch]| -> Vec<Range<u64>> {
        batches
            .iter()
            .map(|batch| batch.batch.provenance.ranges()[0].rows.clone())
            .collect()
    };
    assert_eq!((rows(&sent), total), (vec![0..2, 2..4, 4..5], Some(5)));
    assert_eq!(sent[0].pixels, 1200);
    let mut done = Coverage::default();
    done.insert(&sent[0].batch.provenance);
    done.insert(&sent[1].batch.provenance.slice(0..1));
    let resume = ResumeState {
        sinks: Arc::new(vec![done]),
        ..ResumeState::default()
    };
    let (rest, remaining) = batches(IMAGES, Some(2), &resume);
    assert_eq!((rows(&rest), remaining), (vec![2..4, 4..5], Some(2)));
}

#[test]
fn zero_records_give_no_batches() {
    let (sent, total) = batches(
        r#"{"content": "features", "records": 0}"#,
        None,
        &ResumeState::default(),
    );
    assert_eq!((sent.len(), total), (0, Some(0)));
}

#[test]
fn batches_are_bounded_in_bytes() {
    let large = SyntheticGenerator::Images {
        height: 4000,
        width: 6000,
        format: SyntheticImageFormat::Bmp,
    };
    assert_eq!(large.records_per_batch(BatchSize::default()), 1);
    let small = SyntheticGenerator::Images {
        height: 1000,
        width: 1000,
        format: SyntheticImageFormat::Bmp,
    };
    assert_eq!(small.records_per_batch(BatchSize::default()), 11);
}

#[test]
fn invalid_options_are_all_reported() {
    let check = |written: &str, expected: Expect| {
        let faults = plan(written, None).err().unwrap_or_default();
        let lines: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.key, fault.message))
            .collect();
        expected.assert_eq(&lines.join("\n"));
    };
    check(
        r#"{"content": "images", "records": 1, "size": [0, 64],
                "width": 3, "layout": "columns"}"#,
        expect![[r#"
                width: applies to features only, but `content` is `images`; remove the option
                layout: applies to features only, but `content` is `images`; remove the option
                size: 0x64 has 0 pixels; expected 1 to 100000000 (limits.pixels)"#]],
    );
    check(
        r#"{"content": "images", "records": 1, "size": [1, 70000], "format": "jpeg"}"#,
        expect!["size: 1x70000 is too large for a JPEG; the maximum side is 65535 pixels"],
    );
    check(
        r#"{"content": "features", "records": 1, "size": [8, 8],
                "width": 8, "rank": 9, "outliers": 2}"#,
        expect![[r#"
                size: applies to images only, but `content` is `features`; remove the option
                outliers: must lie between 0 and 1; met 2
                rank: must lie between 1 and `width`, 8; met 9"#]],
    );
    check(
        r#"{"content": "features", "records": 1, "width": 1000000}"#,
        expect![
            "width: 1000000 values with 250000 factors are too many; \
                 the maximum of their product is 16777216"
        ],
    );
    check(
        r#"{"content": "sounds"}"#,
        expect!["content: unknown variant `sounds`, expected `images` or `features`"],
    );
}
