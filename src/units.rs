//! Sizes and durations in configuration (`"32MiB"`, `"500ms"`), and the current time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes, written with a unit: `"32MiB"`, `"1.5 GB"`, `"512B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A duration, written with a unit: `"30s"`, `"250ms"`, `"5m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// The current time in the format of Prometheus: seconds since 1970.
pub(crate) fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", bytesize::ByteSize(self.0).display().iec())
    }
}

impl std::fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|error| {
            de::Error::custom(format!("{error}; sizes carry a unit, such as \"32MiB\""))
        })?;
        if text.trim().chars().all(|c| c.is_ascii_digit()) {
            return Err(de::Error::custom(format!(
                "`{text}` has no unit; write a size such as \"32MiB\" or \"512B\""
            )));
        }
        let size = text.parse::<bytesize::ByteSize>();
        size.map(|size| Self(size.0)).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not a size; expected a number and B, KiB, MiB, GiB, KB, MB or GB"
            ))
        })
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|error| {
            de::Error::custom(format!("{error}; durations carry a unit, such as \"30s\""))
        })?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not a duration; expected a number and ms, s, m or h"
            ))
        })
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}B", self.0))
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9.]+ *[KMGTP]?i?B$",
            "examples": ["32MiB", "1GB"]
        })
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["30s", "250ms", "5m"] })
    }
}
