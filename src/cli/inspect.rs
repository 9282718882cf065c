//! `latentflow inspect`: describes a model folder, an ONNX file or a dataset.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::print;
use crate::cli::exit::{CommandError, ExitCode};
use crate::error::code::ErrorCode;
use crate::model::{self, RuntimeSpec};
use crate::sink::dataset::inspect;
use crate::storage::Location;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InspectCommand {
    /// Model folder, ONNX file, Parquet file, or folder of Parquet files; also the URL of a bucket (`s3://`, `gs://`, `az://`).
    path: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  latentflow inspect models/photo-ae             inputs, outputs and code size of a model
  latentflow inspect out/latents                 columns, rows and coverage of a dataset
  latentflow inspect s3://bucket/latents";

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
        let location = Location::from_path(path).map_err(|error| {
            CommandError::new(ErrorCode::ArgumentInvalid, format!("{name}: {error}"))
        })?;
        if location.local().is_some_and(|local| !local.exists()) {
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!("{name}: no such file or folder")
            ));
        }
        let mut usable = true;
        let text = if is_onnx || is_model {
            let runtime = RuntimeSpec::default();
            if let Err(fault) = model::ort_library::init(&runtime) {
                bail!(CommandError::new(ErrorCode::Model, fault.message));
            }
            let description = model::describe(path, &runtime).map_err(|faults| {
                let faults: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
                CommandError::new(ErrorCode::Model, format!("{name}: {}", faults.join("\n")))
            })?;
            usable = description.usable();
            description.to_string()
        } else {
            inspect::describe(&location)
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
