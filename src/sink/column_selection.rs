//! The selection and the order of the input columns that a sink writes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::registry::did_you_mean;

/// A selection of columns that was checked against the input.
#[derive(Debug, Clone)]
pub(crate) struct ColumnSelection {
    indices: Vec<usize>,
    schema: SchemaRef,
}

impl ColumnSelection {
    /// Selects the columns with these names in this order, or all columns if `names` is `None`. The
    /// metadata of fields is kept.
    ///
    /// # Errors
    /// One fault at `columns` for each unknown or repeated name, or if the selection is empty.
    pub(super) fn select(
        names: Option<&[String]>,
        input: &Schema,
    ) -> Result<Self, Vec<ConfigError>> {
        let known: Vec<&str> = input
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let mut faults = Vec::new();
        let mut indices = Vec::new();
        let chosen = names.map_or_else(
            || known.clone(),
            |names| names.iter().map(String::as_str).collect(),
        );
        for name in chosen {
            match input.index_of(name) {
                Ok(index) if indices.contains(&index) => {
                    faults.push(format!("column `{name}` is listed twice"))
                }
                Ok(index) => indices.push(index),
                Err(_) => {
                    let nearest = did_you_mean(name, &known);
                    faults.push(format!(
                        "no column `{name}`{nearest}; the input has: {}",
                        known.join(", ")
                    ));
                }
            }
        }
        if indices.is_empty() && faults.is_empty() {
            faults.push("is empty; expected at least one column".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults
                .into_iter()
                .map(|message| ConfigError::new("columns", message))
                .collect());
        }
        let fields: Vec<_> = indices
            .iter()
            .map(|&index| Arc::clone(&input.fields()[index]))
            .collect();
        Ok(Self {
            indices,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// The names of the selected columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    /// The schema of the selected columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The selected columns of a batch.
    ///
    /// # Errors
    /// If its columns differ from those of the plan.
    pub(super) fn project(&self, records: &RecordBatch) -> Result<RecordBatch, StageError> {
        let columns = self
            .indices
            .iter()
            .filter_map(|&index| records.columns().get(index).cloned())
            .collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::tensor::tensor_field;

    fn input() -> Schema {
        Schema::new(vec![
            Field::new("source", DataType::Utf8, false),
            Field::new("row", DataType::UInt64, false),
            tensor_field("pixels", &[3, 2, 2]).unwrap(),
        ])
    }

    #[test]
    fn selection_keeps_order_of_names_and_metadata() {
        let names = ["pixels".to_owned(), "source".to_owned()];
        let columns = ColumnSelection::select(Some(&names), &input()).unwrap();
        assert_eq!(columns.schema().field(0), input().field(2));
        assert_eq!(columns.schema().field(1), input().field(0));
    }

    #[test]
    fn unknown_and_repeated_columns_are_all_reported() {
        let names = ["pixel", "row", "row", "latent"].map(str::to_owned);
        let faults = ColumnSelection::select(Some(&names), &input()).unwrap_err();
        let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "no column `pixel` (did you mean `pixels`?); the input has: source, row, pixels",
                "column `row` is listed twice",
                "no column `latent`; the input has: source, row, pixels",
            ]
        );
        assert!(faults.iter().all(|fault| fault.key == "columns"));
    }

    #[test]
    fn empty_selection_is_a_fault() {
        let messages = |names: Option<&[String]>, input: &Schema| -> Vec<String> {
            let faults = ColumnSelection::select(names, input).unwrap_err();
            faults.into_iter().map(|fault| fault.message).collect()
        };
        let expected = ["is empty; expected at least one column"];
        assert_eq!(messages(Some(&[]), &input()), expected);
        assert_eq!(messages(None, &Schema::empty()), expected);
    }
}
