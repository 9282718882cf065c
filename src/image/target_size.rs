//! The option for the size of image tensors.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The size of image tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetSize {
    /// Each image keeps its original size.
    Original,
    /// All images have this height and width.
    Fixed(usize, usize),
}

impl std::fmt::Display for TargetSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Original => f.write_str("original size"),
            Self::Fixed(height, width) => write!(f, "{height} x {width}"),
        }
    }
}

impl Serialize for TargetSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Original => serializer.serialize_str("original"),
            Self::Fixed(height, width) => [height, width].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TargetSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TargetSizeVisitor)
    }
}

struct TargetSizeVisitor;

impl<'de> de::Visitor<'de> for TargetSizeVisitor {
    type Value = TargetSize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[height, width] in pixels, or \"original\"")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<TargetSize, E> {
        match word {
            "original" => Ok(TargetSize::Original),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut sides: A) -> Result<TargetSize, A::Error> {
        let mut read = Vec::new();
        while let Some(side) = sides.next_element::<u32>()? {
            read.push(side as usize);
        }
        match read[..] {
            [height, width] if height > 0 && width > 0 => Ok(TargetSize::Fixed(height, width)),
            [_, _] => Err(de::Error::custom(
                "a side of 0 pixels; expected [height, width] in pixels, both above 0",
            )),
            _ => Err(de::Error::invalid_length(read.len(), &self)),
        }
    }
}

impl JsonSchema for TargetSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "const": "original" },
                {
                    "type": "array",
                    "items": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
                    "minItems": 2,
                    "maxItems": 2,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn size_is_two_sides_or_the_string_original() {
        assert_eq!(
            from_value::<TargetSize>(json!([64, 48])).unwrap(),
            TargetSize::Fixed(64, 48)
        );
        assert_eq!(
            from_value::<TargetSize>(json!("original")).unwrap(),
            TargetSize::Original
        );
    }

    #[test]
    fn other_values_are_errors_with_the_expected_form() {
        let message = |value| from_value::<TargetSize>(value).unwrap_err().to_string();
        let expected = "expected [height, width] in pixels, or \"original\"";
        for (value, fault) in [
            (json!("orignal"), "invalid value: string \"orignal\""),
            (json!([64]), "invalid length 1"),
            (json!([64, 64, 3]), "invalid length 3"),
            (json!(64), "invalid type: integer `64`"),
        ] {
            assert_eq!(message(value), format!("{fault}, {expected}"));
        }
        assert_eq!(
            message(json!([0, 64])),
            "a side of 0 pixels; expected [height, width] in pixels, both above 0"
        );
    }
}
