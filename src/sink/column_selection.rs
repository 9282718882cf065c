//! Which columns of its input a sink keeps, and in which order.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::{ConfigError, StageError};
use crate::registry::did_you_mean;

/// A choice of columns, checked against the input.
#[derive(Debug, Clone)]
pub(super) struct ColumnSelection {
    places: Vec<usize>,
    schema: SchemaRef,
}

impl ColumnSelection {
    /// The columns with these names, in this order; all of them where none is named. Metadata of
    /// fields stays.
    ///
    /// # Errors
    /// One fault at `columns` per name that is unknown or repeated, or where nothing would be left.
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
        let mut places = Vec::new();
        let chosen = names.map_or_else(
            || known.clone(),
            |names| names.iter().map(String::as_str).collect(),
        );
        for name in chosen {
            match input.index_of(name) {
                Ok(place) if places.contains(&place) => {
                    faults.push(format!("column `{name}` is named twice"))
                }
                Ok(place) => places.push(place),
                Err(_) => {
                    let nearest = did_you_mean(name, &known);
                    faults.push(format!(
                        "no column `{name}`{nearest}; the input has: {}",
                        known.join(", ")
                    ));
                }
            }
        }
        if places.is_empty() && faults.is_empty() {
            faults.push("there must be at least one column".to_owned());
        }
        if !faults.is_empty() {
            return Err(faults
                .into_iter()
                .map(|message| ConfigError::new("columns", message))
                .collect());
        }
        let fields: Vec<_> = places
            .iter()
            .map(|&place| Arc::clone(&input.fields()[place]))
            .collect();
        Ok(Self {
            places,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<String> {
        self.schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    /// What is left of the input's schema.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The chosen columns of a batch.
    ///
    /// # Errors
    /// When its columns are not those that were planned.
    pub(super) fn project(&self, records: &RecordBatch) -> Result<RecordBatch, StageError> {
        let columns = self
            .places
            .iter()
            .filter_map(|&place| records.columns().get(place).cloned())
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
    fn columns_come_in_the_order_of_their_names_with_their_metadata() {
        let names = ["pixels".to_owned(), "source".to_owned()];
        let columns = ColumnSelection::select(Some(&names), &input()).unwrap();
        assert_eq!(columns.schema().field(0), input().field(2));
        assert_eq!(columns.schema().field(1), input().field(0));
    }

    #[test]
    fn every_unknown_or_repeated_column_is_named() {
        let names = ["pixel", "row", "row", "latent"].map(str::to_owned);
        let faults = ColumnSelection::select(Some(&names), &input()).unwrap_err();
        let messages: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "no column `pixel` (did you mean `pixels`?); the input has: source, row, pixels",
                "column `row` is named twice",
                "no column `latent`; the input has: source, row, pixels",
            ]
        );
        assert!(faults.iter().all(|fault| fault.key == "columns"));
    }

    #[test]
    fn no_column_at_all_is_a_fault() {
        assert_eq!(
            ColumnSelection::select(Some(&[]), &input())
                .unwrap_err()
                .len(),
            1
        );
        assert_eq!(
            ColumnSelection::select(None, &Schema::empty())
                .unwrap_err()
                .len(),
            1
        );
    }
}
