//! Tests of pipelines inside another program.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Float64Array, LargeBinaryArray, RecordBatch, StringArray,
    StringViewArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, UInt64Type};
use image::{GrayImage, ImageFormat};
use latentflow::config;
use latentflow::embed::{EmbeddedPipeline, with_rejected_schema};
use latentflow::error::failure::StageFailure;
use latentflow::plan::EmbeddedEnds;

/// Two sources and two sinks; the records of `big` and `small` meet again in `out`.
const PIPELINE: &str = r#"
    [stages.in]
    kind = "csv"
    path = "nowhere.csv"
    [stages.other]
    kind = "parquet"
    path = "nowhere.parquet"
    [stages.big]
    kind = "filter"
    inputs = ["in"]
    column = "x"
    above = 2.0
    [stages.small]
    kind = "filter"
    inputs = ["in"]
    column = "x"
    below = 1.0
    [stages.out]
    kind = "parquet"
    inputs = ["big", "small"]
    path = "out"
    columns = ["row", "x"]
    [stages.rest]
    kind = "parquet"
    inputs = ["other"]
    path = "rest"
"#;

fn records(xs: &[Option<f64>]) -> RecordBatch {
    let rows = 0..xs.len() as u64;
    let names = rows.clone().map(|row| format!("{row}.csv"));
    let columns: [(&str, ArrayRef); 3] = [
        ("x", Arc::new(Float64Array::from(xs.to_vec()))),
        ("source", Arc::new(StringViewArray::from_iter_values(names))),
        ("row", Arc::new(UInt64Array::from_iter_values(rows))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .unwrap()
}

fn open(text: &str, ends: &EmbeddedEnds) -> Result<EmbeddedPipeline, String> {
    let spec = config::parse(Path::new("p.toml"), text, std::iter::empty(), &[]).unwrap();
    EmbeddedPipeline::open(spec, ends, None).map_err(|faults| faults.to_string())
}

fn ends(records: &RecordBatch) -> EmbeddedEnds {
    EmbeddedEnds {
        columns: Some(records.schema()),
        source: Some("in".to_owned()),
        sink: None,
    }
}

#[test]
fn records_are_in_the_order_of_the_input_for_any_batch_size() {
    let input = records(&[Some(0.5), Some(1.5), Some(3.0), Some(0.0), Some(9.0)]);
    let small = PIPELINE.replacen("nowhere.csv\"", "nowhere.csv\"\nbatch = { records = 2 }", 1);
    for text in [PIPELINE, &small] {
        let pipeline = open(text, &ends(&input)).unwrap();
        let parts = pipeline.process(&input).unwrap();
        assert_eq!(parts.len(), if text == small { 3 } else { 1 });
        let records = parts.iter().map(|part| &part.records);
        let records = concat_batches(pipeline.output_schema(), records).unwrap();
        let rows = records["row"].as_primitive::<UInt64Type>();
        assert_eq!(rows.values(), &[0, 2, 3, 4]);
        let xs = records["x"].as_primitive::<Float64Type>();
        assert_eq!(xs.values(), &[0.5, 3.0, 0.0, 9.0]);
    }
}

const PICTURES: &str = r#"
    [stages.in]
    kind = "images"
    path = "nowhere"
    [stages.pixels]
    kind = "pixels"
    inputs = ["in"]
    size = [2, 2]
    [stages.out]
    kind = "parquet"
    inputs = ["pixels"]
    path = "out"
"#;

#[test]
fn rejected_row_keeps_its_place_and_its_origin() {
    let mut png = Cursor::new(Vec::new());
    GrayImage::new(4, 4)
        .write_to(&mut png, ImageFormat::Png)
        .unwrap();
    let images = [
        None,
        Some(png.get_ref().as_slice()),
        Some(b"broken".as_slice()),
    ];
    let columns: [(&str, ArrayRef); 3] = [
        ("image", Arc::new(LargeBinaryArray::from_iter(images))),
        ("source", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("id", Arc::new(UInt64Array::from(vec![7, 8, 9]))),
    ];
    let columns = columns.map(|(name, column)| (name, column, true));
    let input = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let ends = EmbeddedEnds {
        columns: Some(input.schema()),
        ..EmbeddedEnds::default()
    };
    let pipeline = open(PICTURES, &ends).unwrap();
    let processed = pipeline.process(&input).unwrap().remove(0);
    assert_eq!(processed.rows, [1]);
    let schema = with_rejected_schema(pipeline.output_schema());
    let all = processed.with_rejected(&schema).unwrap();
    let text = |column: &ArrayRef| -> Vec<Option<String>> {
        let values = column.as_string::<i32>().iter();
        values.map(|value| value.map(str::to_owned)).collect()
    };
    assert_eq!(text(&all["source"]), text(&input["source"]));
    let ids = all["id"].as_primitive::<UInt64Type>();
    assert_eq!(ids.values(), &[7, 8, 9]);
    assert_eq!(all["pixels"].null_count(), 2);
    let rejected = all["rejected"].as_struct();
    let codes = rejected.column_by_name("code").unwrap();
    assert_eq!(text(codes)[0].as_deref(), Some("missing"));
    assert!(rejected.is_null(1) && rejected.is_valid(2));
    let rejects = processed.rejects_table(10).unwrap();
    let indices = rejects["index"].as_primitive::<UInt64Type>();
    assert_eq!(indices.values(), &[10, 12]);
    assert_eq!(
        text(&rejects["source"]),
        [Some("a".to_owned()), Some("c".to_owned())]
    );
}

#[test]
fn source_and_sink_are_selected_by_name() {
    let input = records(&[Some(1.0)]);
    let other = EmbeddedEnds {
        source: Some("other".to_owned()),
        sink: Some("rest".to_owned()),
        ..ends(&input)
    };
    let pipeline = open(PIPELINE, &other).unwrap();
    let names: Vec<&str> = pipeline
        .output_schema()
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(names, ["x", "source", "row"]);
    let fault = |source: Option<&str>, sink: Option<&str>| {
        let named = |name: Option<&str>| name.map(str::to_owned);
        let ends = EmbeddedEnds {
            source: named(source),
            sink: named(sink),
            ..ends(&input)
        };
        open(PIPELINE, &ends).err().unwrap_or_default()
    };
    for (message, expected) in [
        (
            fault(None, None),
            "has the sources in, other; select the one",
        ),
        (
            fault(Some("inn"), None),
            "no source `inn` (did you mean `in`?)",
        ),
        (
            fault(Some("in"), Some("rest")),
            "records of the source `in` do not reach the sink `rest`",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn records_with_other_columns_are_refused_by_name() {
    let input = records(&[Some(1.0)]);
    let ends = EmbeddedEnds {
        source: Some("other".to_owned()),
        sink: Some("rest".to_owned()),
        ..ends(&input)
    };
    let pipeline = open(PIPELINE, &ends).unwrap();
    let y: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let StageFailure { stage, error } = pipeline
        .process(&RecordBatch::try_from_iter([("y", y)]).unwrap())
        .unwrap_err();
    assert_eq!(&*stage, "input");
    assert_eq!(
        error.to_string(),
        "the records have no column `x`; they have: y"
    );
}
