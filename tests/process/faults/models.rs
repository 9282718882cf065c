//! Tests of models that fail or return NaN or infinity for some records, which become rejects.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};

use super::rejects;
use crate::common::outputs::{ids, records};
use crate::common::runs::{errors, run};

/// Runs `values` through `model`, and compares the rows written and the rejects.
fn check(model: &str, values: &str, expected_rows: &str, expected_rejects: &Expect) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(folder.path().join("in/a.csv"), format!("x,y\n{values}")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(model);
    let pipeline = format!(
        r#"
[models.m]
model = {file:?}

[stages.in]
kind = "csv"
path = "in"
types = {{ x = "float", y = "float" }}

[stages.vectors]
kind = "features"
inputs = ["in"]
columns = ["x", "y"]

[stages.through]
kind = "denoise"
inputs = ["vectors"]
model = "m"

[stages.out]
kind = "parquet"
inputs = ["through"]
path = "out"
"#
    );
    let (output, summary) = run(folder.path(), &pipeline, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(summary["outcome"], "finished");
    let found = records(&folder.path().join("out"), &["row"]);
    assert_eq!(ids(&found).join(" "), expected_rows);
    expected_rejects.assert_eq(&rejects(folder.path()));
}

#[test]
fn records_on_which_a_model_fails_are_rejects() {
    check(
        "picky.onnx",
        "1,2\n3,9\n4,5\n7,0\n0,0\n",
        "0 2 4",
        &expect![[r#"
        through model Non-zero status code returned while running Gather node. Name:'' Status Message: indices element out of data bounds, idx=7 must be within the inclusive range [-6,5]
        through model Non-zero status code returned while running Gather node. Name:'' Status Message: indices element out of data bounds, idx=9 must be within the inclusive range [-6,5]"#]],
    );
}

#[test]
fn records_with_results_that_are_not_finite_are_rejects() {
    check(
        "log.onnx",
        "1,2\n0,3\n4,5\n7,-1\n1,1\n",
        "0 2 4",
        &expect![[r#"
        through not_finite the model returned a result that is not finite
        through not_finite the model returned a result that is not finite"#]],
    );
}
