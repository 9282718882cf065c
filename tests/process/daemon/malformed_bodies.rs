//! Tests of small bodies that declare large contents and of thousands of mutated bodies: the daemon
//! stays alive, within the memory that `check` prints.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, FixedSizeListArray, Float64Array, Int8Array, Int32Array, ListArray,
    NullArray, RunArray, StringArray, StringViewArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use image::ImageFormat;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use super::bodies::{FORM, form, image_site, picture};
use super::client::Client;
use super::daemon_process::Daemon;
use crate::common::runs::latentflow;

const ARROW: &str = "application/vnd.apache.arrow.stream";
const NDJSON: &str = "application/x-ndjson";
/// The limit of all requests together is below the decoded size of most bodies here.
const LIMITS: &str = "limits = { request = \"8MiB\", in_flight = \"32MiB\", records = 500000 }";
/// Resident memory allowed above the bound that `check` prints, in bytes.
const SLACK: u64 = 64 << 20;
const THREADS: u64 = 4;

/// A request body with its name and the values of its headers.
struct Body {
    what: &'static str,
    content_type: &'static str,
    encoding: &'static str,
    bytes: Vec<u8>,
}

impl Body {
    fn new(what: &'static str, content_type: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            what,
            content_type,
            encoding: "identity",
            bytes,
        }
    }

    fn encoded(self, encoding: &'static str) -> Self {
        let bytes = match encoding {
            "gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&self.bytes).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&self.bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::encode_all(self.bytes.as_slice(), 3).unwrap(),
        };
        Self {
            encoding,
            bytes,
            ..self
        }
    }

    fn send(&self, source: &Client, path: &str) -> u16 {
        let headers = [
            ("Content-Type", self.content_type),
            ("Content-Encoding", self.encoding),
        ];
        source.request("POST", path, &headers, &self.bytes).status
    }
}

fn feature_site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        "state = \"state\"\n[stages.in]\nkind = \"http\"\nlisten = \"127.0.0.1:0\"\n\
         records = \"features\"\n\
         columns = {{ x = \"float\", name = \"string\", v = \"floats\" }}\n{LIMITS}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n\
         [commit]\nage = \"50ms\"\n[limits]\nmemory = \"256MiB\"\n"
    );
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    folder
}

fn stream(columns: Vec<(&str, ArrayRef)>, compression: Option<CompressionType>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    );
    let batch = batch.unwrap();
    let options = IpcWriteOptions::default()
        .try_with_compression(compression)
        .unwrap();
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Bodies of `rows` rows, each of another form that declares large contents in few bytes.
fn features(rows: usize) -> Vec<Body> {
    let count = i32::try_from(rows).unwrap();
    let long: ArrayRef = Arc::new(StringArray::from(vec!["t".repeat(1000)]));
    let nulls = || -> ArrayRef { Arc::new(NullArray::new(rows)) };
    let keys = || Int8Array::from_iter_values(std::iter::repeat_n(0, rows));
    let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys(), Arc::clone(&long)));
    let runs: ArrayRef =
        Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(vec![count]), &long).unwrap());
    let views = StringViewArray::from(vec!["t".repeat(1000)]);
    let views = arrow::compute::take(&views, &Int32Array::from(vec![0; rows]), None).unwrap();
    let item = Arc::new(Field::new_list_field(DataType::Null, true));
    let lengths = OffsetBuffer::from_lengths(std::iter::repeat_n(100, rows));
    let lists: ArrayRef = Arc::new(ListArray::new(
        Arc::clone(&item),
        lengths,
        Arc::new(NullArray::new(100 * rows)),
        None,
    ));
    let fixed = FixedSizeListArray::new(item, 100, Arc::new(NullArray::new(100 * rows)), None);
    let zeros = || -> ArrayRef { Arc::new(Float64Array::from(vec![0.0; rows])) };
    let with = |name: ArrayRef, v: ArrayRef| vec![("x", zeros()), ("name", name), ("v", v)];
    let arrow = |what, columns, compression| Body::new(what, ARROW, stream(columns, compression));
    let (zstd, lz4) = (
        Some(CompressionType::ZSTD),
        Some(CompressionType::LZ4_FRAME),
    );
    vec![
        arrow(
            "null columns",
            vec![("x", nulls()), ("name", nulls()), ("v", nulls())],
            None,
        ),
        arrow("dictionary", with(dictionary, nulls()), zstd),
        arrow("runs", with(runs, nulls()), lz4),
        arrow("views", with(views, nulls()), zstd),
        arrow("lists of nulls", with(nulls(), lists), zstd),
        arrow("fixed lists of nulls", with(nulls(), Arc::new(fixed)), zstd),
        Body::new("lines that are not JSON", NDJSON, b"x\n".repeat(rows)),
        Body::new("empty objects", NDJSON, b"{}\n".repeat(rows)),
        Body::new(
            "lists in JSON",
            NDJSON,
            format!("{{\"v\":[{}1]}}\n", "1,".repeat(rows)).into_bytes(),
        ),
    ]
}

fn images(count: usize) -> Vec<Body> {
    let red = picture([255, 0, 0], ImageFormat::Png);
    let image: ArrayRef = Arc::new(arrow::array::BinaryArray::from_vec(vec![red.as_slice()]));
    let keys = Int8Array::from_iter_values(std::iter::repeat_n(0, count));
    let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, image));
    let files: Vec<(&str, &[u8])> = std::iter::repeat_n(("a.png", red.as_slice()), count).collect();
    vec![
        Body::new("image", "image/png", red.clone()),
        Body::new(
            "pixmap of 3.6 gigapixels",
            "image/x-portable-pixmap",
            b"P6 60000 60000 255\n".to_vec(),
        ),
        Body::new("form", FORM, form(&files)),
        Body::new(
            "images in a dictionary",
            ARROW,
            stream(vec![("image", dictionary)], None),
        ),
        Body::new(
            "images in JSON",
            NDJSON,
            "{\"image\":\"iVBORw0KGgo=\"}\n".repeat(count).into_bytes(),
        ),
    ]
}

/// The memory bound that `check` prints, in bytes.
fn memory_bound(folder: &Path) -> u64 {
    let output = latentflow(folder, &["check", "p.toml"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let (_, after) = text
        .split_once("at most ")
        .unwrap_or_else(|| panic!("`check` does not print a bound: {text}"));
    let mut words = after.split([' ', ',']);
    let (number, unit) = (
        words.next().unwrap().parse::<f64>().unwrap(),
        words.next().unwrap(),
    );
    let unit = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1_u64 << 30,
        other => panic!("{other}: {text}"),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of bytes"
    )]
    let bytes = (number * unit as f64) as u64;
    bytes
}

/// A copy with a few bytes changed, removed or duplicated.
fn mutate(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        let end = bytes.len().min(at + random.random_range(1..9));
        match random.random_range(0..6) {
            0 => bytes.truncate(at.max(1)),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(0xff),
            3 => bytes[at] ^= 1 << random.random_range(0..8),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes[at] = random.random(),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Sends `each` mutations of every body from `THREADS` threads; no response may be a server error.
fn send_mutations(source: &Client, bodies: &[Body], each: u64) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = ChaCha8Rng::seed_from_u64(thread);
                for number in 0..each / THREADS {
                    for body in bodies {
                        let mutated = Body {
                            bytes: mutate(&body.bytes, &mut random),
                            ..*body
                        };
                        let path =
                            ["/v1/records", "/v1/encode"][usize::try_from(number % 2).unwrap()];
                        let status = mutated.send(source, path);
                        assert!(
                            [200, 202, 413, 422, 429, 400].contains(&status),
                            "{}: {status} by {path}",
                            body.what
                        );
                    }
                }
            });
        }
    });
}

/// Sends large bodies unchanged and `each` mutations of small ones to a daemon, and compares its
/// peak memory with the bound that `check` prints. Asserts that `valid` is accepted afterwards.
fn assert_bounded(site: &TempDir, large: &[Body], small: &[Body], each: u64, valid: &Body) {
    let bound = memory_bound(site.path());
    let daemon = Daemon::start(site.path());
    let source = daemon.source();
    for body in large {
        for path in [
            "/v1/records",
            "/v1/encode",
            &format!("/v1/records?source={}", "n".repeat(256)),
        ] {
            let status = body.send(&source, path);
            assert!(
                [200, 202, 413, 422, 429].contains(&status),
                "{}: {status} by {path}",
                body.what
            );
        }
        eprintln!(
            "{}: {} bytes, peak {} MiB",
            body.what,
            body.bytes.len(),
            daemon.peak_memory() >> 20
        );
        assert!(
            daemon.peak_memory() < bound + SLACK,
            "{}: {} of {bound}",
            body.what,
            daemon.peak_memory()
        );
    }
    let encoded = small
        .iter()
        .zip(["gzip", "deflate", "zstd"].into_iter().cycle());
    let encoded: Vec<Body> = encoded
        .map(|(body, encoding)| {
            Body {
                bytes: body.bytes.clone(),
                ..*body
            }
            .encoded(encoding)
        })
        .collect();
    send_mutations(&source, small, each);
    send_mutations(&source, &encoded, each / 2);
    assert!(
        daemon.peak_memory() < bound + SLACK,
        "mutations: {} of {bound}",
        daemon.peak_memory()
    );
    assert_eq!(
        valid.send(&source, "/v1/records?ack=committed"),
        200,
        "{}",
        valid.what
    );
    eprintln!(
        "peak {} MiB of {} MiB",
        daemon.peak_memory() >> 20,
        bound >> 20
    );
    daemon.stop();
}

#[test]
fn feature_bodies_stay_within_the_checked_memory() {
    let mut large = features(480_000);
    large.extend(
        features(480_000)
            .into_iter()
            .map(|body| body.encoded("zstd")),
    );
    large.push(Body::new("16 MiB of zeros", NDJSON, vec![b' '; 16 << 20]).encoded("gzip"));
    let valid = Body::new("a record", NDJSON, b"{\"x\":1}\n".to_vec());
    assert_bounded(&feature_site(), &large, &features(3), 400, &valid);
}

#[test]
fn image_bodies_stay_within_the_checked_memory() {
    let table = "kind = \"parquet\"\ncolumns = [\"source\", \"row\"]";
    let site = image_site(LIMITS, table);
    let pipeline = fs::read_to_string(site.path().join("p.toml")).unwrap()
        + "\n[limits]\nmemory = \"256MiB\"\n";
    fs::write(site.path().join("p.toml"), pipeline).unwrap();
    let valid = Body::new(
        "an image",
        "image/png",
        picture([1, 2, 3], ImageFormat::Png),
    );
    assert_bounded(&site, &images(3000), &images(2), 800, &valid);
}
