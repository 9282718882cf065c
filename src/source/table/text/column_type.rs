//! The type of a column of text, as written in a pipeline.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema, TimeUnit};
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The type of a column, as written in a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum ColumnType {
    /// 64-bit floating point numbers.
    Float,
    /// 64-bit integers.
    Int,
    /// Unsigned 64-bit integers.
    Uint,
    /// Decimal numbers of at most `precision` digits, `scale` of them behind the point.
    Decimal {
        /// Total number of digits.
        precision: u8,
        /// Number of digits behind the point.
        scale: u8,
    },
    /// UTF-8 text.
    String,
    /// `true` or `false`.
    Bool,
    /// Dates without a time.
    Date,
    /// Dates with a time.
    Timestamp {
        /// The resolution.
        unit: TimeUnit,
        /// Whether values have an offset, and are stored in UTC.
        is_utc: bool,
    },
}

/// The time zone of timestamps with an offset.
const UTC: &str = "UTC";

/// The types without parameters.
const PLAIN: [(&str, ColumnType); 6] = [
    ("float", ColumnType::Float),
    ("int", ColumnType::Int),
    ("uint", ColumnType::Uint),
    ("string", ColumnType::String),
    ("bool", ColumnType::Bool),
    ("date", ColumnType::Date),
];

/// The units of timestamps. Parquet has no timestamps in seconds.
const UNITS: [(&str, TimeUnit); 3] = [
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];

impl ColumnType {
    /// Returns the types of all columns whose type can be written in a pipeline.
    pub(crate) fn all(schema: &Schema) -> BTreeMap<String, Self> {
        let of = |field: &Field| Some((field.name().clone(), Self::of(field.data_type())?));
        schema
            .fields()
            .iter()
            .filter_map(|field| of(field))
            .collect()
    }

    /// Returns the type of a column as it is written in a pipeline, if it can be written.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Float64 => Self::Float,
            DataType::Int64 => Self::Int,
            DataType::UInt64 => Self::Uint,
            DataType::Decimal128(precision, scale) => Self::Decimal {
                precision: *precision,
                scale: u8::try_from(*scale).ok()?,
            },
            DataType::Utf8 => Self::String,
            DataType::Boolean => Self::Bool,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(unit, zone) => Self::Timestamp {
                unit: *unit,
                is_utc: zone.is_some(),
            },
            _ => return None,
        })
    }

    /// The Arrow type.
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float64,
            Self::Int => DataType::Int64,
            Self::Uint => DataType::UInt64,
            Self::Decimal { precision, scale } => {
                DataType::Decimal128(precision, i8::try_from(scale).unwrap_or_default())
            }
            Self::String => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp { unit, is_utc } => {
                DataType::Timestamp(unit, is_utc.then(|| UTC.into()))
            }
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::Timestamp { unit, is_utc } => {
                let unit = UNITS.iter().find(|(_, known)| known == unit);
                let unit = unit.map_or("s", |(name, _)| name);
                let zone = if *is_utc { ", UTC" } else { "" };
                write!(f, "timestamp[{unit}{zone}]")
            }
            plain => {
                let name = PLAIN.iter().find(|(_, known)| known == plain);
                f.write_str(name.map_or("", |(name, _)| name))
            }
        }
    }
}

impl FromStr for ColumnType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = PLAIN.iter().find(|(name, _)| *name == text);
        plain
            .map(|(_, column_type)| *column_type)
            .or_else(|| timestamp(text))
            .or_else(|| decimal(text))
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a type; expected float, int, uint, string, bool, date, \
                     timestamp, timestamp[ms], timestamp[us, UTC], timestamp[ns] or decimal(10, 2)"
                )
            })
    }
}

fn timestamp(text: &str) -> Option<ColumnType> {
    let parameters = text.strip_prefix("timestamp")?;
    if parameters.is_empty() {
        let (unit, is_utc) = (TimeUnit::Microsecond, false);
        return Some(ColumnType::Timestamp { unit, is_utc });
    }
    let parameters = parameters.strip_prefix('[')?.strip_suffix(']')?;
    let (unit, zone) = match parameters.split_once(',') {
        Some((unit, zone)) => (unit.trim(), Some(zone.trim())),
        None => (parameters.trim(), None),
    };
    let (_, unit) = *UNITS.iter().find(|(name, _)| *name == unit)?;
    let is_utc = zone.is_some();
    zone.is_none_or(|zone| zone == UTC)
        .then_some(ColumnType::Timestamp { unit, is_utc })
}

fn decimal(text: &str) -> Option<ColumnType> {
    let parameters = text.strip_prefix("decimal(")?.strip_suffix(')')?;
    let (precision, scale) = parameters.split_once(',')?;
    let (precision, scale) = (
        precision.trim().parse::<u8>().ok()?,
        scale.trim().parse::<u8>().ok()?,
    );
    let is_valid = (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && scale <= precision;
    is_valid.then_some(ColumnType::Decimal { precision, scale })
}

impl TryFrom<String> for ColumnType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ColumnType> for String {
    fn from(column_type: ColumnType) -> Self {
        column_type.to_string()
    }
}

impl JsonSchema for ColumnType {
    fn schema_name() -> Cow<'static, str> {
        "ColumnType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        let pattern = "^(float|int|uint|string|bool|date|timestamp(\\[ *(ms|us|ns) *(, *UTC *)?\\])?\
                       |decimal\\( *[0-9]+ *, *[0-9]+ *\\))$";
        json_schema!({
            "type": "string",
            "pattern": pattern,
            "description": "The type of a column: `float` (64-bit floating point numbers), `int` \
                (64-bit integers), `uint` (unsigned 64-bit integers), `decimal(10, 2)` (numbers of \
                at most 10 digits, 2 of them behind the point), `string`, `bool`, `date`, \
                `timestamp` (in microseconds, without an offset), `timestamp[ms]`, \
                `timestamp[ns]`, and `timestamp[us, UTC]` (values with an offset, converted to \
                UTC).",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn types_are_written_as_they_are_read() {
        for text in [
            "float",
            "int",
            "uint",
            "string",
            "bool",
            "date",
            "timestamp[ms]",
            "timestamp[us, UTC]",
            "timestamp[ns]",
            "decimal(10, 2)",
        ] {
            let column_type: ColumnType = text.parse().unwrap();
            assert_eq!(column_type.to_string(), text);
            assert_eq!(ColumnType::of(&column_type.data_type()), Some(column_type));
        }
        let default: ColumnType = "timestamp".parse().unwrap();
        assert_eq!(default.to_string(), "timestamp[us]");
        for text in [
            "Float",
            "int32",
            "timestamp[s]",
            "timestamp[us, CET]",
            "decimal(39, 2)",
            "decimal(2, 3)",
            "decimal(2)",
        ] {
            assert!(
                text.parse::<ColumnType>()
                    .unwrap_err()
                    .starts_with(&format!("`{text}` is not a type; "))
            );
        }
    }
}
