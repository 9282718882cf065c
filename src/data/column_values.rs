//! The values of the column of a comparison: which of them are missing, and which values a
//! comparison has met that no record satisfies.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use serde_json::Value;

use crate::batch::Batch;
use crate::error::StageError;
use crate::text_excerpt::excerpt;
use crate::transform::{Comparison, class_names};

/// Maximum number of values that a message lists.
const MAX_VALUES: usize = 10;
/// Maximum number of characters of a value in a message.
const MAX_CHARACTERS: usize = 40;

/// The records that a comparison was applied to. Values are counted until a record satisfies it.
#[derive(Debug, Default)]
pub(super) struct ComparisonTally {
    records: u64,
    is_satisfied: bool,
    values: ColumnValues,
}

impl ComparisonTally {
    /// Adds the records of a batch, of which `satisfied` satisfy the comparison.
    ///
    /// # Errors
    /// Returns an error if the column cannot be converted to text.
    pub(super) fn add(
        &mut self,
        comparison: &Comparison,
        batch: &Batch,
        satisfied: usize,
    ) -> Result<(), StageError> {
        self.records += batch.records.num_rows() as u64;
        self.is_satisfied |= satisfied > 0;
        if self.is_satisfied {
            self.values = ColumnValues::default();
        } else if let Some(column) = batch.records.column_by_name(&comparison.column) {
            self.values.add(column)?;
        }
        Ok(())
    }

    /// Returns the number of records and a description of their values, such as
    /// `"anomaly" (10), "normal" (590)`, if there are records and none of them satisfies the
    /// comparison.
    pub(super) fn unsatisfied(&self) -> Option<(u64, String)> {
        (self.records > 0 && !self.is_satisfied).then(|| (self.records, self.values.describe()))
    }
}

/// The distinct values of a column, with the number of records of each.
#[derive(Debug, Default)]
struct ColumnValues {
    counts: BTreeMap<String, u64>,
    /// Records with other values, which are not listed.
    others: u64,
    /// The smallest and the largest number.
    range: Option<[f64; 2]>,
    is_number: bool,
    missing: u64,
}

impl ColumnValues {
    fn add(&mut self, column: &ArrayRef) -> Result<(), StageError> {
        self.is_number = column.data_type().is_numeric();
        for value in &class_names(column)? {
            let Some(value) = value else {
                self.missing += 1;
                continue;
            };
            if let Some(count) = self.counts.get_mut(value) {
                *count += 1;
            } else if self.counts.len() < MAX_VALUES {
                self.counts.insert(value.to_owned(), 1);
            } else {
                self.others += 1;
            }
        }
        if self.is_number {
            let numbers = cast(column, &DataType::Float64)?;
            for number in numbers.as_primitive::<Float64Type>().iter().flatten() {
                let [low, high] = self.range.unwrap_or([number, number]);
                self.range = Some([low.min(number), high.max(number)]);
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let listed = self.counts.iter().map(|(value, count)| {
            if self.is_number {
                format!("{value} ({count})")
            } else {
                format!("\"{}\" ({count})", excerpt(value, MAX_CHARACTERS))
            }
        });
        let mut parts: Vec<String> = match self.range {
            Some([low, high]) if self.others > 0 => vec![format!("numbers from {low} to {high}")],
            _ => listed.collect(),
        };
        if self.others > 0 && self.range.is_none() {
            parts.push(format!("other values ({})", self.others));
        }
        if self.missing > 0 {
            parts.push(format!("no value ({})", self.missing));
        }
        parts.join(", ")
    }
}

/// Returns whether each record of the batch has no value in the column of a comparison: null, NaN,
/// or an empty string, unless the comparison names the empty string.
///
/// # Errors
/// Returns an error if the column cannot be converted.
pub(super) fn missing_values(
    comparison: &Comparison,
    batch: &Batch,
) -> Result<Vec<bool>, StageError> {
    let Some(column) = batch.records.column_by_name(&comparison.column) else {
        return Ok(vec![false; batch.records.num_rows()]);
    };
    if column.data_type().is_floating() {
        let numbers = cast(column, &DataType::Float64)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let is_missing = |number: Option<f64>| number.is_none_or(f64::is_nan);
        return Ok(numbers.iter().map(is_missing).collect());
    }
    let value = match column.data_type() {
        DataType::Dictionary(_, value) => value.as_ref(),
        plain => plain,
    };
    if value.is_string() {
        let names_empty = [&comparison.equals, &comparison.not_equals]
            .into_iter()
            .flatten()
            .any(|named| named == &Value::from(""));
        let texts = cast(column, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let is_missing =
            |text: Option<&str>| text.is_none_or(|text| text.is_empty() && !names_empty);
        return Ok(texts.iter().map(is_missing).collect());
    }
    Ok((0..column.len()).map(|row| column.is_null(row)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};

    use super::*;

    fn described(column: ArrayRef) -> String {
        let mut values = ColumnValues::default();
        values.add(&column).unwrap();
        values.describe()
    }

    #[test]
    fn few_values_are_listed_with_their_counts() {
        let words = StringArray::from(vec![Some("b"), None, Some("a"), Some("b")]);
        assert_eq!(
            described(Arc::new(words)),
            "\"a\" (1), \"b\" (2), no value (1)"
        );
        assert_eq!(
            described(Arc::new(Float64Array::from(vec![1.0, 0.5, 1.0]))),
            "0.5 (1), 1 (2)"
        );
        assert_eq!(
            described(Arc::new(BooleanArray::from(vec![true]))),
            "\"true\" (1)"
        );
        let long = "x".repeat(50);
        assert_eq!(
            described(Arc::new(StringArray::from(vec![long.as_str()]))),
            format!("\"{}...\" (1)", "x".repeat(40))
        );
    }

    #[test]
    fn many_values_are_summarized() {
        let numbers: Int64Array = (-7..40).collect::<Vec<i64>>().into();
        assert_eq!(described(Arc::new(numbers)), "numbers from -7 to 39");
        let words: StringArray = (0..12).map(|n| Some(format!("w{n:02}"))).collect();
        assert!(
            described(Arc::new(words)).ends_with("\"w09\" (1), other values (2)"),
            "the first ten words and the number of other records"
        );
    }
}
