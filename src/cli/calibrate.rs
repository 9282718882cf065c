//! `latentflow calibrate`: renews the distribution of the reconstruction error in a model card.

use std::path::{Path, PathBuf};

use clap::Args;

use super::evaluate::with_progress;
use super::log::{self, LogFormat};
use super::print;
use crate::cli::exit::{CommandError, ExitCode};
use crate::error::code::ErrorCode;
use crate::evaluate::EvaluationRequest;
use crate::evaluate::calibration::{Calibration, calibrated};
use crate::model::Model;
use crate::model::card::error_stats::ErrorStats;
use crate::model::card::{CARD, ModelCard};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CalibrateCommand {
    /// Model folder, with `model.toml` and the ONNX files.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Recent normal data: a folder, a file, or a source table; may be repeated.
    ///
    /// A source table is written as in a pipeline: '{ kind = "csv", path = "rows.csv" }'.
    #[arg(long, value_name = "PATH|TABLE", required = true)]
    source: Vec<String>,
    /// Override a key of the `[data]` table, such as 'normal={ column = "y", equals = 0 }'; may be
    /// repeated.
    ///
    /// Records that are not normal are left out.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print both distributions without changing the card.
    #[arg(long)]
    dry_run: bool,
    /// Accept a model whose output depends on random numbers or on the other records of a batch.
    #[arg(long)]
    allow_nondeterministic: bool,
}

const EXAMPLES: &str = "\
Examples:
  latentflow calibrate models/mine --source recent/ --dry-run
  latentflow calibrate models/mine --source november.csv --set 'normal={ column = \"ok\", equals = 1 }'

The card then has the new distribution as `reconstruction_error`, with the date and the sources, and the
former one in the list `previous_reconstruction_error`. `score` computes z-scores with the new one, and
`evaluate` the shares above its quantiles. The ONNX files and the digest of the model do not change.";

impl CalibrateCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(LogFormat::Auto);
        let request = EvaluationRequest {
            sources: self.source.clone(),
            set: self.set.clone(),
            allow_nondeterministic: self.allow_nondeterministic,
            ..EvaluationRequest::default()
        };
        let model = request.open(&self.model)?;
        let Some(card) = model.card() else {
            anyhow::bail!(CommandError::new(
                ErrorCode::ArgumentInvalid,
                format!(
                    "{}: has no `{CARD}`, which holds the distribution of the error",
                    self.model.display()
                )
            ));
        };
        let calibration = self.measure(&request, &model)?;
        print(&self.table(card, &calibration))?;
        let path = self.model.join(CARD);
        if self.dry_run {
            print(&format!("{}: not changed\n", path.display()))?;
            return Ok(ExitCode::Done);
        }
        // The card may have changed while the records were measured.
        let is_current = ModelCard::read(&path).is_ok_and(|current| current == *card);
        if !is_current {
            anyhow::bail!(CommandError::new(
                ErrorCode::Model,
                format!(
                    "{}: was changed by another program during the calibration; run it again",
                    path.display()
                )
            ));
        }
        calibrated(card, calibration.stats).write(&self.model)?;
        let kept = match &card.reconstruction_error {
            Some(_) => "; the former distribution is kept in `previous_reconstruction_error`",
            None => "",
        };
        print(&format!("{}: replaced{kept}\n", path.display()))?;
        Ok(ExitCode::Done)
    }

    fn measure(&self, request: &EvaluationRequest, model: &Model) -> anyhow::Result<Calibration> {
        let (calibration, _temporary) = with_progress(|temporary, watch| {
            request.calibrate(model, &self.model, temporary, watch)
        })?;
        Ok(calibration)
    }

    fn table(&self, card: &ModelCard, calibration: &Calibration) -> String {
        let former = card.reconstruction_error.as_ref();
        let mut lines = vec![
            format!(
                "{}: {} of the reconstruction",
                name(&self.model),
                card.loss.as_str()
            ),
            format!("  {:<8}{:>14}{:>14}", "", "former", "new"),
        ];
        for (name, value) in figures(&calibration.stats) {
            let known = former.and_then(|stats| {
                let mut all = figures(stats).into_iter();
                Some(all.find(|(other, _)| *other == name)?.1)
            });
            let known = known.unwrap_or_else(|| "-".to_owned());
            lines.push(format!("  {name:<8}{known:>14}{value:>14}"));
        }
        lines.extend(calibration.above_former_p99.map(|share| {
            format!(
                "  {:.2} % of the records are above the former p99",
                share * 100.0
            )
        }));
        lines.extend(calibration.notes.iter().map(|note| format!("  {note}")));
        lines.join("\n") + "\n"
    }
}

fn name(folder: &Path) -> String {
    folder.display().to_string()
}

fn figures(stats: &ErrorStats) -> Vec<(&'static str, String)> {
    let quantiles = &stats.quantiles;
    let values = [
        ("mean", stats.mean),
        ("std", stats.std),
        ("min", stats.min),
        ("p01", quantiles.p01),
        ("p05", quantiles.p05),
        ("p25", quantiles.p25),
        ("p50", quantiles.p50),
        ("p75", quantiles.p75),
        ("p95", quantiles.p95),
        ("p99", quantiles.p99),
        ("max", stats.max),
    ];
    let count = ("records", stats.count.to_string());
    let values = values.map(|(name, value)| (name, format!("{value:.6}")));
    std::iter::once(count).chain(values).collect()
}
