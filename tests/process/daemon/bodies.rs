//! Tests of request bodies in every supported form, and of responses in every accepted form.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::json;
use tempfile::TempDir;

use super::daemon_process::Daemon;
use crate::common::outputs::{ids, records};

/// A pipeline from a source of images that are decoded to 8 by 8 pixels; `lines` are options of the
/// source, `sink` those of the sink.
pub fn image_site(lines: &str, sink: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        r#"
state = "state"

[stages.in]
kind = "http"
listen = "127.0.0.1:0"
records = "images"
batch = {{ delay = "5ms" }}
{lines}

[stages.pixels]
kind = "pixels"
inputs = ["in"]
size = [8, 8]

[stages.out]
inputs = ["pixels"]
path = "out"
{sink}

[commit]
age = "50ms"
"#
    );
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

const TABLE: &str = "kind = \"parquet\"\ncolumns = [\"source\", \"row\", \"pixels\"]";

/// An image of one color.
pub fn picture(color: [u8; 3], format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(8, 8, Rgb(color))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

/// A multipart form with files.
pub fn form(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    [body.as_slice(), b"--XX--\r\n"].concat()
}

pub const FORM: &str = "multipart/form-data; boundary=XX";

#[test]
fn images_arrive_raw_compressed_in_forms_and_in_json() {
    let site = image_site("", TABLE);
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let red = picture([255, 0, 0], ImageFormat::Png);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&red).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(&red).unwrap();
    let encoded = [
        ("gzip", gzip.finish().unwrap()),
        ("deflate", zlib.finish().unwrap()),
        ("zstd", zstd::encode_all(red.as_slice(), 3).unwrap()),
        ("identity", red.clone()),
    ];
    for (encoding, body) in &encoded {
        let headers = [
            ("Content-Type", "image/png"),
            ("Content-Encoding", encoding),
        ];
        let response = source.request(
            "POST",
            &format!("/v1/records?ack=committed&source={encoding}"),
            &headers,
            body,
        );
        assert_eq!(
            (response.status, response.json().get("rejected_records")),
            (200, None),
            "{encoding}"
        );
    }
    let headers = [("Content-Type", "image/png"), ("Content-Encoding", "br")];
    assert_eq!(
        source.request("POST", "/v1/records", &headers, &red).status,
        415
    );
    let files = form(&[("a.png", &red), ("b.png", &red)]);
    assert_eq!(
        source
            .post("/v1/records?ack=committed", FORM, &files)
            .json()["records"],
        json!(2)
    );
    let lines = format!(
        "{{\"image\":\"{0}\"}}\n{{\"image\":\"data:image/png;base64,{0}\"}}\n",
        BASE64_STANDARD.encode(&red)
    );
    let response = source.post(
        "/v1/records?ack=committed&source=json",
        "application/json",
        lines.as_bytes(),
    );
    assert_eq!(response.json()["records"], json!(2));
    daemon.stop();
    let mut sources: Vec<_> = ids(&records(&site.path().join("out"), &["source"]))
        .into_iter()
        .map(str::to_owned)
        .collect();
    sources.sort_unstable();
    assert_eq!(
        sources,
        [
            "a.png", "b.png", "deflate", "gzip", "identity", "json", "json", "zstd"
        ]
    );
}

#[test]
fn encode_response_has_the_accepted_format() {
    let site = image_site("", TABLE);
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    let red = picture([200, 30, 40], ImageFormat::Png);
    let send = |path: &str, accept: &str, body: &[u8]| {
        source.request(
            "POST",
            path,
            &[("Content-Type", "image/png"), ("Accept", accept)],
            body,
        )
    };
    let png = send("/v1/encode", "image/png", &red);
    assert!(
        png.status == 200
            && png
                .head
                .to_ascii_lowercase()
                .contains("content-type: image/png"),
        "{}",
        png.head
    );
    let decoded = image::load_from_memory_with_format(&png.body, ImageFormat::Png)
        .unwrap()
        .to_rgb8();
    assert_eq!(
        (decoded.dimensions(), decoded.get_pixel(3, 5)),
        ((8, 8), &Rgb([200, 30, 40]))
    );
    let jpeg = send("/v1/encode?columns=pixels", "image/jpeg", &red);
    assert_eq!(image::guess_format(&jpeg.body).unwrap(), ImageFormat::Jpeg);
    let tensor = send("/v1/encode?columns=pixels", "application/json", &red).json();
    assert_eq!(
        tensor["records"][0]["pixels"].as_array().unwrap().len(),
        3 * 64
    );
    assert_eq!(
        send("/v1/encode?columns=source", "image/png", &red).status,
        406
    );
    let (status, response) = send("/v1/encode", "image/png", b"not an image").status_and_json();
    assert_eq!(
        (status, &response["records"][0]["rejected"]["stage"]),
        (422, &json!("pixels"))
    );
    let two = form(&[("a.png", &red), ("b.png", &red)]);
    let headers = [("Content-Type", FORM), ("Accept", "image/png")];
    assert_eq!(
        source.request("POST", "/v1/encode", &headers, &two).status,
        400
    );
    daemon.stop();
    assert!(records(&site.path().join("out"), &["row"]).is_empty());
}

#[test]
fn failed_encode_requests_do_not_count_as_rejects_of_the_run() {
    let site = image_site("", TABLE);
    let pipeline = fs::read_to_string(site.path().join("p.toml")).unwrap();
    fs::write(
        site.path().join("p.toml"),
        format!("{pipeline}\n[rejects]\nmax = 3\nmax_share = 0.5\n"),
    )
    .unwrap();
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    for _ in 0..20 {
        assert_eq!(
            source
                .post("/v1/encode", "image/png", b"not an image")
                .status,
            200
        );
    }
    let red = picture([255, 0, 0], ImageFormat::Png);
    assert_eq!(
        source
            .post("/v1/records?ack=committed", "image/png", &red)
            .status,
        200
    );
    assert_eq!(
        daemon.metric("latentflow_rejects_total{code=\"unsupported\",stage=\"pixels\"}"),
        0.0
    );
    daemon.stop();
}

#[test]
fn invalid_file_names_do_not_end_the_run() {
    let site = image_site("", "kind = \"images\"");
    let out = site.path().join("out");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("labels.csv"), "a\n").unwrap();
    std::os::unix::fs::symlink("/", out.join("link")).unwrap();
    std::os::unix::fs::symlink("loop", out.join("loop")).unwrap();
    let red = picture([255, 0, 0], ImageFormat::Png);
    let long = "x".repeat(256);
    let names = [
        "labels.csv/x.png",
        "labels.csv",
        "link/x.png",
        "loop/x.png",
        "a%00b.png",
        &long,
        "../../x.png",
        "/",
        "..",
    ];
    for round in 0..2 {
        let daemon = Daemon::start(site.path());
        let source = daemon.source();
        for name in names {
            let response = source.post(
                &format!("/v1/records?ack=committed&source={name}"),
                "image/png",
                &red,
            );
            assert_eq!(
                response.status,
                200,
                "{name} in round {round}: {}",
                String::from_utf8_lossy(&response.body)
            );
        }
        daemon.stop();
    }
    assert_eq!(fs::read_to_string(out.join("labels.csv")).unwrap(), "a\n");
    let written = crate::common::outputs::files(&out)
        .iter()
        .filter(|(name, _)| name.ends_with(".png"))
        .count();
    assert_eq!(written, 2 * names.len());
}

/// The folder of the journal.
fn journal(folder: &Path) -> std::path::PathBuf {
    folder.join("state/requests/in")
}

#[test]
fn hanging_journal_gives_503_within_its_timeout() {
    let site = image_site("limits = { journal = \"300ms\" }", TABLE);
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    // The open of the first segment blocks, since the named pipe has no reader.
    let segment = journal(site.path()).join("00000000000000000000.frames");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&segment)
            .status()
            .unwrap()
            .success()
    );
    let red = picture([255, 0, 0], ImageFormat::Png);
    for _ in 0..3 {
        let response = source.post("/v1/records", "image/png", &red);
        assert!(
            response.status == 503 && response.head.to_ascii_lowercase().contains("retry-after"),
            "{}",
            response.head
        );
    }
    assert_eq!(
        source.post("/v1/encode", "image/png", &red).status,
        200,
        "requests that do not use the journal succeed"
    );
    assert_eq!(daemon.admin.get("/metrics").status, 200);
    daemon.kill();
}
