//! Computes the values of the rules of features from the training part.

mod column_sample;
mod first_pass;

use std::sync::atomic::AtomicBool;

use crate::data::{DatasetStatistics, PreparedDataset};
use crate::error::config_error::ConfigError;
use crate::model::input::rules::encoder::{FeatureEncoder, check_columns};
use crate::model::input::rules::index::RuleIndex;
use crate::model::input::rules::{
    CategoryEncoding, DEFAULT_BUCKETS, DEFAULT_CATEGORIES, DEFAULT_QUANTILES, FeatureRule, RawType,
};
use crate::model::input::scaling::ScalingKind;
use crate::model::input::spec::InputSpec;
use crate::train::TrainError;
use crate::train::input::fit::column_sample::fit_quantiles;
use crate::train::input::fit::first_pass::fit_first;

/// Returns one rule for each value of a record, with all values computed from the training part, in
/// the order of the steps: imputation, clipping, `log1p` and scaling. Returns `None` if `stop`
/// became true before the end.
///
/// # Errors
/// When the training part cannot be read, a rule matches no column, or a column has no values, too
/// many categories, or values that are too large to be scaled.
pub(super) fn fit_rules(
    declared: &InputSpec,
    prepared: &PreparedDataset,
    stop: &AtomicBool,
) -> Result<Option<Vec<FeatureRule>>, TrainError> {
    let mut faults = check_columns(&prepared.value_names, &declared.rules);
    let mut sorted: Vec<&String> = prepared.value_names.iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!(
            "several values have the name `{}`; rename a column",
            pair[0]
        );
        faults.push(ConfigError::new("columns", message));
    }
    if !faults.is_empty() {
        return Err(refused(faults));
    }
    let mut rules = rules_of_values(declared, &prepared.value_names);
    if !fit_first(&mut rules, prepared, stop)? || !fit_quantiles(&mut rules, prepared, stop)? {
        return Ok(None);
    }
    let is_complete = fit_moments(&mut rules, prepared, stop)?;
    Ok(is_complete.then_some(rules))
}

/// Returns the error of a training with these faults of its input.
fn refused(faults: Vec<ConfigError>) -> TrainError {
    let faults = faults.into_iter().map(|fault| fault.within("input"));
    TrainError::Faults(faults.collect())
}

/// Returns the declared rule of each value, with its defaults.
fn rules_of_values(declared: &InputSpec, names: &[String]) -> Vec<FeatureRule> {
    let index = RuleIndex::new(&declared.rules);
    let plain = FeatureRule::default();
    let default_scaling = declared.scaling.unwrap_or(ScalingKind::Standard);
    let rule = |name: &String| {
        let mut rule = index.rule(name).unwrap_or(&plain).clone();
        rule.columns = vec![name.clone()];
        let default = match (rule.raw().kind, rule.encoding) {
            (RawType::Number, _) => Some(default_scaling),
            (_, Some(CategoryEncoding::Ordinal)) => Some(match default_scaling {
                ScalingKind::Robust | ScalingKind::Quantile => ScalingKind::Standard,
                other => other,
            }),
            _ => None,
        };
        rule.scaling = rule.scaling.or(default);
        match rule.encoding {
            Some(CategoryEncoding::Hashed) => {
                rule.buckets.get_or_insert(DEFAULT_BUCKETS);
            }
            Some(_) => {
                rule.max_categories.get_or_insert(DEFAULT_CATEGORIES);
            }
            None => {}
        }
        if rule.scaling == Some(ScalingKind::Quantile) {
            rule.n_quantiles.get_or_insert(DEFAULT_QUANTILES);
        }
        rule
    };
    names.iter().map(rule).collect()
}

/// Computes the values of the scalings `standard` and `min_max`, of the values after the steps
/// before. Returns `false` if `stop` became true before the end.
fn fit_moments(
    rules: &mut [FeatureRule],
    prepared: &PreparedDataset,
    stop: &AtomicBool,
) -> Result<bool, TrainError> {
    let is_affine = |kind: Option<ScalingKind>| {
        matches!(kind, Some(ScalingKind::Standard | ScalingKind::MinMax))
    };
    if !rules.iter().any(|rule| is_affine(rule.scaling)) {
        return Ok(true);
    }
    let unscaled: Vec<FeatureRule> = rules
        .iter()
        .map(|rule| FeatureRule {
            scaling: None,
            n_quantiles: None,
            ..rule.clone()
        })
        .collect();
    let names = &prepared.value_names;
    let encoder = FeatureEncoder::new(names, &unscaled).map_err(refused)?;
    let mut convert = |values: &[f64], converted: &mut Vec<f64>| {
        let values = values.iter().enumerate();
        converted.extend(values.map(|(index, &value)| encoder.unscaled(index, value)));
    };
    let training = &prepared.training;
    let found = DatasetStatistics::of_converted(training, names.len(), stop, &mut convert)?;
    let Some(DatasetStatistics {
        min,
        max,
        mean,
        std,
    }) = found
    else {
        return Ok(false);
    };
    let mut faults = Vec::new();
    for (index, rule) in rules.iter_mut().enumerate() {
        if !is_affine(rule.scaling) {
            continue;
        }
        if !(max[index] - min[index] + std[index]).is_finite() {
            let message = format!(
                "column `{}` lies in {}..{} in the training part, a range that cannot be scaled; \
                 clip it, or correct its values",
                names[index], min[index], max[index]
            );
            faults.push(ConfigError::new("scaling", message));
        }
        if rule.scaling == Some(ScalingKind::Standard) {
            (rule.mean, rule.std) = (Some(mean[index]), Some(std[index]));
        } else {
            (rule.min, rule.max) = (Some(min[index]), Some(max[index]));
        }
    }
    if faults.is_empty() {
        Ok(true)
    } else {
        Err(refused(faults))
    }
}

#[cfg(test)]
mod tests;
