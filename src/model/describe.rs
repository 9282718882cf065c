//! Describes a model folder or an ONNX file as text: inputs and outputs, versions, digests, and its
//! use in a pipeline.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::ConfigError;
use crate::metrics::Metrics;
use crate::model::card::{CARD, ModelCard};
use crate::model::load::{read, read_header, sha256};
use crate::model::nondeterminism::NondeterministicOutputs;
use crate::model::onnx_metadata::OnnxMetadata;
use crate::model::ort_backend::{LoadedGraph, OnnxGraph};
use crate::model::tensor_spec::TensorSpec;
use crate::model::{Model, ModelFile, ModelInput, ModelNetwork, ModelPath, ModelSpec, RuntimeSpec};
use crate::text_escape::line;

/// Describes a model folder or a bare ONNX file. [`crate::model::ort_library::init`] must have
/// loaded ONNX Runtime before.
///
/// # Errors
/// When the file does not exist, or when a folder contains neither a card nor an ONNX file.
pub fn describe(path: &Path, runtime: &RuntimeSpec) -> Result<ModelDescription, Vec<ConfigError>> {
    let (spec, files) = if path.is_dir() {
        let files = ["encoder.onnx", "decoder.onnx", "model.onnx"].map(|file| path.join(file));
        let files: Vec<PathBuf> = files.into_iter().filter(|file| file.is_file()).collect();
        if files.is_empty() && !path.join(CARD).is_file() {
            let message = format!(
                "{} contains no {CARD}, encoder.onnx, decoder.onnx or model.onnx",
                path.display()
            );
            return Err(vec![ConfigError::new("path", message)]);
        }
        (
            ModelSpec {
                path: Some(path.to_path_buf()),
                ..ModelSpec::default()
            },
            files,
        )
    } else {
        (
            ModelSpec {
                model: Some(path.to_path_buf()),
                ..ModelSpec::default()
            },
            vec![path.to_path_buf()],
        )
    };
    let files = files
        .iter()
        .map(|file| OnnxFile::read(file, runtime))
        .collect::<Result<_, _>>();
    let files = files.map_err(|message| vec![ConfigError::new("path", message)])?;
    let model = Model::open("model", &spec, runtime, &Arc::new(Metrics::new()));
    let card = path
        .is_dir()
        .then(|| ModelCard::read(&path.join(CARD)).ok())
        .flatten();
    Ok(ModelDescription {
        path: path.to_path_buf(),
        card,
        files,
        model,
    })
}

/// The description of a model. Its `Display` implementation writes the text.
pub struct ModelDescription {
    path: PathBuf,
    card: Option<ModelCard>,
    files: Vec<OnnxFile>,
    model: Result<Model, Vec<ConfigError>>,
}

impl ModelDescription {
    /// Whether the model can be used in a stage.
    pub fn usable(&self) -> bool {
        self.model.is_ok()
    }
}

struct OnnxFile {
    path: PathBuf,
    bytes: usize,
    digest: String,
    header: OnnxMetadata,
    nondeterministic: NondeterministicOutputs,
    graph: Result<OnnxGraph, String>,
}

impl OnnxFile {
    fn read(path: &Path, runtime: &RuntimeSpec) -> Result<Self, String> {
        let bytes = read(path)?;
        let header = read_header(path, &bytes);
        let open = |_| {
            LoadedGraph::open(path, runtime)
                .map(|graph| graph.describe())
                .map_err(|reason| format!("ONNX Runtime cannot load it: {reason}"))
        };
        let graph = header.as_ref().map_err(String::clone).and_then(open);
        let (metadata, nondeterministic) = header.unwrap_or_default();
        Ok(Self {
            path: path.to_path_buf(),
            bytes: bytes.len(),
            digest: sha256(path)?,
            graph,
            header: metadata,
            nondeterministic,
        })
    }
}

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
pub struct OutputsDisplay<'a>(pub &'a Model);

impl fmt::Display for OutputsDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.0;
        let is_code = |file: &ModelFile| match &model.network {
            ModelNetwork::Autoencoder { .. } => file.role != "decoder",
            ModelNetwork::SingleFile(_) => file.reconstruction.is_some(),
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
        writeln!(f, "p99 {:.6} on {count} validation records", quantiles.p99)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;
    use crate::model::testing::{file, init};

    fn check(name: &str, expected: Expect) {
        let description = describe(&file(name), &init()).unwrap();
        let text = description.to_string();
        let folder = format!("{}/", file("").display()).replace("//", "/");
        expected.assert_eq(&text.replace(&folder, ""));
        assert_eq!(
            description.usable(),
            !text.contains("cannot run as a stage")
        );
    }

    #[test]
    fn file_is_described_by_its_tensors_and_its_usage() {
        check(
            "untold.onnx",
            expect![[r#"
                untold.onnx  291 bytes  sha256:be69aec41d745624b753025b7386a537da3fd3741e57af89fbb606e94e47fbbe
                  format     IR 8, opset 17
                  producer   make.py
                  input      `x` float32 [batch, 4]
                  output     `y` float32 [batch, code]
                digest       73ef6e31df284f7d501ed074669eb961265baed204a0ff999d4ebd03814d0ee9
                in a pipeline: maps vectors of 4 features to 2 values
            "#]],
        );
        check(
            "external.onnx",
            expect![[r#"
                external.onnx  167 bytes  sha256:7357f635c56b4ce7003208668d4c7d21d325b9a75a01adc84664027d4e690ef4
                  format     IR 8, opset 17
                  producer   make.py
                  weights    in external.bin
                  input      `x` float32 [batch, 4]
                  output     `y` float32 [batch, 2]
                digest       69dc43b3a1655f4300d1a145ef7b8039a96ddfa2b0aee573deb2403ae097a050
                in a pipeline: maps vectors of 4 features to 2 values
            "#]],
        );
        check(
            "blur.onnx",
            expect![[r#"
                blur.onnx  303 bytes  sha256:d3ff440cbc74fbeb147acedb5faa200582d700bf5b66d9c9450f756e59a97168
                  format     IR 8, opset 17
                  producer   make.py
                  input      `x` float32 [batch, height, width, 3]
                  output     `y` float32 [batch, height, width, 3]
                digest       9827d7be12c7ec349ba8c5836e61d182229ad3e13cf91bf61727940eb3e549ea
                in a pipeline: accepts rgb images of any size
            "#]],
        );
    }

    #[test]
    fn nodes_that_differ_between_runs_are_described() {
        let text = describe(&file("training_mode_of_call.onnx"), &init())
            .unwrap()
            .to_string();
        let cautions: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("caution"))
            .collect();
        assert_eq!(
            cautions,
            [
                "  caution    `y`: BatchNormalization `inside` normalizes a record by the other \
                 records of its batch in training mode"
            ]
        );
    }

    #[test]
    fn file_that_a_stage_cannot_use_is_described() {
        check(
            "two_inputs.onnx",
            expect![[r#"
                two_inputs.onnx  133 bytes  sha256:533a3f1f87e626b67a1290d3c86beee7b9401d33b534576bcb03f8c10a303f56
                  format     IR 8, opset 17
                  producer   make.py
                  input      `x` float32 [batch, 2]
                  input      `state` float32 [batch, 2]
                  output     `y` float32 [batch, 2]
                in a pipeline: cannot run as a stage: two_inputs.onnx: has 2 inputs, but a stage supplies only one: `x` float32 [batch, 2], `state` float32 [batch, 2]
            "#]],
        );
        check(
            "external.bin",
            expect![[r#"
                external.bin  32 bytes  sha256:4e8b04ae3930af0851dbb553b503dc2ee7fd8617e141594f3e835100fb96d122
                  external.bin: not a valid ONNX file: a field has an invalid number
                in a pipeline: cannot run as a stage
            "#]],
        );
    }

    #[test]
    fn missing_file_and_empty_folder_are_refused() {
        let faults = describe(&file("gone.onnx"), &init()).err().unwrap();
        assert!(
            faults[0]
                .message
                .ends_with("gone.onnx: No such file or directory (os error 2)"),
            "{faults:?}"
        );
        let folder = tempfile::tempdir().unwrap();
        let folder_faults = describe(folder.path(), &init()).err().unwrap();
        assert!(
            folder_faults[0]
                .message
                .ends_with("contains no model.toml, encoder.onnx, decoder.onnx or model.onnx"),
            "{folder_faults:?}"
        );
    }
}
