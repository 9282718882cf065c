//! Tests of the sink `images`: one file for each record, for equal names, crashes and resumed runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use crate::common::outputs::files;
use crate::common::runs::{errors, latentflow, run};

/// An image of one color that is unique to the number.
fn image(number: u32) -> Vec<u8> {
    let [_, red, green, blue] = number.to_be_bytes();
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(2, 2, Rgb([red, green, blue]))
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

fn write_images(folder: &Path, names: impl Iterator<Item = String>, first: u32) {
    for (name, number) in names.zip(first..) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, image(number)).unwrap();
    }
}

fn run_to_end(folder: &Path, pipeline: &str, arguments: &[&str]) -> Value {
    let (output, summary) = run(folder, pipeline, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    summary
}

/// The contents of files by name.
fn pictures(folder: &Path) -> BTreeMap<String, Box<[u8]>> {
    files(folder).into_iter().collect()
}

fn count_different(pictures: &BTreeMap<String, Box<[u8]>>) -> usize {
    pictures.values().collect::<BTreeSet<_>>().len()
}

fn pipeline(sources: &str, inputs: &str, out: &str) -> String {
    format!(
        "{sources}\n[stages.px]\nkind = \"pixels\"\ninputs = [{inputs}]\nsize = \"original\"\n\
         [stages.out]\nkind = \"images\"\ninputs = [\"px\"]\npath = \"{out}\"\n"
    )
}

/// A pipeline from a folder of 300 images and one of 40 with equal stems.
fn two_folders(folder: &Path, records: u32, out: &str) -> String {
    if !folder.join("a").exists() {
        write_images(
            &folder.join("a"),
            (0..300).map(|n| format!("{n:05}.png")),
            0,
        );
        write_images(
            &folder.join("b"),
            (0..40).map(|n| format!("{n:05}.jpg")),
            1000,
        );
    }
    let source = |name: &str| {
        format!(
            "[stages.{name}]\nkind = \"images\"\npath = \"{name}\"\n\
             batch = {{ records = {records} }}\n"
        )
    };
    pipeline(
        &format!("{}{}", source("a"), source("b")),
        "\"a\", \"b\"",
        out,
    )
}

#[test]
fn sources_with_equal_names_write_a_file_for_each_record() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    run_to_end(root, &two_folders(root, 32, "calm"), &["--workers", "1"]);
    let calm = pictures(&root.join("calm"));
    assert_eq!((calm.len(), count_different(&calm)), (340, 340));
    let first = image::load_from_memory(&calm["00000.png"])
        .unwrap()
        .to_rgb8();
    assert_eq!(
        first.get_pixel(0, 0),
        &Rgb([0, 0, 0]),
        "the first source has the unchanged names"
    );
    run_to_end(root, &two_folders(root, 7, "other"), &["--workers", "3"]);
    assert!(
        pictures(&root.join("other")) == calm,
        "the names depend on batches and workers"
    );
    for limit in ["100", "205", "10", "1000"] {
        run_to_end(root, &two_folders(root, 32, "parts"), &["--limit", limit]);
    }
    assert!(
        pictures(&root.join("parts")) == calm,
        "the names depend on resumed runs"
    );
    assert_eq!(
        run_to_end(root, &two_folders(root, 32, "parts"), &[])["records"],
        0
    );
}

#[test]
#[cfg(unix)]
fn equal_names_survive_a_crash_at_each_step() {
    use std::os::unix::process::ExitStatusExt as _;
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have crash points");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    run_to_end(root, &two_folders(root, 32, "calm"), &[]);
    let calm = pictures(&root.join("calm"));
    for (step, passing) in [
        ("picture-named", 290),
        ("picture-named", 330),
        ("pictures-named", 2),
        ("pictures-listed", 2),
    ] {
        let out = format!("{step}-{passing}");
        fs::write(root.join("p.toml"), two_folders(root, 32, &out)).unwrap();
        let mut command = latentflow(root, &["run", "p.toml"]);
        let output = command
            .env("LATENTFLOW_CRASH_AT", format!("{step}:{passing}"))
            .output()
            .unwrap();
        assert_eq!(
            output.status.signal(),
            Some(6),
            "the crash point `{step}` is not reached {passing} times: {}",
            errors(&output)
        );
        run_to_end(root, &two_folders(root, 32, &out), &[]);
        assert!(pictures(&root.join(&out)) == calm, "{step} {passing}");
    }
}

#[test]
fn shard_members_with_equal_names_are_all_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("in")).unwrap();
    for shard in 0..3_u32 {
        let mut tar =
            tar::Builder::new(File::create(root.join(format!("in/{shard}.tar"))).unwrap());
        for (number, name) in ["x.png", "x.png", "d/x.jpg"].into_iter().enumerate() {
            let bytes = image(shard * 10 + u32::try_from(number).unwrap());
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes.as_slice())
                .unwrap();
        }
        tar.finish().unwrap();
    }
    let source = "[stages.in]\nkind = \"tar\"\npath = \"in\"\n";
    let named = pipeline(source, "\"in\"", "out") + "name = \"{stem}.{ext}\"\n";
    run_to_end(root, &named, &[]);
    let found = pictures(&root.join("out"));
    assert_eq!((found.len(), count_different(&found)), (9, 9));
    assert!(found.contains_key("x.png"), "{:?}", found.keys());
    run_to_end(root, &pipeline(source, "\"in\"", "plain"), &[]);
    assert_eq!(count_different(&pictures(&root.join("plain"))), 9);
}

#[test]
fn records_with_equal_values_of_source_are_all_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let images: Vec<Vec<u8>> = (0..30).map(image).collect();
    let columns: [(&str, ArrayRef); 3] = [
        (
            "source",
            Arc::new(StringArray::from_iter_values(
                (0..30).map(|n| ["a.png", "../a.png", "A.png"][n % 3]),
            )),
        ),
        (
            "row",
            Arc::new(UInt64Array::from_iter_values((0..30).map(|n| n % 2))),
        ),
        ("image", Arc::new(BinaryArray::from_iter_values(images))),
    ];
    let records = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(
        File::create(root.join("in.parquet")).unwrap(),
        records.schema(),
        None,
    )
    .unwrap();
    writer.write(&records).unwrap();
    writer.close().unwrap();
    let source =
        "[stages.in]\nkind = \"parquet\"\npath = \"in.parquet\"\nbatch = { records = 4 }\n";
    run_to_end(root, &pipeline(source, "\"in\"", "out"), &[]);
    let found = pictures(&root.join("out"));
    assert_eq!((found.len(), count_different(&found)), (30, 30));
    run_to_end(
        root,
        &pipeline(source, "\"in\"", "again"),
        &["--workers", "2"],
    );
    assert!(pictures(&root.join("again")) == found);
}

#[test]
fn sink_in_the_folder_of_its_source_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let names = ["d/x.png", "d/y.jpg", "z.png"].map(str::to_owned);
    write_images(&root.join("in"), names.into_iter(), 0);
    let code = |path: &str, out: &str, more: &str| {
        let source = format!("[stages.in]\nkind = \"images\"\npath = \"{path}\"\n");
        fs::write(root.join("p.toml"), pipeline(&source, "\"in\"", out) + more).unwrap();
        let output = latentflow(root, &["check", "p.toml"]).output().unwrap();
        let text = errors(&output);
        assert!(
            output.status.success() || text.contains("the source `in` reads"),
            "{text}"
        );
        output.status.code()
    };
    for (path, out) in [
        ("in", "in"),
        ("in", "./in/d/out"),
        ("in/../in", "in/new"),
        ("in/**/*.png", "in/x"),
        ("*/*/*", "in/d"),
    ] {
        assert_eq!(code(path, out, ""), Some(2), "{path} {out}");
    }
    for (path, out) in [
        ("in", "out"),
        ("in", "in-out"),
        ("in/*/*.jpg", "in/d"),
        ("*/*.png", "in/d"),
        ("in/d/x.png", "in/d"),
    ] {
        assert_eq!(code(path, out, ""), Some(0), "{path} {out}");
    }
    assert_eq!(code("*/*/*.jpg", "in/d", "format = \"jpeg\"\n"), Some(2));
}

#[test]
fn image_files_appear_during_an_unbounded_run() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_images(&root.join("in"), (0..5).map(|n| format!("{n}.png")), 0);
    // The source is unbounded and `commit.age` is long, so the commit comes from the sink itself.
    let source =
        "commit.age = \"1h\"\n[stages.in]\nkind = \"images\"\npath = \"in\"\nwatch = true\n";
    fs::write(root.join("p.toml"), pipeline(source, "\"in\"", "out")).unwrap();
    let mut child = latentflow(root, &["run", "p.toml"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let count_files = || {
        pictures(&root.join("out"))
            .keys()
            .filter(|name| !name.contains(".latentflow-"))
            .count()
    };
    let appeared = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        count_files() == 5
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(appeared, "{} of 5 files", count_files());
}
