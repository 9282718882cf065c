//! Tests of input files that are removed or changed after they were listed.

use std::fs;

use expect_test::expect;

use super::blocked_sink::BlockedRun;
use super::rejects;
use crate::common::inputs;
use crate::common::outputs::{ids, records};
use crate::common::runs::{errors, run};

#[test]
fn removed_or_changed_image_is_reject_until_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    inputs::images(&folder.path().join("in"), 400);
    let blocked = BlockedRun::start(folder.path(), BlockedRun::PIPELINE);
    // The blocked run cannot have read these images yet.
    let (gone, changed) = (inputs::image_name(397), inputs::image_name(398));
    fs::remove_file(folder.path().join("in").join(&gone)).unwrap();
    fs::write(folder.path().join("in").join(&changed), b"P5 1 1 255\n\x07").unwrap();
    let output = blocked.release();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let found = rejects(folder.path());
    let unreadable: Vec<&str> = found
        .lines()
        .filter(|line| line.contains(" unreadable "))
        .collect();
    expect![[r#"
        files unreadable 00397.pgm: No such file or directory (os error 2)
        files unreadable 00398.pgm: was changed since it was listed; the next run reads it again"#]]
    .assert_eq(&unreadable.join("\n"));
    let written = || records(&folder.path().join("out"), &["source"]);
    assert!(!ids(&written()).contains(&changed.as_str()) && ids(&written()).contains(&"00399.png"));
    run(folder.path(), BlockedRun::PIPELINE, &[]);
    assert_eq!(
        ids(&written())
            .into_iter()
            .filter(|id| *id == changed)
            .count(),
        1
    );
}

#[test]
fn removed_or_changed_table_is_reject_until_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let input = |name: &str| folder.path().join("in").join(name);
    let text = "x".repeat(2000);
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(
        input("a.csv"),
        format!("id,text\n{}", format!("1,{text}\n").repeat(400)),
    )
    .unwrap();
    for name in ["b.csv", "c.csv", "d.csv"] {
        fs::write(input(name), "id,text\n1,first\n2,second\n").unwrap();
    }
    let pipeline = r#"
workers = 1

[stages.in]
kind = "csv"
path = "in"
batch = { records = 4 }

[stages.out]
kind = "parquet"
inputs = ["in"]
path = "out"
columns = ["source", "row", "text"]

[stages.shown]
kind = "stdout"
inputs = ["in"]
"#;
    let blocked = BlockedRun::start(folder.path(), pipeline);
    fs::remove_file(input("b.csv")).unwrap();
    fs::write(input("c.csv"), "id,text\n1,changed\n2,second\n3,third\n").unwrap();
    let output = blocked.release();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    expect![[r#"
        in unreadable b.csv: No such file or directory (os error 2)
        in unreadable c.csv: was changed since it was listed; the next run reads it again"#]]
    .assert_eq(&rejects(folder.path()));
    let short = || {
        let found = records(&folder.path().join("out"), &["source", "row", "text"]);
        ids(&found)
            .into_iter()
            .filter(|id| !id.starts_with('a'))
            .collect::<Vec<_>>()
            .join("\n")
    };
    expect![[r#"
        d.csv 0 first
        d.csv 1 second"#]]
    .assert_eq(&short());
    run(folder.path(), pipeline, &[]);
    expect![[r#"
        c.csv 0 changed
        c.csv 1 second
        c.csv 2 third
        d.csv 0 first
        d.csv 1 second"#]]
    .assert_eq(&short());
}
