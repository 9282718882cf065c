//! Rejects go through a mended pipeline as their source gave them, once.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::runs::{self, errors, latentflow};
use serde_json::Value;

fn run(folder: &Path, pipeline: &str) -> (Option<i32>, Value, String) {
    let (output, summary) = runs::run(folder, pipeline, &[]);
    (output.status.code(), summary, errors(&output))
}

fn sink(input: &str, path: &str) -> String {
    format!(
        "[stages.out]\nkind = \"parquet\"\ninputs = [\"{input}\"]\npath = \"{path}\"\n[rejects]\npath = \"{path}-rejects\"\n"
    )
}

fn written(summary: &Value) -> &Value {
    let stages = summary["stages"].as_array().unwrap();
    &stages.iter().find(|stage| stage["name"] == "out").unwrap()["written"]["records"]
}

#[test]
fn images_that_were_too_large_pass_once_the_limit_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = |size| format!("[stages.pixels]\nkind = \"pixels\"\ninputs = [\"in\"]\nsize = [{size}, {size}]\n");
    let made = "[stages.in]\nkind = \"synthetic\"\nof = \"images\"\nrecords = 70\nsize = [16, 16]\n";
    let photos = "[stages.out]\nkind = \"images\"\ninputs = [\"pixels\"]\npath = \"photos\"\n";
    assert_eq!(run(folder.path(), &format!("{made}{}{photos}", pixels(16))).0, Some(0));
    let source = "[stages.in]\nkind = \"images\"\npath = \"photos\"\n";
    let strict = format!("limits.pixels = 100\n{source}{}{}", pixels(8), sink("pixels", "first"));
    let (code, summary, text) = run(folder.path(), &strict);
    assert_eq!((code, &summary["rejects"]), (Some(0), &70.into()), "{text}");
    let pixels = pixels(8);
    let mended = |path: &str| {
        format!("[stages.in]\nkind = \"rejects\"\npath = \"first-rejects\"\n{pixels}{}", sink("pixels", path))
    };
    let (code, summary, text) = run(folder.path(), &mended("mended"));
    assert_eq!((code, &summary["rejects"], written(&summary)), (Some(0), &0.into(), &70.into()), "{text}");
    let (_, again, _) = run(folder.path(), &mended("mended"));
    assert_eq!(again["records"], 0, "once");
}

#[test]
fn records_come_back_with_all_their_columns_those_that_json_does_not_know_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.csv"), "a,b,name\n1.5,2,x\nNaN,3,y\n2.5,oops,z\n,4,w\ninf,5,v\n").unwrap();
    let source =
        "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\ntypes = { a = \"float\", b = \"int\", name = \"string\" }\n";
    let features = "[stages.features]\nkind = \"features\"\ninputs = [\"in\"]\ncolumns = [\"a\", \"b\"]\n";
    let (code, summary, text) = run(folder.path(), &format!("{source}{features}{}", sink("features", "first")));
    assert_eq!((code, &summary["rejects"], written(&summary)), (Some(0), &4.into(), &1.into()), "{text}");
    let replay = "[stages.again]\nkind = \"rejects\"\npath = \"first-rejects\"\n";
    let print = "[stages.out]\nkind = \"stdout\"\ninputs = [\"again\"]\n";
    std::fs::write(folder.path().join("q.toml"), format!("{replay}{print}")).unwrap();
    let output = latentflow(folder.path(), &["run", "q.toml", "--summary", "none"]).output().unwrap();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "{\"source\":\"in.csv\",\"row\":1,\"a\":null,\"b\":3,\"name\":\"y\"}\n\
                    {\"source\":\"in.csv\",\"row\":3,\"a\":null,\"b\":4,\"name\":\"w\"}\n\
                    {\"source\":\"in.csv\",\"row\":4,\"a\":null,\"b\":5,\"name\":\"v\"}\n";
    assert_eq!(lines, expected, "{}", errors(&output));
    // The line that the source could not read stays a reject, with its bytes, and still bears its own name.
    let (_, summary, text) = run(folder.path(), &format!("{replay}{}", sink("again", "second")));
    assert_eq!((&summary["rejects"], written(&summary)), (&1.into(), &3.into()), "{text}");
}

#[test]
fn rejects_of_several_sources_need_a_choice() {
    let folder = tempfile::tempdir().unwrap();
    for (name, row) in [("a", "NaN"), ("b", "inf")] {
        std::fs::write(folder.path().join(format!("{name}.csv")), format!("x\n1\n{row}\n")).unwrap();
    }
    let source =
        |name: &str| format!("[stages.{name}]\nkind = \"csv\"\npath = \"{name}.csv\"\ntypes = {{ x = \"float\" }}\n");
    let features = "[stages.features]\nkind = \"features\"\ninputs = [\"a\", \"b\"]\ncolumns = [\"x\"]\n";
    let pipeline = format!("{}{}{features}{}", source("a"), source("b"), sink("features", "first"));
    assert_eq!(run(folder.path(), &pipeline).1["rejects"], 2);
    let replay = |more: &str| {
        format!("[stages.again]\nkind = \"rejects\"\npath = \"first-rejects\"\n{more}{}", sink("again", "second"))
    };
    let (code, _, text) = run(folder.path(), &replay(""));
    assert_eq!(code, Some(2));
    assert!(text.contains("stages.again.from: is missing: rejects of several sources lie here: a, b"), "{text}");
    let (code, summary, text) = run(folder.path(), &replay("from = \"b\"\n"));
    assert_eq!((code, written(&summary)), (Some(0), &1.into()), "{text}");
}
