//! The nulls and the categories of feature columns, counted and collected while records are read.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{ArrayRef, RecordBatch};

use crate::data::plan::record_kind::RecordKind;
use crate::error::StageError;
use crate::model::input::rules::checks::MAX_CATEGORIES;
use crate::model::input::rules::index::RuleIndex;
use crate::transform::{missing_rows, words};

/// Maximum number of bytes of the categories of a column.
const MAX_BYTES: usize = 16 << 20;

/// The categories of columns by name; `None` for a column with too many.
type ColumnCategories = BTreeMap<String, Option<Vec<String>>>;

/// The feature columns, by name.
#[derive(Debug, Default)]
pub(crate) struct ColumnTally {
    /// The columns whose nulls are rejects, with the number of records that have one.
    nulls: BTreeMap<String, u64>,
    /// The columns whose categories are collected.
    categories: BTreeMap<String, CategorySet>,
}

/// The distinct categories of a column.
#[derive(Debug, Default)]
struct CategorySet {
    words: BTreeSet<String>,
    bytes: usize,
    /// Whether there are more categories than are kept.
    is_full: bool,
}

impl CategorySet {
    fn add(&mut self, column: &ArrayRef) -> Result<(), StageError> {
        if self.is_full {
            return Ok(());
        }
        for word in words(column)?.iter().flatten() {
            if self.words.contains(word) {
                continue;
            }
            self.bytes += word.len();
            self.is_full = self.words.len() == MAX_CATEGORIES || self.bytes > MAX_BYTES;
            if self.is_full {
                self.words.clear();
                break;
            }
            self.words.insert(word.to_owned());
        }
        Ok(())
    }
}

impl ColumnTally {
    pub(super) fn new(target: &RecordKind) -> Self {
        let RecordKind::Features { columns, rules } = target else {
            return Self::default();
        };
        let index = RuleIndex::new(rules);
        let mut tally = Self::default();
        for column in columns {
            let rule = index.column_rule(column);
            if rule.is_none_or(|rule| !rule.imputes()) {
                tally.nulls.insert(column.clone(), 0);
            }
            if rule.is_some_and(|rule| rule.counts_categories()) {
                tally
                    .categories
                    .insert(column.clone(), CategorySet::default());
            }
        }
        tally
    }

    /// Counts the records of a batch that have a null or NaN.
    pub(super) fn add_nulls(&mut self, records: &RecordBatch) -> Result<(), StageError> {
        for (name, count) in &mut self.nulls {
            if let Some(column) = records.column_by_name(name) {
                *count += missing_rows(column)?;
            }
        }
        Ok(())
    }

    /// Adds the categories of the records that are used.
    pub(super) fn add_categories(&mut self, records: &RecordBatch) -> Result<(), StageError> {
        for (name, categories) in &mut self.categories {
            if let Some(column) = records.column_by_name(name) {
                categories.add(column)?;
            }
        }
        Ok(())
    }

    /// Returns the number of records with a null for each column that has one, and the sorted
    /// categories of each column; `None` for a column with too many.
    pub(super) fn finish(self) -> (BTreeMap<String, u64>, ColumnCategories) {
        let nulls = self.nulls.into_iter().filter(|(_, count)| *count > 0);
        let categories = self.categories.into_iter().map(|(name, found)| {
            let words = (!found.is_full).then(|| found.words.into_iter().collect());
            (name, words)
        });
        (nulls.collect(), categories.collect())
    }
}
