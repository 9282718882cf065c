//! The first pass over the training part: missing values, means and categories.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;

use crate::data::{DatasetStatistics, PreparedDataset};
use crate::error::config_error::ConfigError;
use crate::model::input::rules::words::word_number;
use crate::model::input::rules::{CategoryEncoding, FeatureRule, FillValue, ImputeMethod, RawType};
use crate::train::TrainError;
use crate::train::input::fit::refused;

/// Counts missing values, and computes means for imputation, and categories. Returns `false` if
/// `stop` became true before the end.
pub(super) fn fit_first(
    rules: &mut [FeatureRule],
    prepared: &PreparedDataset,
    stop: &AtomicBool,
) -> Result<bool, TrainError> {
    let is_imputed = |rule: &FeatureRule| rule.imputes() || rule.counts_categories();
    if !rules.iter().any(is_imputed) {
        return Ok(true);
    }
    // The records are read twice, and are counted in the first pass only.
    let mut counts = vec![ValueCounts::default(); rules.len()];
    for (rule, own) in rules.iter().zip(&mut counts) {
        // The categories of a column with too many of them are not counted.
        let name = rule.columns.first();
        let categories = name.and_then(|name| prepared.categories.get(name));
        let has_known = matches!(categories, Some(Some(_)));
        own.words = (rule.counts_categories() && has_known).then(HashMap::new);
    }
    let (mut seen, records) = (0, prepared.training.len());
    let mut visit = |values: &[f64], converted: &mut Vec<f64>| {
        if seen < records {
            let pairs = counts.iter_mut().zip(values);
            pairs.for_each(|(own, &value)| own.add(value));
            seen += 1;
        }
        converted.extend_from_slice(values);
    };
    let training = &prepared.training;
    let found = DatasetStatistics::of_converted(training, rules.len(), stop, &mut visit)?;
    let Some(statistics) = found else {
        return Ok(false);
    };
    let mut faults = Vec::new();
    for (index, (rule, own)) in rules.iter_mut().zip(counts).enumerate() {
        let name = rule.columns.first().cloned().unwrap_or_default();
        if rule.imputes() {
            rule.missing = Some(own.missing);
            if own.missing as usize == records && rule.fill_value.is_none() {
                let message = format!(
                    "column `{name}` has no value in the training part; remove the column, or set \
                     `fill_value`"
                );
                faults.push(ConfigError::new("rules", message));
                continue;
            }
        }
        if rule.impute == Some(ImputeMethod::Mean) {
            rule.fill_value = Some(FillValue::Number(statistics.mean[index]));
        }
        match (prepared.categories.get(&name), own.words) {
            (Some(Some(words)), Some(counted)) => set_categories(rule, words, &counted),
            _ if !rule.counts_categories() => {}
            // The listed categories are not counted.
            _ if rule.categories.is_some() && !imputes_category(rule) => {}
            _ => faults.push(ConfigError::new("rules", too_many(&name))),
        }
    }
    if faults.is_empty() {
        Ok(true)
    } else {
        Err(refused(faults))
    }
}

fn too_many(name: &str) -> String {
    format!(
        "column `{name}` has too many distinct values to count its categories; set encoding = \
         \"hashed\" without impute = \"most_frequent\""
    )
}

/// The missing values of a column, and the records of each category by the bits of its word number.
#[derive(Debug, Clone, Default)]
struct ValueCounts {
    missing: u64,
    words: Option<HashMap<u64, u64>>,
}

impl ValueCounts {
    fn add(&mut self, value: f64) {
        if value.is_nan() {
            self.missing += 1;
        } else if let Some(words) = &mut self.words {
            *words.entry(value.to_bits()).or_default() += 1;
        }
    }
}

/// Sets the most frequent category, and the kept categories with their counts. `words` are the
/// categories of all parts, sorted.
fn set_categories(rule: &mut FeatureRule, words: &[String], counted: &HashMap<u64, u64>) {
    let count_in_data = |word: &str| counted.get(&word_number(word).to_bits()).copied();
    let mut known: Vec<(&str, u64)> = words
        .iter()
        .filter_map(|word| Some((word.as_str(), count_in_data(word)?)))
        .collect();
    // A stable sort keeps the order of the words among equal counts.
    known.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    if imputes_category(rule)
        && let Some((word, _)) = known.first()
    {
        rule.fill_value = Some(FillValue::Word((*word).to_owned()));
    }
    if rule.encoding == Some(CategoryEncoding::Hashed) {
        return;
    }
    let mut counts: BTreeMap<&str, u64> = known.iter().copied().collect();
    // Imputed records have the category of the fill value.
    let fill = rule.fill_value.as_ref().map(FillValue::word);
    if let (Some(fill), Some(missing)) = (&fill, rule.missing.filter(|&missing| missing > 0)) {
        *counts.entry(fill).or_default() += missing;
    }
    let categories = rule.categories.clone().unwrap_or_else(|| {
        let mut kept: Vec<(&str, u64)> =
            counts.iter().map(|(word, count)| (*word, *count)).collect();
        kept.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        kept.truncate(rule.max_categories.unwrap_or_default().saturating_sub(1));
        in_order(kept.into_iter().map(|(word, _)| word.to_owned()).collect())
    });
    let count = |word: &String| counts.get(word.as_str()).copied().unwrap_or_default();
    rule.counts = Some(categories.iter().map(count).collect());
    rule.categories = Some(categories);
}

/// Whether a rule imputes the most frequent category.
fn imputes_category(rule: &FeatureRule) -> bool {
    rule.impute == Some(ImputeMethod::MostFrequent) && rule.raw().kind == RawType::Word
}

/// Sorts categories: numerically if all of them are numbers.
fn in_order(mut words: Vec<String>) -> Vec<String> {
    let number = |word: &String| word.parse::<f64>().ok().filter(|value| value.is_finite());
    words.sort_unstable();
    if words.iter().all(|word| number(word).is_some()) {
        words.sort_by(|a, b| {
            number(a)
                .unwrap_or(0.0)
                .total_cmp(&number(b).unwrap_or(0.0))
        });
    }
    words
}

/// Whether a rule imputes the median or the most frequent number, which requires sorted values.
pub(super) fn requires_sorted_values(rule: &FeatureRule) -> bool {
    let method = matches!(
        rule.impute,
        Some(ImputeMethod::Median | ImputeMethod::MostFrequent)
    );
    method && rule.raw().kind != RawType::Word
}
