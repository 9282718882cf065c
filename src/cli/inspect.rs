//! `latentflow inspect`: what a model takes and gives, what a dataset holds.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::{ExitCode, print};
use crate::model::{self, RuntimeSpec};
use crate::sink::inspect;
use crate::storage::Location;

#[derive(Debug, Args)]
pub(super) struct InspectCommand {
    /// A model folder, an ONNX file, a Parquet file, or a folder of Parquet files, `s3://`
    /// included.
    path: PathBuf,
}

impl InspectCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let path = &self.path;
        let name = path.display();
        let is_onnx = path
            .extension()
            .is_some_and(|extension| extension == "onnx");
        let is_model = ["model.toml", "encoder.onnx", "model.onnx"]
            .iter()
            .any(|file| path.join(file).exists());
        let place = Location::from_path(path).map_err(|error| anyhow!("{name}: {error}"))?;
        if place.local().is_some_and(|path| !path.exists()) {
            bail!("{name}: no such file or folder");
        }
        let mut usable = true;
        let text = if is_onnx || is_model {
            let runtime = RuntimeSpec::default();
            if let Err(fault) = model::ort_library::init(&runtime) {
                bail!("{}", fault.message);
            }
            let description = model::describe(path, &runtime).map_err(|faults| {
                let faults: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
                anyhow!("{name}: {}", faults.join("\n"))
            })?;
            usable = description.usable();
            description.to_string()
        } else {
            inspect::describe(&place)
                .with_context(|| name.to_string())?
                .to_string()
        };
        print(&format!("{}\n", text.trim_end()))?;
        Ok(if usable {
            ExitCode::Done
        } else {
            ExitCode::Failed
        })
    }
}
