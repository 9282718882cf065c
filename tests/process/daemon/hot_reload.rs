//! Tests of hot reload: models are replaced under load without a lost record, and each file holds
//! rows of one model.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use tempfile::TempDir;

use super::daemon_process::Daemon;
use crate::common::outputs::{data_files, ids, records};

const NDJSON: &str = "application/x-ndjson";

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/kdd-ae")
}

/// The names of the features of the model.
fn columns() -> Vec<String> {
    let card: toml::Table = fs::read_to_string(shipped().join("model.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let names = card["input"]["columns"].as_array().unwrap();
    names
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

/// Installs a model in `folder` whose card differs from others by `number`.
fn install_model(folder: &Path, number: u32) {
    let staged = folder.join("staged");
    fs::create_dir_all(&staged).unwrap();
    for file in ["encoder.onnx", "decoder.onnx"] {
        fs::copy(shipped().join(file), staged.join(file)).unwrap();
    }
    let card = fs::read_to_string(shipped().join("model.toml")).unwrap();
    let card = card.replace("max = [26525.0,", &format!("max = [{}.0,", 26525 + number));
    fs::write(staged.join("model.toml"), card).unwrap();
    for file in ["encoder.onnx", "decoder.onnx", "model.toml"] {
        fs::create_dir_all(folder.join("model")).unwrap();
        fs::rename(staged.join(file), folder.join("model").join(file)).unwrap();
    }
}

fn site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    install_model(folder.path(), 0);
    let columns: Vec<String> = columns()
        .iter()
        .map(|name| format!("{name} = \"float\""))
        .collect();
    let pipeline = format!(
        r#"
[models.kdd]
path = "model"

[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "features"
columns = {{ {} }}
batch = {{ delay = "2ms" }}

[stages.features]
kind = "features"
inputs = ["in"]
model = "kdd"

[stages.codes]
kind = "encode"
inputs = ["features"]
model = "kdd"
reconstruct = true

[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "out"
columns = ["source", "row", "latent", "reconstruction_error"]

[commit]
age = "200ms"
"#,
        columns.join(", ")
    );
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

fn record(number: u64) -> String {
    let value = |at: usize| (number as f64 * 0.37 + at as f64).fract();
    let values: serde_json::Map<String, Value> = columns()
        .into_iter()
        .enumerate()
        .map(|(at, name)| (name, value(at).into()))
        .collect();
    format!("{}\n", Value::Object(values))
}

/// For each file, the digests of the models in its footer.
fn models(folder: &Path) -> Vec<Vec<String>> {
    let digests = |path: &PathBuf| {
        let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        let metadata = reader
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .unwrap()
            .clone();
        let entry = metadata
            .iter()
            .find(|entry| entry.key == "latentflow.models")
            .unwrap();
        let models: Value = serde_json::from_str(entry.value.as_ref().unwrap()).unwrap();
        models
            .as_object()
            .unwrap()
            .values()
            .map(|digest| digest.as_str().unwrap().to_owned())
            .collect()
    };
    data_files(folder).iter().map(digests).collect()
}

#[test]
fn models_are_replaced_under_load_and_a_broken_one_is_refused() {
    const RELOADS: u32 = 6;
    let site = site();
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let (done, line) = (AtomicBool::new(false), record(1));
    let acknowledged: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut acknowledged = 0;
                    while !done.load(Relaxed) {
                        let response = source.post("/v1/records", NDJSON, line.as_bytes());
                        assert_eq!(response.status, 202, "{response:?}");
                        acknowledged += 1;
                        let encoded = source.post("/v1/encode", NDJSON, line.as_bytes());
                        assert!(
                            encoded.status == 200
                                && encoded.json()["records"][0]["latent"].is_array(),
                            "{encoded:?}"
                        );
                    }
                    acknowledged
                })
            })
            .collect();
        for number in 1..=RELOADS {
            install_model(site.path(), number);
            let response = daemon.admin.request("POST", "/v1/reload", &[], b"");
            assert_eq!(response.status, 200, "{response:?}");
            daemon.wait("the new models", || {
                (daemon.metric("latentflow_model_generation") >= f64::from(number)).then_some(())
            });
        }
        // A truncated file is refused; the previous models stay in use.
        let file = site.path().join("model/encoder.onnx");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let response = daemon.admin.request("POST", "/v1/reload", &[], b"");
        assert!(
            response.status == 409
                && String::from_utf8_lossy(&response.body).contains("encoder.onnx"),
            "{response:?}"
        );
        assert_eq!(
            daemon.metric("latentflow_last_model_reload_successful"),
            0.0
        );
        fs::write(&file, &whole).unwrap();
        daemon.wait("the reload of the restored file", || {
            (daemon.metric("latentflow_last_model_reload_successful") > 0.0).then_some(())
        });
        done.store(true, Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    daemon.stop();
    let models = models(&site.path().join("out"));
    assert!(
        models.iter().all(|digests| digests.len() == 1),
        "{models:?}"
    );
    let different: BTreeSet<&String> = models.iter().flatten().collect();
    assert!(
        different.len() as u32 > RELOADS / 2,
        "expected rows of several models: {different:?}"
    );
    // A restart continues, also with models that were replaced while the daemon was stopped.
    let restarted = Daemon::start(site.path());
    assert_eq!(
        restarted
            .source()
            .post("/v1/records?ack=committed", NDJSON, line.as_bytes())
            .status,
        200
    );
    restarted.stop();
    install_model(site.path(), 99);
    let with_other_model = Daemon::start(site.path());
    assert_eq!(
        with_other_model
            .source()
            .post("/v1/records?ack=committed", NDJSON, line.as_bytes())
            .status,
        200
    );
    with_other_model.stop();
    let mut rows: Vec<u64> = ids(&records(&site.path().join("out"), &["row"]))
        .iter()
        .map(|row| row.parse().unwrap())
        .collect();
    rows.sort_unstable();
    assert!(
        rows == (0..acknowledged + 2).collect::<Vec<_>>(),
        "expected each record once, those of the last two runs included"
    );
}

#[test]
fn changed_pipeline_is_applied_or_names_what_needs_a_restart() {
    let site = site();
    let pipeline = fs::read_to_string(site.path().join("p.toml")).unwrap();
    let daemon = Daemon::start(site.path());
    let change = |from: &str, to: &str| {
        fs::write(site.path().join("p.toml"), pipeline.replace(from, to)).unwrap()
    };
    let reload = || {
        let response = daemon.admin.request("POST", "/v1/reload", &[], b"");
        (response.status, String::from_utf8(response.body).unwrap())
    };
    assert_eq!(reload(), (200, "unchanged\n".to_owned()));
    // Without `columns`, the sink writes all columns, which are the same.
    change(
        "columns = [\"source\", \"row\", \"latent\", \"reconstruction_error\"]",
        "",
    );
    assert_eq!(reload(), (200, "unchanged\n".to_owned()));
    change("path = \"out\"", "path = \"elsewhere\"");
    let (status, message) = reload();
    assert!(
        status == 409
            && message
                .contains("`path` of the stage `out` has changed; this change requires a restart"),
        "{message}"
    );
    change("reconstruct = true", "reconstruct = false");
    let (column_status, column_message) = reload();
    assert!(
        column_status == 409 && column_message.contains("no column `reconstruction_error`"),
        "{column_message}"
    );
    change("kind = \"encode\"", "kind = \"enocde\"");
    assert!(reload().1.contains("unknown kind `enocde`"));
    change("", "");
    daemon.signal("-HUP");
    daemon.wait("the log line of the reload", || {
        daemon
            .log()
            .contains("reload found models and pipeline unchanged reason=SIGHUP")
            .then_some(())
    });
    daemon.stop();
}
