//! The conversion of a record of raw values into the inputs of a model.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::config_error::ConfigError;
use crate::model::feature_groups::FeatureGroups;
use crate::model::input::rules::explicit::value_encoder;
use crate::model::input::rules::index::{RuleIndex, matches_pattern};
use crate::model::input::rules::value_encoder::{RawDescription, ValueEncoder};
use crate::model::input::rules::{FeatureRule, RawValue};

/// The maximum number of inputs of a record.
const MAX_INPUTS: usize = 1 << 20;

/// The rules of all values of a record, with explicit values.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureEncoder {
    values: Vec<ValueEncoder>,
    raw: Vec<RawValue>,
    groups: FeatureGroups,
}

impl FeatureEncoder {
    /// Takes the rules for values of these names. A value without a rule is a number that is not
    /// scaled.
    ///
    /// # Errors
    /// One error per option of a rule that is invalid, or requires a value that is not stated. The
    /// keys begin with `rules[index]`.
    pub(crate) fn new(names: &[String], rules: &[FeatureRule]) -> Result<Self, Vec<ConfigError>> {
        let mut faults = check_columns(names, rules);
        for (index, rule) in rules.iter().enumerate() {
            let found = rule.faults().into_iter().chain(rule.inexplicit_options());
            faults.extend(found.map(|fault| fault.within(&format!("rules[{index}]"))));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (plain, index) = (FeatureRule::default(), RuleIndex::new(rules));
        let each = || names.iter().map(|name| index.rule(name).unwrap_or(&plain));
        let values: Vec<ValueEncoder> = each().map(value_encoder).collect();
        let raw = each().map(FeatureRule::raw).collect();
        let groups = FeatureGroups::new(values.iter().map(ValueEncoder::width));
        if groups.inputs() > MAX_INPUTS {
            let message = format!(
                "give {} inputs per record, more than the maximum of {MAX_INPUTS}; lower \
                 `max_categories` or `buckets`, or remove columns",
                groups.inputs()
            );
            return Err(vec![ConfigError::new("rules", message)]);
        }
        Ok(Self {
            values,
            raw,
            groups,
        })
    }

    /// The raw values that are accepted as value `index` of a record.
    pub(crate) fn raw(&self, index: usize) -> RawValue {
        self.raw.get(index).copied().unwrap_or_default()
    }

    /// The inputs of each value.
    pub(crate) fn groups(&self) -> &FeatureGroups {
        &self.groups
    }

    /// Appends the inputs for a record of raw values.
    pub(crate) fn encode(&self, raw: impl Iterator<Item = f64>, inputs: &mut Vec<f32>) {
        inputs.reserve(self.groups.inputs());
        for (encoder, value) in self.values.iter().zip(raw) {
            encoder.encode(value, inputs);
        }
    }

    /// The number that is scaled for a raw value: after imputation, `clip` and `log1p`, or the index
    /// of a category.
    #[cfg(feature = "train")]
    pub(crate) fn unscaled(&self, index: usize, raw: f64) -> f64 {
        let encoder = &self.values[index];
        encoder.unscaled(encoder.fill.filter(|_| raw.is_nan()).unwrap_or(raw))
    }

    /// Describes the raw value `index` from its inputs.
    pub(crate) fn describe(&self, index: usize, inputs: &[f32]) -> RawDescription {
        let range: Range<usize> = self.groups.range(index);
        self.values[index].describe(&inputs[range])
    }
}

/// Returns one error per rule that applies to none of these names, has a name or a pattern that none of
/// them matches, or names a column that an earlier rule names. The keys begin with `rules[index]`.
pub(crate) fn check_columns(names: &[String], rules: &[FeatureRule]) -> Vec<ConfigError> {
    let index = RuleIndex::new(rules);
    let used: BTreeSet<usize> = names
        .iter()
        .filter_map(|name| index.position(name))
        .collect();
    let lists = names.iter().filter_map(|name| name.rsplit_once('['));
    let known: BTreeSet<&str> = names
        .iter()
        .map(String::as_str)
        .chain(lists.map(|(list, _)| list))
        .collect();
    let is_known = |entry: &str| {
        let is_match = |name: &&str| matches_pattern(entry, name);
        known.contains(entry) || entry.contains('*') && known.iter().any(is_match)
    };
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let key = format!("rules[{at}].columns");
        if let Some(repeated) = rule.columns.iter().find(|name| !seen.insert(*name)) {
            let message = format!("`{repeated}` is listed twice; a column has one rule");
            faults.push(ConfigError::new(key, message));
        } else if !used.contains(&at) && !rule.columns.is_empty() {
            let message = format!(
                "{} matches no column of the input without another rule; correct it, or remove \
                 the rule",
                rule.columns.join(", ")
            );
            faults.push(ConfigError::new(key, message));
        } else if let Some(unknown) = rule.columns.iter().find(|entry| !is_known(entry)) {
            let message =
                format!("`{unknown}` matches no column of the input; correct or remove it");
            faults.push(ConfigError::new(key, message));
        }
    }
    faults
}
