//! The training file as written, with one type for each table.

pub(crate) mod network;
pub(crate) mod training;

use std::path::Path;

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::config::names::name_fault;
use crate::config::{self, Diagnostics, KeySpans, Override};
use crate::corruption::spec::CorruptionSpec;
use crate::data::DataSpec;
use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::input::spec::InputSpec;
use crate::registry::{self, parse_options};
use crate::train::config::network::{ModelHeader, NetworkSpec, Sparsity};
use crate::train::config::training::TrainingSpec;

/// A training file with typed tables, before options are resolved.
#[derive(Debug, Clone)]
pub struct TrainingFile {
    /// The options outside of tables.
    pub head: ModelHeader,
    /// `[input]`, as in a model card.
    pub input: InputSpec,
    /// `[network]`
    pub network: NetworkSpec,
    /// `[sparsity]`
    pub sparsity: Option<Sparsity>,
    /// `[[corruption]]`, in the order in which they are applied.
    pub corruption: Vec<CorruptionSpec>,
    /// `[training]`
    pub training: TrainingSpec,
    /// `[data]`
    pub data: DataSpec,
    /// The complete file as it was read, including overrides; it is stored in the model card.
    pub written: Value,
}

impl TrainingFile {
    /// Parses the text of a training file and applies the overrides. `path` is its name in faults.
    ///
    /// # Errors
    /// Every syntax error, unknown key, value of a wrong type and invalid override, and an invalid
    /// name of the model.
    pub fn parse(
        path: &Path,
        text: &str,
        overrides: &[Override],
    ) -> Result<(Self, KeySpans), Diagnostics> {
        let loaded = config::parse_training_file(path, text, std::iter::empty(), overrides)?;
        Self::checked(loaded)
    }

    /// Reads a training file, and applies the overrides of the environment, and then `overrides`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and if the file cannot be read.
    pub fn open(path: &Path, overrides: &[Override]) -> Result<(Self, KeySpans), Diagnostics> {
        Self::checked(config::read_training_file(path, overrides)?)
    }

    fn checked((written, key_spans): (Value, KeySpans)) -> Result<(Self, KeySpans), Diagnostics> {
        let file = Self::read(written).and_then(|file| match name_fault(&file.head.name) {
            Some(message) => Err(vec![ConfigError::new("name", message)]),
            None => Ok(file),
        });
        match file {
            Ok(file) => Ok((file, key_spans)),
            Err(faults) => Err(Diagnostics::new(&key_spans, faults)),
        }
    }

    /// Reads each table separately, so that an error in one table does not hide errors in another.
    ///
    /// # Errors
    /// Unknown keys and values of a wrong type, with keys from the top of the file.
    pub fn read(written: Value) -> Result<Self, Vec<ConfigError>> {
        let Value::Object(mut root) = written.clone() else {
            return Err(vec![ConfigError::new("", "expected a table")]);
        };
        let mut faults = Vec::new();
        let sparsity_table = root.remove("sparsity");
        let corruption = root.remove("corruption");
        let image_or_features = table(&mut root, "input", &mut faults)
            .and_then(|input: InputSpec| with_size_of_steps(input, &mut faults));
        let tables = (
            image_or_features,
            table(&mut root, "network", &mut faults),
            table(&mut root, "training", &mut faults),
            table(&mut root, "data", &mut faults),
            sparsity_table.map_or(Some(None), |options| {
                read("sparsity", options, &mut faults).map(Some)
            }),
        );
        let corruption = list("corruption", corruption, &mut faults);
        let (header, found) = registry::parse_options_lenient::<ModelHeader>(Value::Object(root));
        faults.extend(found.into_iter().map(known_tables));
        match (tables, header) {
            (
                (Some(input), Some(network), Some(training), Some(data), Some(sparsity)),
                Some(head),
            ) if faults.is_empty() => Ok(Self {
                head,
                input,
                network,
                sparsity,
                corruption,
                training,
                data,
                written,
            }),
            _ => Err(faults),
        }
    }
}

/// Sets the size of the input to that of its steps.
fn with_size_of_steps(mut input: InputSpec, faults: &mut Vec<ConfigError>) -> Option<InputSpec> {
    match input.preprocessor() {
        Ok(steps) => {
            let size = steps.map(|steps| steps.size());
            input.size = input.size.or(size.map(|(height, width)| [height, width]));
            Some(input)
        }
        Err(fault) => {
            faults.push(fault.within("input"));
            None
        }
    }
}

/// An unknown key at the top may be a misspelled table, so the names of the tables are added to the
/// message.
fn known_tables(mut fault: ConfigError) -> ConfigError {
    if fault.message.starts_with("unknown key") {
        fault
            .message
            .push_str("; tables: input, network, sparsity, corruption, training, data");
    }
    fault
}

fn table<T: serde::de::DeserializeOwned + JsonSchema>(
    root: &mut Map<String, Value>,
    key: &str,
    faults: &mut Vec<ConfigError>,
) -> Option<T> {
    let written = root
        .remove(key)
        .unwrap_or_else(|| Value::Object(Map::new()));
    read(key, written, faults)
}

fn read<T: serde::de::DeserializeOwned + JsonSchema>(
    key: &str,
    written: Value,
    faults: &mut Vec<ConfigError>,
) -> Option<T> {
    let read = parse_options::<T>(written);
    faults.record_all_within(key, read)
}

/// Reads `[[corruption]]`, or `[corruption]` if there is only one.
fn list(key: &str, written: Option<Value>, faults: &mut Vec<ConfigError>) -> Vec<CorruptionSpec> {
    let entries = match written {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(one) => vec![one],
    };
    let read = |(index, entry)| read(&format!("{key}[{index}]"), entry, faults);
    entries.into_iter().enumerate().filter_map(read).collect()
}
