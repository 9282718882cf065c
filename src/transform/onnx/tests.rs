//! Unit tests of the module `onnx`, on the graphs of `tests/models`. The values of scikit-learn models
//! are those of ONNX Runtime in Python, which `tests/models/sklearn/make.py` has written.

#![allow(clippy::unwrap_used)]

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray,
    StringArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int8Type, Int64Type};
use expect_test::expect;
use serde_json::{Value, json};

use super::config::OnnxConfig;
use super::*;
use crate::model::testing::file;
use crate::tensor::{TensorShape, variable_row};
use crate::transform::model_columns::testing::{column, faults, images, plan, run, tensors};
use crate::transform::testing::{batch, floats, of, part, reasons, strings};

fn array(batch: &Batch, name: &str) -> ArrayRef {
    Arc::clone(batch.records.column_by_name(name).unwrap())
}

fn longs(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// The values that `tests/models/sklearn/make.py` has written.
fn expected(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file("sklearn/expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all.pointer(name).unwrap().as_array().unwrap().clone()
}

fn numbers(values: &[Value]) -> Vec<Option<f64>> {
    values.iter().map(Value::as_f64).collect()
}

/// The people of the scikit-learn fixture, with columns as a CSV file has them.
fn people() -> Batch {
    let texts = expected("/people/city");
    let texts: Vec<&str> = texts.iter().map(|city| city.as_str().unwrap()).collect();
    let children = numbers(&expected("/people/children"));
    let children = children
        .into_iter()
        .map(|count| count.map(|count| count as i64));
    let column = |name| Arc::new(Float64Array::from(numbers(&expected(name)))) as ArrayRef;
    batch([
        ("city", strings(&texts)),
        ("children", Arc::new(children.collect::<Int64Array>())),
        ("age", column("/people/age")),
        ("income", column("/people/income")),
    ])
}

#[test]
fn sklearn_pipeline_gives_labels_and_probabilities() {
    let options = r#"{"nulls": "nan"}"#;
    let (out, rejects) = run::<OnnxConfig>("model = 'sklearn/people.onnx'", options, people());
    assert_eq!(reasons(&rejects), "");
    let labels = expected("/label");
    let labels: Vec<&str> = labels.iter().map(|label| label.as_str().unwrap()).collect();
    assert_eq!(
        array(&out, "label").as_string::<i32>(),
        &StringArray::from(labels)
    );
    let rows = expected("/probabilities");
    let flat = rows.iter().flat_map(|row| numbers(row.as_array().unwrap()));
    let flat: Vec<f32> = flat.map(|value| value.unwrap() as f32).collect();
    assert_eq!(column(&out, "probabilities"), flat);
    assert_eq!(out.records.num_columns(), 6);
}

#[test]
fn nulls_are_rejects_by_default() {
    let options = r#"{"outputs": {"answer": "label"}}"#;
    let (out, rejects) = run::<OnnxConfig>("model = 'sklearn/people.onnx'", options, people());
    expect![[r#"
        0: missing: `income` is null, or holds a null
        7: missing: `income` is null, or holds a null
        9: missing: `income` is null, or holds a null"#]]
    .assert_eq(&reasons(&rejects));
    assert_eq!(out.row_ordinals, [1, 2, 3, 4, 5, 6, 8]);
    assert_eq!(out.records.schema().field(4).name(), "answer");
}

#[test]
fn maps_of_sklearn_are_refused_with_the_option_of_the_export() {
    let model = "model = 'sklearn/people_zipmap.onnx'";
    expect!["outputs: output `output_probability` Sequence<Map<String, f32>> [] has a type that columns cannot hold; of a scikit-learn classifier, export the probabilities as a tensor (`zipmap: False` in the options of skl2onnx), or name only other outputs"].assert_eq(&faults::<OnnxConfig>(model, "{}", &people()));
    let (out, _) = run::<OnnxConfig>(
        model,
        r#"{"outputs": {"answer": "output_label"}}"#,
        people(),
    );
    assert_eq!(array(&out, "answer").len(), 7);
}

#[test]
fn columns_are_joined_to_a_float64_vector() {
    let rows = expected("/numbers");
    let of_column = |index: usize| {
        let values = rows.iter().map(|row| row[index].as_f64().unwrap());
        Arc::new(Float64Array::from_iter_values(values)) as ArrayRef
    };
    let [a, b, c, d] = [0, 1, 2, 3].map(of_column);
    let records = batch([("a", a), ("b", b), ("c", c), ("d", d)]);
    let options = r#"{"input_feed": {"X": ["a", "b", "c", "d"]}, "outputs": {"z": "variable"}}"#;
    let (out, _) = run::<OnnxConfig>("model = 'sklearn/pca.onnx'", options, records);
    let projected = expected("/projected");
    let flat = projected
        .iter()
        .flat_map(|row| numbers(row.as_array().unwrap()));
    let z = array(&out, "z");
    let z = z.as_fixed_size_list();
    assert_eq!(z.value_length(), 2);
    let values = z.values().as_primitive::<Float64Type>().values();
    // The order of additions depends on the version of ONNX Runtime.
    for (value, from_python) in values.iter().zip(flat) {
        let from_python = from_python.unwrap();
        assert!(
            (value - from_python).abs() <= 1e-12 * from_python.abs(),
            "{value} {from_python}"
        );
    }
}

#[test]
fn every_type_passes_unchanged() {
    let types = [
        ("float16", DataType::Float16),
        ("float", DataType::Float32),
        ("double", DataType::Float64),
        ("int8", DataType::Int8),
        ("int16", DataType::Int16),
        ("int32", DataType::Int32),
        ("int64", DataType::Int64),
        ("uint8", DataType::UInt8),
        ("uint16", DataType::UInt16),
        ("uint32", DataType::UInt32),
        ("uint64", DataType::UInt64),
        ("bool", DataType::Boolean),
        ("string", DataType::Utf8),
    ]
    .map(|(name, element)| {
        let values: ArrayRef = match element {
            DataType::Utf8 => strings(&["", "é\u{1f600}"]),
            DataType::Boolean => Arc::new(BooleanArray::from(vec![true, false])),
            DataType::UInt64 => Arc::new(UInt64Array::from(vec![u64::MAX, 0])),
            DataType::Int64 => longs(&[i64::MIN, i64::MAX]),
            element => cast(&longs(&[100, 7]), &element).unwrap(),
        };
        (name, values)
    });
    let (out, rejects) = run::<OnnxConfig>("model = 'types.onnx'", "{}", batch(types.clone()));
    assert_eq!(reasons(&rejects), "");
    for (name, values) in types {
        assert_eq!(&array(&out, &format!("{name}_out")), &values, "{name}");
    }
}

#[test]
fn values_that_an_input_cannot_hold_are_rejects() {
    let two = |value: i64| longs(&[1, value]);
    let all = |changed: &str, values: ArrayRef| {
        let names = "float16 float double int8 int16 int32 int64 uint8 uint16 uint32 uint64";
        let mut columns: Vec<(Field, ArrayRef)> = names
            .split(' ')
            .map(|name| {
                (
                    name,
                    if name == changed {
                        Arc::clone(&values)
                    } else {
                        two(1)
                    },
                )
            })
            .chain([
                (
                    "bool",
                    Arc::new(BooleanArray::from(vec![true; 2])) as ArrayRef,
                ),
                ("string", strings(&["a", "b"])),
            ])
            .map(|(name, column)| (Field::new(name, column.data_type().clone(), true), column))
            .collect();
        let records = of::<13>(std::array::from_fn(|_| columns.remove(0)));
        let (out, rejects) = run::<OnnxConfig>("model = 'types.onnx'", "{}", records);
        assert_eq!(out.row_ordinals, [0], "{changed}");
        reasons(&rejects)
    };
    let found = [
        all("int32", two(3_000_000_000)),
        all("uint8", two(-1)),
        all("uint64", two(-1)),
        all("int64", Arc::new(UInt64Array::from(vec![1, u64::MAX]))),
        all("float", two(16_777_217)),
        all("double", two(i64::MAX)),
        all("float16", floats(&[0.1, 65_520.])),
        all("float", floats(&[0.1, 1e39])),
        all("int16", Arc::new(Int64Array::from(vec![Some(1), None]))),
    ];
    expect![[r#"
        1: mismatch: `int32` holds 3000000000, which the input `int32` int32 [batch, 1] of the model cannot hold
        1: mismatch: `uint8` holds -1, which the input `uint8` uint8 [batch, 1] of the model cannot hold
        1: mismatch: `uint64` holds -1, which the input `uint64` uint64 [batch, 1] of the model cannot hold
        1: mismatch: `int64` holds 18446744073709551615, which the input `int64` int64 [batch, 1] of the model cannot hold
        1: mismatch: `float` holds 16777217, which the input `float` float32 [batch, 1] of the model cannot hold
        1: mismatch: `double` holds 9223372036854775807, which the input `double` float64 [batch, 1] of the model cannot hold
        1: mismatch: `float16` holds 65520.0, which the input `float16` float16 [batch, 1] of the model cannot hold
        1: mismatch: `float` holds 1e39, which the input `float` float32 [batch, 1] of the model cannot hold
        1: missing: `int16` is null, or holds a null"#]].assert_eq(&found.join("\n"));
}

#[test]
fn fractions_and_texts_do_not_feed_integers() {
    let model = "model = 'types.onnx'";
    let options = r#"{"input_feed": {"float16": "x", "float": "x", "double": "x", "int8": "x",
        "int16": "x", "int32": "x", "int64": "x", "uint8": "x", "uint16": "x", "uint32": "x",
        "uint64": "x", "bool": "x", "string": "x"}}"#;
    let records = batch([("x", floats(&[1.]))]);
    expect![[r#"
        input_feed: column `x` has single values of Float64, which do not fit the input `int8` int8 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `int16` int16 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `int32` int32 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `int64` int64 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `uint8` uint8 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `uint16` uint16 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `uint32` uint32 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `uint64` uint64 [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `bool` bool [batch, 1]
        input_feed: column `x` has single values of Float64, which do not fit the input `string` string [batch, 1]"#]].assert_eq(&faults::<OnnxConfig>(model, options, &records));
}

#[test]
fn lists_of_different_lengths_run_together_by_length() {
    let lists = [vec![1., 2.], vec![5.], vec![3., 4.], vec![1., 1., 1.]];
    let lists = lists
        .into_iter()
        .map(|list| Some(list.into_iter().map(Some).collect::<Vec<_>>()));
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(lists);
    let (out, rejects) = run::<OnnxConfig>(
        "model = 'sums.onnx'",
        "{}",
        batch([("values", Arc::new(lists))]),
    );
    assert_eq!(reasons(&rejects), "");
    let sums: Vec<f64> = array(&out, "sum")
        .as_primitive::<Float64Type>()
        .values()
        .to_vec();
    assert_eq!(sums, [3., 5., 7., 3.]);
    let widths: Vec<i64> = array(&out, "width")
        .as_primitive::<Int64Type>()
        .values()
        .to_vec();
    assert_eq!(widths, [2, 1, 2, 3]);
}

#[test]
fn sequences_are_flat_or_nested_lists() {
    let flat = [
        Some(vec![1., 2., 3., 10., 20., 30.]),
        Some(vec![4., 5., 6.]),
        Some(vec![1., 2.]),
        None,
        Some(vec![]),
    ];
    let flat = flat
        .into_iter()
        .map(|list| list.map(|list| list.into_iter().map(Some).collect::<Vec<_>>()));
    let flat = ListArray::from_iter_primitive::<Float32Type, _, _>(flat);
    let (out, rejects) = run::<OnnxConfig>(
        "model = 'sequence.onnx'",
        "{}",
        batch([("steps", Arc::new(flat))]),
    );
    expect![[r#"
        2: mismatch: `steps` has the shape [2], which does not fit the input `x` float32 [batch, time, 3] of the model
        3: missing: `steps` is null, or holds a null
        4: mismatch: `steps` has the shape [0], which does not fit the input `x` float32 [batch, time, 3] of the model"#]].assert_eq(&reasons(&rejects));
    assert_eq!(column(&out, "code"), [11., 22., 33., 4., 5., 6.]);
    let partial = array(&out, "partial");
    assert_eq!(
        variable_row(&partial, 0).unwrap(),
        (&[1., 2., 3., 11., 22., 33.][..], vec![2, 3])
    );
    assert_eq!(
        variable_row(&partial, 1).unwrap(),
        (&[4., 5., 6.][..], vec![1, 3])
    );
    let first = array(&out, "first");
    let first = first.as_list::<i32>();
    assert_eq!(
        first
            .value(0)
            .as_primitive::<Float32Type>()
            .values()
            .to_vec(),
        [1., 11.]
    );

    let rows = json!([{"s": [[1, 2, 3], [10, 20, 30]]}, {"s": [[1, 2, 3], [1]]}]);
    let item = Field::new_list_field(DataType::Float64, true);
    let steps = DataType::new_list(DataType::List(Arc::new(item)), true);
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![Field::new(
        "s", steps, true,
    )]));
    let mut decoder = arrow::json::ReaderBuilder::new(schema)
        .build_decoder()
        .unwrap();
    decoder.serialize(rows.as_array().unwrap()).unwrap();
    let nested = Arc::clone(decoder.flush().unwrap().unwrap().column(0));
    let (of_nested, unfit) =
        run::<OnnxConfig>("model = 'sequence.onnx'", "{}", batch([("s", nested)]));
    assert_eq!(column(&of_nested, "code"), [11., 22., 33.]);
    expect!["1: mismatch: `s` holds lists of different lengths in dimension 2; a tensor needs equal lengths"].assert_eq(&reasons(&unfit));
}

#[test]
fn fixed_columns_fix_named_dimensions() {
    let records = tensors(&[2, 3], &[1., 2., 3., 10., 20., 30.]);
    let (out, _) = run::<OnnxConfig>("model = 'sequence.onnx'", "{}", records);
    let schema = out.records.schema();
    let partial = TensorShape::of(schema.field_with_name("partial").unwrap());
    assert_eq!(partial, Some(TensorShape::Fixed(vec![2, 3])));
    let first = TensorShape::of(schema.field_with_name("first").unwrap());
    assert_eq!(first, Some(TensorShape::Fixed(vec![2])));
}

#[test]
fn image_and_mask_are_two_columns() {
    let image = tensors(&[2, 2], &[1., 2., 3., 4.]);
    let bits = BooleanArray::from(vec![true, false, false, true]);
    let item = crate::tensor::item_of(DataType::Boolean);
    let mask = arrow::array::FixedSizeListArray::try_new(item, 4, Arc::new(bits), None).unwrap();
    let field = Field::new("mask", mask.data_type().clone(), false);
    let field = crate::tensor::with_tensor_shape(field, &[2, 2]);
    let x = image.records.schema().field(0).clone();
    let records = of([
        (x, Arc::clone(image.records.column(0))),
        (field, Arc::new(mask)),
    ]);
    let (out, _) = run::<OnnxConfig>("model = 'masked.onnx'", "{}", records);
    assert_eq!(column(&out, "y"), [1., 0., 0., 4.]);
}

#[test]
fn images_of_different_sizes_keep_their_order() {
    let value = |row: usize, _| row as f32;
    let records = images(&[[3, 4, 4], [3, 8, 6], [3, 4, 4]], value);
    let (out, rejects) = run::<OnnxConfig>("model = 'resize.onnx'", "{}", records);
    assert_eq!(reasons(&rejects), "");
    let most = column(&out, "most");
    for (row, largest) in most.iter().enumerate() {
        assert!((largest - row as f32).abs() < 1e-6, "{most:?}");
    }
}

#[test]
fn fixed_batches_are_padded_and_dictionaries_decoded() {
    let rows: Vec<f32> = (0..16).map(|value| value as f32).collect();
    let (out, _) = run::<OnnxConfig>("model = 'fixed_batch.onnx'", "{}", tensors(&[4], &rows));
    assert_eq!(column(&out, "y"), [1., 5., 9., 13., 17., 21., 25., 29.]);
    let words: DictionaryArray<Int8Type> = ["Rome", "Oslo"].into_iter().collect();
    let one = |value: f64| floats(&[value, value]);
    let records = batch([
        ("city", Arc::new(words)),
        ("children", longs(&[1, 1])),
        ("age", one(40.)),
        ("income", one(2e4)),
    ]);
    let (decoded, rejects) = run::<OnnxConfig>("model = 'sklearn/people.onnx'", "{}", records);
    assert_eq!((decoded.records.num_rows(), rejects.len()), (2, 0));
}

#[test]
fn only_records_on_which_the_graph_fails_are_rejected() {
    let records = tensors(&[2], &[1., 2., 60., 0., 3., 4.]);
    let (out, rejects) = run::<OnnxConfig>("model = 'picky.onnx'", "{}", records);
    assert_eq!(out.row_ordinals, [0, 2]);
    assert_eq!(column(&out, "y"), [1., 2., 3., 4.]);
    assert_eq!((rejects.len(), rejects[0].code), (1, RejectCode::Model));
}

#[test]
fn empty_batch_stays_empty() {
    let (out, _) = run::<OnnxConfig>(
        "model = 'sequence.onnx'",
        "{}",
        part(&tensors(&[2, 3], &[0.; 6]), 0, 0),
    );
    assert_eq!(out.records.num_rows(), 0);
}

#[test]
fn outputs_that_depend_on_other_records_are_refused() {
    let four = tensors(&[4], &[0.; 4]);
    let fault = |options: &str| {
        let model = "model = 'batch.onnx'\noutput = 'own_axis'";
        faults::<OnnxConfig>(model, options, &four)
    };
    let found = ["centered", "quantized", "without_batch"]
        .map(|name| fault(&format!(r#"{{"outputs": {{"y": "{name}"}}}}"#)));
    expect![[r#"
        outputs: the model `tested`: the output `centered` float32 [batch, 2] of a record depends on the other records of its batch; no operator may combine records, such as a mean over the first dimension; export the model with a batch size of 1, or set `allow_nondeterministic = true`
        outputs: the model `tested`: the output `quantized` is not the same in every run: DynamicQuantizeLinear scales a record by the values of all records of its batch; set `outputs` to an output that does not depend on it (`centered` or `code` or `own_axis`), or export the model with a batch size of 1, or set `allow_nondeterministic = true`
        outputs: the model `tested`: output `without_batch` float32 [2]: its shape is [2] for a batch of 3 records; expected 3 as its first dimension"#]].assert_eq(&found.join("\n"));
}

#[test]
fn faults_name_the_tensor_and_the_column() {
    let found = [
        faults::<OnnxConfig>(
            "model = 'masked.onnx'",
            r#"{"input_feed": {"max": "x"}, "outputs": {"y": "yy"}}"#,
            &tensors(&[2, 2], &[1.; 4]),
        ),
        faults::<OnnxConfig>(
            "model = 'sums.onnx'",
            "{}",
            &batch([("a", floats(&[1.])), ("b", floats(&[1.]))]),
        ),
        faults::<OnnxConfig>("model = 'sequence.onnx'", "{}", &tensors(&[4], &[0.; 4])),
        faults::<OnnxConfig>(
            "model = 'sequence.onnx'",
            r#"{"outputs": {"x": "code"}}"#,
            &tensors(&[2, 3], &[0.; 6]),
        ),
        faults::<OnnxConfig>(
            "encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'",
            "{}",
            &tensors(&[4], &[0.; 4]),
        ),
    ];
    expect![[r#"
        input_feed: the model has no input `max` (did you mean `mask`?); its inputs are: `x` float32 [batch, height, width], `mask` bool [batch, height, width]
        input_feed: no column has the name of the input `mask` bool [batch, height, width], and no column fits it; set `input_feed`, such as { "mask" = "column" }; the columns are: x
        outputs: the model has no output `yy` (did you mean `y`?); its outputs are: `y` float32 [batch, height, width]
        input_feed: no column has the name of the input `x` float64 [batch, features]; those that fit it are: a, b; set `input_feed`, such as { "x" = "a" }; the columns are: a, b
        input_feed: column `x` has values of Float32 in the shape [4], which do not fit the input `x` float32 [batch, time, 3]
        outputs: the input already has a column `x`; choose another name
        model: the model `tested` has an encoder and a decoder; declare the file to run with the key `model` of its own [models] table"#]].assert_eq(&found.join("\n"));
}

#[test]
fn shared_sessions_give_the_same_values() {
    let runtime = toml::from_str("sessions = 'shared'").unwrap();
    let model = crate::model::testing::open_with("model = 'sums.onnx'", &runtime).unwrap();
    let graph = model.graph().unwrap();
    let input = RecordTensors {
        shape: vec![2],
        values: floats(&[1., 2., 3., 4.]),
    };
    let run = || {
        let mut session = model.graph_session(graph, &graph.outputs).unwrap();
        let outputs = session.run(std::slice::from_ref(&input), 2);
        outputs.calls[0].1[0]
            .values
            .as_primitive::<Float64Type>()
            .values()
            .to_vec()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .for_each(|thread| assert_eq!(thread.join().unwrap(), [3., 7.]));
    });
}

#[test]
fn summary_lists_inputs_and_outputs() {
    let planned = plan::<OnnxConfig>("model = 'sums.onnx'", "{}", &batch([("v", floats(&[1.]))]));
    expect!["model tested: `x` float64 [batch, features] from v; `sum` float64 [batch] to sum; `width` int64 [batch] to width"].assert_eq(&planned.unwrap().summary());
}
