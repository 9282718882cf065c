//! The digests of the files of a model, and reads within their limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::model::Model;
use crate::model::files::ModelPath;
use crate::model::input::spec::InputSpec;
use crate::model::nondeterminism::{self, NondeterministicOutputs};
use crate::model::onnx_metadata::OnnxMetadata;

/// The digest over everything that determines the results: files, preprocessing, selected outputs,
/// loss and `multiple`.
pub(super) fn digest(
    model: &Model,
    input_spec: &InputSpec,
    files: &BTreeMap<String, String>,
) -> String {
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
pub(super) fn file_digests(
    path: &Path,
) -> Result<(Vec<(String, String)>, NondeterministicOutputs), String> {
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
pub(in crate::model) fn read_header(
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
pub(in crate::model) fn read(path: &Path) -> Result<Vec<u8>, String> {
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
pub(in crate::model) fn sha256(path: &Path) -> Result<String, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    if !std::fs::metadata(path).map_err(named)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path).map_err(named)?, &mut hash).map_err(named)?;
    Ok(hex(&hash.finalize()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
