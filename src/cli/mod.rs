//! The command line, with one file per command.

mod calibrate;
mod check;
mod compact;
mod completions;
mod duplicates;
mod evaluate;
pub mod exit;
mod graph;
mod init;
mod inspect;
mod latents;
mod log;
mod log_escaping;
pub(crate) mod log_lines;
mod log_rate_limit;
mod man;
mod neighbors;
mod preview;
mod progress;
mod rejects;
mod report;
mod reset;
mod run;
mod run_progress;
mod schema;
mod signals;
mod stderr;
mod summary;
mod time_profile;
#[cfg(feature = "train")]
mod train;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::cli::exit::{CommandError, ExitCode};
use crate::config::settings::PipelineConfig;
use crate::config::{Diagnostics, Override};
use crate::error::code::ErrorCode;
use crate::metrics::Metrics;
use crate::plan::pipeline::Plan;
use crate::shard::Shard;
use crate::{plan, text_escape};

pub use stderr::flush;

/// Runs autoencoders over streams of images and feature records.
///
/// A pipeline file (TOML) declares stages. Sources read images or feature records, transforms
/// encode, denoise and score them with ONNX models, and sinks write the results, such as latents
/// to Parquet.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  latentflow init > photos.toml                         print a commented pipeline to start from
  latentflow check photos.toml                          print the plan, or every fault
  latentflow preview photos.toml cat.jpg                show an image as the model receives it
  latentflow run photos.toml                            run the pipeline
  latentflow run photos.toml --set stages.photos.path='holiday/**/*.jpg'
  latentflow inspect models/photo-ae                    print the inputs and outputs of a model
  latentflow inspect out/latents                        describe the output of a run
  latentflow evaluate models/photo-ae --source photos   measure a model on data
  latentflow report models/photo-ae --source photos     write the same as a page with charts

Exit codes:
    0  success
    1  failure
    2  usage error, invalid pipeline, or an output or input that refuses the pipeline
    3  more rejects than `rejects.max_share` or `rejects.max` allows, or `preview` of a reject
    4  stopped on request before the end of the input; run again to resume
  130  stopped immediately by a signal: the second one for run and train";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline until its sources end or a signal stops it.
    ///
    /// Outputs record the input rows that they hold, so a run that was stopped or killed is resumed
    /// by the same command, without losing or duplicating records in files.
    Run(run::RunCommand),
    /// Check a pipeline and print its plan: schemas, shapes, workers, predicted memory.
    ///
    /// If the pipeline is invalid, every fault is printed with its file and line. An output or an
    /// input that would refuse the pipeline is reported as `run` reports it.
    Check(check::CheckCommand),
    /// Show an image as the `pixels` stages of a pipeline prepare it for their models.
    ///
    /// The steps are printed in their order, with the sizes and ranges of values after each, and the
    /// values of the tensor. A page or a PNG shows the original next to the tensor as a picture.
    Preview(preview::PreviewCommand),
    /// Print the stage graph of a pipeline as text, Mermaid or Graphviz.
    Graph(graph::GraphCommand),
    /// Train the autoencoder that a training file declares and write its model folder.
    ///
    /// The folder holds the ONNX files, the model card and the loss curve. A training that was
    /// interrupted is resumed by the same command.
    #[cfg(feature = "train")]
    Train(train::TrainCommand),
    /// Describe a model folder, an ONNX file, or a dataset that a run has written.
    Inspect(inspect::InspectCommand),
    /// Measure a model on data: reconstruction, latents, anomaly detection, denoising, and PCA as a
    /// baseline.
    Evaluate(evaluate::EvaluateCommand),
    /// Renew the distribution of the reconstruction error in a model card from recent normal data.
    Calibrate(calibrate::CalibrateCommand),
    /// Write an HTML page about a model or about the output of a run.
    ///
    /// The page is one self-contained file with charts, examples and figures.
    Report(report::ReportCommand),
    /// Find the rows of a dataset whose latents are nearest to that of an image or of a row.
    Neighbors(neighbors::NeighborsCommand),
    /// Find groups of rows of a dataset whose latents are nearly equal.
    Duplicates(duplicates::DuplicatesCommand),
    /// Merge the small Parquet files of a dataset into larger ones, also while a run writes there.
    Compact(compact::CompactCommand),
    /// Manage the rejects of a pipeline: remove the originals that they hold.
    Rejects(rejects::RejectsCommand),
    /// Delete the output and the state of a pipeline so that its next run starts from the
    /// beginning, after a confirmation.
    Reset(reset::ResetCommand),
    /// Print the JSON Schema of pipeline files or of training files, for editors.
    Schema(schema::SchemaCommand),
    /// Print a commented pipeline or training file to start from.
    Init(init::InitCommand),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsCommand),
    /// Print the manual page of the program, or write the pages of all commands to a folder.
    Man(man::ManCommand),
}

impl Cli {
    /// Executes the command.
    ///
    /// # Errors
    /// Returns the error that ended the command; [`ExitCode::from_error`] maps it to an exit code.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Preview(command) => command.run(),
            Command::Graph(command) => command.run(),
            #[cfg(feature = "train")]
            Command::Train(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Evaluate(command) => command.run(),
            Command::Calibrate(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Neighbors(command) => command.run(),
            Command::Duplicates(command) => command.run(),
            Command::Compact(command) => command.run(),
            Command::Rejects(command) => command.run(),
            Command::Reset(command) => command.run(),
            Command::Schema(command) => command.run(),
            Command::Init(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }
    }
}

/// A pipeline file and its overrides.
#[derive(Debug, Clone, Args)]
struct PipelineArgs {
    /// The pipeline file (TOML).
    #[arg(value_name = "PIPELINE")]
    file: PathBuf,
    /// Override a key, such as --set stages.out.path=elsewhere; may be repeated.
    ///
    /// An environment variable overrides a key as well, such as LATENTFLOW__STAGES__OUT__PATH;
    /// --set takes precedence.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The overrides of other options, which take precedence.
    #[arg(skip)]
    options: Vec<Override>,
    /// The shard, for the commands that have this option.
    #[arg(skip)]
    shard: Option<Shard>,
}

/// The option that selects a shard.
#[derive(Debug, Clone, Copy, Args)]
struct ShardArgs {
    /// Read only the inputs of shard I of N, and write to the folder of the shard in each output.
    ///
    /// N runs on several machines, --shard 0/N to --shard N-1/N, together process each input once.
    /// A file belongs to the shard that a hash of its name selects, and a row group of a Parquet
    /// file to that of its name and index. Each run writes to a subfolder such as `shard-3-of-8` of
    /// every configured path. An output belongs to one number of shards.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
}

/// Writes to standard error and escapes terminal control characters.
pub(crate) fn print_error(text: &str) {
    stderr::write(&text_escape::text(text));
}

impl PipelineArgs {
    fn plan(&self, metrics: &Arc<Metrics>) -> Result<Plan, Diagnostics> {
        plan::check(self.read(), metrics)
    }

    fn read(&self) -> Result<PipelineConfig, Diagnostics> {
        let sets = self.set.iter().map(|pair| Override::set(pair));
        let overrides: Vec<Override> = sets.chain(self.options.iter().cloned()).collect();
        let read = crate::config::load::read(&self.file, &overrides);
        read.map(|spec| PipelineConfig {
            shard: self.shard,
            ..spec
        })
    }
}

/// Prints a question on the terminal and returns whether the user confirms it.
///
/// # Errors
/// If standard input is not a terminal: the user then has to pass the option `--yes`.
fn confirm(question: &str) -> anyhow::Result<bool> {
    use std::io::{IsTerminal as _, Write as _};
    if !std::io::stdin().is_terminal() {
        anyhow::bail!(CommandError::new(
            ErrorCode::ArgumentInvalid,
            "standard input is not a terminal; pass --yes to confirm"
        ));
    }
    print(&format!("{question} [y/N] "))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Prints text to standard output and escapes terminal control characters.
fn print(text: &str) -> anyhow::Result<()> {
    print_as_is(&text_escape::text(text))
}

/// Prints a JSON document to standard output.
fn print_json(document: &str) -> anyhow::Result<()> {
    print_as_is(&text_escape::json(document))
}

/// Prints to standard output. A closed pipe (`| head`) is not an error.
fn print_as_is(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
