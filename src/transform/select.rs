//! The transform `select`: selects, renames and drops columns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rows::find;
use super::{Transform, TransformConfig, TransformPlan};
use crate::batch::Batch;
use crate::batch::reject::RejectCollector;
use crate::error::StageError;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::plan_context::PlanContext;

/// Options of `select`. All of them refer to columns by their names in the input.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct SelectConfig {
    /// The columns to keep, in this order. Default: all.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub columns: Option<Vec<String>>,
    /// The columns to drop.
    #[schemars(extend("x-changes-rows" = true, "x-inferred" = true))]
    pub drop: Vec<String>,
    /// New names of columns, such as `rename = { old = "new" }`.
    #[schemars(extend("x-changes-rows" = true))]
    pub rename: BTreeMap<String, String>,
}

impl TransformConfig for SelectConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        _context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let mut faults = self.contradictions();
        let kept = self.kept(input, &mut faults);
        for old in self.rename.keys() {
            let key = format!("rename.{old}");
            match find(input, &key, old) {
                Err(fault) => faults.push(fault),
                Ok((index, _)) if !kept.contains(&index) => {
                    faults.push(ConfigError::new(
                        key,
                        format!("column `{old}` is not kept, so it cannot be renamed"),
                    ));
                }
                Ok(_) => {}
            }
        }
        let fields: Vec<Field> = kept
            .iter()
            .map(|&index| self.renamed(input.field(index)))
            .collect();
        faults.extend(
            duplicates(fields.iter().map(|field| field.name().as_str()))
                .into_iter()
                .map(|name| {
                    let key = if self.rename.is_empty() {
                        "columns"
                    } else {
                        "rename"
                    };
                    ConfigError::new(key, format!("two columns have the name `{name}`"))
                }),
        );
        if kept.is_empty() && faults.is_empty() {
            faults.push(ConfigError::new("", "no column is left; keep at least one"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let names = kept.iter().map(|&index| input.field(index).name().clone());
        (self.columns, self.drop) = (Some(names.collect()), Vec::new());
        self.rename.retain(|old, new| old != new);
        Ok(Box::new(SelectTransform {
            kept,
            schema: Arc::new(Schema::new(fields)),
        }))
    }
}

impl SelectConfig {
    fn contradictions(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if self.columns.is_none() && self.drop.is_empty() && self.rename.is_empty() {
            faults.push(ConfigError::new(
                "",
                "nothing is selected; set `columns`, `drop` or `rename`",
            ));
        }
        if self.columns.is_some() && !self.drop.is_empty() {
            faults.push(ConfigError::new(
                "drop",
                "cannot be combined with `columns`; remove one of the two",
            ));
        }
        faults
    }

    /// The indices of the kept columns, in the order of the output.
    fn kept(&self, input: &Schema, faults: &mut Vec<ConfigError>) -> Vec<usize> {
        let mut indices = |key: &str, names: &[String]| -> Vec<usize> {
            let found = names
                .iter()
                .filter_map(|name| faults.record(find(input, key, name)));
            found.map(|(index, _)| index).collect()
        };
        let dropped = indices("drop", &self.drop);
        match &self.columns {
            Some(names) => indices("columns", names),
            None => (0..input.fields().len())
                .filter(|index| !dropped.contains(index))
                .collect(),
        }
    }

    fn renamed(&self, field: &Field) -> Field {
        match self.rename.get(field.name()) {
            Some(name) => field.clone().with_name(name),
            None => field.clone(),
        }
    }
}

/// The names that occur more than once.
fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

#[derive(Clone)]
struct SelectTransform {
    kept: Vec<usize>,
    schema: SchemaRef,
}

impl TransformPlan for SelectTransform {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn build(&self) -> Result<Box<dyn Transform>, StageError> {
        Ok(Box::new(self.clone()))
    }

    fn summary(&self) -> String {
        let names: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        format!("keeps {}", names.join(", "))
    }
}

impl Transform for SelectTransform {
    fn apply(&mut self, batch: Batch, _rejects: &mut RejectCollector) -> Result<Batch, StageError> {
        let columns = self
            .kept
            .iter()
            .map(|&index| Arc::clone(batch.records.column(index)))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.records.num_rows()));
        let records =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(batch.with_records(records))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use expect_test::{Expect, expect};

    use super::super::testing::{batch, faults, floats, plan, run, strings};
    use super::*;

    fn names(records: &RecordBatch) -> Vec<String> {
        records
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    fn input() -> Batch {
        batch([
            ("source", strings(&["a", "b"])),
            ("x", floats(&[1.0, 2.0])),
            ("y", floats(&[3.0, 4.0])),
        ])
    }

    #[test]
    fn columns_have_the_listed_order_and_new_names() {
        let (out, rejects) = run::<SelectConfig>(
            r#"{"columns": ["y", "source"], "rename": {"y": "z"}}"#,
            input(),
        );
        assert_eq!(names(&out.records), ["z", "source"]);
        assert_eq!(out.records.column(0), &floats(&[3.0, 4.0]));
        assert!(rejects.is_empty());
    }

    #[test]
    fn dropped_columns_are_removed_in_order() {
        let (out, _) = run::<SelectConfig>(r#"{"drop": ["x"]}"#, input());
        assert_eq!(names(&out.records), ["source", "y"]);
    }

    #[test]
    fn names_can_be_swapped() {
        let (out, _) = run::<SelectConfig>(r#"{"rename": {"x": "y", "y": "x"}}"#, input());
        assert_eq!(names(&out.records), ["source", "y", "x"]);
    }

    #[test]
    fn empty_batch_has_the_planned_schema() {
        let options = r#"{"columns": ["x"]}"#;
        let planned = plan::<SelectConfig>(options, &input()).unwrap().schema();
        let empty = Batch {
            row_ordinals: vec![],
            records: input().records.slice(0, 0),
            ..input()
        };
        let (out, _) = run::<SelectConfig>(options, empty);
        assert_eq!((out.records.num_rows(), out.records.schema()), (0, planned));
    }

    #[test]
    fn faults_of_options_are_reported_by_key() {
        let check = |options: &str, expected: Expect| {
            expected.assert_eq(&faults::<SelectConfig>(options, &input()))
        };
        check(
            "{}",
            expect!["(stage): nothing is selected; set `columns`, `drop` or `rename`"],
        );
        check(
            r#"{"columns": ["sorce", "x"], "drop": ["y"], "rename": {"y": "z", "q": "r"}}"#,
            expect![[r#"
                drop: cannot be combined with `columns`; remove one of the two
                columns: no column `sorce` (did you mean `source`?); the input has: source, x, y
                rename.q: no column `q`; the input has: source, x, y
                rename.y: column `y` is not kept, so it cannot be renamed"#]],
        );
        check(
            r#"{"columns": ["x", "x"]}"#,
            expect!["columns: two columns have the name `x`"],
        );
        check(
            r#"{"rename": {"x": "y"}}"#,
            expect!["rename: two columns have the name `y`"],
        );
        check(
            r#"{"drop": ["source", "x", "y"]}"#,
            expect!["(stage): no column is left; keep at least one"],
        );
        check(
            r#"{"colums": ["x"]}"#,
            expect!["colums: unknown key (did you mean `columns`?); known: columns, drop, rename"],
        );
    }
}
