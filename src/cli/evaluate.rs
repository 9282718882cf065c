//! `latentflow evaluate`: measures a model on the data that it was trained with, or on other data.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::log::{self, LogFormat};
use super::progress::{TaskProgress, TaskReporter};
use super::signals::remove_on_signal;
use super::{print, print_json};
use crate::cli::exit::ExitCode;
use crate::data::Subset;
use crate::error::StageError;
use crate::evaluate::options::{EvaluateError, EvaluateEvent};
use crate::evaluate::{EvaluationRequest, EvaluationRun};
use crate::model::Model;
use crate::temporary_folder::TemporaryFolder;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EvaluateCommand {
    /// Model folder, with `model.toml` and the ONNX files.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    args: EvaluateArgs,
    /// Write all results as JSON to this file; `-` writes to standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The records that a model is evaluated on, and the corruptions.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// Folder of the training data, if it has moved since the training.
    #[arg(long, value_name = "FOLDER", conflicts_with = "source")]
    data: Option<PathBuf>,
    /// Evaluate on other data: a folder, a file, or a source table; may be repeated.
    ///
    /// The extensions of files determine their kind. A table of images, such as a Parquet file with
    /// a column of image files, is used like a folder of images. A source table is written as in a pipeline:
    /// '{ kind = "csv", path = "rows.csv" }'. Half of the records are reserved to fit PCA and
    /// classifiers, except for models without a latent.
    #[arg(long, value_name = "PATH|TABLE")]
    source: Vec<String>,
    /// Override a key of the `[data]` table, such as label=species; may be repeated.
    ///
    /// Other examples: test=0.2 and 'normal={ column = "y", equals = 0 }'.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Part of the records to score.
    ///
    /// Default: the test part, or the validation part if the training reserved no test part, and
    /// all anomalies.
    #[arg(long, value_enum)]
    part: Option<SubsetArg>,
    /// Measure the removal of this corruption, such as gaussian:25; may be repeated.
    ///
    /// Corruptions: gaussian:25, poisson:30, masking:0.3, salt_and_pepper:0.1, blur:1.5, downscale:2,
    /// jpeg:75, watermark_text:0.5, watermark_grid:0.5, watermark:0.5, gray. Default: the corruption
    /// of the training.
    #[arg(long, value_name = "NOISE:AMOUNT")]
    corrupt: Vec<String>,
    /// Also rank anomalies by the mean of the errors of this model and MODEL; may be repeated.
    ///
    /// The models take the same input, such as networks of other code sizes that were trained on the same
    /// data. Each error is divided by the mean error in the card of its model, as in the stage `ensemble`.
    #[arg(long, value_name = "MODEL")]
    ensemble: Vec<PathBuf>,
    /// Measure the distance between JPEGs decoded in full and at a fraction of their size.
    ///
    /// Both modes are options of `pixels` and of the model card (`decode`). The pixels, the latents and the
    /// reconstruction error are compared.
    #[arg(long)]
    compare_decode: bool,
    /// Accept a model whose output depends on random numbers or on the other records of a batch, as
    /// `allow_nondeterministic` in the table of a model does for `run`.
    #[arg(long)]
    allow_nondeterministic: bool,
    /// Store the prepared records in this folder and reuse them in later evaluations.
    ///
    /// Default: a temporary folder that is deleted.
    #[arg(long, value_name = "FOLDER")]
    prepared: Option<PathBuf>,
}

const EXAMPLES: &str = r#"Examples:
  latentflow evaluate models/mine                            on the test part of its data
  latentflow evaluate models/mine --data /mnt/data --json mine.json
  latentflow evaluate models/photo-ae --source holiday/      on other images
  latentflow evaluate models/kdd-ae --source kdd.csv \
      --set 'normal={ column = "label", equals = "normal" }'
  latentflow evaluate models/mine --source '{ kind = "parquet", path = "rows.parquet" }' \
      --set label=species
  latentflow evaluate models/kdd-2 --ensemble models/kdd-4 --ensemble models/kdd-8
  latentflow evaluate models/denoiser --source Set12/ --corrupt gaussian:15 --corrupt gaussian:25

The measurements depend on the model and the data:
  reconstructions  reconstruction error; for images also PSNR and SSIM
  latents          PCA with latents of the same size, as a baseline
  labels           accuracy of classifiers on the latents
  `normal`         detection of anomalies by the reconstruction error
  denoisers        corrupted input and output, each compared with the clean record"#;

/// A part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SubsetArg {
    /// Records reserved for the final measurement.
    Test,
    /// Records reserved for early stopping.
    Validation,
    /// Records that the model was trained on.
    Training,
    /// All records.
    All,
}

impl SubsetArg {
    fn subsets(self) -> Vec<Subset> {
        match self {
            Self::Test => vec![Subset::Test],
            Self::Validation => vec![Subset::Validation],
            Self::Training => vec![Subset::Training],
            Self::All => Subset::ALL.to_vec(),
        }
    }
}

impl EvaluateCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(LogFormat::Auto);
        let request = self.args.request();
        let model = request.open(&self.model)?;
        let EvaluationRun { evaluation, .. } = self.args.evaluate(&model, &self.model)?.0;
        let as_json =
            || Ok::<_, anyhow::Error>(format!("{}\n", serde_json::to_string_pretty(&evaluation)?));
        match &self.json {
            Some(path) if path == Path::new("-") => print_json(&as_json()?)?,
            Some(path) => {
                std::fs::write(path, as_json()?)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                print(&evaluation.to_string())?;
            }
            None => print(&evaluation.to_string())?,
        }
        Ok(ExitCode::Done)
    }
}

impl EvaluateArgs {
    /// The request of these options.
    pub(super) fn request(&self) -> EvaluationRequest {
        EvaluationRequest {
            data: self.data.clone(),
            sources: self.source.clone(),
            set: self.set.clone(),
            parts: self.part.map(SubsetArg::subsets).unwrap_or_default(),
            corruptions: self.corrupt.clone(),
            ensemble: self.ensemble.clone(),
            compare_decode: self.compare_decode,
            allow_nondeterministic: self.allow_nondeterministic,
            prepared: self.prepared.clone(),
        }
    }

    /// Whether any of these options is given.
    pub(super) fn is_set(&self) -> bool {
        let Self {
            data,
            source,
            set,
            part,
            corrupt,
            ensemble,
            prepared,
            compare_decode,
            allow_nondeterministic: _,
        } = self;
        *compare_decode
            || data.is_some()
            || part.is_some()
            || prepared.is_some()
            || !ensemble.is_empty()
            || [source, set, corrupt].iter().any(|all| !all.is_empty())
    }

    /// Prepares the data and evaluates the model in `folder` on it, with the progress on the
    /// terminal. The prepared records are removed with the returned folder.
    ///
    /// # Errors
    /// If an option is invalid, the data cannot be read, or the model fails.
    pub(super) fn evaluate(
        &self,
        model: &Model,
        folder: &Path,
    ) -> anyhow::Result<(EvaluationRun, TemporaryFolder)> {
        let request = self.request();
        with_progress(|temporary, watch| request.run(model, folder, temporary, watch))
    }
}

/// Calls `work` with a temporary folder for prepared records and with the display of its progress.
/// The folder is removed with the returned one, or when a signal ends the program.
pub(super) fn with_progress<T>(
    work: impl FnOnce(
        &Path,
        &mut dyn FnMut(EvaluateEvent<'_>) -> Result<(), StageError>,
    ) -> Result<T, EvaluateError>,
) -> anyhow::Result<(T, TemporaryFolder)> {
    let progress = TaskReporter::start(LogFormat::Auto);
    let temporary = TemporaryFolder::new("latentflow-evaluate-");
    let temporary = temporary.context("cannot create a temporary folder")?;
    remove_on_signal(temporary.path().to_path_buf());
    let mut watch = |event: EvaluateEvent<'_>| {
        show(&progress, &event);
        Ok(())
    };
    let result = work(temporary.path(), &mut watch)?;
    drop(progress);
    Ok((result, temporary))
}

/// Shows the progress of an evaluation.
fn show(progress: &TaskReporter, event: &EvaluateEvent<'_>) {
    match *event {
        EvaluateEvent::Reading(read) => progress.show(read.into()),
        EvaluateEvent::Prepared(prepared) => {
            for reason in &prepared.reasons {
                tracing::warn!(%reason, "a record of the data was rejected");
            }
        }
        EvaluateEvent::Step { name, done, total } => progress.show(TaskProgress {
            name: name.to_owned(),
            done: done as u64,
            total: Some(total as u64),
            ..TaskProgress::default()
        }),
    }
}
