//! Tests of outputs whose pipeline has changed: refusal, `--allow-change`, `reset`, and equivalent
//! pipelines.

use std::path::Path;

use latentflow::sink::ownership::writer_lease::WriterLease;
use serde_json::Value;

use crate::common::runs::{errors, latentflow, run};

/// A pipeline of synthetic records into `out`, filtered by their first value.
fn pipeline(above: &str) -> String {
    format!(
        "[stages.in]\nkind = \"synthetic\"\ncontent = \"features\"\nlayout = \"columns\"\n\
         records = 200\nwidth = 2\n\
         [stages.some]\nkind = \"filter\"\ninputs = [\"in\"]\ncolumn = \"f0\"\nabove = {above}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"some\"]\npath = \"out\"\n"
    )
}

fn run_pipeline(folder: &Path, pipeline: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let (output, summary) = run(folder, pipeline, arguments);
    (output.status.code(), summary, errors(&output))
}

fn rows(summary: &Value, sink: &str) -> u64 {
    let stages = summary["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["name"] == sink).unwrap()["written"]["records"]
        .as_u64()
        .unwrap()
}

#[test]
fn change_is_refused_with_the_option_and_mixed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        run_pipeline(folder.path(), &pipeline("0.0"), &["--limit", "100"]).0,
        Some(0)
    );
    let (refused_exit, _, refusal) = run_pipeline(folder.path(), &pipeline("1.0"), &[]);
    assert_eq!(refused_exit, Some(2));
    assert!(
        refusal.contains("`above` of the stage `some` was 0.0 and is 1.0 now"),
        "{refusal}"
    );
    assert!(
        refusal.contains("`latentflow reset`") && refusal.contains("`--allow-change`"),
        "{refusal}"
    );
    let (exit, summary, text) = run_pipeline(folder.path(), &pipeline("1.0"), &["--allow-change"]);
    assert_eq!(
        (exit, &summary["records"]),
        (Some(0), &100.into()),
        "{text}"
    );
    // An allowed change stays allowed.
    assert_eq!(
        run_pipeline(folder.path(), &pipeline("1.0"), &[]).0,
        Some(0)
    );
    assert_eq!(
        run_pipeline(folder.path(), &pipeline("0.0"), &[]).0,
        Some(0)
    );
    assert_eq!(
        run_pipeline(folder.path(), &pipeline("2.0"), &[]).0,
        Some(2),
        "a third pipeline is not allowed"
    );
    let inspect = latentflow(folder.path(), &["inspect", "out"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&inspect.stdout).into_owned();
    assert_eq!(
        shown.matches("digest ").count(),
        2,
        "expected the digests of both pipelines:\n{shown}"
    );
}

#[test]
fn renamed_source_is_refused_but_renamed_transform_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (_, first, _) = run_pipeline(folder.path(), &pipeline("0.0"), &[]);
    assert!(rows(&first, "out") > 0);
    let renamed = pipeline("0.0")
        .replace("stages.some", "stages.few")
        .replace("[\"some\"]", "[\"few\"]");
    let renamed = renamed.replace("stages.out", "stages.written");
    let (exit, summary, text) = run_pipeline(folder.path(), &renamed, &[]);
    assert_eq!((exit, &summary["records"]), (Some(0), &0.into()), "{text}");
    let other = pipeline("0.0")
        .replace("stages.in", "stages.made")
        .replace("[\"in\"]", "[\"made\"]");
    let (refused_exit, _, refusal) = run_pipeline(folder.path(), &other, &[]);
    assert_eq!(
        refused_exit,
        Some(2),
        "the splits contain the name of the source, so every row would be duplicated"
    );
    assert!(refusal.contains("the stage `in` was removed"), "{refusal}");
}

#[test]
fn check_refuses_a_change_without_locking_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let check = |pipeline: &str, arguments: &[&str]| {
        std::fs::write(folder.path().join("checked.toml"), pipeline).unwrap();
        let output = latentflow(
            folder.path(),
            &[&["check", "checked.toml"], arguments].concat(),
        )
        .output()
        .unwrap();
        (output.status.code(), errors(&output))
    };
    assert_eq!(check(&pipeline("0.0"), &[]).0, Some(0));
    assert!(
        !folder.path().join("out").exists(),
        "a check writes nothing"
    );
    assert_eq!(
        run_pipeline(folder.path(), &pipeline("0.0"), &[]).0,
        Some(0)
    );
    // Another process holds the lease of the output.
    let _lease = WriterLease::acquire(&folder.path().join("out").as_path().into()).unwrap();
    assert_eq!(check(&pipeline("0.0"), &[]), (Some(0), String::new()));
    let (refused_exit, refusal) = check(&pipeline("1.0"), &[]);
    assert_eq!(refused_exit, Some(2));
    assert!(
        refusal.contains("`above` of the stage `some` was 0.0 and is 1.0 now"),
        "{refusal}"
    );
    assert_eq!(
        check(&pipeline("1.0"), &["--allow-change"]),
        (Some(0), String::new())
    );
    // An unreadable output file is not an error of the pipeline.
    std::fs::write(folder.path().join("out/part-00009.parquet"), "cut").unwrap();
    let (exit, text) = check(&pipeline("0.0"), &[]);
    assert!(
        exit == Some(0) && text.contains("part-00009.parquet"),
        "{text}"
    );
}

#[test]
fn options_out_of_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let deep = format!("--set={}=1", vec!["a"; 10_000].join("."));
    for (options, arguments, reason) in [
        (
            "rejects.max_share = nan\n",
            &[][..],
            "rejects.max_share: is not a finite number",
        ),
        (
            "rejects.max_share = inf\n",
            &[],
            "rejects.max_share: is not a finite number",
        ),
        ("workers = 65535\n", &[], "at most 1024 workers"),
        ("", &[deep.as_str()], "more than 32 parts"),
    ] {
        let (exit, _, text) = run_pipeline(
            folder.path(),
            &format!("{options}{}", pipeline("0.0")),
            arguments,
        );
        assert!(
            exit == Some(2) && text.contains(reason),
            "{options}: {text}"
        );
    }
}

#[test]
fn new_column_of_the_data_is_accepted_if_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let data = |text: &str| std::fs::write(folder.path().join("in.csv"), text).unwrap();
    let pipeline = |select: &str| {
        format!(
            "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\n\
             [stages.some]\nkind = \"select\"\ninputs = [\"in\"]\n{select}\n\
             [stages.out]\nkind = \"parquet\"\ninputs = [\"some\"]\npath = \"out\"\n"
        )
    };
    data("x,y\n1,2\n");
    assert_eq!(
        run_pipeline(folder.path(), &pipeline("drop = [\"y\"]"), &[]).0,
        Some(0)
    );
    let (refused_exit, _, refusal) = run_pipeline(folder.path(), &pipeline("drop = [\"x\"]"), &[]);
    assert_eq!(refused_exit, Some(2));
    assert!(
        refusal.contains("`drop` of the stage `some` was [\"y\"] and is [\"x\"] now"),
        "{refusal}"
    );
    let listed = pipeline("columns = [\"source\", \"row\", \"x\"]");
    assert_eq!(
        run_pipeline(folder.path(), &listed, &[]).0,
        Some(0),
        "an equivalent selection"
    );
    data("x,y,z\n1,2,3\n4,5,6\n");
    let (exit, summary, text) = run_pipeline(folder.path(), &pipeline("drop = [\"y\"]"), &[]);
    assert_eq!((exit, rows(&summary, "out")), (Some(0), 2), "{text}");
}

#[test]
fn reset_output_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_, first, _) = run_pipeline(folder.path(), &pipeline("0.0"), &[]);
    let reset = |arguments: &[&str]| {
        let output = latentflow(folder.path(), &[&["reset", "p.toml"], arguments].concat())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            errors(&output),
        )
    };
    let (refused_exit, listed, refusal) = reset(&[]);
    assert_eq!(refused_exit, Some(1));
    assert!(
        listed.contains(&format!("out: {} records in 1 file (", rows(&first, "out"))),
        "{listed}"
    );
    assert!(
        refusal.contains("standard input is not a terminal; pass --yes to confirm"),
        "{refusal}"
    );
    assert_eq!(
        run_pipeline(folder.path(), &pipeline("0.0"), &[]).1["records"],
        0,
        "a reset without confirmation deletes nothing"
    );
    let (exit, shown, text) = reset(&["--yes"]);
    assert_eq!(exit, Some(0), "{text}");
    assert!(
        shown.contains("deleted: the next run starts from the beginning"),
        "{shown}"
    );
    let (_, again, _) = run_pipeline(folder.path(), &pipeline("0.0"), &[]);
    assert_eq!(
        (&again["records"], rows(&again, "out")),
        (&200.into(), rows(&first, "out"))
    );
    let (missing_exit, _, message) = reset(&["--sink", "missing", "--yes"]);
    assert_eq!(missing_exit, Some(1));
    assert!(
        message.contains("no sink `missing` with output; sinks with output: out"),
        "{message}"
    );
}

#[test]
fn too_many_rejects_end_a_run_early() {
    let folder = tempfile::tempdir().unwrap();
    // Every third line is not a number.
    let lines: String = (0..30_000)
        .map(|n| {
            if n % 3 == 0 {
                "oops\n".to_owned()
            } else {
                format!("{n}\n")
            }
        })
        .collect();
    std::fs::write(folder.path().join("in.csv"), format!("x\n{lines}")).unwrap();
    let pipeline = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\ntypes = { x = \"float\" }\n\
                    batch.records = 100\n[stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\n\
                    path = \"out\"\n";
    let (exit, summary, text) = run_pipeline(
        folder.path(),
        &format!("rejects.max = 500\n{pipeline}"),
        &[],
    );
    assert_eq!(exit, Some(3), "{text}");
    let rejects = summary["rejects"].as_u64().unwrap();
    assert!(
        rejects > 500 && summary["records"].as_u64().unwrap() < 30_000,
        "{summary}"
    );
    let (share_exit, share_summary, _) = run_pipeline(
        folder.path(),
        &format!("rejects.max_share = 0.2\n{pipeline}"),
        &[],
    );
    assert_eq!(share_exit, Some(3));
    assert!(
        share_summary["records"].as_u64().unwrap() < 28_000,
        "{share_summary}"
    );
    let (completed_exit, completed, _) = run_pipeline(
        folder.path(),
        &format!("rejects.max_share = 0.5\n{pipeline}"),
        &[],
    );
    assert_eq!(completed_exit, Some(0));
    assert!(
        completed["done_before"].as_u64().unwrap() > 1000,
        "the records of the earlier runs stay committed: {completed}"
    );
}

#[test]
fn equivalent_spelling_continues_the_output() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.csv"), "x,y\n1,2\n3,4\n,5\n").unwrap();
    let source = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\n";
    let sink = |more: &str| {
        format!("[stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n{more}")
    };
    let (_, first, log) = run_pipeline(folder.path(), &format!("{source}{}", sink("")), &[]);
    assert_eq!(rows(&first, "out"), 3, "{log}");
    let absolute = format!("path = \"{}\"", folder.path().join("in.csv").display());
    let spelled = [
        source.replace("in.csv", "./in.csv"),
        source.replace("in.csv", ".//in.csv") + "header = true\nquote = '\"'\naligned = false\n",
        source.to_owned() + "types = { x = \"int\", y = \"int\" }\n",
        source.replace("path = \"in.csv\"", &absolute),
    ];
    let listed =
        sink("columns = [\"source\", \"row\", \"x\", \"y\"]\nfile = { bytes = \"1MiB\" }\n");
    for spelling in spelled {
        let (exit, summary, text) =
            run_pipeline(folder.path(), &format!("{spelling}{listed}"), &[]);
        assert_eq!(
            (exit, &summary["records"]),
            (Some(0), &0.into()),
            "{spelling}: {text}"
        );
    }
    std::fs::write(folder.path().join("other.csv"), "x,y\n1,2\n").unwrap();
    let other = source.replace("in.csv", "other.csv");
    let (exit, _, refusal) = run_pipeline(folder.path(), &format!("{other}{}", sink("")), &[]);
    assert_eq!(exit, Some(2));
    assert!(
        refusal.contains("`path` of the stage `in` was \"in.csv\" and is \"other.csv\" now"),
        "{refusal}"
    );
}
