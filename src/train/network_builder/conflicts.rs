//! Faults of the options of a network: options of other kinds, and sizes that do not fit.

use crate::error::config_error::ConfigError;
use crate::train::config::TrainingFile;
use crate::train::config::network::{NetworkSpec, SparsityPenalty};
use crate::train::layer_spec::Activation;
use crate::train::network_builder::kind_conflicts::{kinds_fit, options_of_layers_fit};
use crate::train::record_shape::RecordShape;

pub(super) fn conflicting_options(file: &TrainingFile, input: RecordShape) -> Vec<ConfigError> {
    let spec = &file.network;
    let mut faults = Vec::new();
    let mut fault = |key: &str, message: &str| faults.push(ConfigError::new(key, message));
    kinds_fit(file, &mut fault);
    match file.head.code_size {
        Some(0) => fault(
            "code_size",
            "must be above 0; remove it for a network without a code",
        ),
        Some(_) if matches!(input, RecordShape::Planes { size: None, .. }) => {
            fault(
                "input.size",
                "is missing; a network with a code needs images of one size, such as [64, 64]",
            );
        }
        Some(_) => {
            for (key, set) in [
                (
                    "skips",
                    spec.skips.is_some_and(|skips| skips.mode().is_some()),
                ),
                ("residual", spec.residual),
                ("space_to_depth", spec.space_to_depth),
            ] {
                if set {
                    fault(
                        &format!("network.{key}"),
                        "applies to networks without a code; it would bypass the code",
                    );
                }
            }
        }
        None if spec.channels.is_empty() => {
            fault(
                "code_size",
                "is missing; only convolutional networks (with network.channels) can omit it",
            );
        }
        None if !spec.nodes.is_empty() => {
            fault(
                "network.nodes",
                "a network without a code has no dense layers; remove them, or set code_size",
            );
        }
        None if file.sparsity.is_some() => fault(
            "sparsity",
            "applies to the code, but the network has no code; set code_size",
        ),
        None => {}
    }
    if !spec.channels.is_empty() && matches!(input, RecordShape::Flat(_)) {
        fault(
            "network.channels",
            "convolutions apply to images only; for features set network.nodes",
        );
    }
    sizes_fit(spec, &mut fault);
    options_of_layers_fit(file, &mut fault);
    if let Some(sparsity) = &file.sparsity {
        if !(sparsity.weight >= 0.0 && sparsity.weight.is_finite()) {
            fault("sparsity.weight", "must be 0 or more");
        }
        if sparsity.penalty == SparsityPenalty::Kl
            && !(sparsity.target > 0.0 && sparsity.target < 1.0)
        {
            fault(
                "sparsity.target",
                "must be above 0 and below 1, such as 0.05",
            );
        }
        let bounded = matches!(spec.code_activation, None | Some(Activation::Sigmoid));
        if sparsity.penalty == SparsityPenalty::Kl && !bounded {
            fault(
                "network.code_activation",
                "a KL penalty needs activations in 0..1; set `sigmoid`, or remove the option",
            );
        }
    }
    faults
}

/// Maximum number of values of a layer: a weight matrix between two such layers takes 4 GiB.
const MAX_WIDTH: usize = 1 << 15;

/// Maximum number of layers in one list, far more than practical networks have.
const MAX_LAYERS: usize = 256;

fn sizes_fit(spec: &NetworkSpec, fault: &mut impl FnMut(&str, &str)) {
    let decoder = spec.decoder.clone().unwrap_or_default();
    let lists = [
        ("network.nodes", Some(&spec.nodes)),
        ("network.channels", Some(&spec.channels)),
        ("network.decoder.nodes", decoder.nodes.as_ref()),
        ("network.decoder.channels", decoder.channels.as_ref()),
    ];
    for (key, list) in lists
        .into_iter()
        .filter_map(|(key, list)| Some((key, list?)))
    {
        if let Some(wrong) = list.iter().find(|&&size| size == 0 || size > MAX_WIDTH) {
            fault(
                key,
                &format!("a layer must have 1 to {MAX_WIDTH} values; met {wrong}"),
            );
        }
        if list.len() > MAX_LAYERS {
            fault(
                key,
                &format!("must have at most {MAX_LAYERS} layers; met {}", list.len()),
            );
        }
    }
    let levels = spec.channels.len();
    if decoder
        .channels
        .is_some_and(|channels| channels.len() != levels)
    {
        fault(
            "network.decoder.channels",
            &format!("must have as many entries as network.channels, {levels}"),
        );
    }
    if let Some(strides) = &spec.strides {
        if strides.len() != levels {
            fault(
                "network.strides",
                &format!(
                    "must have as many entries as network.channels, {levels}; met {}",
                    strides.len()
                ),
            );
        }
        if strides.iter().any(|stride| !matches!(stride, 1 | 2)) {
            fault("network.strides", "must each be 1 or 2");
        }
    }
    if spec.kernel.is_multiple_of(2) || spec.kernel > 31 {
        fault(
            "network.kernel",
            &format!("must be odd and at most 31, such as 3; met {}", spec.kernel),
        );
    }
    if spec.blocks > MAX_LAYERS {
        fault(
            "network.blocks",
            &format!("must be at most {MAX_LAYERS}; met {}", spec.blocks),
        );
    }
}

pub(super) fn within(key: &str) -> impl Fn(String) -> ConfigError + '_ {
    move |message| ConfigError::new(key, message)
}
