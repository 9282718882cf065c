//! The options of the transform `features`.

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::config_error::ConfigError;
use crate::model::input::rules::FeatureRule;
use crate::model::{FeatureInput, Scaling};
use crate::plan_context::PlanContext;
use crate::transform::clamp_warning::ClampWarning;
use crate::transform::features::FeaturesTransform;
use crate::transform::features::columns::{is_element, with_matching_columns};
use crate::transform::{TransformConfig, TransformPlan};

/// Options of `features`: the columns and their scaling, or the model whose card contains both.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct FeaturesConfig {
    /// The columns, in the order of the vector: numbers, booleans (1 and 0), or lists, of which all
    /// values are used; with `rules` also categories and times. In a name, `*` matches any
    /// characters. Not required if the model card lists them. For a model that was trained on a list
    /// column, another list column can be named.
    #[schemars(extend("x-changes-rows" = true))]
    pub columns: Vec<String>,
    /// The model from whose card the columns and the scaling are taken.
    // The digest of the model is part of the fingerprint instead of its name.
    #[schemars(extend("x-changes-rows" = false))]
    pub model: Option<String>,
    /// The scaling of the values, if no model defines it: `none`, `standard` (with `mean` and
    /// `std`) or `min_max` (with `min` and `max`). Default: none.
    #[schemars(extend("x-changes-rows" = true))]
    pub scaling: Option<ScalingMethod>,
    /// For `standard`: the mean that is subtracted, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub mean: Vec<f64>,
    /// For `standard`: the standard deviation by which values are divided, one number per value of
    /// the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub std: Vec<f64>,
    /// For `min_max`: the value that becomes 0, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub min: Vec<f64>,
    /// For `min_max`: the value that becomes 1, one number per value of the vector.
    #[schemars(extend("x-changes-rows" = true))]
    pub max: Vec<f64>,
    /// Rules for missing values, outliers, scaling, categories and times, if no model defines them.
    /// Every value that a training would compute must be stated, such as `fill_value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-changes-rows" = true))]
    pub rules: Vec<FeatureRule>,
    /// The number of values of the vector, before `rules` are applied; required only for a column of
    /// lists without a fixed length, if there is no scaling.
    #[schemars(extend("x-changes-rows" = true))]
    pub width: Option<usize>,
    /// The name of the vector column. Default: features.
    #[schemars(extend("x-changes-rows" = true))]
    pub to: String,
    /// Whether to keep the columns that are used. Default: false.
    #[schemars(extend("x-changes-rows" = true))]
    pub keep: bool,
}

impl Default for FeaturesConfig {
    fn default() -> Self {
        Self {
            columns: vec![],
            model: None,
            scaling: None,
            mean: vec![],
            std: vec![],
            min: vec![],
            max: vec![],
            rules: vec![],
            width: None,
            to: "features".to_owned(),
            keep: false,
        }
    }
}

/// The methods of scaling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScalingMethod {
    /// Values are not scaled.
    #[default]
    None,
    /// `(value - mean) / std`.
    Standard,
    /// `(value - min) / (max - min)`; values outside the range are not clipped to 0..1.
    MinMax,
}

impl TransformConfig for FeaturesConfig {
    fn plan(
        &mut self,
        input: &SchemaRef,
        context: &PlanContext,
    ) -> Result<Box<dyn TransformPlan>, Vec<ConfigError>> {
        let mut faults = self.check_unused_options();
        let expanded = with_matching_columns(&self.columns, input, "columns");
        self.columns = expanded.map_err(|found| [faults.clone(), found].concat())?;
        let mut clamped = None;
        let selected = match &self.model {
            None => FeatureInput {
                columns: self.columns.clone(),
                scaling: self.scaling(&mut faults),
                encoder: None,
            },
            Some(name) => {
                let model = context
                    .model(name)
                    .map_err(|more| faults.iter().cloned().chain(more).collect::<Vec<_>>())?;
                clamped = ClampWarning::new(&model);
                let declared = model
                    .feature_input()
                    .ok_or_else(|| format!("the model `{name}` does not take feature records"));
                let selected = declared.and_then(|features| self.for_model(features));
                selected.map_err(|message| vec![ConfigError::new("model", message)])?
            }
        };
        let planned = FeaturesTransform::new(self, input, selected, &mut faults);
        match planned {
            Some(mut planned) if faults.is_empty() => {
                planned.clamped = clamped;
                self.width = Some(planned.raw_width);
                if self.model.is_none() && self.rules.is_empty() {
                    self.scaling.get_or_insert_default();
                }
                Ok(Box::new(planned))
            }
            _ => Err(faults),
        }
    }
}

impl FeaturesConfig {
    /// Returns the faults of options that have no effect with the other options.
    fn check_unused_options(&self) -> Vec<ConfigError> {
        let method = self.scaling.unwrap_or_default();
        let lists = [
            ("mean", &self.mean, ScalingMethod::Standard),
            ("std", &self.std, ScalingMethod::Standard),
            ("min", &self.min, ScalingMethod::MinMax),
            ("max", &self.max, ScalingMethod::MinMax),
        ];
        let unused = lists
            .into_iter()
            .filter(|(_, list, owner)| !list.is_empty() && *owner != method);
        let mut faults: Vec<ConfigError> = unused
            .map(|(key, _, owner)| {
                let owner = if owner == ScalingMethod::Standard {
                    "standard"
                } else {
                    "min_max"
                };
                ConfigError::new(key, format!("has no effect without scaling = \"{owner}\""))
            })
            .collect();
        if self.model.is_some() && self.scaling.is_some() {
            faults.push(ConfigError::new(
                "scaling",
                "the model already defines the scaling of its input; leave this out",
            ));
        }
        if self.model.is_some() && !self.rules.is_empty() {
            faults.push(ConfigError::new(
                "rules",
                "the model already defines the rules of its input; leave this out",
            ));
        }
        if self.scaling.is_some() && !self.rules.is_empty() {
            faults.push(ConfigError::new(
                "scaling",
                "cannot be combined with `rules`, which state the scaling of each column",
            ));
        }
        faults
    }

    /// The scaling as written. If no fault is added, its lists are valid and have equal lengths.
    pub(super) fn scaling(&self, faults: &mut Vec<ConfigError>) -> Scaling {
        let (low, high) = match self.scaling.unwrap_or_default() {
            ScalingMethod::None => return Scaling::None,
            ScalingMethod::Standard => (("mean", &self.mean), ("std", &self.std)),
            ScalingMethod::MinMax => (("min", &self.min), ("max", &self.max)),
        };
        if low.1.len() != high.1.len() || low.1.is_empty() {
            let lengths = format!("met {} and {}", low.1.len(), high.1.len());
            let message = format!(
                "`{}` and `{}` require one number per value; {lengths}",
                low.0, high.0
            );
            faults.push(ConfigError::new(low.0, message));
        }
        for (key, list) in [low, high] {
            if list.iter().any(|value| !value.is_finite()) {
                faults.push(ConfigError::new(key, "holds a number that is not finite"));
            }
        }
        let (lows, highs) = (low.1.clone(), high.1.clone());
        if low.0 == "mean" {
            if highs.iter().any(|&std| std <= 0.0) {
                faults.push(ConfigError::new(
                    "std",
                    "must be above 0; for a column that never changes, write 1",
                ));
            }
            return Scaling::Standard {
                mean: lows,
                std: highs,
            };
        }
        if lows.iter().zip(&highs).any(|(min, max)| max <= min) {
            faults.push(ConfigError::new(
                "max",
                "must be above `min`; for a column that never changes, write min + 1",
            ));
        }
        Scaling::MinMax {
            min: lows,
            max: highs,
        }
    }

    /// The input of the model, with the columns of the options if the model does not list columns.
    pub(super) fn for_model(&self, input: &FeatureInput) -> Result<FeatureInput, String> {
        match (input.columns.is_empty(), self.columns.is_empty()) {
            (false, true) => Ok(input.clone()),
            (true, _) => Ok(FeatureInput {
                columns: self.columns.clone(),
                ..input.clone()
            }),
            // The list column may have another name than in the training.
            (false, false) if input.columns.iter().all(|name| is_element(name)) => {
                Ok(FeatureInput {
                    columns: self.columns.clone(),
                    ..input.clone()
                })
            }
            (false, false) => {
                Err("the model card lists the columns; leave out `columns` or `model`".to_owned())
            }
        }
    }
}
