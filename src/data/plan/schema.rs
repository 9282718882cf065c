//! The columns that a dataset takes.

use arrow::datatypes::{DataType, Schema};

use crate::data::config::DataSpec;
use crate::data::list_lengths::{list_lengths, unsized_lists};
use crate::data::plan::record_kind::RecordKind;
use crate::data::plan::source_steps::plan_source;
use crate::error::StageError;
use crate::error::config_error::ConfigError;
use crate::model::input::scaling::ScalingKind;
use crate::model::input::spec::InputSpec;
use crate::plan_context::PlanContext;
use crate::transform::element_names;
use crate::transform::raw_features::is_exact_in_float32;

/// The names of the values of these columns: those of the columns, and of the elements of lists.
/// `lengths` holds the lengths of lists whose type does not fix them, by the index of the column.
pub(super) fn names_of_values(
    columns: &[String],
    schema: &Schema,
    lengths: &[(usize, i32)],
) -> Vec<String> {
    let names = |column: &String| {
        let found = schema.column_with_name(column);
        let len = found.and_then(|(index, field)| match field.data_type() {
            DataType::FixedSizeList(_, len) => Some(*len),
            _ => {
                let sized = lengths.iter().find(|(list, _)| *list == index);
                sized.map(|(_, len)| *len)
            }
        });
        match len.and_then(|len| usize::try_from(len).ok()) {
            Some(count) => element_names(column, count).collect(),
            None => vec![column.clone()],
        }
    };
    columns.iter().flat_map(names).collect()
}

/// Whether the features of a source have values that float32 does not hold exactly. Without scaling,
/// a model takes float32, and the values are rounded once in any case.
pub(super) fn needs_float64(
    input: &InputSpec,
    target: Option<&RecordKind>,
    schema: &Schema,
) -> bool {
    let Some(RecordKind::Features { columns, rules }) = target else {
        return false;
    };
    // The rules compute in float64, and store missing values.
    let ranks = matches!(
        input.scaling,
        Some(ScalingKind::Robust | ScalingKind::Quantile)
    );
    if ranks || !rules.is_empty() {
        return true;
    }
    // The values of a list column are named `column[0]` and so on in a card.
    let list_of = |name: &str| name.rsplit_once('[').map(|(list, _)| list.to_owned());
    let mut fields = columns.iter().filter_map(|name| {
        let found = schema.column_with_name(name);
        found.or_else(|| schema.column_with_name(&list_of(name)?))
    });
    input.scaling != Some(ScalingKind::None)
        && fields.any(|(_, field)| !is_exact_in_float32(field.data_type()))
}

/// Returns the lengths of the lists of a source whose type does not fix them, from its first
/// records.
pub(super) fn sized_lists(
    spec: &DataSpec,
    at: usize,
    context: &PlanContext,
    schema: &Schema,
    columns: &[String],
) -> Result<Vec<(usize, i32)>, StageError> {
    let lists = unsized_lists(schema, columns);
    if lists.is_empty() {
        return Ok(vec![]);
    }
    match plan_source(&spec.sources[at], spec.root.as_deref(), context) {
        Ok((source, _)) => list_lengths(source, &lists),
        // The faults of the source are reported already.
        Err(_) => Ok(vec![]),
    }
}

pub(super) fn check_shares(spec: &DataSpec) -> Vec<ConfigError> {
    let shares = [("validation", spec.validation), ("test", spec.test)];
    let wrong = shares
        .into_iter()
        .filter(|(_, share)| !(0.0..=1.0).contains(share));
    let mut faults: Vec<ConfigError> = wrong
        .map(|(key, share)| {
            ConfigError::new(
                key,
                format!("{share} is not a share; expected a number from 0 to 1"),
            )
        })
        .collect();
    if faults.is_empty() && spec.validation + spec.test > 1.0 {
        let message = format!(
            "the shares of validation ({}) and test ({}) add up to more than 1",
            spec.validation, spec.test
        );
        faults.push(ConfigError::new("test", message));
    }
    faults
}
