//! The registry of stage kinds: name, summary, options and planning function of each kind.

mod options;
mod renamed_keys;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::config_error::ConfigError;

pub use options::{OptionAttributes, option_attributes, sorted};
pub(crate) use options::{canonical, option_values};
pub use renamed_keys::{RenamedKeys, stored_training_file};
pub(crate) use renamed_keys::{current_training_file, with_renamed_sources};

/// Facts about a kind that other modules use, so that they name no kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct KindFacts {
    /// The extensions of the files that a source of the kind reads, in lower case and without that of
    /// a compression, or ends of their names that begin with a hyphen.
    pub file_endings: &'static [&'static str],
    /// Names of numeric columns that a transform of the kind adds to measure how well a record was
    /// reconstructed.
    pub error_columns: &'static [&'static str],
}

/// A kind of stage. `P` is the type of the role's planning function, which takes the options as
/// written.
#[derive(Clone, Copy)]
pub struct ComponentKind<P: 'static> {
    /// The name of the kind, as written after `kind =`.
    pub name: &'static str,
    /// A summary of one line for the JSON Schema.
    pub summary: &'static str,
    /// Facts that other modules use.
    pub facts: KindFacts,
    /// The JSON Schema of the options.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Returns the faults of options that cannot be planned because an input is invalid.
    pub check: fn(Value) -> Vec<ConfigError>,
    /// Plans a stage from its options.
    pub plan: P,
}

/// A planned stage and its resolved options: see [`option_values`].
pub struct ResolvedStage<S> {
    /// The planned stage.
    pub stage: S,
    /// The resolved options by name; unset options are absent.
    pub options: Map<String, Value>,
}

/// Finds a kind by name.
///
/// # Errors
/// If the name is unknown; the fault lists the known names and suggests the most similar one.
pub fn find<'a, P>(
    kinds: &'a [ComponentKind<P>],
    name: &str,
    role: &str,
) -> Result<&'a ComponentKind<P>, ConfigError> {
    kinds.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        ConfigError::new(
            "kind",
            format!(
                "unknown {role} `{name}`{}; known: {}",
                did_you_mean(name, &known),
                known.join(", ")
            ),
        )
    })
}

/// Parses the options of a table.
///
/// # Errors
/// One fault for each unknown key, and at most one for an invalid value.
pub(crate) fn parse_options<C: DeserializeOwned + JsonSchema>(
    written: Value,
) -> Result<C, Vec<ConfigError>> {
    match parse_options_lenient::<C>(written) {
        (Some(config), faults) if faults.is_empty() => Ok(config),
        (_, faults) => Err(faults),
    }
}

/// As [`parse_options`], but also returns the valid options if there are unknown keys.
pub(crate) fn parse_options_lenient<C: DeserializeOwned + JsonSchema>(
    written: Value,
) -> (Option<C>, Vec<ConfigError>) {
    let written = if written.is_null() {
        Value::Object(serde_json::Map::new())
    } else {
        written
    };
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let ignored = &mut |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let outcome = C::deserialize(serde_path_to_error::Deserializer::new(
        serde_ignored::Deserializer::new(written, ignored),
        &mut track,
    ));
    let mut faults = Vec::new();
    if !unknown.is_empty() {
        let known = known_keys::<C>();
        let renamed = RenamedKeys::of_schema(|generator| generator.subschema_for::<C>());
        faults.extend(unknown.iter().map(|key| unknown_key(key, &known, &renamed)));
    }
    match outcome {
        Ok(config) => (Some(config), faults),
        Err(error) => {
            let path = track.path().to_string();
            faults.push(ConfigError::new(
                if path == "." { String::new() } else { path },
                error.to_string(),
            ));
            (None, faults)
        }
    }
}

fn unknown_key(key: &str, known: &[String], renamed: &RenamedKeys) -> ConfigError {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(replacement) = renamed.replacement(key, &known) {
        return ConfigError::new(key, format!("`{key}` was renamed; {replacement}"));
    }
    if key.contains('.') {
        return ConfigError::new(key, "unknown key");
    }
    ConfigError::new(
        key,
        format!(
            "unknown key{}; known: {}",
            did_you_mean(key, &known),
            known.join(", ")
        ),
    )
}

fn known_keys<C: JsonSchema>() -> Vec<String> {
    let schema = SchemaGenerator::default().into_root_schema_for::<C>();
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}

/// Returns ` (did you mean ...?)` with the known word that is most similar to a mistyped one, or an
/// empty text if none is similar.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)));
    match best {
        Some(best) if strsim::jaro_winkler(word, best) > 0.75 => {
            format!(" (did you mean `{best}`?)")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(default)]
    struct Options {
        #[allow(dead_code)]
        optimizer: String,
    }

    #[test]
    fn former_and_mistyped_keys_are_refused_with_a_hint() {
        let faults = |written: Value| -> Vec<String> {
            let faults = parse_options::<Options>(written).unwrap_err().into_iter();
            faults
                .map(|fault| format!("{}: {}", fault.key, fault.message))
                .collect()
        };
        assert_eq!(
            faults(json!({ "optimiser": "adam" })),
            ["optimiser: `optimiser` was renamed; use `optimizer`"]
        );
        assert_eq!(
            faults(json!({ "optimizr": "adam" })),
            ["optimizr: unknown key (did you mean `optimizer`?); known: optimizer"]
        );
    }
}
