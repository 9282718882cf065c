//! The names of stages and models.

use crate::config::settings::{ModelTable, StageTable};
use crate::error::config_error::ConfigError;
use crate::registry;

/// The message about a stage that exists only in overrides and has no kind: a mistyped name.
pub(super) fn undeclared_stage(name: &str, declared: &[String]) -> String {
    let known: Vec<&str> = declared.iter().map(String::as_str).collect();
    format!(
        "unknown stage `{name}`{}; known: {}; a new stage requires `kind`",
        registry::did_you_mean(name, &known),
        listed(&known)
    )
}

pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

pub(super) fn check_names(
    pipeline: &str,
    models: &[ModelTable],
    stages: &[StageTable],
) -> Vec<ConfigError> {
    let models = models
        .iter()
        .map(|model| (format!("models.{}", model.name), model.name.as_str()));
    let stages = stages
        .iter()
        .map(|stage| (format!("stages.{}", stage.name), stage.name.as_str()));
    let named = std::iter::once(("name".to_owned(), pipeline))
        .chain(models)
        .chain(stages);
    named
        .filter_map(|(key, name)| Some(ConfigError::new(key, name_fault(name)?)))
        .collect()
}

/// Returns the fault of an invalid name.
pub(crate) fn name_fault(name: &str) -> Option<String> {
    (!is_name(name)).then(|| {
        format!("`{name}` is not a name; expected 1 to 64 characters of a-z, 0-9, `_` and `-`")
    })
}

/// Names become metric labels, file names and environment variables, so only characters that are
/// valid in all of them are allowed.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
}
