//! The text form of a description.

use std::fmt;

use crate::model::card::ModelCard;
use crate::model::describe::{ModelDescription, OnnxFile};
use crate::model::files::{ModelFile, ModelNetwork, ModelPath};
use crate::model::tensor_spec::TensorSpec;
use crate::model::{Model, ModelInput};
use crate::text_escape::line;

impl fmt::Display for ModelDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_dir() {
            writeln!(f, "{}", self.path.display())?;
        }
        if let Some(card) = &self.card {
            write_card(f, card)?;
        }
        for file in &self.files {
            write!(f, "{file}")?;
        }
        match &self.model {
            Ok(model) => {
                write!(f, "{}", OutputsDisplay(model))?;
                writeln!(f, "digest       {}", model.digest())?;
                writeln!(f, "in a pipeline: {}", usage(model))?;
                match model.code_ambiguity() {
                    Some(question) => writeln!(f, "to encode: {}", line(question)),
                    None => Ok(()),
                }
            }
            Err(_) if self.files.iter().any(|file| file.graph.is_err()) => {
                writeln!(f, "in a pipeline: cannot run as a stage")
            }
            Err(faults) => {
                let reasons: Vec<&str> =
                    faults.iter().map(|fault| fault.message.as_str()).collect();
                writeln!(
                    f,
                    "in a pipeline: cannot run as a stage: {}",
                    reasons.join("; ")
                )
            }
        }
    }
}

/// Writes the use of each output of the files that have several, one per line.
pub(crate) struct OutputsDisplay<'a>(pub &'a Model);

impl fmt::Display for OutputsDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.0;
        let is_code = |file: &ModelFile| match &model.network {
            ModelNetwork::Autoencoder { .. } => file.role != "decoder",
            ModelNetwork::SingleFile(_) => file.reconstruction.is_some(),
            ModelNetwork::Graph(_) => false,
        };
        for file in model.all_files().filter(|file| file.outputs.len() > 1) {
            for output in &file.outputs {
                let is = |taken: Option<&TensorSpec>| taken.is_some_and(|one| one == output);
                let word = match (is(Some(&file.output)), is(file.reconstruction.as_ref())) {
                    (true, _) if is_code(file) => "code",
                    (true, _) => "output",
                    (false, true) => "reconstruction",
                    (false, false) => "not used",
                };
                writeln!(f, "  {word:<14} {}", line(&output.to_string()))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for OnnxFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self
            .path
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        writeln!(f, "{name}  {} bytes  sha256:{}", self.bytes, self.digest)?;
        let opset = |(domain, version): &(String, u64)| match domain.as_str() {
            "" => format!("opset {version}"),
            domain => format!("{domain} {version}"),
        };
        let opsets: Vec<String> = self.header.opsets.iter().map(opset).collect();
        if !opsets.is_empty() {
            writeln!(
                f,
                "  format     IR {}, {}",
                self.header.ir_version,
                opsets.join(", ")
            )?;
        }
        if !self.header.producer.is_empty() {
            writeln!(f, "  producer   {}", line(&self.header.producer))?;
        }
        for external in &self.header.external {
            writeln!(f, "  weights    in {}", line(external))?;
        }
        match &self.graph {
            Ok(graph) => {
                write_tensors(f, "input", &graph.inputs)?;
                write_tensors(f, "output", &graph.outputs)?;
            }
            Err(reason) => writeln!(f, "  {reason}")?,
        }
        for (output, nodes) in &self.nondeterministic {
            for node in nodes {
                writeln!(f, "  caution    `{}`: {node}", line(output))?;
            }
        }
        Ok(())
    }
}

fn write_tensors(f: &mut fmt::Formatter<'_>, word: &str, tensors: &[TensorSpec]) -> fmt::Result {
    tensors
        .iter()
        .try_for_each(|tensor| writeln!(f, "  {word:<10} {tensor}"))
}

fn write_card(f: &mut fmt::Formatter<'_>, card: &ModelCard) -> fmt::Result {
    writeln!(f, "{}: {}", line(&card.name), line(&card.kind))?;
    if !card.description.is_empty() {
        writeln!(f, "{}", card.description)?;
    }
    writeln!(f, "loss         {}", card.loss.as_str())?;
    if let Some(stats) = &card.reconstruction_error {
        let quantiles = &stats.quantiles;
        let (mean, count) = (stats.mean, stats.count);
        write!(
            f,
            "error        mean {mean:.6}, p50 {:.6}, p95 {:.6}, ",
            quantiles.p50, quantiles.p95
        )?;
        let origin = match &stats.measured {
            Some(measured) => format!(
                "records of {}, measured {}",
                line(&measured.sources.join(", ")),
                line(&measured.date)
            ),
            None => "validation records".to_owned(),
        };
        writeln!(f, "p99 {:.6} on {count} {origin}", quantiles.p99)?;
    }
    if let Some(training) = &card.training {
        writeln!(f, "data         {}", line(&training.data))?;
        writeln!(f, "license      {}", line(&training.license))?;
    }
    card.metrics
        .iter()
        .try_for_each(|(name, value)| writeln!(f, "{:<12} {value}", line(name)))
}

/// Describes the use of a model in a stage, as a phrase.
fn usage(model: &Model) -> String {
    if let Some(reason) = model.unfit() {
        return format!("runs in a stage of kind `onnx` only: {}", line(reason));
    }
    let record = match model.input() {
        ModelInput::Image(image) => {
            let channels = match image.format.channels.count() {
                1 => "gray",
                _ => "rgb",
            };
            let size = image.size.map_or("any size".to_owned(), |(height, width)| {
                format!("{height}x{width}")
            });
            format!("{channels} images of {size}")
        }
        ModelInput::Features(features) if features.columns.is_empty() => {
            format!(
                "vectors of {} features",
                model
                    .input_shape()
                    .map_or(0, |shape| shape.iter().product::<usize>())
            )
        }
        ModelInput::Features(features) => format!("records of {} features", features.columns.len()),
        ModelInput::Tensor => match model.input_shape() {
            Some(shape) => format!("tensors of shape {shape:?}"),
            None => "tensors of variable shape".to_owned(),
        },
    };
    let decoding = model
        .files(ModelPath::Decode)
        .or(model.files(ModelPath::EncodeAndReconstruct));
    match (model.code_size(), decoding) {
        (Some(size), Some(_)) => format!("encodes {record} to {size} values, and decodes them"),
        (Some(size), None) => format!("encodes {record} to {size} values"),
        (None, Some(_)) => {
            format!("encodes {record} to latents of variable size, and decodes them")
        }
        (None, None) => match model
            .input_shape()
            .map(|shape| model.output_shape(ModelPath::Reconstruct, &shape))
        {
            Some(Ok(shape)) if model.input_shape().as_deref() == Some(shape.as_slice()) => {
                format!(
                    "maps {record} to the same shape: a denoiser, or an autoencoder in one file"
                )
            }
            Some(Ok(shape)) => match shape.as_slice() {
                [size] => format!("maps {record} to {size} values"),
                shape => format!("maps {record} to tensors of shape {shape:?}"),
            },
            Some(Err(reason)) => format!("accepts {record}, but fails on zeros: {reason}"),
            None => format!("accepts {record}"),
        },
    }
}
