//! Checks before a training starts: options, records that are left to train on, and the range of
//! values that the loss is for.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::checkpoint::TrainingCheckpoint;
use super::config::TrainingFile;
use super::input::{self, NetworkInput};
use super::network_builder::BuiltNetwork;
use super::work_folder::WorkFolder;
use super::{OutOfRange, TrainError, TrainEvent, TrainOptions};
use crate::data::{DataSpec, PreparedDataset, Subset};
use crate::error::config_error::ConfigError;
use crate::model::Loss;
use crate::model::card::CARD;
use crate::train::augmentation::InputValues;
use crate::train::input::value_range::{
    DeclaredRange, ValueRange, cross_entropy_fault, declared_range, feature_ranges,
    input_statistics,
};

/// Checks the options that do not depend on the data, and that the output folder does not contain a
/// model.
///
/// # Errors
/// All errors in the options, or the model in the output folder.
pub(crate) fn check_before_data(
    file: &TrainingFile,
    out: &Path,
    options: &TrainOptions,
) -> Result<(), TrainError> {
    let mut faults = input::faults(&file.input);
    faults.extend(file.training.faults(&file.input));
    faults.extend(check_shares(&file.data));
    if file.head.loss == Some(Loss::Bce)
        && file.input.rules.is_empty()
        && let Ok(Some(kind)) = file.input.declared_kind()
    {
        faults.extend(cross_entropy_fault(&file.input, kind));
    }
    if !faults.is_empty() {
        return Err(TrainError::Faults(faults));
    }
    let checkpoint = TrainingCheckpoint::path(&WorkFolder::path_in(out));
    if !options.restart && out.join(CARD).exists() && !checkpoint.exists() {
        return Err(TrainError::Exists(out.display().to_string()));
    }
    Ok(())
}

/// Refuses shares of validation and test that leave no record to train on. Other faults of the
/// shares are found when the data is prepared.
fn check_shares(spec: &DataSpec) -> Option<ConfigError> {
    let shares = [spec.validation, spec.test];
    let is_all = shares.iter().all(|share| (0.0..=1.0).contains(share))
        && (shares[0] + shares[1] - 1.0).abs() < 1e-9;
    is_all.then(|| {
        let key = if spec.validation >= spec.test {
            "data.validation"
        } else {
            "data.test"
        };
        let message = format!(
            "no record is left to train on: the shares of validation ({}) and test ({}) add up to \
             1; expected a sum below 1",
            spec.validation, spec.test
        );
        ConfigError::new(key, message)
    })
}

/// Returns the error of data whose training part has no record.
pub(crate) fn no_training_record(spec: &DataSpec, prepared: &PreparedDataset) -> ConfigError {
    let (validation, test) = (prepared.validation.len(), prepared.test.len());
    let (anomalies, without_label) = (prepared.anomalies, prepared.without_label);
    match &spec.normal {
        Some(normal) if (validation + test) as u64 == anomalies => {
            let column = &normal.column;
            let missing = match without_label {
                0 => String::new(),
                _ => format!(" and {without_label} have no value in `{column}`"),
            };
            let values = match &prepared.normal_values {
                Some(values) => format!("; the column `{column}` holds {values}"),
                None => String::new(),
            };
            let message = format!(
                "no record is normal, thus none is left to train on: {anomalies} records are \
                 anomalies{missing}{values}; correct the comparison"
            );
            ConfigError::new("data.normal", message)
        }
        _ => {
            let key = if (validation as u64).saturating_add(anomalies) >= test as u64 {
                "data.validation"
            } else {
                "data.test"
            };
            let message = format!(
                "no record is left to train on: the validation part has {validation} records, the \
                 test part {test} ({anomalies} of them anomalies); lower `validation` and `test`, \
                 or add records"
            );
            ConfigError::new(key, message)
        }
    }
}

/// Refuses binary cross-entropy with values of the training part outside of 0..1, and reports
/// values that the loss or the output of the network cannot represent.
///
/// # Errors
/// When the loss does not apply to the values, or the validation part cannot be read.
pub(crate) fn check_range(
    declared: &BuiltNetwork,
    input: &NetworkInput,
    prepared: &PreparedDataset,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(TrainEvent<'_>),
) -> Result<(), TrainError> {
    let is_outside = |range: &&ValueRange| !range.is_in_unit_range();
    let training = input.ranges.iter().find(is_outside);
    if declared.loss != Loss::Bce {
        if let Some(range) = training.filter(|_| declared.last_sigmoid().is_some()) {
            watch(TrainEvent::OutOfRange(&OutOfRange {
                part: Subset::Training,
                range: range.clone(),
                effect: "network.output_activation = \"sigmoid\" does not reach them",
            }));
        }
        return Ok(());
    }
    if let Some(fault) = cross_entropy_fault(&input.spec, prepared.kind) {
        return Err(TrainError::Faults(vec![fault]));
    }
    let is_unscaled = declared_range(&input.spec, prepared.kind) == DeclaredRange::Unscaled;
    if let Some(ValueRange { name, low, high }) = training.filter(|_| is_unscaled) {
        let message = format!(
            "`bce` is for values in 0..1, but {name} lies in {low}..{high} in the training part; \
             set input.scaling = \"min_max\", or loss = \"mse\""
        );
        return Err(TrainError::Faults(vec![ConfigError::new("loss", message)]));
    }
    if let InputValues::Features(features) = &input.preparing
        && !prepared.validation.is_empty()
        && let Some(statistics) = input_statistics(&prepared.validation, features, stop)?
    {
        let ranges = feature_ranges(&statistics, &prepared.value_names, features);
        if let Some(range) = ranges.iter().find(is_outside) {
            watch(TrainEvent::OutOfRange(&OutOfRange {
                part: Subset::Validation,
                range: range.clone(),
                effect: "bce clamps them to 0..1",
            }));
        }
    }
    Ok(())
}
