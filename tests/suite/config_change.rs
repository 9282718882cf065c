//! What happens to outputs when the pipeline changes: refused, mixed on request, forgotten on
//! request, caught up with.

use std::path::Path;

use latentflow::sink::writer_lease::WriterLease;
use serde_json::Value;

use crate::common::runs::{errors, latentflow, run};

/// Made-up records, those with a small first value kept, into `out`.
fn pipeline(above: &str) -> String {
    format!(
        "[stages.in]\nkind = \"synthetic\"\ncontent = \"features\"\nlayout = \"columns\"\nrecords = 200\nwidth = 2\n\
         [stages.some]\nkind = \"filter\"\ninputs = [\"in\"]\ncolumn = \"f0\"\nabove = {above}\n\
         [stages.out]\nkind = \"parquet\"\ninputs = [\"some\"]\npath = \"out\"\n"
    )
}

fn code(folder: &Path, pipeline: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
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
fn a_change_is_refused_with_what_changed_and_mixed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        code(folder.path(), &pipeline("0.0"), &["--limit", "100"]).0,
        Some(0)
    );
    let (exit, _, text) = code(folder.path(), &pipeline("1.0"), &[]);
    assert_eq!(exit, Some(2));
    assert!(
        text.contains("`above` of the stage `some` was 0.0 and is 1.0 now"),
        "{text}"
    );
    assert!(
        text.contains("`latentflow reset`") && text.contains("`--allow-change`"),
        "{text}"
    );
    let (exit, summary, text) = code(folder.path(), &pipeline("1.0"), &["--allow-change"]);
    assert_eq!(
        (exit, &summary["records"]),
        (Some(0), &100.into()),
        "{text}"
    );
    // Once it is allowed, it stays so.
    assert_eq!(code(folder.path(), &pipeline("1.0"), &[]).0, Some(0));
    assert_eq!(code(folder.path(), &pipeline("0.0"), &[]).0, Some(0));
    assert_eq!(
        code(folder.path(), &pipeline("2.0"), &[]).0,
        Some(2),
        "a third was not asked for"
    );
    let inspect = latentflow(folder.path(), &["inspect", "out"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&inspect.stdout).into_owned();
    assert_eq!(
        text.matches("digest ").count(),
        2,
        "the footers tell which rows came from which:\n{text}"
    );
}

#[test]
fn names_of_transforms_and_sinks_may_change_and_that_of_a_source_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let (_, first, _) = code(folder.path(), &pipeline("0.0"), &[]);
    assert!(rows(&first, "out") > 0);
    let renamed = pipeline("0.0")
        .replace("stages.some", "stages.few")
        .replace("[\"some\"]", "[\"few\"]");
    let renamed = renamed.replace("stages.out", "stages.kept");
    let (exit, summary, text) = code(folder.path(), &renamed, &[]);
    assert_eq!((exit, &summary["records"]), (Some(0), &0.into()), "{text}");
    let other = pipeline("0.0")
        .replace("stages.in", "stages.made")
        .replace("[\"in\"]", "[\"made\"]");
    let (exit, _, text) = code(folder.path(), &other, &[]);
    assert_eq!(
        exit,
        Some(2),
        "its splits would be known by other names: every row would be there twice"
    );
    assert!(text.contains("the stage `in` is gone"), "{text}");
}

#[test]
fn check_refuses_what_a_run_refuses_without_claiming_the_output() {
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
    assert_eq!(code(folder.path(), &pipeline("0.0"), &[]).0, Some(0));
    // Another process writes there meanwhile.
    let _claim = WriterLease::take(&folder.path().join("out").as_path().into()).unwrap();
    assert_eq!(check(&pipeline("0.0"), &[]), (Some(0), String::new()));
    let (exit, text) = check(&pipeline("1.0"), &[]);
    assert_eq!(exit, Some(2));
    assert!(
        text.contains("`above` of the stage `some` was 0.0 and is 1.0 now"),
        "{text}"
    );
    assert_eq!(
        check(&pipeline("1.0"), &["--allow-change"]),
        (Some(0), String::new())
    );
    // A file that cannot be understood is no verdict on the pipeline.
    std::fs::write(folder.path().join("out/part-00009.parquet"), "cut").unwrap();
    let (exit, text) = check(&pipeline("0.0"), &[]);
    assert!(
        exit == Some(0) && text.contains("part-00009.parquet"),
        "{text}"
    );
}

#[test]
fn numbers_beyond_any_bound_are_refused() {
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
        let (exit, _, text) = code(
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
fn data_that_gains_a_column_goes_on_where_a_stage_drops_others() {
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
        code(folder.path(), &pipeline("drop = [\"y\"]"), &[]).0,
        Some(0)
    );
    let (exit, _, text) = code(folder.path(), &pipeline("drop = [\"x\"]"), &[]);
    assert_eq!(exit, Some(2));
    assert!(
        text.contains("`drop` of the stage `some` was [\"y\"] and is [\"x\"] now"),
        "{text}"
    );
    let listed = pipeline("columns = [\"source\", \"row\", \"x\"]");
    assert_eq!(
        code(folder.path(), &listed, &[]).0,
        Some(0),
        "the same in other words"
    );
    data("x,y,z\n1,2,3\n4,5,6\n");
    let (exit, summary, text) = code(folder.path(), &pipeline("drop = [\"y\"]"), &[]);
    assert_eq!((exit, rows(&summary, "out")), (Some(0), 2), "{text}");
}

#[test]
fn what_is_forgotten_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (_, first, _) = code(folder.path(), &pipeline("0.0"), &[]);
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
    let (exit, shown, text) = reset(&[]);
    assert_eq!(exit, Some(1));
    assert!(
        shown.contains(&format!("out: {} records in 1 files", rows(&first, "out"))),
        "{shown}"
    );
    assert!(
        text.contains("add --yes"),
        "nobody is there to be asked: {text}"
    );
    assert_eq!(
        code(folder.path(), &pipeline("0.0"), &[]).1["records"],
        0,
        "nothing was forgotten"
    );
    let (exit, shown, text) = reset(&["--yes"]);
    assert_eq!(exit, Some(0), "{text}");
    assert!(shown.contains("forgotten"), "{shown}");
    let (_, again, _) = code(folder.path(), &pipeline("0.0"), &[]);
    assert_eq!(
        (&again["records"], rows(&again, "out")),
        (&200.into(), rows(&first, "out"))
    );
    let (exit, _, text) = reset(&["--sink", "nobody", "--yes"]);
    assert_eq!(exit, Some(1));
    assert!(
        text.contains("no sink `nobody`") && text.contains("out"),
        "{text}"
    );
}

#[test]
fn too_many_rejects_end_a_run_early() {
    let folder = tempfile::tempdir().unwrap();
    // Every third line is no number.
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
    let pipeline = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\ntypes = { x = \"float\" }\nbatch.records = 100\n\
                    [stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n";
    let (exit, summary, text) = code(
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
    let (exit, summary, _) = code(
        folder.path(),
        &format!("rejects.max_share = 0.2\n{pipeline}"),
        &[],
    );
    assert_eq!(exit, Some(3));
    assert!(summary["records"].as_u64().unwrap() < 28_000, "{summary}");
    let (exit, summary, _) = code(
        folder.path(),
        &format!("rejects.max_share = 0.5\n{pipeline}"),
        &[],
    );
    assert_eq!(exit, Some(0));
    assert!(
        summary["done_before"].as_u64().unwrap() > 1000,
        "what was read before is kept: {summary}"
    );
}

#[test]
fn a_pipeline_that_is_spelled_otherwise_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.csv"), "x,y\n1,2\n3,4\n,5\n").unwrap();
    let source = "[stages.in]\nkind = \"csv\"\npath = \"in.csv\"\n";
    let sink = |more: &str| {
        format!("[stages.out]\nkind = \"parquet\"\ninputs = [\"in\"]\npath = \"out\"\n{more}")
    };
    let (_, first, text) = code(folder.path(), &format!("{source}{}", sink("")), &[]);
    assert_eq!(rows(&first, "out"), 3, "{text}");
    let absolute = format!("path = \"{}\"", folder.path().join("in.csv").display());
    let spelled = [
        source.replace("in.csv", "./in.csv"),
        source.replace("in.csv", ".//in.csv") + "header = true\nquote = '\"'\naligned = false\n",
        source.to_owned() + "types = { x = \"int\", y = \"int\" }\n",
        source.replace("path = \"in.csv\"", &absolute),
    ];
    let listed =
        sink("columns = [\"source\", \"row\", \"x\", \"y\"]\nfile = { bytes = \"1MiB\" }\n");
    for source in spelled {
        let (exit, summary, text) = code(folder.path(), &format!("{source}{listed}"), &[]);
        assert_eq!(
            (exit, &summary["records"]),
            (Some(0), &0.into()),
            "{source}: {text}"
        );
    }
    std::fs::write(folder.path().join("other.csv"), "x,y\n1,2\n").unwrap();
    let other = source.replace("in.csv", "other.csv");
    let (exit, _, text) = code(folder.path(), &format!("{other}{}", sink("")), &[]);
    assert_eq!(exit, Some(2));
    assert!(
        text.contains("`path` of the stage `in` was \"in.csv\" and is \"other.csv\" now"),
        "{text}"
    );
}
