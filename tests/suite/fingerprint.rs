//! Tests of every option of every kind: the kind declares whether the option changes rows, and the
//! digest of an output depends exactly on the values of those that do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use arrow::ipc::writer::StreamWriter;
use latentflow::coverage::Coverage;
use latentflow::metrics::Metrics;
use latentflow::plan::stage::StageOperator;
use latentflow::registry::{OptionAttributes, RenamedKeys, find, option_attributes};
use latentflow::sink::{self, IdentityScope, OutputHistory, OutputIdentity};
use latentflow::storage::Location;
use latentflow::{config, plan, source, transform};
use parquet::arrow::ArrowWriter;
use serde_json::{Map, Value, json};

/// A stage under test with its upstream stages. Each change is an option and a value for it, with
/// further options if the value requires them.
struct Case {
    kind: &'static str,
    /// The upstream stages; the stage under test reads from the one named `before`.
    before: Value,
    /// The options of the stage under test.
    options: Value,
    changes: Vec<(&'static str, Value)>,
}

/// A path in the repository.
fn repository_path(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// The path of an input in the repository.
fn input(below: &str) -> String {
    repository_path(&format!("tests/compat/v0/{below}"))
}

fn csv() -> Value {
    json!({ "before": { "kind": "csv", "path": input("csv/in") } })
}

fn photos() -> Value {
    json!({ "before": { "kind": "images", "path": input("images/in") } })
}

fn synthetic() -> Value {
    json!({ "before": {
        "kind": "synthetic",
        "content": "features",
        "records": 9,
        "width": 5,
        "layout": "columns",
    } })
}

/// Images, and a copy of them with noise.
fn pairs() -> Value {
    json!({
        "in": photos()["before"],
        "px": { "kind": "pixels", "inputs": ["in"], "size": [16, 16], "channels": "gray" },
        "before": {
            "kind": "corrupt",
            "inputs": ["px"],
            "noise": "gaussian",
            "sigma": 5,
            "to": "noisy",
        },
    })
}

/// Feature records as the model `m` accepts them, with its reconstructions.
fn decoded() -> Value {
    json!({
        "in": { "kind": "csv", "path": input("model/in") },
        "ready": { "kind": "features", "inputs": ["in"], "model": "m" },
        "before": { "kind": "denoise", "inputs": ["ready"], "model": "m", "to": "back" },
    })
}

impl Case {
    fn new<const N: usize>(
        kind: &'static str,
        before: Value,
        options: Value,
        changes: [(&'static str, Value); N],
    ) -> Self {
        Self {
            kind,
            before,
            options,
            changes: changes.into(),
        }
    }

    /// The identity of the output of the only sink, with these additional options of the stage.
    fn identity(&self, more: &Value) -> Result<OutputIdentity, String> {
        let mut stages = self.before.as_object().cloned().unwrap_or_default();
        let mut stage = self.options.as_object().cloned().unwrap();
        stage.insert("kind".into(), self.kind.into());
        stage.extend(more.as_object().unwrap().clone());
        if !stages.is_empty() {
            stage.insert("inputs".into(), json!(["before"]));
        }
        stages.insert("it".into(), Value::Object(stage));
        if !self.is_sink() {
            stages.insert("end".into(), json!({ "kind": "discard", "inputs": ["it"] }));
        }
        let mut models = models();
        // Only the used models are opened, since that takes most of the time.
        let used: Vec<&Value> = stages
            .values()
            .flat_map(|options| {
                let several = options.get("models").and_then(Value::as_array);
                options
                    .get("model")
                    .into_iter()
                    .chain(several.into_iter().flatten())
            })
            .collect();
        models
            .as_object_mut()
            .unwrap()
            .retain(|name, _| used.contains(&&Value::from(name.as_str())));
        // An unbounded source requires a folder for its journal.
        identity(&json!({ "state": "state", "stages": stages, "models": models }))
    }

    /// Whether the stage is a sink. A stage without inputs is a source, also if a sink has the same
    /// kind name.
    fn is_sink(&self) -> bool {
        self.before != json!({})
            && sink::registry::KINDS
                .iter()
                .any(|kind| kind.name == self.kind)
    }

    /// The renamed keys of the kind.
    fn renamed(&self) -> RenamedKeys {
        let schema = match (self.is_sink(), self.before == json!({})) {
            (true, _) => {
                find(sink::registry::KINDS, self.kind, "sink")
                    .unwrap()
                    .schema
            }
            (false, true) => {
                find(source::registry::KINDS, self.kind, "source")
                    .unwrap()
                    .schema
            }
            (false, false) => {
                find(transform::registry::KINDS, self.kind, "transform")
                    .unwrap()
                    .schema
            }
        };
        RenamedKeys::of_schema(schema)
    }

    fn digest(&self, more: &Value) -> Result<String, String> {
        self.identity(more).map(|identity| identity.digest)
    }
}

/// Three models, of features, of images of any size, and of any vector, each under two names.
fn models() -> Value {
    let features = json!({ "path": input("model/models/m") });
    let images = json!({ "path": repository_path("models/photo-denoise-gray") });
    let sums = json!({ "model": repository_path("tests/models/sums.onnx") });
    json!({
        "m": features,
        "same": features,
        "images": images,
        "same-images": images,
        "sums": sums,
        "same-sums": sums,
    })
}

/// The identity of the output of the only sink of a pipeline.
fn identity(pipeline: &Value) -> Result<OutputIdentity, String> {
    let text = toml::to_string(&without_nulls(pipeline)).unwrap();
    let read = config::parse(Path::new("p.toml"), &text, std::iter::empty(), &[])
        .map_err(|faults| faults.to_string())?;
    let plan =
        plan::resolve(read, &Arc::new(Metrics::new())).map_err(|faults| faults.to_string())?;
    let mut sinks = plan
        .stages
        .into_iter()
        .filter_map(|stage| match stage.operator {
            StageOperator::Sink(_, identity) => Some(identity),
            _ => None,
        });
    Ok(sinks.next().unwrap())
}

/// Whether a run with the identity `now` may append to an output of `before`.
fn continues(before: &OutputIdentity, now: &OutputIdentity) -> bool {
    let (mut history, mut now) = (OutputHistory::default(), now.clone());
    history.add(before, &Coverage::default());
    history.recognize(&mut now);
    history
        .check_compatible(&Location::Local("out".into()), &now, IdentityScope::Sink)
        .is_ok()
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(table) => {
            let kept = table.iter().filter(|(_, inner)| !inner.is_null());
            Value::Object(
                kept.map(|(key, inner)| (key.clone(), without_nulls(inner)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// The declared attributes of the options of each kind.
fn declared_options() -> BTreeMap<&'static str, BTreeMap<String, OptionAttributes>> {
    let sources = source::registry::KINDS
        .iter()
        .map(|kind| (kind.name, kind.schema));
    let transforms = transform::registry::KINDS
        .iter()
        .map(|kind| (kind.name, kind.schema));
    let sinks = sink::registry::KINDS
        .iter()
        .map(|kind| (kind.name, kind.schema));
    // `parquet` and `images` are names of a source and of a sink.
    let sinks = sinks.map(|(name, schema)| (sink_label(name), schema));
    sources
        .chain(transforms)
        .chain(sinks)
        .map(|(name, schema)| (name, option_attributes(schema)))
        .collect()
}

/// The name of a sink in these tests, which differs from the name of a source of the same kind.
fn sink_label(name: &'static str) -> &'static str {
    match name {
        "parquet" => "to parquet",
        "images" => "to images",
        name => name,
    }
}

impl Case {
    /// The name of the kind in these tests.
    fn label(&self) -> &'static str {
        if self.is_sink() {
            sink_label(self.kind)
        } else {
            self.kind
        }
    }
}

fn sources() -> Vec<Case> {
    let none = || json!({});
    let at = |below: &str| json!({ "path": input(below) });
    let other = |below: &str| ("path", json!({ "path": input(below) }));
    let refuse = || ("on_change", json!({ "on_change": "refuse" }));
    vec![
        Case::new(
            "images",
            none(),
            at("images/in"),
            [
                other("images/later"),
                ("follow_links", json!({ "follow_links": true })),
                ("folder_labels", json!({ "folder_labels": true })),
                ("watch", json!({ "watch": true })),
                ("rescan", json!({ "watch": true, "rescan": "5m" })),
                (
                    "retry_timeout",
                    json!({ "watch": true, "retry_timeout": "5m" }),
                ),
            ],
        ),
        Case::new(
            "parquet",
            none(),
            at("encoded/in"),
            [
                other("encoded/later"),
                ("columns", json!({ "columns": ["image"] })),
                ("int96", json!({ "int96": "ns" })),
                ("readers", json!({ "readers": 3 })),
                refuse(),
            ],
        ),
        Case::new(
            "parquet",
            none(),
            json!({ "path": bytes(["one", "two"]) }),
            [("image_column", json!({ "image_column": "two" }))],
        ),
        Case::new(
            "csv",
            none(),
            at("csv/in"),
            [
                other("csv/later"),
                ("header", json!({ "header": false })),
                ("delimiter", json!({ "delimiter": ";" })),
                ("aligned", json!({ "aligned": true })),
                ("quote", json!({ "quote": "'" })),
                (
                    "columns",
                    json!({ "header": false, "columns": ["one", "two", "three", "four"] }),
                ),
                ("types", json!({ "types": { "id": "string" } })),
                ("null_values", json!({ "null_values": ["NA"] })),
                ("decimal", json!({ "decimal": "," })),
                ("encoding", json!({ "encoding": "latin1" })),
                refuse(),
            ],
        ),
        Case::new(
            "ndjson",
            none(),
            at("ndjson/in"),
            [
                other("ndjson/later"),
                ("types", json!({ "types": { "id": "string" } })),
                refuse(),
            ],
        ),
        Case::new(
            "arrow",
            none(),
            at("arrow/in"),
            [other("arrow/later"), refuse()],
        ),
        Case::new(
            "arrow",
            none(),
            json!({ "path": stream_of_bytes(["one", "two"]) }),
            [("image_column", json!({ "image_column": "two" }))],
        ),
        Case::new(
            "idx",
            none(),
            at("trained/in/images.idx"),
            [
                other("idx/in"),
                (
                    "labels",
                    json!({ "labels": input("trained/in/labels.idx") }),
                ),
                refuse(),
            ],
        ),
        Case::new(
            "npz",
            none(),
            at("npz/in"),
            [
                other("npz/later"),
                ("arrays", json!({ "arrays": ["X"] })),
                refuse(),
            ],
        ),
        Case::new(
            "tar",
            none(),
            at("tar/in"),
            [
                other("tar/later"),
                ("follow_links", json!({ "follow_links": true })),
                refuse(),
            ],
        ),
        Case::new(
            "rejects",
            none(),
            at("replay/in/rejects"),
            [
                other("csv/out/_latentflow/rejects"),
                // `from` selects one of several sources; this dataset has one.
                (
                    "from",
                    json!({ "path": input("images/out/table/_latentflow/rejects"), "from": "in" }),
                ),
                ("stages", json!({ "stages": ["vectors"] })),
                ("codes", json!({ "codes": ["missing"] })),
                ("types", json!({ "types": { "id": "string" } })),
            ],
        ),
    ]
}

fn sources_without_files() -> Vec<Case> {
    let none = || json!({});
    let features = json!({ "content": "features", "records": 9 });
    let images = json!({ "content": "images", "records": 9 });
    let http =
        json!({ "listen": "127.0.0.1:0", "records": "features", "columns": { "a": "float" } });
    let keys = json!({ "certificate": input("csv/p.toml"), "key": input("csv/p.toml") });
    vec![
        Case::new(
            "synthetic",
            none(),
            features,
            [
                ("content", json!({ "content": "images" })),
                ("records", json!({ "records": 10 })),
                ("seed", json!({ "seed": 1 })),
                ("size", json!({ "content": "images", "size": [32, 32] })),
                ("format", json!({ "content": "images", "format": "bmp" })),
                ("width", json!({ "width": 12 })),
                ("rank", json!({ "rank": 3 })),
                ("outliers", json!({ "outliers": 0.5 })),
                ("layout", json!({ "layout": "columns" })),
            ],
        ),
        Case::new(
            "synthetic",
            none(),
            images,
            [
                ("size", json!({ "size": [32, 32] })),
                ("format", json!({ "format": "jpeg" })),
            ],
        ),
        Case::new(
            "embedded",
            none(),
            json!({}),
            [("columns", json!({ "columns": { "x": "float" } }))],
        ),
        Case::new(
            "http",
            none(),
            http,
            [
                ("listen", json!({ "listen": "127.0.0.1:9" })),
                ("records", json!({ "records": "images", "columns": null })),
                ("columns", json!({ "columns": { "a": "int" } })),
                ("token", json!({ "token": { "variable": "TOKEN" } })),
                ("anybody", json!({ "anybody": true })),
                ("hosts", json!({ "hosts": ["records.example"] })),
                ("tls", json!({ "tls": keys })),
                ("limits", json!({ "limits": { "requests": 3 } })),
                ("idempotency_window", json!({ "idempotency_window": "1h" })),
            ],
        ),
    ]
}

fn transforms() -> Vec<Case> {
    let columns = json!({ "columns": ["b"] });
    vec![
        Case::new(
            "features",
            csv(),
            columns,
            [
                ("columns", json!({ "columns": ["a", "b"] })),
                (
                    "scaling",
                    json!({ "scaling": "standard", "mean": [0], "std": [2] }),
                ),
                (
                    "mean",
                    json!({ "scaling": "standard", "mean": [0], "std": [1] }),
                ),
                (
                    "std",
                    json!({ "scaling": "standard", "mean": [0], "std": [3] }),
                ),
                (
                    "min",
                    json!({ "scaling": "min_max", "min": [0], "max": [1] }),
                ),
                (
                    "max",
                    json!({ "scaling": "min_max", "min": [0], "max": [2] }),
                ),
                (
                    "rules",
                    json!({ "rules": [{ "columns": ["b"], "fill_value": 0 }] }),
                ),
                ("width", json!({ "columns": ["id", "b"], "width": 2 })),
                ("to", json!({ "to": "vector" })),
                ("keep", json!({ "keep": true })),
            ],
        ),
        Case::new(
            "features",
            json!({ "before": { "kind": "csv", "path": input("model/in") } }),
            json!({ "model": "m" }),
            [("model", json!({ "model": "same" }))],
        ),
        Case::new(
            "select",
            csv(),
            json!({ "rename": { "b": "c" } }),
            [
                ("columns", json!({ "columns": ["b"] })),
                ("drop", json!({ "drop": ["a"] })),
                ("rename", json!({ "rename": { "b": "d" } })),
            ],
        ),
        Case::new(
            "filter",
            csv(),
            json!({ "column": "id", "above": 1 }),
            [
                ("column", json!({ "column": "a" })),
                ("above", json!({ "above": 2 })),
                ("at_least", json!({ "above": null, "at_least": 1 })),
                ("below", json!({ "above": null, "below": 1 })),
                ("at_most", json!({ "above": null, "at_most": 1 })),
                ("equals", json!({ "above": null, "equals": 1 })),
                ("not_equals", json!({ "above": null, "not_equals": 1 })),
            ],
        ),
        Case::new(
            "encode",
            decoded(),
            json!({ "model": "m", "column": "back" }),
            [
                ("model", json!({ "model": "same" })),
                ("to", json!({ "to": "code" })),
                ("column", json!({ "column": "features" })),
                ("reconstruct", json!({ "reconstruct": true })),
                (
                    "keep_reconstruction",
                    json!({ "reconstruct": true, "keep_reconstruction": true }),
                ),
                ("keep", json!({ "keep": true })),
                ("outputs", json!({ "outputs": { "copy": "latent" } })),
            ],
        ),
        Case::new(
            "ensemble",
            decoded(),
            json!({ "models": ["m", "same"], "column": "back" }),
            [
                ("models", json!({ "models": ["same", "m"] })),
                ("column", json!({ "column": "features" })),
                ("to", json!({ "to": "score" })),
            ],
        ),
        Case::new(
            "onnx",
            csv(),
            json!({ "model": "sums", "input_feed": { "x": "a" }, "outputs": { "s": "sum" } }),
            [
                ("model", json!({ "model": "same-sums" })),
                ("input_feed", json!({ "input_feed": { "x": ["a", "b"] } })),
                ("outputs", json!({ "outputs": { "n": "width" } })),
                ("nulls", json!({ "nulls": "nan" })),
            ],
        ),
    ]
}

fn image_transforms() -> Vec<Case> {
    let gray = json!({
        "before": { "kind": "pixels", "inputs": ["in"], "model": "images" },
        "in": photos()["before"],
    });
    let mark = json!({ "noise": "watermark_text", "column": "pixels" });
    vec![
        Case::new(
            "pixels",
            photos(),
            json!({ "size": [8, 8] }),
            [
                ("size", json!({ "size": [8, 9] })),
                ("channels", json!({ "channels": "gray" })),
                ("layout", json!({ "layout": "nhwc" })),
                ("range", json!({ "range": [0, 2] })),
                ("mean", json!({ "mean": [0.5, 0.5, 0.5] })),
                ("std", json!({ "std": [2, 2, 2] })),
                ("value_range", json!({ "value_range": [0, 4095] })),
                ("decode", json!({ "decode": "scaled" })),
                ("fit", json!({ "fit": "crop" })),
                ("color_space", json!({ "color_space": "srgb" })),
                ("to", json!({ "to": "tensor" })),
                ("keep", json!({ "keep": true })),
            ],
        ),
        Case::new(
            "pixels",
            json!({ "before": { "kind": "parquet", "path": bytes(["image", "other"]) } }),
            json!({ "size": [8, 8] }),
            [("column", json!({ "column": "other" }))],
        ),
        Case::new(
            "pixels",
            photos(),
            json!({ "steps": [{ "op": "resize", "size": 8 }] }),
            [("steps", json!({ "steps": [{ "op": "resize", "size": 9 }] }))],
        ),
        // The options replace all that a preset or a file sets.
        Case::new(
            "pixels",
            photos(),
            json!({
                "size": [8, 8], "channels": "rgb", "layout": "nchw", "range": [0, 2],
                "mean": [1, 1, 1], "std": [2, 2, 2],
            }),
            [
                ("preset", json!({ "preset": "keras-caffe" })),
                (
                    "preprocessor",
                    json!({ "preprocessor": repository_path("tests/preprocess/preprocessor_config.json") }),
                ),
            ],
        ),
        Case::new(
            "pixels",
            photos(),
            json!({ "model": "images" }),
            [("model", json!({ "model": "same-images" }))],
        ),
        Case::new(
            "denoise",
            gray,
            json!({ "model": "images" }),
            [
                ("model", json!({ "model": "same-images" })),
                ("strength", json!({ "strength": 0.5 })),
                ("tile", json!({ "tile": 256 })),
                ("overlap", json!({ "overlap": 16 })),
                ("to", json!({ "to": "clean" })),
            ],
        ),
        Case::new(
            "denoise",
            decoded(),
            json!({ "model": "m", "column": "back" }),
            [("column", json!({ "column": "features" }))],
        ),
        Case::new(
            "corrupt",
            pairs(),
            mark,
            [
                ("noise", json!({ "noise": "watermark_grid" })),
                ("sigma", json!({ "noise": "gaussian", "sigma": 3 })),
                ("rate", json!({ "noise": "masking", "rate": 0.5 })),
                (
                    "correlation",
                    json!({ "noise": "gaussian", "sigma": 3, "correlation": 1 }),
                ),
                ("peak", json!({ "noise": "poisson", "peak": 30 })),
                ("factor", json!({ "noise": "downscale", "factor": 2 })),
                ("quality", json!({ "noise": "jpeg", "quality": 50 })),
                (
                    "subsampling",
                    json!({ "noise": "jpeg", "subsampling": ["4:2:0"] }),
                ),
                ("probability", json!({ "probability": 0.5 })),
                ("text", json!({ "text": "other" })),
                ("opacity", json!({ "opacity": 0.25 })),
                ("size", json!({ "noise": "watermark", "size": 20 })),
                ("seed", json!({ "seed": 4 })),
                ("column", json!({ "column": "noisy" })),
                ("to", json!({ "to": "marked" })),
            ],
        ),
        Case::new(
            "score",
            decoded(),
            json!({ "original": "features", "reconstruction": "back", "metrics": ["psnr"] }),
            [
                ("original", json!({ "original": "back" })),
                ("reconstruction", json!({ "reconstruction": "features" })),
                ("metrics", json!({ "metrics": ["mse"] })),
                ("prefix", json!({ "prefix": "my_" })),
                ("peak", json!({ "peak": 2 })),
                ("zscore", json!({ "model": "m", "zscore": true })),
                ("feature_errors", json!({ "feature_errors": true })),
                (
                    "feature_zscores",
                    json!({ "model": "m", "feature_zscores": true }),
                ),
                ("top_features", json!({ "model": "m", "top_features": 2 })),
            ],
        ),
        Case::new(
            "score",
            decoded(),
            json!({
                "original": "features",
                "reconstruction": "back",
                "model": "m",
                "zscore": true,
            }),
            [("model", json!({ "model": "same" }))],
        ),
    ]
}

fn sinks() -> Vec<Case> {
    let out = || json!({ "path": "out" });
    vec![
        Case::new(
            "parquet",
            csv(),
            out(),
            [
                ("path", json!({ "path": "elsewhere" })),
                ("columns", json!({ "columns": ["b", "id"] })),
                ("file", json!({ "file": { "records": 3 } })),
                ("row_group", json!({ "row_group": { "records": 3 } })),
                ("compression", json!({ "compression": "snappy" })),
                ("on_change", json!({ "on_change": "continue" })),
            ],
        ),
        Case::new(
            "images",
            pairs(),
            json!({ "path": "out", "column": "noisy", "format": "jpeg" }),
            [
                ("path", json!({ "path": "elsewhere" })),
                ("column", json!({ "column": "pixels" })),
                ("format", json!({ "format": "webp" })),
                ("quality", json!({ "quality": 50 })),
                ("subsampling", json!({ "subsampling": "4:2:0" })),
                ("name", json!({ "name": "{row}.{ext}" })),
            ],
        ),
        Case::new(
            "images",
            json!({
                "in": { "kind": "parquet", "path": bytes(["image", "other"]) },
                "before": { "kind": "pixels", "inputs": ["in"], "size": [8, 8], "keep": true },
            }),
            json!({ "path": "out", "format": "original" }),
            [
                ("original", json!({ "original": "other" })),
                ("keep_gray", json!({ "keep_gray": false })),
            ],
        ),
        Case::new(
            "stdout",
            synthetic(),
            json!({}),
            [("columns", json!({ "columns": ["f0"] }))],
        ),
        Case::new("discard", synthetic(), json!({}), []),
    ]
}

fn cases() -> Vec<Case> {
    [
        sources(),
        sources_without_files(),
        transforms(),
        image_transforms(),
        sinks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A Parquet file with two columns of bytes.
fn bytes(names: [&str; 2]) -> String {
    file_of_bytes(names, "parquet", |file, rows| {
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
    })
}

/// As [`bytes`], in an Arrow IPC stream.
fn stream_of_bytes(names: [&str; 2]) -> String {
    file_of_bytes(names, "arrows", |file, rows| {
        let mut writer = StreamWriter::try_new(file, &rows.schema()).unwrap();
        writer.write(rows).unwrap();
        writer.finish().unwrap();
    })
}

fn file_of_bytes(names: [&str; 2], extension: &str, write: fn(File, &RecordBatch)) -> String {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path();
    let path = folder.join(format!("{}.{extension}", names.join("-")));
    if !path.exists() {
        let column = || Arc::new(BinaryArray::from_vec(vec![b"a", b"b"])) as ArrayRef;
        let rows = RecordBatch::try_from_iter(names.map(|name| (name, column()))).unwrap();
        let unfinished = path.with_extension(format!("{:?}", std::thread::current().id()));
        write(File::create(&unfinished).unwrap(), &rows);
        // Tests run concurrently.
        std::fs::rename(unfinished, &path).unwrap();
    }
    path.to_string_lossy().into_owned()
}

#[test]
fn every_option_declares_whether_it_changes_rows() {
    for (kind, options) in declared_options() {
        for (option, declared) in options {
            assert!(
                declared.changes_rows.is_some(),
                "`{option}` of `{kind}`: add #[schemars(extend(\"x-changes-rows\" = true))] or \
                 false to the field"
            );
        }
    }
}

#[test]
fn every_option_has_a_change_in_the_cases() {
    let mut changed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for case in cases() {
        changed
            .entry(case.label())
            .or_default()
            .extend(case.changes.iter().map(|(option, _)| *option));
    }
    for (kind, options) in declared_options() {
        let expected: BTreeSet<&str> = options.keys().map(String::as_str).collect();
        assert_eq!(
            changed.remove(kind).unwrap_or_default(),
            expected,
            "options of `{kind}`"
        );
    }
    assert_eq!(changed, BTreeMap::new());
}

#[test]
fn only_options_that_change_rows_change_the_digest() {
    let declared = declared_options();
    for case in cases() {
        let base = case
            .digest(&json!({}))
            .unwrap_or_else(|faults| panic!("{}: {faults}", case.kind));
        for (option, change) in &case.changes {
            let changed = case
                .digest(change)
                .unwrap_or_else(|faults| panic!("{}: {change}: {faults}", case.kind));
            let changes_rows = declared[case.label()][*option].changes_rows == Some(true);
            assert_eq!(
                changed != base,
                changes_rows,
                "`{option}` of `{}`",
                case.label()
            );
        }
    }
}

#[test]
fn explicit_defaults_do_not_change_the_digest() {
    for case in cases() {
        let base = case.identity(&json!({})).unwrap();
        let resolved = &base.stages["it"].options;
        for (option, value) in resolved {
            let stored = Map::from_iter([(option.clone(), value.clone())]);
            let explicit = case
                .identity(&Value::Object(case.renamed().current(stored)))
                .unwrap_or_else(|faults| panic!("`{option}` of `{}`: {faults}", case.label()));
            assert_eq!(
                explicit.digest,
                base.digest,
                "`{option}` of `{}` is set to its default {value}",
                case.label()
            );
        }
        let all = case
            .identity(&Value::Object(case.renamed().current(resolved.clone())))
            .unwrap();
        assert_eq!(
            (&all.digest, &all.stages["it"].options),
            (&base.digest, resolved),
            "`{}`",
            case.label()
        );
    }
}

#[test]
fn equivalent_values_do_not_change_the_digest() {
    let digest = |kind: &str, options: Value| {
        let mut stage: Map<String, Value> = options.as_object().unwrap().clone();
        stage.insert("kind".into(), kind.into());
        let last = json!({ "kind": "parquet", "inputs": ["in"], "path": "out" });
        identity(&json!({ "stages": { "in": stage, "out": last } }))
            .unwrap()
            .digest
    };
    let path = |path: &str| digest("csv", json!({ "path": path }));
    let plain = path(&input("csv/in"));
    for spelling in [
        "csv/in/",
        "csv/in//",
        "csv//in",
        "./csv/./in/.",
        "csv/in/./",
    ] {
        assert_eq!(path(&input(spelling)), plain, "{spelling}");
    }
    assert_ne!(path(&input("csv/in/b.csv")), plain);
    let amount = |value: Value| {
        let case = Case::new(
            "filter",
            csv(),
            json!({ "column": "b", "above": value }),
            [],
        );
        case.digest(&json!({})).unwrap()
    };
    assert_eq!(amount(json!(1)), amount(json!(1.0)));
    assert_ne!(amount(json!(1)), amount(json!(1.5)));
}

#[test]
fn explicit_and_inferred_options_are_compatible() {
    let csv_types =
        json!({ "types": { "id": "int", "a": "float", "b": "float", "word": "string" } });
    let of = |kind: &str, options: Value| {
        let mut stage: Map<String, Value> = options.as_object().unwrap().clone();
        stage.insert("kind".into(), kind.into());
        let last = json!({ "kind": "discard", "inputs": ["in"] });
        identity(&json!({ "stages": { "in": stage, "out": last } })).unwrap()
    };
    let path = json!({ "path": input("csv/in") });
    let with = |more: &Value| {
        let options: Map<String, Value> = path
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .chain(more.as_object().unwrap().clone())
            .collect();
        of("csv", Value::Object(options))
    };
    let (inferred, explicit) = (with(&json!({})), with(&csv_types));
    assert!(continues(&inferred, &explicit) && continues(&explicit, &inferred));
    let other = with(&json!({ "types": { "id": "string" } }));
    assert!(!continues(&inferred, &other) && !continues(&other, &inferred));
    let select = |options: Value| {
        Case::new("select", csv(), options, [])
            .identity(&json!({}))
            .unwrap()
    };
    let columns =
        json!({ "columns": ["source", "row", "id", "b", "word"], "rename": { "b": "b" } });
    let (dropped, listed) = (select(json!({ "drop": ["a"] })), select(columns));
    assert!(continues(&dropped, &listed) && continues(&listed, &dropped));
    let other_selection = select(json!({ "drop": ["b"] }));
    assert!(!continues(&dropped, &other_selection) && !continues(&other_selection, &listed));
}

#[test]
fn renamed_options_have_their_former_names_in_digests() {
    let stage = json!({ "kind": "synthetic", "content": "features", "records": 9, "width": 5 });
    let last = json!({ "kind": "discard", "inputs": ["in"] });
    let found = identity(&json!({ "stages": { "in": stage, "out": last } })).unwrap();
    let stored = Value::Object(found.stages["in"].options.clone());
    let defaults = json!({ "layout": "vector", "outliers": 0.0, "rank": 2, "seed": 0 });
    let mut expected = json!({ "of": "features", "records": 9, "width": 5 });
    expected
        .as_object_mut()
        .unwrap()
        .extend(defaults.as_object().unwrap().clone());
    assert_eq!(stored, expected);
    // The digest that the previous version wrote to the footers of an output.
    assert_eq!(
        found.stages["in"].digest,
        "sha256:0006fc5e2b142771541130e9f11d281e9d10d12560b38d52a858c4304b2024cc"
    );
}

/// The identity of the pixels for a model whose card has this line for `decode`, and with these options
/// of the stage.
fn pixels_of_model(folder: &Path, card_line: &str, more: &Value) -> OutputIdentity {
    let from = repository_path("models/photo-ae");
    std::fs::create_dir_all(folder).unwrap();
    for file in ["encoder.onnx", "decoder.onnx"] {
        let linked = folder.join(file);
        if !linked.exists() {
            std::os::unix::fs::symlink(Path::new(&from).join(file), linked).unwrap();
        }
    }
    let shipped = std::fs::read_to_string(Path::new(&from).join("model.toml")).unwrap();
    let lines = shipped.lines().filter(|line| !line.starts_with("decode ="));
    let card: String = lines
        .map(|line| match line {
            "[input]" => format!("[input]\n{card_line}\n"),
            line => format!("{line}\n"),
        })
        .collect();
    std::fs::write(folder.join("model.toml"), card).unwrap();
    let mut pixels = json!({ "kind": "pixels", "inputs": ["in"], "model": "m" });
    let pixels_options = pixels.as_object_mut().unwrap();
    pixels_options.extend(more.as_object().unwrap().clone());
    let last = json!({ "kind": "discard", "inputs": ["px"] });
    identity(&json!({
        "models": { "m": { "path": folder.to_str().unwrap() } },
        "stages": { "in": photos()["before"], "px": pixels, "out": last },
    }))
    .unwrap()
}

#[test]
fn output_of_full_decoding_is_not_continued_by_scaled_decoding() {
    let folder = tempfile::tempdir().unwrap();
    let of = |card_line: &str, more: Value| pixels_of_model(folder.path(), card_line, &more);
    let earlier = of("", json!({}));
    // Earlier versions recorded a flag.
    assert_eq!(earlier.stages["px"].options["draft"], json!(false));
    let scaled = of("decode = 'scaled'", json!({}));
    assert_eq!(earlier.models, scaled.models);
    assert!(!continues(&earlier, &scaled) && !continues(&scaled, &earlier));
    let full = of("decode = 'scaled'", json!({ "decode": "full" }));
    assert!(continues(&earlier, &full) && continues(&full, &earlier));
    let draft = of("", json!({ "decode": "scaled" }));
    assert!(continues(&draft, &scaled));
    let mut unrecorded = earlier.clone();
    let options = &mut unrecorded.stages.get_mut("px").unwrap().options;
    options.remove("draft");
    assert!(!continues(&unrecorded, &scaled));
}

#[test]
fn output_is_not_continued_after_a_card_gets_steps() {
    let folder = tempfile::tempdir().unwrap();
    let of = |card_line: &str| pixels_of_model(folder.path(), card_line, &json!({}));
    let (earlier, stepped) = (of(""), of("steps = [{ op = 'resize', size = 64 }]"));
    assert_ne!(earlier.models, stepped.models);
    assert!(!continues(&earlier, &stepped) && !continues(&stepped, &earlier));
    assert!(!earlier.stages["px"].options.contains_key("steps"));
    assert_eq!(stepped.stages["px"].options["steps"][0]["size"], json!(64));
}

#[test]
fn columns_of_the_data_do_not_change_the_digest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.csv");
    let digest = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let stages = json!({
            "in": { "kind": "csv", "path": file.to_str().unwrap() },
            "out": { "kind": "parquet", "inputs": ["in"], "path": "out" },
        });
        identity(&json!({ "stages": stages })).unwrap().digest
    };
    let first = digest("x,y\n1,2\n");
    for other in ["x,y\n1,2.5\n", "y,x\n2,1\n", "x,y,z\n1,2,3\n"] {
        assert_eq!(digest(other), first, "{other}");
    }
}
