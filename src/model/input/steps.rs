//! The steps of the table `input`.

use crate::error::config_error::ConfigError;
use crate::image::DecodeMode;
use crate::image::preprocess::Preprocessor;
use crate::image::preprocess::named::{checked_steps, replaced_by_steps};
use crate::model::input::spec::InputSpec;

impl InputSpec {
    /// The checked steps. They give the size, which `size` may repeat.
    ///
    /// # Errors
    /// If a step is invalid, or another key contradicts the steps.
    pub(crate) fn preprocessor(&self) -> Result<Option<Preprocessor>, ConfigError> {
        let Some(steps) = &self.steps else {
            return Ok(None);
        };
        let checked = checked_steps(steps)?;
        let (height, width) = checked.size();
        if let Some(size) = self.size.filter(|size| *size != [height, width]) {
            let message = format!(
                "is {} x {}, but the steps make images of {height} x {width} pixels; remove one of \
                 them",
                size[0], size[1]
            );
            return Err(ConfigError::new("size", message));
        }
        if self.decode == Some(DecodeMode::Scaled) {
            return Err(replaced_by_steps("decode"));
        }
        Ok(Some(checked))
    }
}
