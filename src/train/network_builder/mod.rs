//! The construction of a network from a training file, with all errors of the file reported
//! together.

pub(crate) mod conflicts;
pub(crate) mod convolutions;
pub(crate) mod kind_conflicts;
pub(crate) mod layers;

use super::config::TrainingFile;
use super::sequential::Sequential;
use crate::error::config_error::ConfigError;
use crate::model::Loss;
use crate::model::input::spec::InputKind;
use crate::train::input::value_range::{DeclaredRange, declared_range};
use crate::train::layer_spec::{Activation, LayerSpec};
use crate::train::network_builder::conflicts::conflicting_options;
use crate::train::network_builder::layers::NetworkBuilder;
use crate::train::parameter::{Parameter, ParameterRole};
use crate::train::record_shape::RecordShape;

/// A network as a training file declares it, and its loss.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BuiltNetwork {
    /// The chains of layers.
    pub network: BuiltLayers,
    /// The loss function.
    pub loss: Loss,
    /// Whether the weights of the decoder are those of the encoder, transposed.
    pub tied: bool,
}

/// A weight matrix of the decoder and the one of the encoder whose transpose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tie {
    /// The index of the matrix of the decoder among all parameters.
    pub decoder: usize,
    /// The index of the matrix of the encoder.
    pub encoder: usize,
    /// Rows and columns of the matrix of the encoder.
    pub shape: [usize; 2],
}

impl BuiltNetwork {
    /// Returns the parameters of all chains, one after the other.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let chains = self.network.chains();
        let mut all: Vec<Parameter> = chains.iter().flat_map(|chain| chain.parameters()).collect();
        for tie in self.ties() {
            all[tie.decoder].role = ParameterRole::Tied;
        }
        all
    }

    /// Returns the tied weights: the first matrix of the decoder is the last of the encoder, and so
    /// on.
    pub(crate) fn ties(&self) -> Vec<Tie> {
        let BuiltLayers::Autoencoder { encoder, decoder } = &self.network else {
            return Vec::new();
        };
        if !self.tied {
            return Vec::new();
        }
        let matrices = |parameters: Vec<Parameter>| -> Vec<(usize, Vec<usize>)> {
            let all = parameters.into_iter().enumerate();
            let matrices = all.filter(|(_, parameter)| parameter.role == ParameterRole::Matrix);
            matrices
                .map(|(index, parameter)| (index, parameter.shape))
                .collect()
        };
        let first = encoder.parameters().len();
        let pairs = matrices(encoder.parameters())
            .into_iter()
            .rev()
            .zip(matrices(decoder.parameters()));
        pairs
            .map(|((index, shape), (other, _))| Tie {
                decoder: first + other,
                encoder: index,
                shape: [shape[0], shape[1]],
            })
            .collect()
    }

    /// Returns the index of the last layer in its chain if it is a sigmoid. A change of the shape may
    /// follow it.
    pub(crate) fn last_sigmoid(&self) -> Option<usize> {
        let chains = self.network.chains();
        let layers = chains.last()?.layers();
        let computes = |layer: &LayerSpec| !matches!(layer, LayerSpec::Unflatten { .. });
        let last = layers.iter().rposition(computes)?;
        (layers[last] == LayerSpec::Activate(Activation::Sigmoid)).then_some(last)
    }
}

/// The chains of layers of a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum BuiltLayers {
    /// An encoder and a decoder with a code in between.
    Autoencoder {
        /// From input to code.
        encoder: Sequential,
        /// From code to reconstruction.
        decoder: Sequential,
    },
    /// From input to output, without a code.
    Whole(Sequential),
}

impl BuiltLayers {
    /// Returns the chains in the order in which they run.
    pub(crate) fn chains(&self) -> Vec<&Sequential> {
        match self {
            Self::Autoencoder { encoder, decoder } => vec![encoder, decoder],
            Self::Whole(whole) => vec![whole],
        }
    }

    /// Returns the number of which the height and width of images must be multiples.
    pub(crate) fn size_multiple(&self) -> usize {
        let Self::Whole(whole) = self else { return 1 };
        let halves = |step: &&LayerSpec| {
            matches!(step, LayerSpec::SpaceToDepth)
                || matches!(step, LayerSpec::Conv(c) if c.stride == 2)
        };
        1 << whole.layers().iter().filter(halves).count()
    }
}

/// Builds the network that a file declares, for records of the shape `input`. `moments` are the
/// mean and the deviation of all values of the training part.
///
/// # Errors
/// All errors in the file, with keys from its top.
pub fn build(
    file: &TrainingFile,
    input: RecordShape,
    moments: (f64, f64),
) -> Result<BuiltNetwork, Vec<ConfigError>> {
    let mut faults = conflicting_options(file, input);
    let build = NetworkBuilder {
        file,
        spec: &file.network,
        input,
    };
    let output = file.network.output_activation;
    let kind = match input {
        RecordShape::Flat(_) => InputKind::Features,
        RecordShape::Planes { .. } => InputKind::Image,
    };
    let loss = file.head.loss.unwrap_or_else(|| default_loss(file, kind));
    let output = output.unwrap_or(if loss == Loss::Bce {
        Activation::Sigmoid
    } else {
        Activation::Linear
    });
    if loss == Loss::Bce && output != Activation::Sigmoid {
        let message = format!(
            "binary cross-entropy needs `sigmoid`, not `{}`; remove the option",
            output.as_str()
        );
        faults.push(ConfigError::new("network.output_activation", message));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let network = match file.head.code_size {
        Some(code) => build.autoencoder(code, output, moments),
        None => build.whole(output),
    };
    network
        .map(|network| BuiltNetwork {
            network,
            loss,
            tied: file.network.tied,
        })
        .map_err(|fault| vec![fault])
}

/// Returns the loss of a file that does not set one: binary cross-entropy if the network ends in a
/// sigmoid and its inputs lie in 0..1, otherwise the mean squared error.
pub(crate) fn default_loss(file: &TrainingFile, kind: InputKind) -> Loss {
    let is_sigmoid = file.network.output_activation == Some(Activation::Sigmoid);
    // The range that rules give depends on the columns.
    let has_rules = !file.input.rules.is_empty();
    if is_sigmoid && !has_rules && declared_range(&file.input, kind) == DeclaredRange::Unit {
        Loss::Bce
    } else {
        Loss::Mse
    }
}

#[cfg(test)]
mod tests;
