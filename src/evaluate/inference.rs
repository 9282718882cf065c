//! A model at work on slices of records: their codes, and what it makes of them.

use super::sampler::MiniBatch;
use crate::error::StageError;
use crate::image::PixelFormat;
use crate::model::session::SessionChain;
use crate::model::tensor_spec::values;
use crate::model::{ImageInput, Model, ModelPath, same_layout};
use crate::transform::tile::{PlacedImage, TileCut, Tiling};

/// Sessions of a model, on the thread that owns them.
pub(super) struct ModelRunner {
    mode: RunMode,
    /// Why the model failed on a record, the first time that it did.
    failure: Option<String>,
}

enum RunMode {
    /// Records of one shape.
    Records {
        first: SessionChain,
        shape: Vec<usize>,
        code: Option<usize>,
        decoder: Option<SessionChain>,
    },
    /// Images of any size, in tiles where they are large.
    AnySize {
        chain: SessionChain,
        format: PixelFormat,
        cut: TileCut,
    },
}

/// What a model makes of a slice; of records that failed, zeros.
pub(super) struct ModelOutput {
    /// Codes, one after the other, where the model has them.
    pub(super) codes: Option<Vec<f32>>,
    /// Reconstructions, laid out as the records are, where the model gives them.
    pub(super) outputs: Option<Vec<f32>>,
    /// Per record, whether the model failed on it, or gave what is not finite.
    pub(super) failed: Vec<bool>,
}

impl ModelRunner {
    /// Opens sessions. A network in one piece that gives the shape it takes reconstructs; any other
    /// encodes.
    ///
    /// # Errors
    /// When a file cannot be opened again, or the files do not tell what shape a record has.
    pub(super) fn new(model: &Model) -> Result<Self, StageError> {
        let named =
            |reason: String| StageError::Model(format!("the model `{}` {reason}", model.name()));
        if let Some(ImageInput { format, size: None }) = model.image_input() {
            let cut = TileCut::usual(model.multiple());
            return Ok(Self {
                mode: RunMode::AnySize {
                    chain: model.chain(ModelPath::Whole)?,
                    format,
                    cut,
                },
                failure: None,
            });
        }
        let shape = model.input_shape();
        let shape = shape.ok_or_else(|| {
            named("does not say what shape its records have; give `input` in its card".into())
        })?;
        let given = model
            .output_shape(ModelPath::Encode, &shape)
            .map_err(StageError::Model)?;
        let first = model.chain(ModelPath::Encode)?;
        let mode = match model.files(ModelPath::Decode) {
            Some(_) => RunMode::Records {
                first,
                shape,
                code: values(&given),
                decoder: Some(model.chain(ModelPath::Decode)?),
            },
            // An encoder alone never reconstructs, whatever its shapes.
            None if model.files(ModelPath::Whole).is_some() && same_layout(&given, &shape) => {
                RunMode::Records {
                    first,
                    shape,
                    code: None,
                    decoder: None,
                }
            }
            None => RunMode::Records {
                first,
                shape,
                code: values(&given),
                decoder: None,
            },
        };
        Ok(Self {
            mode,
            failure: None,
        })
    }

    /// Why the model failed on a record, the first time that it did.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Values of a code, where the model has codes.
    pub(super) fn code_size(&self) -> Option<usize> {
        match &self.mode {
            RunMode::Records { code, .. } => code.filter(|&size| size > 0),
            RunMode::AnySize { .. } => None,
        }
    }

    /// Values of a record, where all have the same.
    pub(super) fn record_len(&self) -> Option<usize> {
        match &self.mode {
            RunMode::Records { shape, .. } => values(shape),
            RunMode::AnySize { .. } => None,
        }
    }

    /// Encodes, and decodes unless `only_codes`.
    pub(super) fn run(&mut self, slice: &MiniBatch, only_codes: bool) -> ModelOutput {
        let reason = &mut self.failure;
        match &mut self.mode {
            RunMode::AnySize { chain, format, cut } => {
                run_images(chain, format, *cut, slice, reason)
            }
            RunMode::Records {
                first,
                shape,
                code,
                decoder,
            } => {
                let len = values(shape).unwrap_or_default();
                let mut failed = vec![false; slice.records.len()];
                let mut run =
                    |chain: &mut SessionChain, records: &[f32], shape: &[usize], len: usize| {
                        let mut out = Vec::with_capacity(len * failed.len());
                        for failure in chain.run_rows(records, shape, len, &mut out) {
                            failed[failure.row] = true;
                            reason.get_or_insert(failure.reason);
                        }
                        for (failed, values) in failed.iter_mut().zip(out.chunks_exact(len.max(1)))
                        {
                            *failed |= values.iter().any(|value| !value.is_finite());
                        }
                        out
                    };
                let given = run(first, &slice.values, shape, code.unwrap_or(len));
                let (codes, outputs) = match (code, decoder) {
                    (None, _) => (None, Some(given)),
                    (Some(code), Some(decoder)) if !only_codes => {
                        let outputs = run(decoder, &given, &[*code], len);
                        (Some(given), Some(outputs))
                    }
                    (Some(_), _) => (Some(given), None),
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

/// One image after the other: few are of one size.
fn run_images(
    chain: &mut SessionChain,
    format: &PixelFormat,
    cut: TileCut,
    slice: &MiniBatch,
    first_reason: &mut Option<String>,
) -> ModelOutput {
    let mut outputs = vec![0.0; slice.values.len()];
    let mut failed = vec![false; slice.records.len()];
    for (entry, failed) in slice.records.iter().zip(&mut failed) {
        let Some(size) = format.size(&entry.shape) else {
            continue;
        };
        let image = [PlacedImage {
            values: slice.of(entry),
            at: entry.at.start,
        }];
        let mut refuse = |_, _, reason| {
            *failed = true;
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
