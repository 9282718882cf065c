//! The input of a model of feature records.

use std::sync::Arc;

use crate::error::config_error::ConfigError;
use crate::model::input::FeatureInput;
use crate::model::input::rules::encoder::FeatureEncoder;
use crate::model::input::scaling::{Scaling, ScalingKind};
use crate::model::input::spec::InputSpec;
use crate::model::tensor_spec::TensorSpec;

fn first_repeated(names: &[String]) -> Option<&String> {
    names
        .iter()
        .enumerate()
        .find(|(index, name)| names[..*index].contains(name))
        .map(|(_, name)| name)
}

impl InputSpec {
    pub(super) fn resolve_features(
        &self,
        spec: &TensorSpec,
        faults: &mut Vec<ConfigError>,
    ) -> Option<FeatureInput> {
        let columns = self.columns.clone().unwrap_or_default();
        if !self.rules.is_empty() {
            return self.resolve_rules(columns, spec, faults);
        }
        let width = match (columns.len(), spec.row_len()) {
            (0, Some(width)) => width,
            (0, None) => {
                let message =
                    format!("{spec} does not fix the number of features; list them in `columns`");
                faults.push(ConfigError::new("columns", message));
                return None;
            }
            (named, _) => {
                if !spec.takes(&[named]) {
                    faults.push(ConfigError::new(
                        "columns",
                        format!("the number of columns, {named}, does not fit {spec}"),
                    ));
                }
                named
            }
        };
        if let Some(repeated) = first_repeated(&columns) {
            faults.push(ConfigError::new(
                "columns",
                format!("`{repeated}` is listed twice"),
            ));
        }
        let mut list = |key: &'static str, values: &Option<Vec<f64>>| match values {
            Some(values) if values.len() != width => {
                faults.push(ConfigError::new(
                    key,
                    format!(
                        "expected as many values as features, {width}; found {}",
                        values.len()
                    ),
                ));
                vec![]
            }
            Some(values) if values.iter().any(|value| !value.is_finite()) => {
                faults.push(ConfigError::new(key, "contains a value that is not finite"));
                vec![]
            }
            Some(values) => values.clone(),
            None => {
                faults.push(ConfigError::new(key, "missing; the scaling requires it"));
                vec![]
            }
        };
        let scaling = match self.scaling.unwrap_or(ScalingKind::None) {
            ScalingKind::None => Scaling::None,
            ScalingKind::Standard => Scaling::Standard {
                mean: list("mean", &self.mean),
                std: list("std", &self.std),
            },
            ScalingKind::MinMax => Scaling::MinMax {
                min: list("min", &self.min),
                max: list("max", &self.max),
            },
            kind @ (ScalingKind::Robust | ScalingKind::Quantile) => {
                let (name, values) = match kind {
                    ScalingKind::Robust => ("robust", "`median` and `iqr`"),
                    _ => ("quantile", "`quantiles`"),
                };
                let message = format!(
                    "`{name}` requires {values} for each column, in `rules`, which a training \
                     writes"
                );
                faults.push(ConfigError::new("scaling", message));
                return None;
            }
        };
        self.unused_numbers(&scaling, faults);
        Some(FeatureInput {
            columns,
            scaling,
            encoder: None,
        })
    }

    /// Resolves an input with rules, which state the scaling of each value.
    fn resolve_rules(
        &self,
        columns: Vec<String>,
        spec: &TensorSpec,
        faults: &mut Vec<ConfigError>,
    ) -> Option<FeatureInput> {
        let encoder = match self.encoder() {
            Ok(encoder) => encoder?,
            Err(found) => {
                faults.extend(found);
                return None;
            }
        };
        let inputs = encoder.groups().inputs();
        if !spec.takes(&[inputs]) {
            let message = format!("the columns become {inputs} inputs, which do not fit {spec}");
            faults.push(ConfigError::new("rules", message));
        }
        Some(FeatureInput {
            columns,
            scaling: Scaling::None,
            encoder: Some(Arc::new(encoder)),
        })
    }

    /// Returns the conversion of raw values by the rules; `None` without rules.
    ///
    /// # Errors
    /// All errors of the rules and the columns.
    pub(crate) fn encoder(&self) -> Result<Option<FeatureEncoder>, Vec<ConfigError>> {
        if self.rules.is_empty() {
            return Ok(None);
        }
        let columns = self.columns.as_deref().unwrap_or_default();
        let others = [
            ("scaling", self.scaling.is_some()),
            ("mean", self.mean.is_some()),
            ("std", self.std.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
        ];
        let message = "cannot be combined with `rules`, which state the scaling of each value";
        let mut faults: Vec<ConfigError> = others
            .into_iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(key, _)| ConfigError::new(key, message))
            .collect();
        if let Some(repeated) = first_repeated(columns) {
            let twice = format!("`{repeated}` is listed twice");
            faults.push(ConfigError::new("columns", twice));
        }
        match FeatureEncoder::new(columns, &self.rules) {
            Ok(encoder) if faults.is_empty() => Ok(Some(encoder)),
            Ok(_) => Err(faults),
            Err(found) => {
                faults.extend(found);
                Err(faults)
            }
        }
    }

    /// Adds an error for each list of numbers that the chosen scaling does not use: the user
    /// expects it to have an effect.
    fn unused_numbers(&self, scaling: &Scaling, faults: &mut Vec<ConfigError>) {
        let standard = matches!(scaling, Scaling::Standard { .. });
        let min_max = matches!(scaling, Scaling::MinMax { .. });
        let unused = [
            ("mean", self.mean.is_some() && !standard, "standard"),
            ("std", self.std.is_some() && !standard, "standard"),
            ("min", self.min.is_some() && !min_max, "min_max"),
            ("max", self.max.is_some() && !min_max, "min_max"),
        ];
        for (key, _, required) in unused.into_iter().filter(|(_, unused, _)| *unused) {
            faults.push(ConfigError::new(
                key,
                format!("is not used; set scaling = \"{required}\", or remove it"),
            ));
        }
    }

    pub(super) fn feature_keys(&self) -> Vec<&'static str> {
        let set = [
            ("columns", self.columns.is_some()),
            ("scaling", self.scaling.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("rules", !self.rules.is_empty()),
        ];
        set.into_iter()
            .filter_map(|(key, set)| set.then_some(key))
            .collect()
    }
}
