//! Helpers for tests of models, which load the small files under `tests/models`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::config_error::ConfigError;
use crate::metrics::Metrics;
use crate::model::{Model, ModelSpec, RuntimeSpec, ort_library};
use crate::registry::parse_options;

/// The path of a file under `tests/models`.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name)
}

/// Loads ONNX Runtime as the program does.
pub(crate) fn init() -> RuntimeSpec {
    let spec = RuntimeSpec::default();
    ort_library::init(&spec).unwrap_or_else(|fault| panic!("{}: {}", fault.key, fault.message));
    spec
}

/// Loads a model that is declared in TOML. Relative paths start at `tests/models`.
pub(crate) fn open(written: &str) -> Result<Model, Vec<ConfigError>> {
    open_with(written, &RuntimeSpec::default())
}

/// As [`open`], with runtime options.
pub(crate) fn open_with(written: &str, runtime: &RuntimeSpec) -> Result<Model, Vec<ConfigError>> {
    init();
    let mut spec: ModelSpec = parse_options(toml::from_str(written).unwrap())?;
    for path in [
        &mut spec.path,
        &mut spec.encoder,
        &mut spec.decoder,
        &mut spec.model,
    ]
    .into_iter()
    .flatten()
    {
        *path = file(path.to_str().unwrap());
    }
    Model::open("tested", &spec, runtime, &Arc::new(Metrics::new()))
}

/// The errors of a model, one per line, without the folder of the files.
pub(crate) fn faults(written: &str) -> String {
    let faults = open(written).err().unwrap_or_default();
    let folder = format!("{}/", file("").display()).replace("//", "/");
    let line =
        |fault: ConfigError| format!("{}: {}", fault.key, fault.message.replace(&folder, ""));
    faults.into_iter().map(line).collect::<Vec<_>>().join("\n")
}
