//! The checks of a model: its files, its shapes, and whether it is deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::error::config_error::ConfigError;
use crate::model::card::CARD;
use crate::model::files::{ModelNetwork, ModelPath};
use crate::model::load::digest::{file_digests, sha256};
use crate::model::load::files::{ModelFiles, OnnxFiles};
use crate::model::nondeterminism::{self, NondeterministicOutputs};
use crate::model::session::shape_mismatch;
use crate::model::tensor_spec::element_count;
use crate::model::{Model, RuntimeSpec, same_layout};

/// Checks that the latents fit the decoder and that its output fits the input of the encoder.
/// Returns the size of a latent, if it is known.
pub(super) fn match_shapes(model: &Model) -> Result<Option<usize>, ConfigError> {
    let (encoder, decoder) = match &model.network {
        ModelNetwork::Autoencoder { encoder, decoder } => (encoder, decoder.as_ref()),
        ModelNetwork::SingleFile(file) if file.reconstruction.is_some() => (file, None),
        ModelNetwork::SingleFile(_) | ModelNetwork::Graph(_) => return Ok(None),
    };
    let listed = model.card.as_ref().and_then(|card| card.code_size);
    let Some(shape) = model.input_shape() else {
        return match (encoder.output.row_shape(), decoder) {
            (Some(code), Some(decoder)) if !decoder.input.takes(&code) => {
                let message = format!(
                    "{}: {}",
                    decoder.path.display(),
                    shape_mismatch(&code, &decoder.input)
                );
                Err(ConfigError::new("decoder", message))
            }
            _ => Ok(listed),
        };
    };
    let code = model
        .output_shape(ModelPath::Encode, &shape)
        .map_err(|error| error.at(encoder.role))?;
    let size = element_count(&code);
    if let (Some(size), Some(listed)) = (size, listed)
        && size != listed
    {
        let message = format!(
            "the model card sets `code_size` to {listed}, but the encoder returns the shape \
             {code:?}"
        );
        return Err(ConfigError::new(encoder.role, message));
    }
    if encoder.named_reconstruction.is_some() {
        let back = model
            .output_shape(ModelPath::Reconstruct, &shape)
            .map_err(|error| error.at("reconstruction"))?;
        if !same_layout(&back, &shape) {
            let message =
                format!("the output has the shape {back:?} for records of shape {shape:?}");
            return Err(ConfigError::new("reconstruction", message));
        }
    }
    if decoder.is_some() {
        let back = model
            .output_shape(ModelPath::Decode, &code)
            .map_err(|error| error.at("decoder"))?;
        if !same_layout(&back, &shape) {
            let message =
                format!("the decoder returns the shape {back:?} for records of shape {shape:?}");
            return Err(ConfigError::new("decoder", message));
        }
    }
    Ok(size)
}

impl ModelFiles {
    /// Reads all ONNX files, computes their digests and those of their external data, and checks
    /// the digests of the card.
    pub(super) fn verify(&self) -> Result<OnnxFiles, Vec<ConfigError>> {
        let (mut digests, mut outputs, mut faults) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        // The files of the card are mostly the same, and large models take long to read.
        let mut by_path = BTreeMap::new();
        for (role, path) in self.parts() {
            match file_digests(path) {
                Ok((found, of_file)) => {
                    by_path.extend(found.iter().map(|(file, hex)| match file.as_str() {
                        "" => (path.to_path_buf(), hex.clone()),
                        external => (path.with_file_name(external), hex.clone()),
                    }));
                    digests.extend(
                        found
                            .into_iter()
                            .map(|(file, hex)| (format!("{role} {file}"), hex)),
                    );
                    outputs.insert(role, of_file);
                }
                Err(message) => faults.push(ConfigError::new(
                    if self.folder.is_some() { "path" } else { role },
                    message,
                )),
            }
        }
        let mut paths: BTreeSet<PathBuf> = by_path.keys().cloned().collect();
        if let (Some(folder), Some(card)) = (&self.folder, &self.card) {
            paths.insert(folder.join(CARD));
            for (file, listed) in &card.files {
                let path = folder.join(file);
                let known = by_path.get(&path).cloned();
                match known.map_or_else(|| sha256(&path), Ok) {
                    Ok(hex) if listed.strip_prefix("sha256:") == Some(hex.as_str()) => {
                        paths.insert(path);
                    }
                    Ok(hex) => {
                        let message = format!(
                            "the digest of the file is sha256:{hex}, but the model card lists \
                             {listed}"
                        );
                        faults.push(self.fault("path", &path, &message));
                    }
                    Err(message) => faults.push(ConfigError::new("path", message)),
                }
            }
        }
        faults.dedup();
        if faults.is_empty() {
            Ok(OnnxFiles {
                digests,
                outputs,
                paths,
            })
        } else {
            Err(faults)
        }
    }

    /// The reason and the fault of the first file whose selected output is not deterministic.
    pub(super) fn nondeterminism(
        &self,
        network: &ModelNetwork,
        outputs: &BTreeMap<&'static str, NondeterministicOutputs>,
        runtime: &RuntimeSpec,
    ) -> Option<(String, ConfigError)> {
        let files = match network {
            ModelNetwork::Autoencoder { encoder, decoder } => vec![Some(encoder), decoder.as_ref()],
            ModelNetwork::SingleFile(file) => vec![Some(file)],
            ModelNetwork::Graph(_) => vec![],
        };
        files.into_iter().flatten().find_map(|file| {
            let single = match file.input.batch() {
                Some(batch) => batch == 1,
                None => runtime.max_batch_records.is_some_and(|max| max.get() == 1),
            };
            let output_option = match file.role {
                "decoder" => "decoder_output",
                _ => "output",
            };
            let reconstruction = file.reconstruction.as_ref();
            let taken = [
                (Some(&file.output), Some(output_option)),
                (reconstruction, None),
            ];
            let outputs = outputs.get(file.role)?;
            let found = taken.into_iter().find_map(|(output, option)| {
                nondeterminism::fault(outputs, &output?.name, single, option)
            })?;
            let fault = self.fault(file.role, &file.path, &found.message);
            Some((found.reason, fault))
        })
    }
}
