//! Loads a model: finds its files, verifies them against the card, and checks that they fit
//! together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use crate::error::ConfigError;
use crate::metrics::Metrics;
use crate::model::card::{self, CARD, ModelCard};
use crate::model::input::InputSpec;
use crate::model::nondeterminism::{self, NondeterministicOutputs};
use crate::model::onnx_metadata::OnnxMetadata;
use crate::model::ort_backend::{LoadedGraph, OnnxGraph};
use crate::model::session::shape_mismatch;
use crate::model::tensor_selection::{
    OutputNames, SelectedTensors, SelectionError, select_decoder, select_encoder,
};
use crate::model::tensor_spec::{TensorSpec, element_count};
use crate::model::{
    Model, ModelFile, ModelNetwork, ModelPath, ModelSpec, RuntimeSpec, same_layout, stamp,
    trial_run,
};

/// Loads a model, as [`Model::open`].
pub(super) fn open(
    name: &str,
    spec: &ModelSpec,
    runtime: &RuntimeSpec,
    metrics: &Arc<Metrics>,
) -> Result<Model, Vec<ConfigError>> {
    let files = ModelFiles::find(spec)?;
    let OnnxFiles {
        digests,
        outputs,
        paths,
    } = files.verify()?;
    let (network, graphs) = files.open(spec, runtime, &outputs)?;
    let found = files.nondeterminism(&network, &outputs, runtime);
    let nondeterminism = match found {
        Some((_, fault)) if !spec.allow_nondeterministic => return Err(vec![fault]),
        Some((reason, _)) => Some(reason),
        None => (spec.allow_nondeterministic).then(|| "`allow_nondeterministic` is set".to_owned()),
    };
    let card = files.card;
    let input_spec = card
        .as_ref()
        .map_or_else(|| spec.input_spec(), |card| card.input.clone());
    let first = match &network {
        ModelNetwork::Autoencoder { encoder, .. } => encoder,
        ModelNetwork::SingleFile(file) => file,
    };
    let in_card = |fault| match &spec.path {
        Some(folder) => card::in_file(&folder.join(CARD), ConfigError::within(fault, "input")),
        None => fault,
    };
    let input = input_spec
        .resolve(&first.input)
        .map_err(|faults| faults.into_iter().map(in_card).collect::<Vec<_>>())?;
    let mut model = Model {
        name: name.to_owned(),
        kind: card
            .as_ref()
            .map_or("onnx", |card| card.kind.as_str())
            .to_owned(),
        digest: String::new(),
        loss: card
            .as_ref()
            .map(|card| card.loss)
            .or(spec.loss)
            .unwrap_or_default(),
        size_multiple: card
            .as_ref()
            .and_then(|card| card.multiple)
            .or(spec.multiple.map(Into::into))
            .unwrap_or(1),
        card,
        input,
        code_size: None,
        network,
        nondeterminism,
        paths,
        runtime: runtime.clone(),
        shared: Mutex::default(),
        metrics: Arc::clone(metrics),
    };
    model.digest = digest(&model, &input_spec, &digests);
    model.code_size = match_shapes(&model).map_err(|fault| {
        let key = if spec.path.is_some() {
            "path"
        } else {
            fault.key.as_str()
        };
        vec![ConfigError::new(key, fault.message.clone())]
    })?;
    if !spec.allow_nondeterministic
        && let Some((file, fault)) = trial_run::fault(&model, runtime, graphs)
    {
        let key = spec.path.as_ref().map_or(file.role, |_| "path");
        let message = format!("{}: {fault}", file.path.display());
        return Err(vec![ConfigError::new(key, message)]);
    }
    Ok(model)
}

/// The ONNX files that ONNX Runtime has loaded for the CPU, by role.
pub(super) type LoadedGraphs = BTreeMap<&'static str, LoadedGraph>;

/// The contents of the ONNX files that are read before ONNX Runtime opens them.
struct OnnxFiles {
    /// The digests of the files and their external data, by role and name.
    digests: BTreeMap<String, String>,
    /// The nondeterministic nodes of each output, by role.
    outputs: BTreeMap<&'static str, NondeterministicOutputs>,
    /// The paths of the card and of all these files.
    paths: BTreeSet<PathBuf>,
}

/// The paths of the files of a model, and its card.
struct ModelFiles {
    folder: Option<PathBuf>,
    card: Option<ModelCard>,
    encoder: Option<PathBuf>,
    decoder: Option<PathBuf>,
    whole: Option<PathBuf>,
}

impl ModelFiles {
    fn find(spec: &ModelSpec) -> Result<Self, Vec<ConfigError>> {
        let (encoder, decoder, whole) = (
            spec.encoder.clone(),
            spec.decoder.clone(),
            spec.model.clone(),
        );
        let named = [
            ("encoder", &encoder),
            ("decoder", &decoder),
            ("model", &whole),
        ];
        let named: Vec<&str> = named
            .iter()
            .filter_map(|(key, path)| path.as_ref().map(|_| *key))
            .collect();
        let Some(folder) = &spec.path else {
            let files = Self {
                folder: None,
                card: None,
                encoder,
                decoder,
                whole,
            };
            return files.complete().map_err(|fault| vec![fault]);
        };
        let input_spec = spec.input_spec();
        let keys_of_card = input_spec
            .set_keys()
            .into_iter()
            .chain(spec.loss.map(|_| "loss"));
        let mut faults: Vec<ConfigError> = keys_of_card
            .map(|key| ConfigError::new(key, "is already set by the model card; remove it"))
            .collect();
        faults.extend(named.iter().map(|key| {
            let message =
                format!("`path` already names the files of the model; remove `{key}` or `path`");
            ConfigError::new(*key, message)
        }));
        let inside = |file: &str| Some(folder.join(file)).filter(|path| path.is_file());
        let mut files = Self {
            folder: Some(folder.clone()),
            card: None,
            encoder: inside("encoder.onnx"),
            decoder: inside("decoder.onnx"),
            whole: inside("model.onnx"),
        };
        if !folder.is_dir() {
            faults.push(ConfigError::new(
                "path",
                format!(
                    "{} is not a folder; for an ONNX file, use `model`",
                    folder.display()
                ),
            ));
            return Err(faults);
        }
        match ModelCard::read(&folder.join(CARD)) {
            Ok(card) => files.card = Some(card),
            Err(more) => faults.extend(more),
        }
        match files.complete() {
            Ok(files) if faults.is_empty() => Ok(files),
            Ok(_) => Err(faults),
            Err(fault) => Err(faults.into_iter().chain([fault]).collect()),
        }
    }

    /// Checks that the files form a network: an encoder, optionally with its decoder, or a single
    /// file.
    fn complete(self) -> Result<Self, ConfigError> {
        let error = |key: &str, message: &str| match &self.folder {
            Some(folder) => ConfigError::new("path", format!("{}: {message}", folder.display())),
            None => ConfigError::new(key, message),
        };
        match (&self.encoder, &self.decoder, &self.whole) {
            (Some(_), _, None) | (None, None, Some(_)) => Ok(self),
            (None, None, None) if self.folder.is_some() => {
                Err(error("", "contains neither encoder.onnx nor model.onnx"))
            }
            (None, None, None) => Err(error(
                "",
                "no model is given; set `path`, `encoder` or `model`",
            )),
            (None, Some(_), None) => Err(error(
                "decoder",
                "a decoder cannot be used without its encoder; add the encoder",
            )),
            (_, _, Some(_)) => Err(error(
                "model",
                "a complete network cannot be combined with an encoder or a decoder; remove one of \
                 them",
            )),
        }
    }

    fn parts(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let parts = [
            ("encoder", &self.encoder),
            ("decoder", &self.decoder),
            ("model", &self.whole),
        ];
        parts
            .into_iter()
            .filter_map(|(role, path)| Some((role, path.as_ref()?)))
    }

    fn fault(&self, role: &str, path: &Path, message: &str) -> ConfigError {
        let key = if self.folder.is_some() { "path" } else { role };
        ConfigError::new(key, format!("{}: {message}", path.display()))
    }

    /// Reads all ONNX files, computes their digests and those of their external data, and checks
    /// the digests of the card.
    fn verify(&self) -> Result<OnnxFiles, Vec<ConfigError>> {
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
    fn nondeterminism(
        &self,
        network: &ModelNetwork,
        outputs: &BTreeMap<&'static str, NondeterministicOutputs>,
        runtime: &RuntimeSpec,
    ) -> Option<(String, ConfigError)> {
        let files = match network {
            ModelNetwork::Autoencoder { encoder, decoder } => vec![Some(encoder), decoder.as_ref()],
            ModelNetwork::SingleFile(file) => vec![Some(file)],
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

    fn open(
        &self,
        spec: &ModelSpec,
        runtime: &RuntimeSpec,
        nondeterministic: &BTreeMap<&'static str, NondeterministicOutputs>,
    ) -> Result<(ModelNetwork, LoadedGraphs), Vec<ConfigError>> {
        let mut faults = Vec::new();
        let mut parts: Vec<ModelFile> = Vec::new();
        let mut graphs = LoadedGraphs::new();
        for (role, path) in self.parts() {
            let graph = match LoadedGraph::open(path, runtime) {
                Ok(loaded) => {
                    let graph = loaded.describe();
                    // The memory of a device may hold no more than the sessions of the run.
                    if !runtime.uses_device() {
                        graphs.insert(role, loaded);
                    }
                    graph
                }
                Err(reason) => {
                    let message = format!("ONNX Runtime cannot load it: {reason}");
                    faults.push(self.fault(role, path, &message));
                    continue;
                }
            };
            match self.select(role, &graph, spec, parts.first()) {
                Ok(selected) => {
                    let mut file = ModelFile::new((role, path), selected, graph.outputs, spec);
                    // A reconstruction that no option names must not prevent the use of the code.
                    let random = |output: &TensorSpec| {
                        let found = nondeterministic
                            .get(role)
                            .and_then(|all| all.get(&output.name));
                        found.is_some_and(|nodes| !nodes.is_empty())
                    };
                    if file.named_reconstruction.is_none() && !spec.allow_nondeterministic {
                        file.reconstruction.take_if(|output| random(output));
                    }
                    parts.push(file);
                }
                Err(SelectionError::Option(key, message)) => {
                    faults.push(ConfigError::new(key, message));
                }
                Err(SelectionError::File(message)) => faults.push(self.fault(role, path, &message)),
            }
        }
        if self.decoder.is_none() && spec.decoder_output.is_some() {
            faults.push(ConfigError::new(
                "decoder_output",
                "the model has no decoder; remove this key",
            ));
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next()) {
            (Some(file), None)
                if faults.is_empty() && (file.role == "model" || file.reconstruction.is_some()) =>
            {
                Ok((ModelNetwork::SingleFile(file), graphs))
            }
            (Some(encoder), decoder) if faults.is_empty() => {
                Ok((ModelNetwork::Autoencoder { encoder, decoder }, graphs))
            }
            _ => Err(faults),
        }
    }

    /// Selects the tensors of a file. `encoder` is the file that was selected before.
    fn select(
        &self,
        role: &str,
        graph: &OnnxGraph,
        spec: &ModelSpec,
        encoder: Option<&ModelFile>,
    ) -> Result<SelectedTensors, SelectionError> {
        match (role, encoder, graph.inputs.first()) {
            // If the encoder cannot be used, its fault is reported, and the decoder is compared
            // with its own input.
            ("decoder", None, Some(record)) => {
                select_decoder(graph, spec.decoder_output.as_deref(), record)
            }
            ("decoder", Some(encoder), _) => {
                select_decoder(graph, spec.decoder_output.as_deref(), &encoder.input)
            }
            _ => {
                let names = OutputNames {
                    output: spec.output.as_deref(),
                    reconstruction: spec.reconstruction.as_deref(),
                };
                select_encoder(graph, names, role == "encoder", self.decoder.is_some())
            }
        }
    }
}

impl ModelFile {
    fn new(
        (role, path): (&'static str, &Path),
        selected: SelectedTensors,
        outputs: Vec<TensorSpec>,
        spec: &ModelSpec,
    ) -> Self {
        let named = match role {
            "decoder" => spec.decoder_output.as_ref(),
            _ => spec.output.as_ref(),
        };
        // Earlier versions selected the first output if no option named one. Digests stay as they
        // were.
        let first = outputs.first().map(|output| &output.name);
        Self {
            role,
            path: path.to_path_buf(),
            digest_output: named.or(first).cloned().unwrap_or_default(),
            named_reconstruction: spec.reconstruction.clone().filter(|_| role != "decoder"),
            input: selected.input,
            output: selected.output,
            reconstruction: selected.reconstruction,
            ambiguity: selected.ambiguity,
            outputs,
            stamp: stamp(path),
        }
    }
}

/// Checks that the latents fit the decoder and that its output fits the input of the encoder.
/// Returns the size of a latent, if it is known.
fn match_shapes(model: &Model) -> Result<Option<usize>, ConfigError> {
    let (encoder, decoder) = match &model.network {
        ModelNetwork::Autoencoder { encoder, decoder } => (encoder, decoder.as_ref()),
        ModelNetwork::SingleFile(file) if file.reconstruction.is_some() => (file, None),
        ModelNetwork::SingleFile(_) => return Ok(None),
    };
    let listed = model.card.as_ref().and_then(|card| card.code_size);
    let at = |part: &'static str| move |message: String| ConfigError::new(part, message);
    let Some(shape) = model.input_shape() else {
        return match (encoder.output.row_shape(), decoder) {
            (Some(code), Some(decoder)) if !decoder.input.takes(&code) => {
                Err(at("decoder")(format!(
                    "{}: {}",
                    decoder.path.display(),
                    shape_mismatch(&code, &decoder.input)
                )))
            }
            _ => Ok(listed),
        };
    };
    let code = model
        .output_shape(ModelPath::Encode, &shape)
        .map_err(at(encoder.role))?;
    let size = element_count(&code);
    if let (Some(size), Some(listed)) = (size, listed)
        && size != listed
    {
        let message = format!(
            "the model card sets `code_size` to {listed}, but the encoder returns the shape \
             {code:?}"
        );
        return Err(at(encoder.role)(message));
    }
    if encoder.named_reconstruction.is_some() {
        let back = model
            .output_shape(ModelPath::Reconstruct, &shape)
            .map_err(at("reconstruction"))?;
        if !same_layout(&back, &shape) {
            let message =
                format!("the output has the shape {back:?} for records of shape {shape:?}");
            return Err(at("reconstruction")(message));
        }
    }
    if decoder.is_some() {
        let back = model
            .output_shape(ModelPath::Decode, &code)
            .map_err(at("decoder"))?;
        if !same_layout(&back, &shape) {
            let message =
                format!("the decoder returns the shape {back:?} for records of shape {shape:?}");
            return Err(at("decoder")(message));
        }
    }
    Ok(size)
}

/// The digest over everything that determines the results: files, preprocessing, selected outputs,
/// loss and `multiple`.
fn digest(model: &Model, input_spec: &InputSpec, files: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for (file, digest) in files {
        hash.update(format!("{file} {digest}\n"));
    }
    for part in [ModelPath::Encode, ModelPath::Decode]
        .iter()
        .flat_map(|&path| model.files(path).unwrap_or_default())
    {
        hash.update(format!("{} output {:?}\n", part.role, part.digest_output));
        if let Some(name) = &part.named_reconstruction {
            hash.update(format!("{} reconstruction {name:?}\n", part.role));
        }
    }
    // The stage `pixels` records how JPEGs are decoded.
    let preprocessing = InputSpec {
        decode: None,
        ..input_spec.clone()
    };
    // An input spec holds only numbers and strings, which can always be serialized.
    hash.update(serde_json::to_string(&preprocessing).unwrap_or_default());
    hash.update(format!("\n{} {}", model.loss.as_str(), model.size_multiple));
    hex(&hash.finalize())
}

/// The digest of an ONNX file, with an empty name, and of each file with its external data; and the
/// nondeterministic nodes of each output.
fn file_digests(path: &Path) -> Result<(Vec<(String, String)>, NondeterministicOutputs), String> {
    let (header, outputs) = read_header(path, &read(path)?)?;
    let mut digests = vec![(String::new(), sha256(path)?)];
    for file in header.external {
        let external = path.parent().unwrap_or(Path::new("")).join(&file);
        let digest = sha256(&external).map_err(|reason| {
            format!(
                "{}: cannot read its external data: {reason}",
                path.display()
            )
        })?;
        digests.push((file, digest));
    }
    Ok((digests, outputs))
}

/// Reads the metadata of an ONNX file, and the nondeterministic nodes of each output. They are
/// checked before ONNX Runtime opens the file and the files that it refers to.
///
/// # Errors
/// When the bytes are not ONNX, or when external data is outside the folder of the file.
pub(super) fn read_header(
    path: &Path,
    bytes: &[u8],
) -> Result<(OnnxMetadata, NondeterministicOutputs), String> {
    let name = path.display();
    let invalid = |reason| format!("{name}: not a valid ONNX file: {reason}");
    let header = OnnxMetadata::read(bytes).map_err(invalid)?;
    let outputs = nondeterminism::find(bytes).map_err(invalid)?;
    match header.external.iter().find(|file| !lies_inside(path, file)) {
        Some(file) => Err(format!(
            "{name}: stores external data in `{file}`, outside its folder; move that file into the \
             folder"
        )),
        None => Ok((header, outputs)),
    }
}

/// Whether a file that an ONNX file refers to is in the folder of the ONNX file, or below it. Both
/// may be symbolic links, as in the cache of the Hugging Face hub, if their targets are in one
/// folder.
fn lies_inside(path: &Path, file: &str) -> bool {
    use std::path::Component;
    let is_below = Path::new(file)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let folder = path.parent().unwrap_or(Path::new("")).join("");
    let folder = if folder.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        folder
    };
    let roots = [
        folder.canonicalize().ok(),
        path.canonicalize()
            .ok()
            .and_then(|real| Some(real.parent()?.to_owned())),
    ];
    match folder.join(file).canonicalize() {
        Ok(real) => is_below && roots.iter().flatten().any(|root| real.starts_with(root)),
        // A missing file is reported when it is opened.
        Err(_) => is_below,
    }
}

/// The maximum size of a protobuf message, and thus of an ONNX file.
const MAX_ONNX_BYTES: u64 = 2 << 30;

/// Reads the bytes of an ONNX file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata =
        std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    if metadata.len() > MAX_ONNX_BYTES {
        return Err(format!(
            "{} has {} bytes; the maximum size of an ONNX file is 2 GiB",
            path.display(),
            metadata.len()
        ));
    }
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    if !std::fs::metadata(path).map_err(named)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path).map_err(named)?, &mut hash).map_err(named)?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use expect_test::{Expect, expect};

    use super::*;
    use crate::image::pixel_format::{Channels, TensorLayout};
    use crate::model::testing::{faults, file, open};
    use crate::model::{FeatureInput, ModelInput, Scaling};

    fn check(written: &str, expected: Expect) {
        expected.assert_eq(&faults(written));
    }

    /// Creates a model folder from files under `tests/models` and a card.
    fn folder(files: &[(&str, &str)], card: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in files {
            std::fs::copy(file(from), folder.path().join(to)).unwrap();
        }
        std::fs::write(folder.path().join(CARD), card).unwrap();
        folder
    }

    const CARD_TEXT: &str = r#"
        name = "pairs"
        kind = "linear"
        code_size = 2
        [input]
        type = "features"
        columns = ["a", "b", "c", "d"]
        scaling = "standard"
        mean = [1, 2, 3, 4]
        std = [1, 2, 0, 4]
    "#;

    #[test]
    fn folder_is_loaded_according_to_its_card() {
        let folder = folder(
            &[
                ("encoder.onnx", "encoder.onnx"),
                ("decoder.onnx", "decoder.onnx"),
            ],
            CARD_TEXT,
        );
        let model = open(&format!("path = {:?}", folder.path())).unwrap();
        assert_eq!(
            (model.name(), model.kind(), model.code_size()),
            ("tested", "linear", Some(2))
        );
        let features = model.feature_input().unwrap();
        assert_eq!(features.columns, ["a", "b", "c", "d"]);
        assert_eq!(features.scaling.feature(1).to_input(3.0), 0.5);
        assert_eq!(
            features.scaling.feature(2).to_input(5.0),
            2.0,
            "a deviation of 0 counts as 1"
        );
        assert_eq!(model.card().unwrap().name, "pairs");
    }

    #[test]
    fn input_of_bare_files_is_inferred_from_shapes() {
        let model =
            open("encoder = 'encoder.onnx'\ndecoder = 'decoder.onnx'\nloss = 'bce'").unwrap();
        assert_eq!(
            *model.input(),
            ModelInput::Features(FeatureInput {
                columns: vec![],
                scaling: Scaling::None
            })
        );
        assert_eq!(
            (model.code_size(), model.loss().as_str(), model.kind()),
            (Some(2), "bce", "onnx")
        );
        let image = open("model = 'blur.onnx'").unwrap().image_input().unwrap();
        assert_eq!(
            (image.format.channels, image.format.layout, image.size),
            (Channels::Rgb, TensorLayout::Nhwc, None)
        );
        let byte_image = open("model = 'bytes.onnx'").unwrap().image_input().unwrap();
        assert_eq!(
            (byte_image.format.range, byte_image.size),
            ([0.0, 255.0], Some((2, 2)))
        );
    }

    #[test]
    fn undeclared_code_size_is_found_by_a_trial_run() {
        assert_eq!(
            open("encoder = 'untold.onnx'").unwrap().code_size(),
            Some(2)
        );
    }

    #[test]
    fn digest_covers_weights_preprocessing_and_outputs() {
        let digest = |written: &str| open(written).unwrap().digest().to_owned();
        let plain = digest("encoder = 'encoder.onnx'");
        assert_eq!(plain, digest("encoder = 'encoder.onnx'"));
        assert_eq!(plain.len(), 64);
        assert_ne!(plain, digest("encoder = 'fixed_batch.onnx'"));
        assert_ne!(
            plain,
            digest("encoder = 'encoder.onnx'\ncolumns = ['a', 'b', 'c', 'd']")
        );
        let minus = "model = 'two_outputs.onnx'\noutput = 'minus'";
        assert_ne!(
            digest(minus),
            digest("model = 'two_outputs.onnx'\noutput = 'twice'")
        );
        assert_ne!(
            digest(minus),
            digest(&format!("{minus}\nreconstruction = 'twice'"))
        );
        // Earlier versions selected the first output. Their digest stays, also for a `denoise` stage,
        // which uses it.
        assert_eq!(
            digest("model = 'vae.onnx'"),
            digest("model = 'vae.onnx'\noutput = 'recon'")
        );
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("external.onnx");
        std::fs::copy(file("external.onnx"), &copy).unwrap();
        let mut weights = std::fs::read(file("external.bin")).unwrap();
        std::fs::write(folder.path().join("external.bin"), &weights).unwrap();
        let external = digest("encoder = 'external.onnx'");
        assert_eq!(
            external,
            digest(&format!("encoder = {copy:?}")),
            "the digest does not depend on the folder"
        );
        weights[0] ^= 1;
        std::fs::write(folder.path().join("external.bin"), &weights).unwrap();
        assert_ne!(external, digest(&format!("encoder = {copy:?}")));
    }

    #[test]
    fn file_with_another_digest_than_the_card_is_refused() {
        let listed = format!(
            "{CARD_TEXT}\n[files]\n'encoder.onnx' = 'sha256:{}'",
            "0".repeat(64)
        );
        let folder = folder(&[("encoder.onnx", "encoder.onnx")], &listed);
        let message = faults(&format!("path = {:?}", folder.path()));
        assert!(
            message.contains("encoder.onnx: the digest of the file is sha256:")
                && message.ends_with(&format!(
                    "but the model card lists sha256:{}",
                    "0".repeat(64)
                )),
            "{message}"
        );
    }

    #[test]
    fn card_that_contradicts_the_file_is_refused() {
        let card = CARD_TEXT.replace("code_size = 2", "code_size = 3");
        let folder = folder(&[("encoder.onnx", "encoder.onnx")], &card);
        check_in(
            &folder,
            expect![
                "path: the model card sets `code_size` to 3, but the encoder returns the shape [2]"
            ],
        );
        std::fs::write(folder.path().join(CARD), CARD_TEXT.replace(", \"d\"]", "]")).unwrap();
        check_in(
            &folder,
            expect![[r#"
                path: model.toml: `input.columns`: the number of columns, 3, does not fit `x` float32 [batch, 4]
                path: model.toml: `input.mean`: expected as many values as features, 3; found 4
                path: model.toml: `input.std`: expected as many values as features, 3; found 4"#]],
        );
    }

    fn check_in(folder: &tempfile::TempDir, expected: Expect) {
        let faults = faults(&format!("path = {:?}", folder.path()));
        expected.assert_eq(&faults.replace(&format!("{}/", folder.path().display()), ""));
    }

    #[test]
    fn incomplete_declaration_is_refused() {
        check(
            "loss = 'mse'",
            expect![": no model is given; set `path`, `encoder` or `model`"],
        );
        check(
            "decoder = 'decoder.onnx'",
            expect!["decoder: a decoder cannot be used without its encoder; add the encoder"],
        );
        check(
            "model = 'blur.onnx'\nencoder = 'encoder.onnx'",
            expect![
                "model: a complete network cannot be combined with an encoder or a decoder; \
                 remove one of them"
            ],
        );
        check(
            "model = 'gone.onnx'",
            expect!["model: gone.onnx: No such file or directory (os error 2)"],
        );
        check("model = '.'", expect!["model: . is not a file"]);
        check(
            "encoder = 'encoder.onnx'\nsise = 4",
            expect![
                "sise: unknown key (did you mean `size`?); known: \
                 allow_nondeterministic, channels, columns, decoder, decoder_output, encoder, layout, loss, max, mean, min, model, multiple, \
                 output, path, range, reconstruction, scaling, size, std"
            ],
        );
    }

    #[test]
    fn output_that_differs_between_runs_is_refused() {
        let refused = |file: &str, output: &str| {
            let written = format!("encoder = '{file}'\noutput = '{output}'");
            let allowed = open(&format!("{written}\nallow_nondeterministic = true"));
            assert!(allowed.is_ok(), "{output}: {:?}", allowed.err());
            faults(&written)
        };
        let random = [
            ("normal", "RandomNormalLike `noise of normal`"),
            ("uniform", "RandomUniformLike"),
            ("multinomial", "Multinomial"),
            ("dropout", "Dropout"),
            ("branch", "RandomNormalLike `noise of if_drawn`"),
            ("loop", "RandomUniformLike `inside`"),
            ("bernoulli", "Bernoulli"),
            ("sampled", "RandomUniformLike `inside`"),
            ("dropped", "Dropout `inside`"),
        ];
        for (output, node) in random {
            let message = refused("random.onnx", output);
            let start = format!(
                "encoder: random.onnx: the output `{output}` is not the same in every run: {node} \
                 draws random numbers"
            );
            assert!(message.starts_with(&start), "{message}");
            assert!(
                message.contains("(`code` or `dead_branch` or `default`)"),
                "{message}"
            );
        }
        for (file, output, op) in [
            ("training_mode", "training", "BatchNormalization"),
            ("training_mode", "code", "BatchNormalization"),
            ("training_mode_of_call", "y", "BatchNormalization `inside`"),
            ("old_batch", "y", "BatchNormalization"),
            ("batch", "quantized", "DynamicQuantizeLinear"),
            ("batch", "all_axes", "MeanVarianceNormalization"),
        ] {
            let message = refused(&format!("{file}.onnx"), output);
            assert!(
                message.contains(&format!("in every run: {op} ")),
                "{message}"
            );
        }
        assert_eq!(
            refused("batch.onnx", "centered"),
            "encoder: batch.onnx: the output `centered` of a record depends on the other records of \
             its batch; no operator may combine records, such as a mean over the first dimension; \
             export the model with a batch size of 1, or set `allow_nondeterministic = true`"
        );
        assert_eq!(
            refused("batch.onnx", "without_batch"),
            "encoder: batch.onnx: the model fails on zeros: the output has the shape [2] for a \
             batch of 1 records; expected 1 as its first dimension"
        );
    }

    #[test]
    fn all_outputs_of_a_file_are_shown_and_selected() {
        let model = open("model = 'vae.onnx'").unwrap();
        assert_eq!(
            (model.summary().as_str(), model.code_size()),
            ("onnx features [4] -> code of 2, mse loss", Some(2))
        );
        assert_eq!(
            crate::model::OutputsDisplay(&model).to_string(),
            "  reconstruction `recon` float32 [batch, 4]\n  code           `mu` float32 [batch, 2]\n  \
             not used       `logvar` float32 [batch, 2]\n"
        );
        assert_eq!(
            open("model = 'sampled.onnx'")
                .unwrap()
                .files(ModelPath::EncodeAndReconstruct)
                .map(|files| files.len()),
            None
        );
        check(
            "model = 'sampled.onnx'\nreconstruction = 'recon'",
            expect![
                "model: sampled.onnx: the output `recon` is not the same in every run: RandomNormalLike draws random numbers; export the model without random numbers, such as the mean of a VAE instead of a sample, or set `allow_nondeterministic = true`"
            ],
        );
        check(
            "encoder = 'unnamed.onnx'",
            expect![[
                r#"output: the file has several outputs, and it is not plain which of them is the code of `x` float32 [batch, 4]: `4` float32 [batch, 4], `5` float32 [batch, 2], `6` float32 [batch, 2]; select it, such as `output = "5"`"#
            ]],
        );
    }

    #[test]
    fn output_that_does_not_depend_on_random_nodes_is_used() {
        for output in [
            "code",
            "evaluated",
            "default",
            "kept",
            "dead_branch",
            "not_dropped",
        ] {
            let written = format!("encoder = 'random.onnx'\noutput = '{output}'");
            assert_eq!(faults(&written), "", "{output}");
        }
        assert_eq!(faults("encoder = 'random.onnx'\noutput = 'same'"), "");
        for output in ["code", "trained", "own_axis"] {
            assert_eq!(
                faults(&format!("encoder = 'batch.onnx'\noutput = '{output}'")),
                ""
            );
        }
        assert_eq!(faults("encoder = 'single_record.onnx'"), "");
    }

    #[test]
    fn allowed_random_nodes_are_in_the_summary() {
        let written = "encoder = 'random.onnx'\noutput = 'normal'\nallow_nondeterministic = true";
        assert_eq!(
            open(written).unwrap().summary(),
            "onnx features [4] -> code of 2, mse loss, not the same in every run (RandomNormalLike \
             `noise of normal` draws random numbers)"
        );
    }

    #[test]
    fn pixels_that_uint8_input_cannot_hold_are_refused() {
        check(
            "model = 'bytes.onnx'\nrange = [-1, 1]",
            expect![
                "range: pixels become values from -1 to 1, but the input `x` uint8 [batch, 2, 2, 3] \
                 holds whole numbers from 0 to 255; use range = [0, 255] without `mean` and `std`"
            ],
        );
        assert_eq!(faults("model = 'bytes.onnx'\nrange = [0, 1]"), "");
    }

    #[test]
    fn unusable_tensors_are_refused_and_listed() {
        check(
            "model = 'two_inputs.onnx'",
            expect![
                "model: two_inputs.onnx: has 2 inputs, but a stage supplies only one: \
                 `x` float32 [batch, 2], `state` float32 [batch, 2]"
            ],
        );
        check(
            "model = 'whole_numbers.onnx'",
            expect![
                "model: whole_numbers.onnx: output `y` int64 [batch, 2] has an unsupported \
                 element type; expected float16, float32, float64 or uint8; the outputs of the \
                 file are: y"
            ],
        );
        check(
            "model = 'two_outputs.onnx'\noutput = 'thrice'",
            expect!["output: unknown output; the outputs of the file are: minus, twice"],
        );
        check(
            "model = 'external.bin'",
            expect!["model: external.bin: not a valid ONNX file: a field has an invalid number"],
        );
        check(
            "encoder = 'encoder.onnx'\ndecoder = 'wide_decoder.onnx'",
            expect![
                "decoder: wide_decoder.onnx: records of shape [2] do not fit the input `x` \
                 float32 [batch, 3]"
            ],
        );
        check(
            "encoder = 'encoder.onnx'\nsize = [2, 3]",
            expect!["size: images of shape [3, 2, 3] do not fit `x` float32 [batch, 4]"],
        );
        check(
            "encoder = 'encoder.onnx'\nsize = [2, 2]\ncolumns = ['a']",
            expect![
                "size: `size` describes images, but `columns` describes features; remove one \
                 of them"
            ],
        );
        check(
            "encoder = 'encoder.onnx'\nmean = [0, 0, 0, 0]",
            expect![[r#"mean: is not used; set scaling = "standard", or remove it"#]],
        );
        check(
            "encoder = 'encoder.onnx'\nscaling = 'min_max'\nmin = [0]\n\
             columns = ['a', 'a', 'b', 'c']",
            expect![[r#"
            columns: `a` is listed twice
            min: expected as many values as features, 4; found 1
            max: missing; the scaling requires it"#]],
        );
        check(
            "model = 'bytes.onnx'\nsize = [4294967296, 4294967296]\nrange = [1.0, 0.0]",
            expect![[r#"
            : `range` must ascend, such as [0.0, 1.0]; met [1.0, 0.0]
            size: images of shape [4294967296, 4294967296, 3] do not fit `x` uint8 [batch, 2, 2, 3]"#]],
        );
    }
}
