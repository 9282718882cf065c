//! The table `training` of a training file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::ConfigError;
use crate::model::input::spec::InputSpec;
use crate::train::optimizer::Optimizer;
use crate::train::schedule::LearningRateSchedule;

/// `[training]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainingSpec {
    /// The number of epochs: how often training uses each record. A training that was stopped may
    /// be continued with another number. Default: 20.
    pub epochs: u32,
    /// The minimum number of training steps: the number of epochs is raised until it is reached, for
    /// data with few records. A training that was stopped may be continued with another number, and
    /// `patience` may end it earlier. Default: no minimum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_steps: Option<u64>,
    /// The number of records per training step. Default: 128; 64, 32 or 16 if the training has
    /// fewer than 2000 steps otherwise.
    pub batch_size: Option<usize>,
    /// The optimizer. Default: adam.
    pub optimizer: Optimizer,
    /// The maximum of the learning rate. Default: 0.001.
    pub learning_rate: f64,
    /// The decay of the learning rate. Default: cosine.
    pub schedule: LearningRateSchedule,
    /// The number of steps in which the learning rate rises from 0. Default: a twentieth of all
    /// steps, at most 100.
    pub warmup: Option<u64>,
    /// The fraction of each weight, times the learning rate, that is subtracted from it in each
    /// step. Default: 0.
    pub weight_decay: f32,
    /// The maximum norm of the gradient over all weights; a larger gradient is scaled down to it.
    /// Default: no maximum.
    pub clip_grad_norm: Option<f32>,
    /// The decay of an exponential moving average of the weights, such as 0.999. Validation and the
    /// model then use the average. Default: no average.
    pub ema_decay: Option<f32>,
    /// The number of epochs without a better validation loss after which training ends, 1 or more.
    /// Default: no such limit.
    pub patience: Option<u32>,
    /// For images: the side of the squares, in pixels, that are cut from images at random positions
    /// for training. Default: entire images.
    pub crop: Option<usize>,
    /// For images of one size: the range of the height and width of randomly cut parts, as
    /// fractions of the image, such as [0.3, 1.0]. Training uses these parts, resized to the size
    /// of the input. Default: entire images.
    pub zoom: Option<[f32; 2]>,
    /// The number of squares or parts that are cut from each image in an epoch. Default: 1.
    pub crops: usize,
    /// For images: random flips. Default: none.
    pub flips: Flips,
}

impl Default for TrainingSpec {
    fn default() -> Self {
        Self {
            epochs: 20,
            min_steps: None,
            batch_size: None,
            optimizer: Optimizer::default(),
            learning_rate: 1e-3,
            schedule: LearningRateSchedule::default(),
            warmup: None,
            weight_decay: 0.0,
            clip_grad_norm: None,
            ema_decay: None,
            patience: None,
            crop: None,
            zoom: None,
            crops: 1,
            flips: Flips::default(),
        }
    }
}

/// Random flips of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flips {
    /// No flips.
    #[default]
    None,
    /// Flips of left and right.
    Horizontal,
    /// Flips of left and right and of top and bottom, and rotations of squares by 90 degrees.
    All,
}

impl TrainingSpec {
    /// Returns the errors in these options for `input`, with keys from the top of the file.
    pub fn faults(&self, input: &InputSpec) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| {
            faults.push(ConfigError::new(format!("training.{key}"), message))
        };
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            fault(
                "learning_rate",
                format!("must be above 0, such as 0.001; met {}", self.learning_rate),
            );
        }
        if self.epochs == 0 {
            fault("epochs", "must be above 0".to_owned());
        }
        if self.min_steps.is_some_and(|steps| steps > MAX_STEPS) {
            fault("min_steps", format!("must be at most {MAX_STEPS}"));
        }
        if self.patience == Some(0) {
            fault(
                "patience",
                "must be 1 epoch or more; met 0; remove it to train for all epochs".to_owned(),
            );
        }
        if let Some(size) = self
            .batch_size
            .filter(|size| !(1..=MAX_BATCH).contains(size))
        {
            fault(
                "batch_size",
                format!("must lie between 1 and {MAX_BATCH}; met {size}"),
            );
        }
        if !(0.0..1.0).contains(&self.weight_decay) {
            fault(
                "weight_decay",
                format!("must be 0 or more and below 1; met {}", self.weight_decay),
            );
        }
        if self
            .clip_grad_norm
            .is_some_and(|norm| norm.is_nan() || norm <= 0.0)
        {
            fault("clip_grad_norm", "must be above 0, such as 1.0".to_owned());
        }
        if self
            .ema_decay
            .is_some_and(|decay| !(0.0..1.0).contains(&decay))
        {
            fault(
                "ema_decay",
                "must be 0 or more and below 1, such as 0.999".to_owned(),
            );
        }
        if self.crops == 0 || self.crops > MAX_CROPS {
            fault(
                "crops",
                format!("must lie between 1 and {MAX_CROPS}; met {}", self.crops),
            );
        }
        if self
            .crop
            .is_some_and(|crop| !(4..=MAX_CROP).contains(&crop))
        {
            fault("crop", format!("must lie between 4 and {MAX_CROP} pixels"));
        }
        if self.crop.is_some() && input.size.is_some() {
            fault(
                "crop",
                "applies to networks for images of any size; remove it, or remove input.size"
                    .to_owned(),
            );
        }
        if self.crop.is_none() && self.zoom.is_none() && self.crops > 1 {
            fault(
                "crops",
                "has no effect without training.crop or training.zoom".to_owned(),
            );
        }
        if self
            .zoom
            .is_some_and(|[low, high]| !(low > 0.0 && low <= high && high <= 1.0))
        {
            fault(
                "zoom",
                "must be an ascending range above 0 and up to 1, such as [0.3, 1.0]".to_owned(),
            );
        }
        if let Some(message) = self.zoom.and_then(|_| zoom_fault(input)) {
            fault("zoom", message.to_owned());
        }
        faults
    }
}

/// The reason that parts of images cannot be cut for an input.
fn zoom_fault(input: &InputSpec) -> Option<&'static str> {
    if input.steps.is_some() {
        return Some(
            "cuts parts from images before the steps of the input; remove it, or remove \
             input.steps",
        );
    }
    input.size.is_none().then_some(
        "applies to networks for images of one size; set input.size, or use training.crop",
    )
}

/// Maximum number of records per step. More records would not fit into memory for networks of
/// practical size.
const MAX_BATCH: usize = 1 << 16;

/// Maximum of the minimum number of steps. Numbers of epochs thus fit into 32 bits.
const MAX_STEPS: u64 = 1_000_000_000;

/// Maximum side of a crop, in pixels.
const MAX_CROP: usize = 1024;

/// Maximum number of crops of an image in an epoch.
const MAX_CROPS: usize = 1 << 16;
