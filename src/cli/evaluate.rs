//! `latentflow evaluate`: measures a model on the data that it was trained with, or on other data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::log::{self, LogFormat};
use super::progress::{TaskProgress, TaskReporter};
use super::signals::remove_on_signal;
use super::{ExitCode, print, print_json};
use crate::config::{self, is_at_or_below, overlay};
use crate::corruption::{CorruptionKind, CorruptionSpec, Strength};
use crate::data::{self, DataError, DataSpec, PreparedDataset, Subset};
use crate::error::ConfigError;
use crate::evaluate::{self, EvaluateError, EvaluateOptions, Evaluation};
use crate::metrics::Metrics;
use crate::model::{self, Model, ModelPath, ModelSpec, RuntimeSpec};
use crate::registry;
use crate::temp_dir::TempDir;

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
    /// Corruptions: gaussian:25, masking:0.3, salt_and_pepper:0.1, watermark_text:0.5,
    /// watermark_grid:0.5, watermark:0.5, gray. Default: the corruption of the training.
    #[arg(long, value_name = "NOISE:AMOUNT")]
    corrupt: Vec<String>,
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
        let model = self.args.open(&self.model)?;
        let EvaluationRun { evaluation, .. } = self.args.evaluate(&model, &self.model)?;
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

fn open(folder: &Path, allow_nondeterministic: bool) -> anyhow::Result<Model> {
    if !folder.is_dir() {
        let fault = if folder.exists() {
            "not a folder"
        } else {
            "no such folder"
        };
        bail!(
            "{}: {fault}; expected a model folder with model.toml and ONNX files",
            folder.display()
        );
    }
    let runtime = RuntimeSpec::default();
    model::ort_library::init(&runtime).map_err(|fault| anyhow!("{}", fault.message))?;
    let spec = ModelSpec {
        path: Some(folder.to_path_buf()),
        allow_nondeterministic,
        ..ModelSpec::default()
    };
    let name = folder
        .file_name()
        .map_or("model".into(), |name| name.to_string_lossy());
    let model = Model::open(&name, &spec, &runtime, &Arc::new(Metrics::new()));
    let model = model.map_err(|faults| anyhow!(lines(&faults, "")))?;
    if model.files(ModelPath::Reconstruct).is_none() && model.code_size().is_none() {
        bail!(
            "{name}: cannot evaluate a model that returns neither reconstructions nor latents of a \
             fixed size"
        );
    }
    Ok(model)
}

/// The result of an evaluation, with the prepared data.
pub(super) struct EvaluationRun {
    pub(super) evaluation: Evaluation,
    pub(super) prepared: PreparedDataset,
    pub(super) options: EvaluateOptions,
    /// Holds the prepared records, unless `--prepared` names a folder for them.
    _temporary: TempDir,
}

impl EvaluateArgs {
    /// Opens the model in a folder.
    ///
    /// # Errors
    /// If the model cannot be opened, or returns neither reconstructions nor latents.
    pub(super) fn open(&self, folder: &Path) -> anyhow::Result<Model> {
        open(folder, self.allow_nondeterministic)
    }

    /// Whether `--source` or the model card specifies data.
    pub(super) fn has_data(&self, model: &Model) -> bool {
        !self.source.is_empty() || training_data(model).is_some()
    }

    /// Whether any of these options is given.
    pub(super) fn is_set(&self) -> bool {
        let Self {
            data,
            source,
            set,
            part,
            corrupt,
            prepared,
            allow_nondeterministic: _,
        } = self;
        data.is_some()
            || part.is_some()
            || prepared.is_some()
            || [source, set, corrupt].iter().any(|all| !all.is_empty())
    }

    /// Prepares the data and evaluates the model in `folder` on it.
    ///
    /// # Errors
    /// If an option is invalid, the data cannot be read, or the model fails.
    pub(super) fn evaluate(&self, model: &Model, folder: &Path) -> anyhow::Result<EvaluationRun> {
        let corruptions = self
            .corrupt
            .iter()
            .map(|text| corruption(text))
            .collect::<Result<Vec<_>, _>>()?;
        let spec = self.data_spec(model, folder)?;
        // Without a latent, no records have to be reserved to fit PCA and classifiers.
        let evaluates_all = !self.source.is_empty() && model.code_size().is_none();
        let parts = self
            .part
            .or(evaluates_all.then_some(SubsetArg::All))
            .map(SubsetArg::subsets)
            .unwrap_or_default();
        let progress = TaskReporter::start(LogFormat::Auto);
        let temporary = TempDir::new("evaluate").context("cannot create a temporary folder")?;
        remove_on_signal(temporary.path().to_path_buf());
        let prepared = self.prepare(
            model,
            &spec,
            self.prepared.as_deref().unwrap_or(temporary.path()),
            &progress,
        )?;
        let options = EvaluateOptions { parts, corruptions };
        let evaluation = evaluate::evaluate(model, &prepared, &options, &mut |step, done, all| {
            progress.show(TaskProgress {
                name: step.to_owned(),
                done: done as u64,
                total: Some(all as u64),
                ..TaskProgress::default()
            });
        });
        drop(progress);
        let mut evaluation = evaluation.map_err(failure)?;
        evaluation.notes.extend(self.changed_data(model, &prepared));
        Ok(EvaluationRun {
            evaluation,
            prepared,
            options,
            _temporary: temporary,
        })
    }

    /// Returns a note if the training data differs from that of the training, whose digest the card
    /// holds.
    fn changed_data(&self, model: &Model, prepared: &PreparedDataset) -> Option<String> {
        let training = model.card()?.training.as_ref()?;
        let file = &training.file;
        // Other data has another digest, and so have images that were cut into parts.
        let has_other_digest = !self.source.is_empty()
            || !self.set.is_empty()
            || file
                .get("training")
                .and_then(|table| table.get("zoom"))
                .is_some();
        let stored = training.data_digest.trim_start_matches("sha256:");
        if has_other_digest || stored.is_empty() || prepared.has_digest(stored) {
            return None;
        }
        Some(format!(
            "the records differ from those of the training: their digest is {:.12}, that of the \
             model card is {stored:.12}; the data has changed, or is decoded in another way, and \
             scored records may be among those that the model was trained on",
            prepared.digest
        ))
    }

    /// Returns the `[data]` table of the training, or one with the sources of `--source`.
    fn data_spec(&self, model: &Model, folder: &Path) -> anyhow::Result<DataSpec> {
        let base = if self.source.is_empty() {
            self.training_data(model, folder)?
        } else {
            self.other_data()?
        };
        let written = overlay(&base, &self.set, "label=species")
            .map_err(|faults| anyhow!(lines(&faults, "")))?;
        registry::parse_options(written).map_err(|faults| anyhow!(self.data_faults(&faults)))
    }

    /// Formats faults of the `[data]` table, one per line; a fault of an overridden key begins with
    /// its `--set`.
    fn data_faults(&self, faults: &[ConfigError]) -> String {
        let line = |fault: &ConfigError| {
            let text = lines(std::slice::from_ref(fault), "data");
            let is_cause = |set: &&String| {
                set.split_once('=')
                    .is_some_and(|(key, _)| is_at_or_below(&fault.key, key.trim()))
            };
            match self.set.iter().rfind(is_cause) {
                Some(set) => format!("--set {set}: {text}"),
                None => text,
            }
        };
        faults.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn training_data(&self, model: &Model, folder: &Path) -> anyhow::Result<Value> {
        let Some(mut data) = training_data(model).cloned() else {
            bail!(
                "the model card of {} does not name the training data; name data with --source, \
                 such as a folder of images or a file of records",
                folder.display()
            );
        };
        if let Value::Object(table) = &mut data {
            // The card lists the columns of the training, so the columns of `without` are already
            // excluded.
            table.remove("without");
            table.extend(
                self.data
                    .iter()
                    .map(|root| ("root".to_owned(), json!(root))),
            );
        }
        Ok(data)
    }

    fn other_data(&self) -> anyhow::Result<Value> {
        let sources = self
            .source
            .iter()
            .map(|text| source(text))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(json!({ "sources": sources, "validation": 0.0, "test": 0.5 }))
    }

    fn prepare(
        &self,
        model: &Model,
        spec: &DataSpec,
        folder: &Path,
        progress: &TaskReporter,
    ) -> anyhow::Result<PreparedDataset> {
        let mut input = model.input_spec();
        // The cards of earlier versions do not name the values of a list column, but the training
        // file names the column.
        input.columns = input.columns.or_else(|| training_columns(model));
        let prepared = data::prepare(spec, &input, folder, &mut |read| {
            progress.show(read.into());
        });
        let prepared = prepared.map_err(|error| match error {
            DataError::Faults(faults) if self.source.is_empty() => {
                let hint = "these keys describe the training data of the model; if the data has \
                            moved, pass --data FOLDER, or name other data with --source";
                anyhow!("{}\n{hint}", self.data_faults(&faults))
            }
            DataError::Faults(faults) => anyhow!(self.data_faults(&faults)),
            DataError::Stage(error) => anyhow!("data: {error}"),
        })?;
        prepared
            .reasons
            .iter()
            .for_each(|reason| tracing::warn!(%reason, "a record of the data was rejected"));
        Ok(prepared)
    }
}

/// Returns the `[data]` table of the training from the model card, if the card holds it.
fn training_data(model: &Model) -> Option<&Value> {
    model.card()?.training.as_ref()?.file.get("data")
}

/// Returns the columns that the training file names.
fn training_columns(model: &Model) -> Option<Vec<String>> {
    let file = &model.card()?.training.as_ref()?.file;
    serde_json::from_value(file.get("input")?.get("columns")?.clone()).ok()
}

/// Converts the error of an evaluation for the command line.
pub(super) fn failure(error: EvaluateError) -> anyhow::Error {
    match error {
        EvaluateError::Faults(faults) => anyhow!(lines(&faults, "corruption")),
        EvaluateError::Stage(error) => anyhow!("{error}"),
    }
}

/// Formats faults, one per line, with their keys below `table`.
fn lines(faults: &[ConfigError], table: &str) -> String {
    let line = |fault: &ConfigError| {
        let ConfigError { key, message, .. } = fault.clone().within(table);
        if key.is_empty() {
            message
        } else {
            format!("{key}: {message}")
        }
    };
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Parses a source from the command line: a table, or a path whose extension determines the kind.
fn source(text: &str) -> anyhow::Result<Value> {
    if text.trim_start().starts_with('{') {
        let written = format!("source = {text}");
        let table: toml::Table = toml::from_str(&written).map_err(|error| {
            let position = error.span().map_or(0, |span| span.start);
            let explained = config::explain(&written, position, error.message());
            let message = explained.unwrap_or_else(|| error.message().to_owned());
            anyhow!("--source {text}: {message}")
        })?;
        return Ok(serde_json::to_value(&table["source"])?);
    }
    let path = Path::new(text);
    let kind = match kind_of_file(text) {
        _ if path.is_dir() => kind_of_folder(text)?,
        Some(kind) => kind,
        None if !path.exists() => bail!("--source {text}: no such file or folder"),
        None => bail!(
            "--source {text}: unknown extension; expected a folder of images, a file with a known \
             extension, or a table, such as '{{ kind = \"csv\", path = \"{text}\" }}'"
        ),
    };
    Ok(json!({ "kind": kind, "path": text }))
}

/// Returns the kind of source that reads a file with this name.
fn kind_of_file(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let kinds = [
        ("csv", "csv"),
        ("ndjson", "ndjson"),
        ("jsonl", "ndjson"),
        ("parquet", "parquet"),
        ("arrow", "arrow"),
        ("feather", "arrow"),
        ("npz", "npz"),
        ("idx", "idx"),
        ("-ubyte", "idx"),
        ("tar", "tar"),
    ];
    let is_image = || {
        crate::source::images::EXTENSIONS
            .iter()
            .any(|end| name.ends_with(&format!(".{end}")))
    };
    let by_name = kinds.iter().find(|(end, _)| name.ends_with(end));
    by_name
        .map(|(_, kind)| *kind)
        .or_else(|| is_image().then_some("images"))
}

/// Maximum number of files of a folder that determine its kind.
const MAX_EXAMINED: usize = 10_000;

/// Returns the kind of source that reads the files of a folder: images if there are any, or else the
/// kind of its tables.
///
/// # Errors
/// If the folder has tables of several kinds.
fn kind_of_folder(folder: &str) -> anyhow::Result<&'static str> {
    let files = walkdir::WalkDir::new(folder)
        .follow_links(true)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .take(MAX_EXAMINED);
    let mut kinds: Vec<&'static str> = files
        .filter_map(|entry| kind_of_file(&entry.file_name().to_string_lossy()))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    match kinds.as_slice() {
        [] => Ok("images"),
        all if all.contains(&"images") => Ok("images"),
        [kind] => Ok(kind),
        several => bail!(
            "--source {folder}: the folder has files of the kinds {}; name one of them in a table, \
             such as '{{ kind = \"{}\", path = \"{folder}\" }}'",
            several.join(", "),
            several[0]
        ),
    }
}

/// Parses a corruption from the command line, such as `gaussian:25`.
fn corruption(text: &str) -> anyhow::Result<CorruptionSpec> {
    let (noise, amount) = text
        .split_once(':')
        .map_or((text, None), |(noise, amount)| (noise, Some(amount)));
    let amount = amount.map(|amount| {
        let number = amount.parse::<f64>();
        number.map(Strength::Fixed).map_err(|_| {
            anyhow!(
                "--corrupt {text}: `{amount}` is not a number; expected a value such as \
                     gaussian:25"
            )
        })
    });
    let amount = amount.transpose()?;
    let noise: CorruptionKind = serde_json::from_value(json!(noise))
        .map_err(|error| anyhow!("--corrupt {text}: {error}"))?;
    let mut spec = CorruptionSpec {
        noise,
        sigma: None,
        rate: None,
        text: None,
        opacity: None,
    };
    match noise {
        CorruptionKind::Gaussian => spec.sigma = amount,
        CorruptionKind::Masking | CorruptionKind::SaltAndPepper => spec.rate = amount,
        CorruptionKind::WatermarkText
        | CorruptionKind::WatermarkGrid
        | CorruptionKind::Watermark => spec.opacity = amount,
        CorruptionKind::Gray if amount.is_some() => {
            bail!("--corrupt {text}: `gray` takes no amount; expected `gray`")
        }
        CorruptionKind::Gray => {}
    }
    match spec.faults().into_iter().next() {
        Some(fault) => bail!("--corrupt {text}: {} {}", fault.key, fault.message),
        None => Ok(spec),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use expect_test::{Expect, expect};

    use super::*;

    fn check(parsed: anyhow::Result<String>, expected: Expect) {
        expected.assert_eq(&parsed.unwrap_or_else(|error| error.to_string()));
    }

    #[test]
    fn source_argument_is_parsed_from_extension_or_table() {
        let parse = |text: &str| source(text).map(|table| table.to_string());
        check(
            parse("rows/a.CSV"),
            expect![[r#"{"kind":"csv","path":"rows/a.CSV"}"#]],
        );
        check(
            parse("train.idx3-ubyte.gz"),
            expect![[r#"{"kind":"idx","path":"train.idx3-ubyte.gz"}"#]],
        );
        check(
            parse("one.jpg"),
            expect![[r#"{"kind":"images","path":"one.jpg"}"#]],
        );
        check(
            parse("{ kind = 'tar', path = 'a' }"),
            expect![[r#"{"kind":"tar","path":"a"}"#]],
        );
        check(
            parse("{ kind = 'tar'"),
            expect!["--source { kind = 'tar': unclosed inline table, expected `}`"],
        );
        check(
            parse("rows.xls"),
            expect!["--source rows.xls: no such file or folder"],
        );
        let folder = env!("CARGO_MANIFEST_DIR");
        let path = format!("{folder}/LICENSE-MIT");
        assert_eq!(
            parse(&path).unwrap_err().to_string(),
            format!(
                "--source {path}: unknown extension; expected a folder of images, a file with a \
                 known extension, or a table, such as '{{ kind = \"csv\", path = \"{path}\" }}'"
            )
        );
    }

    #[test]
    fn folder_is_read_as_images_or_as_its_only_kind_of_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let kind_after = |name: &str| {
            std::fs::create_dir_all(folder.path().join("sub")).unwrap();
            std::fs::write(folder.path().join("sub").join(name), "").unwrap();
            source(path).map(|source| source["kind"].clone())
        };
        assert_eq!(kind_after("notes.txt").unwrap(), "images");
        assert_eq!(kind_after("a.parquet").unwrap(), "parquet");
        assert_eq!(kind_after("B.PARQUET").unwrap(), "parquet");
        assert_eq!(
            kind_after("b.csv").unwrap_err().to_string(),
            format!(
                "--source {path}: the folder has files of the kinds csv, parquet; name one of \
                 them in a table, such as '{{ kind = \"csv\", path = \"{path}\" }}'"
            )
        );
        assert_eq!(kind_after("c.jpg").unwrap(), "images");
    }

    #[test]
    fn corruption_argument_is_parsed_as_noise_and_amount() {
        let parse = |text: &str| corruption(text).map(|spec| serde_json::to_string(&spec).unwrap());
        check(
            parse("gaussian:25"),
            expect![[r#"{"noise":"gaussian","sigma":25.0}"#]],
        );
        check(parse("watermark"), expect![[r#"{"noise":"watermark"}"#]]);
        check(
            parse("salt_and_pepper:0.1"),
            expect![[r#"{"noise":"salt_and_pepper","rate":0.1}"#]],
        );
        check(
            parse("gaussian"),
            expect![
                "--corrupt gaussian: sigma is missing; expected the standard deviation, \
                 such as 25 for pixels"
            ],
        );
        check(
            parse("masking:2"),
            expect!["--corrupt masking:2: rate must lie between 0 and 1; met 2"],
        );
        check(
            parse("gauss:2"),
            expect![
                "--corrupt gauss:2: unknown variant `gauss`, expected one of `gaussian`, \
                 `masking`, `salt_and_pepper`, `watermark_text`, `watermark_grid`, `watermark`, \
                 `gray`"
            ],
        );
        check(
            parse("gaussian:loud"),
            expect![
                "--corrupt gaussian:loud: `loud` is not a number; expected a value such as \
                 gaussian:25"
            ],
        );
        check(
            parse("gray:1"),
            expect!["--corrupt gray:1: `gray` takes no amount; expected `gray`"],
        );
    }
}
