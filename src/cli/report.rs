//! `latentflow report`: a page about a model, or about what a run has written.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::evaluate::{EvaluateArgs, failure, open};
use super::log::{self, LogFormat};
use super::{ExitCode, print};
use crate::evaluate;
use crate::fs_durable::write_atomically;
use crate::model::card::CARD;
use crate::report::{EvaluatedModel, ModelReport, RunReport, examples, read_curve};
use crate::storage::Location;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReportCommand {
    /// A model's folder; or what a run has written: a Parquet file, or a folder of them, `s3://`
    /// included.
    path: PathBuf,
    /// Where the page is written to; what lies there is replaced.
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    #[command(flatten)]
    evaluate: EvaluateArgs,
    /// Of a model: show what its card and its training tell, without trying it with data.
    #[arg(long, conflicts_with_all = ["data", "source", "set", "part", "corrupt", "prepared"])]
    no_data: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow report models/mine                       on data that the training kept aside
  latentflow report models/photo-ae --source photos/  on other images
  latentflow report out/latents -o latents.html       what a run has written, and what it refused

The page is one file without scripts, which fetches nothing: it can be mailed, and opened anywhere.";

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
        let model = open(&self.path)?;
        let curve = read_curve(&self.path)?;
        let mut notes = Vec::new();
        let tried = match (self.no_data, self.evaluate.has_data(&model)) {
            (true, _) => None,
            (false, true) => Some(self.evaluate.evaluate(&model, &self.path)?),
            (false, false) => {
                tracing::warn!(
                    "the model's card does not say which data it was trained with; name some with --source"
                );
                notes.push(
                    "The model was not tried with data: its card names none that this page could take.".to_owned(),
                );
                None
            }
        };
        let shown = tried.as_ref().map(|tried| {
            let chosen = examples(&tried.evaluation, &model);
            evaluate::collect_examples(&model, &tried.prepared, &tried.options, &chosen)
                .map_err(failure)
        });
        let shown = shown.transpose()?;
        let evaluated = tried
            .as_ref()
            .zip(shown.as_ref())
            .map(|(tried, shown)| EvaluatedModel {
                evaluation: &tried.evaluation,
                prepared: &tried.prepared,
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
        let place = Location::from_path(&self.path).map_err(|error| anyhow!("{name}: {error}"))?;
        if place.local().is_some_and(|path: &Path| !path.exists()) {
            bail!("{name}: no such file or folder");
        }
        if self.evaluate.is_set() {
            bail!(
                "{name}: is no model's folder, which has a `{CARD}`; --data, --source and the like are for models"
            );
        }
        Ok(RunReport::read(&place)
            .with_context(|| name.to_string())?
            .page())
    }
}
