//! Tests of records on which a stage fails: the run continues, and each record becomes a reject.

use std::fs;
use std::path::Path;

use latentflow::image::{Channels, OutputFormat, Pixels, encode};
use serde_json::Value;

use crate::common::outputs::{files, ids, records};
use crate::common::runs::{errors, run};

fn image(folder: &Path, name: &str, width: usize, height: usize) {
    let pixels = Pixels {
        width,
        height,
        channels: Channels::Gray,
        data: vec![100; width * height],
    };
    fs::create_dir_all(folder).unwrap();
    fs::write(
        folder.join(name),
        encode(&pixels, OutputFormat::Png).unwrap(),
    )
    .unwrap();
}

/// A gray PNG with a chunk after its image data that is valid only before it.
fn late_transparency(folder: &Path, name: &str) {
    image(folder, name, 4, 4);
    let valid = fs::read(folder.join(name)).unwrap();
    let named = b"tRNS\0\x64";
    let chunk = [
        &2_u32.to_be_bytes(),
        named.as_slice(),
        &crc32fast::hash(named).to_be_bytes(),
    ]
    .concat();
    let end = valid.len() - 12;
    fs::write(
        folder.join(name),
        [&valid[..end], &chunk, &valid[end..]].concat(),
    )
    .unwrap();
}

/// A pipeline of images of original size into JPEG, whose sides have at most 65,535 pixels.
const JPEGS: &str = "[stages.photos]\nkind = 'images'\npath = 'in'\nbatch = { records = 2 }\n\
                     [stages.pixels]\nkind = 'pixels'\ninputs = ['photos']\nsize = 'original'\n\
                     channels = 'gray'\n\
                     [stages.out]\nkind = 'images'\ninputs = ['pixels']\npath = 'out'\n\
                     format = 'jpeg'\n";

fn rejects(folder: &Path) -> Vec<String> {
    let records = records(folder, &["stage", "code", "source"]);
    ids(&records).into_iter().map(str::to_owned).collect()
}

fn run_to_end(folder: &Path, pipeline: &str) -> Value {
    let (output, summary) = run(folder, pipeline, &[]);
    assert!(output.status.success(), "{}", errors(&output));
    summary
}

#[test]
fn images_too_large_for_the_format_are_rejects_of_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    image(&input, "a.png", 8, 8);
    late_transparency(&input, "b.png");
    image(&input, "c.png", 70_000, 1);
    image(&input, "d.png", 8, 8);
    run_to_end(folder.path(), JPEGS);
    let (out, reject_folder) = (
        folder.path().join("out"),
        folder.path().join("out/_latentflow/rejects"),
    );
    let written = files(&out);
    assert_eq!(written.len(), 3, "{:?}", ids(&written));
    let expected = ["out unsupported c.png"];
    assert_eq!(rejects(&reject_folder), expected);
    // A later run changes neither the images nor the rejects.
    run_to_end(folder.path(), JPEGS);
    assert_eq!(
        (files(&out), rejects(&reject_folder)),
        (written.clone(), expected.map(str::to_owned).to_vec())
    );
    // After a run that ended between the two commits, the next run adds the missing rejects.
    fs::remove_dir_all(&reject_folder).unwrap();
    run_to_end(folder.path(), JPEGS);
    assert_eq!(
        (files(&out), rejects(&reject_folder)),
        (written, expected.map(str::to_owned).to_vec())
    );
}

#[test]
fn fixed_size_too_large_for_the_format_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("in"), "a.png", 8, 8);
    let pipeline = JPEGS.replace("size = 'original'", "size = [1, 70000]");
    let (output, _) = run(folder.path(), &pipeline, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(
        errors(&output).contains("70000 x 1 pixels cannot be written as JPEG"),
        "{}",
        errors(&output)
    );
}

/// A pipeline with a model that fails on values above 5, in batches of one record.
fn picky_pipeline() -> String {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/picky.onnx");
    format!(
        "[models.m]\nmodel = '{}'\n[stages.rows]\nkind = 'csv'\npath = 'in.csv'\n\
         batch = {{ records = 1 }}\n\
         [stages.features]\nkind = 'features'\ninputs = ['rows']\ncolumns = ['x', 'y']\n\
         [stages.clean]\nkind = 'denoise'\ninputs = ['features']\nmodel = 'm'\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['clean']\npath = 'out'\n",
        model.display()
    )
}

#[test]
fn records_on_which_a_model_fails_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in.csv"), "x,y\n70,1\n1,2\n3,70\n4,5\n").unwrap();
    run_to_end(folder.path(), &picky_pipeline());
    assert_eq!(
        ids(&records(&folder.path().join("out"), &["row"])),
        ["1", "3"]
    );
    let rejects = records(
        &folder.path().join("out/_latentflow/rejects"),
        &["row", "stage", "code"],
    );
    assert_eq!(ids(&rejects), ["0 clean model", "2 clean model"]);
}
