//! The files that commands read as TOML, and the recognition of other files in their place: a
//! training file given to `run`, a model folder, a Parquet file.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use serde_json::Value;

use crate::registry::did_you_mean;

/// A kind of file that a command reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigFile {
    /// A pipeline file.
    Pipeline,
    /// A training file.
    Training,
}

/// Maximum size of a file in bytes; typical files have a few thousand.
const MAX_BYTES: u64 = 1 << 20;

/// Maximum number of files of a folder that are compared with a mistyped name.
const MAX_COMPARED: usize = 1000;

/// The file of a model folder that describes the model.
const CARD: &str = "model.toml";
/// The folder in the output of a run that holds its state.
const STATE: &str = "_latentflow";

/// The first bytes of files of other formats.
const FORMATS: [(&[u8], &str); 11] = [
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a compressed file"),
    (b"\x7fELF", "a program"),
];

impl ConfigFile {
    fn noun(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline file",
            Self::Training => "training file",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Pipeline => "expected a pipeline file (TOML), such as `latentflow init` prints",
            Self::Training => {
                "expected a training file (TOML), such as `latentflow init training` prints"
            }
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The reason why the file is not a text that can be parsed, and the remedy.
    pub(super) fn read(self, path: &Path) -> Result<String, String> {
        if path.is_dir() {
            return Err(self.describe_folder(path));
        }
        let bytes = read_bytes(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("does not exist{}", similar_file(path)),
            _ => format!("cannot be read: {error}"),
        })?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!(
                "the file is too large; a {} has at most {MAX_BYTES} bytes",
                self.noun()
            ));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let format = describe_bytes(path, error.as_bytes());
            format!("is {format}; {}", self.expected())
        })?;
        let start = text.trim_start_matches('\u{feff}').trim_start();
        let is_json = start.starts_with('{') || has_extension(path, &["json", "ndjson", "jsonl"]);
        if is_json || has_extension(path, &["yaml", "yml"]) {
            let format = if is_json { "JSON" } else { "YAML" };
            return Err(format!("is {format}; {}", self.expected()));
        }
        Ok(text)
    }

    fn describe_folder(self, path: &Path) -> String {
        let folder = path.display();
        let training = path.with_extension("toml");
        if path.join(CARD).is_file() {
            let source = match (self, training.is_file()) {
                (Self::Training, true) => format!(
                    "; its training file is `{}`: use `latentflow train {0}`",
                    training.display()
                ),
                _ => String::new(),
            };
            return format!(
                "is a model folder{source}; `latentflow inspect {folder}` describes the model; {}",
                self.expected()
            );
        }
        if path.join(STATE).is_dir() {
            return format!(
                "is the output of a run, which `latentflow inspect {folder}` describes; {}",
                self.expected()
            );
        }
        let similar = if training.is_file() {
            format!(" (did you mean `{}`?)", training.display())
        } else {
            String::new()
        };
        format!("is a folder{similar}; {}", self.expected())
    }

    /// Returns the reason why the table of a file belongs to a file of another kind, and the
    /// command for it; `None` if it does not.
    pub(super) fn mistaken(self, path: &Path, root: &Value) -> Option<String> {
        let has = |key: &&str| root.get(*key).is_some_and(|value| !value.is_null());
        let of_training = [
            "network",
            "training",
            "data",
            "input",
            "sparsity",
            "corruption",
        ];
        let tables: Vec<String> = of_training
            .into_iter()
            .filter(has)
            .map(|table| format!("[{table}]"))
            .collect();
        let (is_pipeline, has_network) = (has(&"stages"), has(&"network"));
        let is_card = !is_pipeline && !has_network && has(&"files") && has(&"input");
        let is_training = !is_pipeline && !is_card && tables.len() >= 2;
        let file = path.display();
        let folder = path.parent().filter(|above| !above.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).display();
        match self {
            _ if is_card => Some(format!(
                "is the card of a model; `latentflow inspect {folder}` describes the model, and a \
                 pipeline uses it with path = \"{folder}\" in its table of [models]; {}",
                self.expected()
            )),
            Self::Pipeline if is_training => Some(format!(
                "is a training file, because it has {} and no stages; use `latentflow train \
                 {file}`",
                tables.join(", ")
            )),
            Self::Training if is_pipeline && !has_network => Some(format!(
                "is a pipeline file, because it has stages and no network; use `latentflow run \
                 {file}`"
            )),
            Self::Pipeline | Self::Training => None,
        }
    }
}

/// Reads at most one byte more than [`MAX_BYTES`].
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    extensions.iter().any(|known| extension == *known)
}

/// Describes a file that is not UTF-8 text.
fn describe_bytes(path: &Path, bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return "text in UTF-16, which has to be saved as UTF-8";
    }
    let known = FORMATS.iter().find(|(start, _)| bytes.starts_with(start));
    match known {
        Some((_, format)) => format,
        None if has_extension(path, &["onnx"]) => {
            "an ONNX file, which `latentflow inspect` describes"
        }
        None if bytes.contains(&0) => "not a text file",
        None => "not text in UTF-8",
    }
}

/// Returns ` (did you mean ...?)` with a file of the same folder that has a similar name.
fn similar_file(path: &Path) -> String {
    let with_extension = path.with_extension("toml");
    if with_extension != path && with_extension.is_file() {
        return format!(" (did you mean `{}`?)", with_extension.display());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let entries = fs::read_dir(above.unwrap_or(Path::new(".")));
    let names: Vec<String> = entries
        .into_iter()
        .flatten()
        .take(MAX_COMPARED)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| has_extension(Path::new(name), &["toml"]))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    did_you_mean(&name, &names)
}

#[cfg(test)]
mod tests;
