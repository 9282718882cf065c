//! The command line: one file per command.

mod check;
mod compact;
mod completions;
mod evaluate;
mod graph;
mod init;
mod inspect;
mod log;
mod log_rate_limit;
mod log_escaping;
mod time_profile;
mod progress;
mod report;
mod rejects;
mod reset;
mod run;
mod schema;
mod stderr;
mod summary;
#[cfg(feature = "train")]
mod train;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::error::StageError;
use crate::metrics::Metrics;
use crate::plan::{self, Plan};
use crate::config::{self, Diagnostics, PipelineConfig};
use crate::text_escape;

pub use stderr::flush;

/// How the program ended, as other programs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All done; or, for a source without an end, drained on request.
    Done = 0,
    /// A stage failed, or the machine did.
    Failed = 1,
    /// The command line or the pipeline file is wrong, or earlier output or an input does not admit
    /// the pipeline; nothing was started.
    Usage = 2,
    /// All done, but more records were rejected than `rejects.max_share` allows.
    Rejects = 3,
    /// Drained on request before the end of the input: run again to go on.
    Drained = 4,
    /// Stopped at once, by a second signal; what was not committed will be done again.
    Killed = 130,
}

impl ExitCode {
    /// The exit code for an error: invalid pipelines are the user's to mend, anything else is a
    /// failure.
    pub fn of(error: &anyhow::Error) -> Self {
        let is_refused = match error.downcast_ref::<Diagnostics>() {
            Some(problems) => !problems.are_of_environment(),
            None => error.is::<FailedStage>(),
        };
        if is_refused {
            Self::Usage
        } else {
            Self::Failed
        }
    }
}

/// Runs autoencoders over streams of images and feature records.
///
/// A pipeline file (TOML) declares stages: sources give records, transforms encode, denoise and
/// score them with ONNX models, sinks keep what comes out, latent features in Parquet first of all.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  latentflow init > photos.toml                      a commented pipeline to start from
  latentflow check photos.toml                       what it would do, and every fault it has
  latentflow run photos.toml                         do it
  latentflow run photos.toml --set stages.photos.path='holiday/**/*.jpg'
  latentflow inspect models/photo-ae                 what a model takes and gives
  latentflow inspect out/latents                     what a run has written
  latentflow evaluate models/photo-ae --source photos   how well a model does on data
  latentflow report models/photo-ae --source photos     the same as a page with charts and images

Exit codes: 0 done, 1 failed, 2 usage, invalid pipeline, or refused output or input,
3 too many rejects, 4 drained before the end of the input (run again to go on), 130 stopped at once.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline until its sources end, or until it is told to stop.
    Run(run::RunCommand),
    /// Check a pipeline and print its plan: schemas, shapes, workers, predicted memory.
    Check(check::CheckCommand),
    /// Draw a pipeline's graph.
    Graph(graph::GraphCommand),
    /// Train the autoencoder that a file declares, and write its model folder.
    #[cfg(feature = "train")]
    Train(train::TrainCommand),
    /// Describe a model folder, an ONNX file, or a dataset that a run has written.
    Inspect(inspect::InspectCommand),
    /// Measure how well a model does on data: reconstruction, codes, anomalies, denoising, against
    /// PCA.
    Evaluate(evaluate::EvaluateCommand),
    /// Write a page about a model, or about what a run has written: charts, examples, figures in
    /// one HTML file.
    Report(report::ReportCommand),
    /// Put the small Parquet files of a dataset together, also while a run goes on writing there.
    Compact(compact::CompactCommand),
    /// Work on the rejects of a pipeline: remove the originals that they hold.
    Rejects(rejects::RejectsCommand),
    /// Forget what a pipeline has done, so that its next run begins anew; asks first.
    Reset(reset::ResetCommand),
    /// Print the JSON Schema of pipeline files, or of training files, for editors.
    Schema(schema::SchemaCommand),
    /// Print a commented pipeline, or training file, to start from.
    Init(init::InitCommand),
    /// Print completions for a shell.
    Completions(completions::CompletionsCommand),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong; [`ExitCode::of`] says with which code to end.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Graph(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Train(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Evaluate(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Compact(command) => command.run(),
            Command::Rejects(command) => command.run(),
            Command::Reset(command) => command.run(),
            Command::Schema(command) => command.run(),
            Command::Init(command) => command.run(),
            Command::Completions(command) => command.run(),
        }
    }
}

/// An output or an input that does not admit the pipeline; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: {error}")]
struct FailedStage {
    stage: Arc<str>,
    error: StageError,
}

/// The error of a stage that could not be made ready.
fn stage_error((stage, error): (Arc<str>, StageError)) -> anyhow::Error {
    match error {
        StageError::Refused(_) => FailedStage { stage, error }.into(),
        error => anyhow::anyhow!("{stage}: {error}"),
    }
}

/// A pipeline file, and what overrides it.
#[derive(Debug, Clone, Args)]
struct PipelineArgs {
    /// The pipeline file (TOML).
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Override a key: --set stages.out.path=elsewhere. The environment does too:
    /// LATENTFLOW__STAGES__OUT__PATH.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Writes to standard error, with an escape for each character that a terminal would obey.
pub fn print_error(text: &str) {
    stderr::write(&text_escape::text(text));
}

/// Reports the error that ends the program, in the format of its log.
pub fn report_failure(error: &anyhow::Error, exit: ExitCode) {
    match exit {
        // Faults of a pipeline stand alone, one a line, so that editors can jump to them.
        ExitCode::Usage => log::fatal(&format!("{error}\nlatentflow: nothing was started")),
        _ => log::fatal(&format!("latentflow: {error:#}")),
    }
}

impl PipelineArgs {
    fn plan(&self, metrics: &Arc<Metrics>) -> Result<Plan, Diagnostics> {
        plan::check(self.read(), metrics)
    }

    fn read(&self) -> Result<PipelineConfig, Diagnostics> {
        config::read(&self.file, &self.set)
    }
}

/// Asks on the terminal whether to go on.
///
/// # Errors
/// When standard input is not a terminal: the caller then needs the option `--yes`.
fn confirmed(question: &str) -> anyhow::Result<bool> {
    use std::io::{IsTerminal as _, Write as _};
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("standard input is not a terminal; add --yes to continue without a question");
    }
    print(&format!("{question} [y/N] "))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Prints for people to standard output, escaped where a terminal would obey it.
fn print(text: &str) -> anyhow::Result<()> {
    print_as_is(&text_escape::text(text))
}

/// Prints a JSON document to standard output.
fn print_json(document: &str) -> anyhow::Result<()> {
    print_as_is(&text_escape::json(document))
}

/// Prints to standard output. A reader that closed the pipe (`| head`) is not an error.
fn print_as_is(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
