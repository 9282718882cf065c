//! The preprocessing that a preset or a file of a model names.

use std::path::PathBuf;

use crate::error::config_error::ConfigError;
use crate::fs_durable::bounded_read::read_bounded;
use crate::image::preprocess::framework_config;
use crate::image::preprocess::preset::{PixelPreset, PreprocessingOptions};
use crate::image::preprocess::steps::PreprocessStep;
use crate::image::preprocess::{ImageOptionError, Preprocessor};

/// Maximum size in bytes of a file that describes the preprocessing.
const MAX_FILE: u64 = 1 << 20;

impl PreprocessingOptions {
    /// The options of the preset, or of the file, which is `preprocessor_config.json` of transformers
    /// or `config.json` of timm.
    ///
    /// # Errors
    /// If both are given, or the file cannot be read or has unsupported keys.
    pub(crate) fn named(
        preset: Option<PixelPreset>,
        file: Option<&PathBuf>,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(path) = file else {
            return Ok(preset.map(PixelPreset::options));
        };
        if preset.is_some() {
            return Err(two_descriptions("preset", "preprocessor"));
        }
        let fault = |reason: String| {
            ConfigError::new("preprocessor", format!("{}: {reason}", path.display()))
        };
        let text = read_bounded(path, MAX_FILE).map_err(|error| fault(error.to_string()))?;
        let options = framework_config::parse(&text);
        options.map(Some).map_err(|error| fault(error.to_string()))
    }
}

/// The fault of a key that describes the preprocessing as well as another one.
pub(crate) fn two_descriptions(first: &str, second: &str) -> ConfigError {
    let message = format!("`{first}` describes the preprocessing as well; remove one of them");
    ConfigError::new(second, message)
}

/// Checks the option `steps`.
///
/// # Errors
/// A fault at `steps`, or at the invalid step.
pub(crate) fn checked_steps(steps: &[PreprocessStep]) -> Result<Preprocessor, ConfigError> {
    Preprocessor::new(steps).map_err(|(index, error): (_, ImageOptionError)| {
        let key = index.map_or_else(|| "steps".to_owned(), |index| format!("steps[{index}]"));
        ConfigError::new(key, error.to_string())
    })
}

/// The fault of an option that has no effect with steps.
pub(crate) fn replaced_by_steps(key: &str) -> ConfigError {
    let message = format!(
        "has no effect with steps, which resize an image that is decoded in full; remove `{key}`"
    );
    ConfigError::new(key, message)
}
