//! Runs a model on batches of records and returns their latents and reconstructions.

use super::sampler::MiniBatch;
use crate::error::StageError;
use crate::image::PixelFormat;
use crate::model::files::ModelPath;
use crate::model::session::chain::SessionChain;
use crate::model::tensor_spec::element_count;
use crate::model::{ImageInput, Model, same_layout};
use crate::transform::tile::{PlacedImage, TileCut, Tiling};

/// The sessions of a model, for use by one thread.
pub(super) struct ModelRunner {
    mode: RunMode,
    /// The reason of the first failure of the model on a record.
    failure: Option<String>,
}

enum RunMode {
    /// Records of one shape, processed in batches.
    Records {
        first: SessionChain,
        shape: Vec<usize>,
        /// The number of values of a latent; `None` if the output of `first` is the reconstruction.
        code: Option<usize>,
        /// Whether the output of `first` is the latent, followed by the reconstruction.
        returns_both: bool,
        decoder: Option<SessionChain>,
    },
    /// Images of any size. Large ones are processed in tiles.
    AnySize {
        chain: SessionChain,
        format: PixelFormat,
        cut: TileCut,
    },
}

/// The output of a model for a batch, with zeros for records on which it failed.
pub(super) struct ModelOutput {
    /// The latents, row-major, if the model has a code.
    pub(super) codes: Option<Vec<f32>>,
    /// The reconstructions in the layout of the records, if the model reconstructs.
    pub(super) outputs: Option<Vec<f32>>,
    /// For each record, whether the model failed or returned a value that is not finite.
    pub(super) failed: Vec<bool>,
}

impl ModelRunner {
    /// Opens the sessions. The output of a network in one file is a reconstruction if it has the
    /// layout of the input, and a latent otherwise.
    ///
    /// # Errors
    /// Returns an error if a file cannot be opened, or the shape of a record is not known.
    pub(super) fn new(model: &Model) -> Result<Self, StageError> {
        let named =
            |reason: String| StageError::Model(format!("the model `{}` {reason}", model.name()));
        if let Some(ImageInput {
            format, size: None, ..
        }) = model.image_input()
        {
            let cut = TileCut::default_for(model.size_multiple());
            return Ok(Self {
                mode: RunMode::AnySize {
                    chain: model.chain(ModelPath::Reconstruct)?.with_pixels(true),
                    format,
                    cut,
                },
                failure: None,
            });
        }
        let shape = model.input_shape();
        let shape = shape.ok_or_else(|| {
            named("does not declare the shape of its records; set `input` in its card".into())
        })?;
        let encoded_shape = model
            .output_shape(ModelPath::Encode, &shape)
            .map_err(StageError::from)?;
        let pixels = model.image_input().is_some();
        let returns_both = model.files(ModelPath::EncodeAndReconstruct).is_some();
        let path = match returns_both {
            true => ModelPath::EncodeAndReconstruct,
            false => ModelPath::Encode,
        };
        let first = model.chain(path)?.with_pixels(pixels);
        let decoder = model.files(ModelPath::Decode);
        // The output of a separate encoder is a latent, even if it has the shape of the input.
        let reconstructs = !returns_both
            && decoder.is_none()
            && model.files(ModelPath::Reconstruct).is_some()
            && same_layout(&encoded_shape, &shape);
        let mode = RunMode::Records {
            first,
            shape,
            code: element_count(&encoded_shape).filter(|_| !reconstructs),
            returns_both,
            decoder: decoder
                .map(|_| model.chain(ModelPath::Decode))
                .transpose()?,
        };
        Ok(Self {
            mode,
            failure: None,
        })
    }

    /// Returns the reason of the first failure of the model on a record.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Returns the number of values of a latent, if the model has a code.
    pub(super) fn code_size(&self) -> Option<usize> {
        match &self.mode {
            RunMode::Records { code, .. } => code.filter(|&size| size > 0),
            RunMode::AnySize { .. } => None,
        }
    }

    /// Returns the number of values of a record, if it is the same for all records.
    pub(super) fn record_len(&self) -> Option<usize> {
        match &self.mode {
            RunMode::Records { shape, .. } => element_count(shape),
            RunMode::AnySize { .. } => None,
        }
    }

    /// Encodes a batch, and decodes the latents unless `only_codes` is set.
    pub(super) fn run(&mut self, batch: &MiniBatch, only_codes: bool) -> ModelOutput {
        let reason = &mut self.failure;
        match &mut self.mode {
            RunMode::AnySize { chain, format, cut } => {
                run_images(chain, format, *cut, batch, reason)
            }
            RunMode::Records {
                first,
                shape,
                code,
                returns_both,
                decoder,
            } => {
                let len = element_count(shape).unwrap_or_default();
                let mut failed = vec![false; batch.records.len()];
                let mut run = |chain: &mut SessionChain,
                               rows: &[f32],
                               row_shape: &[usize],
                               out_len: usize| {
                    let mut out = Vec::with_capacity(out_len * failed.len());
                    for failure in chain.run_rows(rows, row_shape, out_len, &mut out) {
                        failed[failure.row] = true;
                        reason.get_or_insert(failure.reason);
                    }
                    for (row_failed, values) in
                        failed.iter_mut().zip(out.chunks_exact(out_len.max(1)))
                    {
                        *row_failed |= values.iter().any(|value| !value.is_finite());
                    }
                    out
                };
                let output_len = match (&code, &returns_both) {
                    (Some(code), true) => *code + len,
                    (Some(code), false) => *code,
                    (None, _) => len,
                };
                let encoded = run(first, &batch.values, shape, output_len);
                let (codes, outputs) = match (code, decoder) {
                    (None, _) => (None, Some(encoded)),
                    (Some(code), _) if *returns_both => {
                        let (codes, outputs) = split_rows(&encoded, *code, len);
                        (Some(codes), Some(outputs))
                    }
                    (Some(code), Some(decoder)) if !only_codes => {
                        let outputs = run(decoder, &encoded, &[*code], len);
                        (Some(encoded), Some(outputs))
                    }
                    (Some(_), _) => (Some(encoded), None),
                };
                ModelOutput {
                    codes,
                    outputs,
                    failed,
                }
            }
        }
    }
}

/// Splits rows of `code` and `len` values.
fn split_rows(rows: &[f32], code: usize, len: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut codes, mut outputs) = (Vec::new(), Vec::new());
    for row in rows.chunks_exact((code + len).max(1)) {
        codes.extend_from_slice(&row[..code]);
        outputs.extend_from_slice(&row[code..]);
    }
    (codes, outputs)
}

/// Runs the model on one image at a time, since images rarely have the same size.
fn run_images(
    chain: &mut SessionChain,
    format: &PixelFormat,
    cut: TileCut,
    batch: &MiniBatch,
    first_reason: &mut Option<String>,
) -> ModelOutput {
    let mut outputs = vec![0.0; batch.values.len()];
    let mut failed = vec![false; batch.records.len()];
    for (entry, entry_failed) in batch.records.iter().zip(&mut failed) {
        let Some(size) = format.size(&entry.shape) else {
            continue;
        };
        let image = [PlacedImage {
            values: batch.record_values(entry),
            at: entry.at.start,
        }];
        let mut refuse = |_, _, reason| {
            *entry_failed = true;
            first_reason.get_or_insert(reason);
        };
        Tiling::new(format, size, cut).run(chain, format, &image, &mut outputs, &mut refuse);
    }
    ModelOutput {
        codes: None,
        outputs: Some(outputs),
        failed,
    }
}
