//! The lengths of lists whose type does not fix them, from the first records of a source.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema};

use super::source_reader::each_batch;
use crate::error::StageError;
use crate::source::Source;

/// Maximum number of batches that are read to find a list.
const MAX_BATCHES: usize = 64;

/// Returns the indices of the columns among `names` that hold lists without a fixed length.
pub(super) fn unsized_lists(schema: &Schema, names: &[String]) -> Vec<usize> {
    let indices = names.iter().filter_map(|name| schema.index_of(name).ok());
    let is_unsized = |index: &usize| {
        matches!(
            schema.field(*index).data_type(),
            DataType::List(_) | DataType::LargeList(_)
        )
    };
    indices.filter(is_unsized).collect()
}

/// Returns the most frequent length of the lists of each column, by its index, in the first batch
/// that has lists. Lists of another length are rejected later.
///
/// # Errors
/// Returns an error if the source fails.
pub(super) fn list_lengths(
    source: Box<dyn Source>,
    columns: &[usize],
) -> Result<Vec<(usize, i32)>, StageError> {
    let mut found: BTreeMap<usize, i32> = BTreeMap::new();
    let mut batches = 0;
    each_batch(source, &AtomicBool::new(false), |batch, _| {
        batches += 1;
        for &index in columns {
            let length = most_frequent_length(batch.batch.records.column(index));
            if let (Some(length), false) = (length, found.contains_key(&index)) {
                found.insert(index, length);
            }
        }
        Ok(if found.len() == columns.len() || batches == MAX_BATCHES {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(found.into_iter().collect())
}

fn most_frequent_length(column: &ArrayRef) -> Option<i32> {
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    for row in (0..column.len()).filter(|&row| column.is_valid(row)) {
        let length = match column.data_type() {
            DataType::List(_) => Some(column.as_list::<i32>().value_length(row)),
            DataType::LargeList(_) => i32::try_from(column.as_list::<i64>().value_length(row)).ok(),
            _ => None,
        };
        if let Some(length) = length.filter(|&length| length > 0) {
            *counts.entry(length).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map(|(length, _)| length)
}
