//! One record that a stage fails on costs that record: the run goes on, and the reject is kept.

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

/// A gray PNG with a chunk behind its image data that only counts before it.
fn late_transparency(folder: &Path, name: &str) {
    image(folder, name, 4, 4);
    let sound = fs::read(folder.join(name)).unwrap();
    let named = b"tRNS\0\x64";
    let chunk = [
        &2_u32.to_be_bytes(),
        named.as_slice(),
        &crc32fast::hash(named).to_be_bytes(),
    ]
    .concat();
    let end = sound.len() - 12;
    fs::write(
        folder.join(name),
        [&sound[..end], &chunk, &sound[end..]].concat(),
    )
    .unwrap();
}

/// Images of their own size into JPEGs, which have at most 65,535 pixels a side.
const JPEGS: &str = "[stages.photos]\nkind = 'images'\npath = 'in'\nbatch = { records = 2 }\n\
                     [stages.pixels]\nkind = 'pixels'\ninputs = ['photos']\nsize = 'original'\nchannels = 'gray'\n\
                     [stages.out]\nkind = 'images'\ninputs = ['pixels']\npath = 'out'\nformat = 'jpeg'\n";

fn rejects(folder: &Path) -> Vec<String> {
    let records = records(folder, &["stage", "code", "source"]);
    ids(&records).into_iter().map(str::to_owned).collect()
}

fn finished(folder: &Path, pipeline: &str) -> Value {
    let (output, summary) = run(folder, pipeline, &[]);
    assert!(output.status.success(), "{}", errors(&output));
    summary
}

#[test]
fn images_that_a_format_cannot_hold_are_rejects_of_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    image(&input, "a.png", 8, 8);
    late_transparency(&input, "b.png");
    image(&input, "c.png", 70_000, 1);
    image(&input, "d.png", 8, 8);
    finished(folder.path(), JPEGS);
    let (out, kept) = (
        folder.path().join("out"),
        folder.path().join("out/_latentflow/rejects"),
    );
    let written = files(&out);
    assert_eq!(written.len(), 3, "{:?}", ids(&written));
    let refused = ["out unsupported c.png"];
    assert_eq!(rejects(&kept), refused);
    // A later run has nothing to do, neither for the images nor for the rejects.
    finished(folder.path(), JPEGS);
    assert_eq!(
        (files(&out), rejects(&kept)),
        (written.clone(), refused.map(str::to_owned).to_vec())
    );
    // The rejects of a run that ended between both commits are made up for, and the images stay.
    fs::remove_dir_all(&kept).unwrap();
    finished(folder.path(), JPEGS);
    assert_eq!(
        (files(&out), rejects(&kept)),
        (written, refused.map(str::to_owned).to_vec())
    );
}

#[test]
fn images_of_one_size_that_a_format_cannot_hold_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("in"), "a.png", 8, 8);
    let pipeline = JPEGS.replace("size = 'original'", "size = [1, 70000]");
    let (output, _) = run(folder.path(), &pipeline, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(
        errors(&output).contains("70000 x 1 pixels cannot be written as Jpeg"),
        "{}",
        errors(&output)
    );
}

/// A model that fails on values above 5, in batches of one record, so that a bad one is alone.
fn picky() -> String {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/picky.onnx");
    format!(
        "[models.m]\nmodel = '{}'\n[stages.rows]\nkind = 'csv'\npath = 'in.csv'\nbatch = {{ records = 1 }}\n\
         [stages.features]\nkind = 'features'\ninputs = ['rows']\ncolumns = ['x', 'y']\n\
         [stages.clean]\nkind = 'denoise'\ninputs = ['features']\nmodel = 'm'\n\
         [stages.out]\nkind = 'parquet'\ninputs = ['clean']\npath = 'out'\n",
        model.display()
    )
}

#[test]
fn records_that_a_model_fails_on_are_rejected_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in.csv"), "x,y\n70,1\n1,2\n3,70\n4,5\n").unwrap();
    finished(folder.path(), &picky());
    assert_eq!(
        ids(&records(&folder.path().join("out"), &["row"])),
        ["1", "3"]
    );
    let refused = records(
        &folder.path().join("out/_latentflow/rejects"),
        &["row", "stage", "code"],
    );
    assert_eq!(ids(&refused), ["0 clean model", "2 clean model"]);
}
