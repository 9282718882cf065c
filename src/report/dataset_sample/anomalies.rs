//! The most unusual records of a dataset, with their reasons.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use super::text_value;
use crate::eval_metrics::nearest::Nearest;

/// The column of the features that explain most of an error.
pub(super) const TOP_FEATURES: &str = "top_features";
/// Number of records that are listed.
const LISTED: usize = 24;
/// Number of features that are listed for each of them.
const FEATURES: usize = 3;
/// Columns in which a larger value is more unusual, in the order in which they are preferred.
const SCORES: [&str; 5] = ["zscore", "reconstruction_error", "mse", "mae", "bce"];

/// The records with the largest values of a column.
#[derive(Debug, Default)]
pub(crate) struct TopAnomalies {
    /// The name of the column; `None` if the dataset has no suitable column.
    pub(crate) column: Option<String>,
    /// The records, most unusual first.
    pub(crate) records: Vec<Anomaly>,
}

/// An unusual record.
#[derive(Debug, Clone)]
pub(crate) struct Anomaly {
    pub(crate) value: f64,
    /// The position in the dataset.
    pub(crate) position: u64,
    /// The source and the row, as far as the dataset has them.
    pub(crate) origin: [Option<String>; 2],
    /// The features that explain most of the error, with their z-scores.
    pub(crate) reasons: Vec<String>,
}

impl TopAnomalies {
    /// Selects the column among those of errors.
    pub(super) fn new(errors: &[String]) -> Self {
        let column = SCORES
            .into_iter()
            .find(|score| errors.iter().any(|name| name == score));
        Self {
            column: column.map(str::to_owned),
            records: Vec::new(),
        }
    }

    /// Adds records; `first` is the position of the first of them. `origin` are the columns of their
    /// sources and rows.
    pub(super) fn add(
        &mut self,
        records: &RecordBatch,
        origin: [&Option<ArrayRef>; 2],
        first: u64,
    ) {
        let column = self.column.as_ref();
        let Some(column) = column.and_then(|name| records.column_by_name(name)) else {
            return;
        };
        let Ok(values) = cast(column, &DataType::Float64) else {
            return;
        };
        let values = values.as_primitive::<Float64Type>();
        let is_candidate = |row: &usize| values.is_valid(*row) && !values.value(*row).is_nan();
        let mut largest = Nearest::new(LISTED);
        for row in (0..values.len()).filter(is_candidate) {
            largest.add(-values.value(row), row);
        }
        let features = records.column_by_name(TOP_FEATURES);
        let added = largest.items().iter().map(|&(_, row)| Anomaly {
            value: values.value(row),
            position: first + row as u64,
            origin: origin.map(|texts| text_value(texts.as_ref(), row)),
            reasons: features.map_or_else(Vec::new, |features| reasons(features, row)),
        });
        self.records.extend(added);
        self.records
            .sort_by(|one, other| other.value.total_cmp(&one.value));
        self.records.truncate(LISTED);
    }
}

/// The features of a row, such as `pressure (z 7.1)`.
fn reasons(features: &ArrayRef, row: usize) -> Vec<String> {
    let Some(list) = features
        .as_list_opt::<i32>()
        .filter(|list| list.is_valid(row))
    else {
        return Vec::new();
    };
    let items = list.value(row);
    let Some(items) = items.as_struct_opt() else {
        return Vec::new();
    };
    let text = |name: &str, to: DataType| cast(items.column_by_name(name)?, &to).ok();
    let (Some(names), Some(zscores)) = (
        text("feature", DataType::Utf8),
        text("zscore", DataType::Float64),
    ) else {
        return Vec::new();
    };
    let zscores = zscores.as_primitive::<Float64Type>();
    let reason = |index: usize| {
        let name = text_value(Some(&names), index)?;
        Some(format!("{name} (z {:.1})", zscores.value(index)))
    };
    (0..items.len().min(FEATURES)).filter_map(reason).collect()
}
