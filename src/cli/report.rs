//! `latentflow report`: writes an HTML page about a model or about the output of a run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::evaluate::EvaluateArgs;
use super::log::{self, LogFormat};
use super::print;
use crate::cli::exit::{CommandError, ExitCode};
use crate::error::code::ErrorCode;
use crate::evaluate;
use crate::fs_durable::write_atomically;
use crate::model::card::CARD;
use crate::report::{EvaluatedModel, ModelReport, RunReport, examples, read_curve};
use crate::storage::Location;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReportCommand {
    /// Model folder, Parquet file, or folder of Parquet files; also the URL of a bucket (`s3://`, `gs://`, `az://`).
    path: PathBuf,
    /// File to write the page to; an existing file is replaced.
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    #[command(flatten)]
    evaluate: EvaluateArgs,
    /// Show the card and the loss curve of a model without an evaluation on data.
    #[arg(long, conflicts_with_all = ["data", "source", "set", "part", "corrupt", "prepared"])]
    no_data: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow report models/mine                       a model, on the test part of its data
  latentflow report models/photo-ae --source photos/  a model, on other images
  latentflow report out/latents -o latents.html       the output and the rejects of a run

The page is one file without scripts and external resources, so it can be sent by email and opened
in any browser.";

impl ReportCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(LogFormat::Auto);
        let page = if self.path.join(CARD).exists() {
            self.model()?
        } else {
            self.dataset()?
        };
        write_atomically(&self.out, page.as_bytes())
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        print(&format!("{}\n", self.out.display()))?;
        Ok(ExitCode::Done)
    }

    fn model(&self) -> anyhow::Result<String> {
        let request = self.evaluate.request();
        let model = request.open(&self.path)?;
        let curve = read_curve(&self.path)?;
        let mut notes = Vec::new();
        let evaluation = match (self.no_data, request.has_data(&model)) {
            (true, _) => None,
            (false, true) => Some(self.evaluate.evaluate(&model, &self.path)?),
            (false, false) => {
                tracing::warn!(
                    "the model card does not name the training data, so the model is not \
                     evaluated; name data with --source"
                );
                notes.push(
                    "The model is not evaluated, because its card does not name the training data."
                        .to_owned(),
                );
                None
            }
        };
        let evaluation = evaluation.as_ref().map(|(run, _)| run);
        let shown = evaluation.map(|run| {
            let chosen = examples(&run.evaluation, &model);
            evaluate::collect_examples(&model, &run.prepared, &run.options, &chosen)
        });
        let shown = shown.transpose()?;
        let evaluated = evaluation
            .zip(shown.as_ref())
            .map(|(run, shown)| EvaluatedModel {
                evaluation: &run.evaluation,
                prepared: &run.prepared,
                shown,
            });
        Ok(ModelReport {
            model: &model,
            curve: &curve,
            evaluated,
            notes,
        }
        .page())
    }

    fn dataset(&self) -> anyhow::Result<String> {
        let name = self.path.display();
        let location = Location::from_path(&self.path).map_err(|error| {
            CommandError::new(ErrorCode::ArgumentInvalid, format!("{name}: {error}"))
        })?;
        if location.local().is_some_and(|path: &Path| !path.exists()) {
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!("{name}: no such file or folder")
            ));
        }
        if self.evaluate.is_set() {
            bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "{name}: not a model folder, because it has no `{CARD}`; --data, --source, --set, \
                 --part, --corrupt and --prepared require a model"
                )
            ));
        }
        Ok(RunReport::read(&location)
            .with_context(|| name.to_string())?
            .page())
    }
}
