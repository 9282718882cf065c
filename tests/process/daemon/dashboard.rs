//! Tests of the dashboard: its content security policy, its status data and its images.

use std::fs;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::daemon_process::Daemon;
use crate::common::inputs::images;

/// A file name that a browser would execute if the dashboard did not escape it.
const HOSTILE: &str = "<img src=x onerror=alert(1)>.png";

fn site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/photo-ae");
    let pipeline = format!(
        r#"
name = "seen"

[models.photo]
path = "{}"

[stages.in]
kind = "images"
path = "in"
watch = true
rescan = "1s"
batch = {{ records = 1, delay = "10ms" }}

[stages.pixels]
kind = "pixels"
inputs = ["in"]
model = "photo"

[stages.codes]
kind = "encode"
inputs = ["pixels"]
model = "photo"
reconstruct = true

[stages.out]
kind = "parquet"
inputs = ["codes"]
path = "out"

[commit]
age = "100ms"
"#,
        model.display()
    );
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

fn status(daemon: &Daemon) -> Value {
    let (code, status) = daemon.admin.get("/v1/status").status_and_json();
    assert_eq!(code, 200);
    status
}

/// Renames a copy of an image into the watched folder as `name`, so that it appears complete.
fn put(folder: &Path, from: &Path, name: &str) {
    fs::copy(from, folder.join("part")).unwrap();
    fs::rename(folder.join("part"), folder.join("in").join(name)).unwrap();
}

#[test]
fn dashboard_policy_allows_only_its_own_script() {
    let folder = site();
    let daemon = Daemon::start(folder.path());
    let page = daemon.admin.get("/");
    assert_eq!(page.status, 200);
    let text = String::from_utf8(page.body).unwrap();
    for (tag, rule) in [("script", "script-src"), ("style", "style-src")] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let start = text.find(&open).unwrap() + open.len();
        let inside = &text[start..start + text[start..].find(&close).unwrap()];
        let allowed = format!(
            "{rule} 'sha256-{}'",
            BASE64_STANDARD.encode(Sha256::digest(inside))
        );
        assert!(
            page.head.contains(&allowed),
            "{allowed} is not in {}",
            page.head
        );
    }
    assert!(
        page.head.contains("default-src 'none'") && page.head.contains("no-store"),
        "{}",
        page.head
    );
    // The page loads nothing from other hosts: its only absolute address is the SVG namespace.
    let elsewhere: Vec<&str> = text
        .match_indices("://")
        .map(|(at, _)| &text[at - 5..at + 20])
        .collect();
    assert!(
        elsewhere
            .iter()
            .all(|found| found.contains("://www.w3.org/")),
        "{elsewhere:?}"
    );
    let foreign = daemon.admin.request(
        "POST",
        "/v1/reload",
        &[("Origin", "http://elsewhere.example")],
        b"",
    );
    assert_eq!(foreign.status, 403);
    let rebound = daemon
        .admin
        .send(b"GET /v1/status HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n");
    assert_eq!(rebound.status, 403);
    daemon.stop();
}

#[test]
fn status_lists_stages_rejects_errors_and_requested_images() {
    let folder = site();
    let made = folder.path().join("made");
    fs::create_dir(&made).unwrap();
    images(&made, 1);
    let sound = fs::read_dir(&made).unwrap().next().unwrap().unwrap().path();
    let broken = folder.path().join("broken");
    fs::write(&broken, b"\x89PNG\r\n\x1a\nno more").unwrap();
    let daemon = Daemon::start(folder.path());

    // Without an earlier status request, the run samples no images.
    put(folder.path(), &sound, "first.png");
    put(folder.path(), &broken, HOSTILE);
    daemon.wait("two records", || {
        (daemon.metric("latentflow_records_in_total{kind=\"images\",stage=\"in\"}") >= 2.0)
            .then_some(())
    });
    // An image that is encoded after a status request is sampled.
    daemon.wait("a code", || {
        (daemon.metric("latentflow_records_out_total{kind=\"encode\",stage=\"codes\"}") >= 1.0)
            .then_some(())
    });
    let seen = daemon.wait("a reject", || {
        let seen = status(&daemon);
        (!seen["rejects"].as_array().unwrap().is_empty()).then_some(seen)
    });
    assert_eq!(seen["images"], Value::Array(Vec::new()));
    assert_eq!(
        (&seen["pipeline"], &seen["state"]),
        (&Value::from("seen"), &Value::from("running"))
    );
    let reject = &seen["rejects"][0];
    assert_eq!(
        (&reject["stage"], &reject["source"]),
        (&Value::from("pixels"), &Value::from(HOSTILE))
    );
    assert_eq!(reject["code"], "truncated");
    assert!(!reject["reason"].as_str().unwrap().is_empty());
    let stages = seen["stages"].as_array().unwrap();
    let names: Vec<&str> = stages
        .iter()
        .map(|stage| stage["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["in", "pixels", "codes", "out"]);
    assert_eq!(
        (&stages[2]["inputs"], &stages[1]["rejects"]),
        (&Value::from(vec![1]), &Value::from(1))
    );
    assert!(stages[0]["utilization"].is_null() && stages[2]["utilization"].is_number());
    let last = &stages[0]["reading"]["last"];
    assert!(
        ["first.png", HOSTILE]
            .map(Value::from)
            .contains(&last["source"])
            && last["row"] == 0,
        "{last}"
    );
    assert!(stages[1].get("reading").is_none() && seen["active_batches"].is_array());
    assert_eq!(
        (&seen["errors"][0]["stage"], &seen["errors"][0]["loss"]),
        (&Value::from("codes"), &Value::from("mse"))
    );
    assert!(seen["errors"][0]["reference"]["p50"].is_number());
    assert_eq!(seen["models"][0]["name"], "photo");

    // The status requests above enable the sampling of images.
    put(folder.path(), &sound, "second.png");
    let sampled = daemon.wait("an image", || {
        let sampled = status(&daemon);
        (!sampled["images"].as_array().unwrap().is_empty()).then_some(sampled)
    });
    let image = &sampled["images"][0];
    assert_eq!(
        (&image["stage"], &image["source"]),
        (&Value::from("codes"), &Value::from("second.png"))
    );
    for file in ["before.png", "after.png"] {
        let response = daemon
            .admin
            .get(&format!("/v1/images/{}/{file}", image["number"]));
        assert!(
            response.status == 200 && response.body.starts_with(b"\x89PNG"),
            "{file}: {}",
            response.status
        );
    }
    assert_eq!(daemon.admin.get("/v1/images/7/before.png").status, 404);
    assert_eq!(daemon.admin.get("/v1/images/0/else.png").status, 404);
    daemon.stop();
}
