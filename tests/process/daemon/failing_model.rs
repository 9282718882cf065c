//! Tests of records on which a model fails: a daemon rejects them, both from the journal and in
//! responses to `/v1/encode`.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::daemon_process::Daemon;
use crate::common::outputs::{ids, records};

const NDJSON: &str = "application/x-ndjson";

/// A pipeline with a model that fails on values above 5.
fn site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/picky.onnx");
    let pipeline = format!(
        r#"
[models.m]
model = "{}"

[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "features"
columns = {{ x = "float", y = "float" }}
batch = {{ delay = "5ms" }}

[stages.features]
kind = "features"
inputs = ["in"]
columns = ["x", "y"]
to = "v"

[stages.clean]
kind = "denoise"
inputs = ["features"]
model = "m"

[stages.out]
kind = "parquet"
inputs = ["clean"]
path = "out"

[commit]
age = "50ms"
"#,
        model.display()
    );
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

fn rows(folder: &Path) -> Vec<String> {
    let records = records(&folder.join("out"), &["row"]);
    ids(&records).into_iter().map(str::to_owned).collect()
}

fn rejects(folder: &Path) -> Vec<String> {
    let records = records(
        &folder.join("out/_latentflow/rejects"),
        &["row", "stage", "code"],
    );
    ids(&records).into_iter().map(str::to_owned).collect()
}

#[test]
fn journaled_record_is_rejected_and_others_are_committed() {
    let site = site();
    let bad = "{\"x\": 70, \"y\": 1}\n";
    let daemon = Daemon::start(site.path());
    assert_eq!(
        daemon
            .source()
            .post("/v1/records", NDJSON, bad.as_bytes())
            .status,
        202
    );
    daemon.kill();
    // The record is in the journal or already rejected; each start continues in both cases.
    for start in 1..3 {
        let restarted = Daemon::start(site.path());
        let good = format!("{{\"x\": {start}, \"y\": 1}}\n");
        assert_eq!(
            restarted
                .source()
                .post("/v1/records", NDJSON, good.as_bytes())
                .status,
            202
        );
        restarted.wait("the valid record", || {
            (rows(site.path()).len() == start).then_some(())
        });
        restarted.wait("the rejected record", || {
            (rejects(site.path()) == ["0 clean model"]).then_some(())
        });
        restarted.stop();
    }
    assert_eq!(rows(site.path()), ["1", "2"]);
}

#[test]
fn encode_response_holds_reject_of_record() {
    let site = site();
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let encode = |x: u32| {
        source
            .post(
                "/v1/encode",
                NDJSON,
                format!("{{\"x\": {x}, \"y\": 1}}\n").as_bytes(),
            )
            .status_and_json()
    };
    for _ in 0..2 {
        let (status, response) = encode(70);
        assert_eq!(
            (status, &response["records"][0]["rejected"]["stage"]),
            (200, &json!("clean"))
        );
        assert_eq!(response["records"][0]["rejected"]["code"], json!("model"));
        let (good_status, good_response) = encode(3);
        assert_eq!(
            (good_status, &good_response["records"][0]["rejected"]),
            (200, &json!(null))
        );
    }
    daemon.stop();
}
