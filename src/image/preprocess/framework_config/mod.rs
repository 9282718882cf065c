//! The files that come with models: `preprocessor_config.json` of transformers, and `config.json` of
//! timm with its `pretrained_cfg`.

mod error;
mod timm;
mod transformers;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::image::preprocess::framework_config::error::FrameworkConfigError;
use crate::image::preprocess::framework_config::timm::TimmConfig;
use crate::image::preprocess::framework_config::transformers::TransformersConfig;
use crate::image::preprocess::preset::PreprocessingOptions;

/// Reads a file of transformers or timm.
///
/// # Errors
/// If the text is not such a file, or describes steps that are not supported.
pub(crate) fn parse(text: &[u8]) -> Result<PreprocessingOptions, FrameworkConfigError> {
    let invalid = |error: serde_json::Error| FrameworkConfigError::Invalid(error.to_string());
    let mut keys: Map<String, Value> = serde_json::from_slice(text).map_err(invalid)?;
    // A null has the same effect as a missing key.
    keys.retain(|_, value| !value.is_null());
    match keys.remove("pretrained_cfg") {
        Some(timm) => typed::<TimmConfig>(timm)?.preprocessing(),
        None => {
            TransformersConfig::check_keys(&keys)?;
            typed::<TransformersConfig>(Value::Object(keys))?.preprocessing()
        }
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, FrameworkConfigError> {
    serde_json::from_value(value).map_err(|error| FrameworkConfigError::Invalid(error.to_string()))
}

#[cfg(test)]
mod tests;
