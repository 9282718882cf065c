//! The columns that `features` combines: their selection by name, and their values.

use arrow::datatypes::{DataType, Schema};

use crate::error::config_error::ConfigError;
use crate::model::input::rules::index::matches_pattern;
use crate::model::input::rules::{RawType, RawValue};
use crate::transform::feature_column::FeatureColumn;
use crate::transform::raw_values::{holds_times, holds_words};
use crate::transform::rows::find;

/// Replaces patterns, in which `*` matches any characters, by the columns that they match and
/// that are not listed by name. A column whose name equals a pattern is not a pattern.
///
/// # Errors
/// A fault at `key` for each pattern that matches no column.
pub(crate) fn with_matching_columns(
    names: &[String],
    input: &Schema,
    key: &str,
) -> Result<Vec<String>, Vec<ConfigError>> {
    let is_pattern = |name: &str| name.contains('*') && input.column_with_name(name).is_none();
    let mut found: Vec<String> = Vec::new();
    let mut faults = Vec::new();
    for name in names {
        if !is_pattern(name) {
            found.push(name.clone());
            continue;
        }
        let fields = input.fields().iter().map(|field| field.name());
        let mut matching = fields
            .filter(|field| matches_pattern(name, field))
            .peekable();
        if matching.peek().is_none() {
            faults.push(ConfigError::new(key, format!("no column matches `{name}`")));
        }
        let others: Vec<String> = matching
            .filter(|field| !names.contains(field) && !found.contains(field))
            .cloned()
            .collect();
        found.extend(others);
    }
    if faults.is_empty() {
        Ok(found)
    } else {
        Err(faults)
    }
}

/// The names of columns, and the values that are accepted in a column of a name.
pub(in crate::transform) type RequestedColumns<'a> = (&'a [String], &'a dyn Fn(&str) -> RawValue);

/// Finds the columns and their positions in the vector. One column of lists of unknown length takes
/// the rest of `width`. `raw` has the values that are accepted in a column.
pub(in crate::transform) fn resolve(
    input: &Schema,
    key: &str,
    (names, raw): RequestedColumns<'_>,
    width: Option<usize>,
    faults: &mut Vec<ConfigError>,
) -> Option<Vec<FeatureColumn>> {
    let before = faults.len();
    let mut found: Vec<(&str, usize, Option<usize>, bool)> = Vec::new();
    for (name, elements) in requested(names, input) {
        match find(input, key, name) {
            Err(fault) => faults.push(fault),
            Ok((index, _)) if found.iter().any(|(_, earlier, ..)| *earlier == index) => {
                faults.push(ConfigError::new(
                    key,
                    format!("column `{name}` is listed twice"),
                ));
            }
            Ok((index, field)) => match values_per_row(field.data_type(), raw(name).kind) {
                Ok((len, list))
                    if elements.is_none_or(|count| list && len.unwrap_or(count) == count) =>
                {
                    found.push((name, index, len.or(elements), list));
                }
                Ok(_) => faults.push(ConfigError::new(
                    key,
                    format!(
                        "column `{name}` holds {}, not lists of {} numbers",
                        field.data_type(),
                        elements.unwrap_or_default()
                    ),
                )),
                Err(message) => faults.push(ConfigError::new(key, message.in_column(name))),
            },
        }
    }
    let fixed: usize = found.iter().filter_map(|(_, _, len, _)| *len).sum();
    let variable: Vec<&str> = found
        .iter()
        .filter(|(_, _, len, _)| len.is_none())
        .map(|(name, ..)| *name)
        .collect();
    let rest = match (variable.as_slice(), width) {
        ([], _) => 0,
        ([_], Some(width)) if width > fixed => width - fixed,
        _ => {
            let message = format!(
                "lists without a fixed length: {}; set `width`, for one such column only",
                variable.join(", ")
            );
            faults.push(ConfigError::new(key, message));
            0
        }
    };
    let mut start = 0;
    let mut columns = Vec::with_capacity(found.len());
    for (name, index, len, list) in found {
        let len = len.unwrap_or(rest);
        columns.push(FeatureColumn {
            raw: raw(name),
            name: name.to_owned(),
            index,
            start,
            len,
            list,
        });
        start += len;
    }
    if i32::try_from(start).is_err() {
        faults.push(ConfigError::new(
            key,
            format!(
                "{start} values exceed the maximum of a vector, {}",
                i32::MAX
            ),
        ));
    }
    (faults.len() == before).then_some(columns)
}

/// The names of the values of a list column, in order, as a model card lists them.
pub(crate) fn element_names(column: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |index| format!("{column}[{index}]"))
}

/// The columns of the input that hold the values with these names. The names of all values of a
/// list denote its column, which is returned with their number.
fn requested<'a>(names: &'a [String], input: &Schema) -> Vec<(&'a str, Option<usize>)> {
    let mut columns = Vec::new();
    let mut rest = names;
    while let [first, ..] = rest {
        let list = first.strip_suffix("[0]").filter(|list| {
            input.column_with_name(first).is_none() && input.column_with_name(list).is_some()
        });
        let count = list.map(|list| {
            let elements = element_names(list, rest.len());
            rest.iter()
                .zip(elements)
                .take_while(|(name, element)| *name == element)
                .count()
        });
        columns.push((list.unwrap_or(first), count));
        rest = &rest[count.unwrap_or(1)..];
    }
    columns
}

/// Whether a name is that of a value of a list column.
pub(crate) fn is_element(name: &str) -> bool {
    let index = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once('['));
    index.is_some_and(|(_, index)| index.parse::<usize>().is_ok())
}

/// The number of values of a row of this type, if it is fixed, and whether the column holds lists.
fn values_per_row(column: &DataType, kind: RawType) -> Result<(Option<usize>, bool), Misfit<'_>> {
    let number = |value: &DataType| value.is_numeric() || value == &DataType::Boolean;
    match (kind, column) {
        (RawType::Word, words) if holds_words(words) => Ok((Some(1), false)),
        (RawType::Time, times) if holds_times(times) => Ok((Some(1), false)),
        (RawType::Number, DataType::FixedSizeList(item, len))
            if number(item.data_type()) && *len > 0 =>
        {
            Ok((usize::try_from(*len).ok(), true))
        }
        (RawType::Number, DataType::List(item) | DataType::LargeList(item))
            if number(item.data_type()) =>
        {
            Ok((None, true))
        }
        (RawType::Number, scalar) if number(scalar) => Ok((Some(1), false)),
        (expected, met) => Err(Misfit { met, expected }),
    }
}

/// A column of a type that does not give the expected values.
struct Misfit<'a> {
    met: &'a DataType,
    expected: RawType,
}

impl Misfit<'_> {
    fn in_column(&self, name: &str) -> String {
        let Self { met, expected } = *self;
        let (values, hint) = match expected {
            RawType::Number if holds_words(met) => {
                ("numbers", "; add a rule with `encoding` for categories")
            }
            RawType::Number if holds_times(met) => {
                ("numbers", "; add a rule with `cyclic` for times")
            }
            RawType::Number => ("numbers", ""),
            RawType::Word => ("categories: strings, whole numbers or booleans", ""),
            RawType::Time => ("times: timestamps or dates", ""),
        };
        format!("column `{name}` holds {met}, not {values}{hint}")
    }
}
