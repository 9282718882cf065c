//! Resolved options in a canonical form, and the attributes that their kinds declare.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::error::config_error::ConfigError;

/// The key in the JSON Schema of an option that declares whether the option changes the rows of
/// outputs.
const CHANGES_ROWS: &str = "x-changes-rows";
/// The key in the JSON Schema of an option that declares that planning infers the option from the
/// data if it is not set.
const INFERRED: &str = "x-inferred";
/// The key in the JSON Schema of an option that declares its value for outputs of earlier versions
/// that do not record it.
const FORMER_DEFAULT: &str = "x-former-default";
/// The key in the JSON Schema of an option that declares that it is a threshold on values of records,
/// which users adjust.
const THRESHOLD: &str = "x-threshold";
/// The `format` of options that are paths.
const PATH: &str = "path";

/// The attributes that a kind declares for an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionAttributes {
    /// Whether the option changes rows; `None` if the kind does not declare it.
    pub changes_rows: Option<bool>,
    /// Whether the option is a path.
    pub is_path: bool,
    /// Whether planning infers the option from the data if it is not set.
    pub is_inferred: bool,
    /// The value for outputs of earlier versions that do not record the option.
    pub former_default: Option<Value>,
    /// Whether the option is a threshold on values of records.
    pub is_threshold: bool,
}

/// Returns the attributes of each option of a table, by name.
pub fn option_attributes(
    schema: fn(&mut SchemaGenerator) -> Schema,
) -> BTreeMap<String, OptionAttributes> {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let schema = schema(&mut settings.into_generator());
    let options = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let declared = |option: &Value| OptionAttributes {
        changes_rows: option.get(CHANGES_ROWS).and_then(Value::as_bool),
        is_path: option.get("format").is_some_and(|format| format == PATH),
        is_inferred: option.get(INFERRED).and_then(Value::as_bool) == Some(true),
        former_default: option.get(FORMER_DEFAULT).cloned(),
        is_threshold: option.get(THRESHOLD).and_then(Value::as_bool) == Some(true),
    };
    options
        .map(|(name, option)| (name.clone(), declared(option)))
        .collect()
}

/// Returns the resolved values of options: omitted options have their defaults, and options without
/// a value are absent.
///
/// # Errors
/// If the options cannot be serialized, which is not expected.
pub(crate) fn option_values<C: Serialize>(
    config: &C,
) -> Result<Map<String, Value>, Vec<ConfigError>> {
    // A conversion by way of text keeps the digits with which a 32-bit float was written.
    let text = serde_json::to_string(config);
    let values = text.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text));
    let values = values.map_err(|error| {
        vec![ConfigError::new(
            "",
            format!("cannot serialize the options as JSON: {error}"),
        )]
    })?;
    Ok(values
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .collect())
}

/// Returns JSON in a canonical form: keys of tables are sorted, and integers have no fraction, so
/// that `1.0` is `1`.
pub(crate) fn canonical(value: &Value) -> String {
    sorted(value, &|number| match number.as_f64() {
        // Above 9e15, floats do not represent every integer, so the original digits are kept.
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= 9e15 => {
            format!("{float:.0}")
        }
        _ => number.to_string(),
    })
}

/// Returns JSON with the keys of every table sorted and numbers formatted by `digits`.
pub fn sorted(value: &Value, digits: &dyn Fn(&Number) -> String) -> String {
    match value {
        Value::Object(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries = entries.into_iter().map(|(key, nested)| {
                format!("{}:{}", Value::from(key.as_str()), sorted(nested, digits))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Value::Array(values) => {
            format!(
                "[{}]",
                values
                    .iter()
                    .map(|element| sorted(element, digits))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        }
        Value::Number(number) => digits(number),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;

    #[derive(Serialize, JsonSchema)]
    struct Options {
        #[schemars(extend("x-changes-rows" = true, "format" = "path"))]
        path: String,
        #[schemars(extend("x-changes-rows" = false))]
        readers: Option<u16>,
        share: f32,
    }

    #[test]
    fn attributes_of_options_are_read_from_the_schema() {
        let declared = option_attributes(|generator| generator.subschema_for::<Options>());
        let found = |name: &str| (declared[name].changes_rows, declared[name].is_path);
        assert_eq!(
            [found("path"), found("readers"), found("share")],
            [(Some(true), true), (Some(false), false), (None, false)]
        );
    }

    #[test]
    fn option_values_keep_their_digits_and_omit_nulls() {
        let found = option_values(&Options {
            path: "in".into(),
            readers: None,
            share: 0.1,
        })
        .unwrap();
        assert_eq!(Value::Object(found), json!({ "path": "in", "share": 0.1 }));
    }

    #[test]
    fn canonical_text_is_equal_only_for_equal_values() {
        let same = [
            json!({ "b": [1, 2.0], "a": -3.0 }),
            json!({ "a": -3, "b": [1.0, 2] }),
        ];
        assert_eq!(canonical(&same[0]), canonical(&same[1]));
        for (one, two) in [
            (json!(1), json!(1.5)),
            (json!("1"), json!(1)),
            (json!([1]), json!([[1]])),
            (json!(1), json!(true)),
        ] {
            assert_ne!(canonical(&one), canonical(&two));
        }
        assert_eq!(canonical(&json!(u64::MAX)), u64::MAX.to_string());
    }
}
