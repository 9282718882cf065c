//! Converts columns of text to their types, or states which value does not fit.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, UInt64Type,
};

use crate::source::table::text::column_type::ColumnType;
use crate::source::table::text::seen_values::SeenValues;
use crate::source::table::text::values::{
    days, is_exact_float, is_integer, parse_bool, parse_date, parse_decimal, parse_float,
    parse_int, parse_time, parse_uint, trim,
};

/// The rules for the text of a column.
#[derive(Debug, Clone)]
pub(crate) struct ColumnRules {
    /// The type of the column.
    pub(crate) data_type: DataType,
    /// Whether the type was inferred. An inferred float does not round integers.
    pub(crate) is_inferred: bool,
    /// The decimal point.
    pub(crate) decimal: char,
}

/// A value that the type of its column does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The name of the column.
    pub(crate) column: String,
    /// What the value and its column need.
    pub(crate) required: SeenValues,
    /// The value, and the type of the column.
    pub(crate) reason: String,
}

/// Converts the values of a column, which are null where they have no text.
///
/// # Errors
/// The first value that the type does not hold.
pub(crate) fn parse_column<'a>(
    name: &str,
    values: impl Iterator<Item = Option<&'a str>>,
    rules: &ColumnRules,
) -> Result<ArrayRef, Misfit> {
    let misfit = |text: &str| misfit(name, text, rules);
    let time_in = |text: &str, unit| parse_time_in(text, unit, rules);
    match &rules.data_type {
        DataType::Utf8 => Ok(Arc::new(values.collect::<StringArray>())),
        DataType::Boolean => {
            let parse = |text: &str| parse_bool(trim(text)).ok_or_else(|| misfit(text));
            let array = values
                .map(|text| text.map(parse).transpose())
                .collect::<Result<BooleanArray, _>>()?;
            Ok(Arc::new(array))
        }
        DataType::Int64 => {
            primitive::<Int64Type>(values, |text| parse_int(trim(text)), misfit, rules)
        }
        DataType::UInt64 => {
            primitive::<UInt64Type>(values, |text| parse_uint(trim(text)), misfit, rules)
        }
        DataType::Float64 => {
            primitive::<Float64Type>(values, |text| parse_float_as(text, rules), misfit, rules)
        }
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (*precision, u8::try_from(*scale).unwrap_or_default());
            let parse =
                |text: &str| parse_decimal(&with_point(trim(text), rules)?, precision, scale);
            primitive::<Decimal128Type>(values, parse, misfit, rules)
        }
        DataType::Date32 => {
            let parse = |text: &str| parse_date(trim(text)).map(days);
            primitive::<Date32Type>(values, parse, misfit, rules)
        }
        DataType::Timestamp(unit @ TimeUnit::Nanosecond, _) => {
            let parse = |text: &str| time_in(text, *unit);
            primitive::<TimestampNanosecondType>(values, parse, misfit, rules)
        }
        DataType::Timestamp(unit @ TimeUnit::Microsecond, _) => {
            let parse = |text: &str| time_in(text, *unit);
            primitive::<TimestampMicrosecondType>(values, parse, misfit, rules)
        }
        DataType::Timestamp(_, _) => {
            let parse = |text: &str| time_in(text, TimeUnit::Millisecond);
            primitive::<TimestampMillisecondType>(values, parse, misfit, rules)
        }
        other => Err(Misfit {
            column: name.to_owned(),
            required: SeenValues::ANY_TEXT,
            reason: format!("column `{name}`: text cannot be converted to {other}"),
        }),
    }
}

fn primitive<'a, T: ArrowPrimitiveType>(
    values: impl Iterator<Item = Option<&'a str>>,
    parse: impl Fn(&str) -> Option<T::Native>,
    misfit: impl Fn(&str) -> Misfit,
    rules: &ColumnRules,
) -> Result<ArrayRef, Misfit> {
    let parsed = values.map(|text| {
        text.map(|text| parse(text).ok_or_else(|| misfit(text)))
            .transpose()
    });
    let array = parsed.collect::<Result<PrimitiveArray<T>, _>>()?;
    Ok(Arc::new(array.with_data_type(rules.data_type.clone())))
}

fn misfit(name: &str, text: &str, rules: &ColumnRules) -> Misfit {
    let mut required = SeenValues::of_type(&rules.data_type);
    required.merge(SeenValues::of_text(text, rules.decimal));
    let expected = ColumnType::of(&rules.data_type)
        .map_or_else(|| rules.data_type.to_string(), |given| given.to_string());
    let origin = if rules.is_inferred {
        ", the type inferred from a sample of the records"
    } else {
        ""
    };
    Misfit {
        column: name.to_owned(),
        required,
        reason: format!("column `{name}`: `{text}` does not fit {expected}{origin}"),
    }
}

/// The text with a point; `None` if another decimal point is configured and the text has a point.
fn with_point<'a>(text: &'a str, rules: &ColumnRules) -> Option<std::borrow::Cow<'a, str>> {
    match rules.decimal {
        '.' => Some(text.into()),
        _ if text.contains('.') => None,
        decimal => Some(text.replace(decimal, ".").into()),
    }
}

fn parse_float_as(text: &str, rules: &ColumnRules) -> Option<f64> {
    let text = trim(text);
    let is_rounded = rules.is_inferred && is_integer(text) && !is_exact_float(text);
    if is_rounded {
        return None;
    }
    parse_float(&with_point(text, rules)?)
}

/// A point in time in a unit; `None` if the unit cuts its fraction, or if only one of the value and
/// the column has an offset.
fn parse_time_in(text: &str, unit: TimeUnit, rules: &ColumnRules) -> Option<i64> {
    let is_utc = matches!(&rules.data_type, DataType::Timestamp(_, Some(_)));
    let text = trim(text);
    let (seconds, nanos, has_offset) = match parse_time(text) {
        Some(time) => (time.seconds, time.nanos, time.has_offset),
        None => {
            let midnight = parse_date(text)?.and_hms_opt(0, 0, 0)?;
            (midnight.and_utc().timestamp(), 0, false)
        }
    };
    let (per_second, nanos_each) = match unit {
        TimeUnit::Nanosecond => (1_000_000_000, 1),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Millisecond | TimeUnit::Second => (1_000, 1_000_000),
    };
    if has_offset != is_utc || nanos % nanos_each != 0 {
        return None;
    }
    let whole = i128::from(seconds) * per_second;
    i64::try_from(whole + i128::from(nanos / nanos_each)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use arrow::array::Array as _;
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;

    fn parse(column_type: &str, is_inferred: bool, text: &str) -> Result<String, String> {
        let rules = ColumnRules {
            data_type: column_type.parse::<ColumnType>().unwrap().data_type(),
            is_inferred,
            decimal: '.',
        };
        let column = parse_column("c", [Some(text), None].into_iter(), &rules)
            .map_err(|misfit| misfit.reason)?;
        assert_eq!((column.len(), column.null_count()), (2, 1));
        let column = match column.data_type() {
            // Arrow formats times only with numeric offsets.
            DataType::Timestamp(unit, Some(_)) => {
                let utc = DataType::Timestamp(*unit, Some("+00:00".into()));
                arrow::compute::cast(&column, &utc).unwrap()
            }
            _ => column,
        };
        let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::new()).unwrap();
        Ok(formatter.value(0).to_string())
    }

    #[test]
    fn values_keep_their_meaning_in_each_type() {
        for (column_type, text, expected) in [
            ("string", " 1 ", " 1 "),
            ("int", " -5", "-5"),
            ("uint", "18446744073709551615", "18446744073709551615"),
            ("float", "1e3", "1000.0"),
            ("float", "9007199254740993", "9007199254740992.0"),
            ("bool", "True ", "true"),
            ("decimal(20, 2)", "900719925474099.3", "900719925474099.30"),
            ("date", "2024-01-02", "2024-01-02"),
            (
                "timestamp[ms]",
                "2024-01-02 03:04:05.250",
                "2024-01-02T03:04:05.250",
            ),
            ("timestamp", "2024-01-02", "2024-01-02T00:00:00"),
            (
                "timestamp[ns]",
                "1960-01-01 00:00:00.5",
                "1960-01-01T00:00:00.500",
            ),
            (
                "timestamp[us, UTC]",
                "2024-01-02T03:04:05+02:00",
                "2024-01-02T01:04:05Z",
            ),
        ] {
            assert_eq!(
                parse(column_type, false, text).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn values_that_would_change_do_not_fit() {
        for (column_type, is_inferred, text) in [
            ("int", true, "0.5"),
            ("int", false, "9223372036854775808"),
            ("uint", false, "-1"),
            ("float", false, "1e400"),
            ("float", true, "9007199254740993"),
            ("bool", false, "1"),
            ("decimal(5, 2)", false, "1.234"),
            ("date", false, "2024-01-02 03:04:05"),
            ("timestamp[ms]", false, "2024-01-02 03:04:05.2501"),
            ("timestamp", false, "2024-01-02T03:04:05Z"),
            ("timestamp[us, UTC]", false, "2024-01-02T03:04:05"),
            ("timestamp[ns]", false, "2300-01-01 00:00:00"),
        ] {
            let reason = parse(column_type, is_inferred, text).unwrap_err();
            assert!(
                reason.starts_with(&format!("column `c`: `{text}` does not fit ")),
                "{reason}"
            );
        }
    }
}
