//! `latentflow evaluate`: how well a model does on the data it was trained with, or on other data.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::log::{self, LogFormat};
use super::{ExitCode, print, print_json};
use crate::corruption::{CorruptionKind, CorruptionSpec, Strength};
use crate::data::{self, DataError, DataSpec, PreparedDataset, Subset};
use crate::error::ConfigError;
use crate::evaluate::{self, EvaluateError, EvaluateOptions, Evaluation};
use crate::metrics::Metrics;
use crate::model::{self, Model, ModelPath, ModelSpec, RuntimeSpec};
use crate::registry;
use crate::config::overlay;
use crate::temp_dir::TempDir;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EvaluateCommand {
    /// The model's folder, with `model.toml` and its ONNX files.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    args: EvaluateArgs,
    /// Write everything as JSON: to a file, or with - to standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Which records a model is tried with, and how.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// The folder that holds the data the model was trained with, where that is not where it was
    /// then.
    #[arg(long, value_name = "FOLDER", conflicts_with = "source")]
    data: Option<PathBuf>,
    /// Other data: a folder of images, a file (recognised by its extension), or a source as in
    /// pipelines: '{ kind = "csv", path = "rows.csv" }'. May be repeated. Half of it is kept to fit
    /// PCA and classifiers to, but for models that have no code.
    #[arg(long, value_name = "PATH|TABLE")]
    source: Vec<String>,
    /// Override a key of the data's table, such as label=species, test=0.2 or 'normal={ column =
    /// "y", equals = 0 }'.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The records to score. Default: the test part; where the training kept none, the validation
    /// part, and all anomalies.
    #[arg(long, value_enum)]
    part: Option<SubsetArg>,
    /// Try to undo this corruption: gaussian:25, masking:0.3, salt_and_pepper:0.1,
    /// watermark_text:0.5, watermark_grid:0.5, watermark:0.5, gray. May be repeated. Default: what
    /// the model was trained with.
    #[arg(long, value_name = "NOISE:AMOUNT")]
    corrupt: Vec<String>,
    /// Keep the records that are read from the data in this folder, and use them again the next
    /// time. Default: a temporary folder that is removed.
    #[arg(long, value_name = "FOLDER")]
    prepared: Option<PathBuf>,
}

const EXAMPLES: &str = r#"Examples:
  latentflow evaluate models/mine                            on data that the training kept aside
  latentflow evaluate models/mine --data /mnt/data --json mine.json
  latentflow evaluate models/photo-ae --source holiday/      on other images
  latentflow evaluate models/kdd-ae --source kdd.csv --set 'normal={ column = "label", equals = "normal" }'
  latentflow evaluate models/mine --source '{ kind = "parquet", path = "rows.parquet" }' --set label=species
  latentflow evaluate models/denoiser --source Set12/ --corrupt gaussian:15 --corrupt gaussian:25

What is measured follows from the model and the data: reconstruction error, PSNR and SSIM of images, PCA with codes of
the same size beside it; with labels, how well codes tell them apart; with `normal`, how well the error finds anomalies;
for denoisers, corrupted input and output against the clean record."#;

/// Parts of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SubsetArg {
    /// Kept aside for the end.
    Test,
    /// Kept aside to tell when to stop.
    Validation,
    /// Trained on.
    Training,
    /// Everything.
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
        let model = open(&self.model)?;
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

/// Opens the model in a folder.
///
/// # Errors
/// When it cannot be opened, or gives nothing that could be measured.
pub(super) fn open(folder: &Path) -> anyhow::Result<Model> {
    if !folder.is_dir() {
        let met = if folder.exists() {
            "is a file"
        } else {
            "there is no such folder"
        };
        bail!(
            "{}: {met}; name a model's folder, which holds model.toml and its ONNX files",
            folder.display()
        );
    }
    let runtime = RuntimeSpec::default();
    model::ort_library::init(&runtime).map_err(|fault| anyhow!("{}", fault.message))?;
    let spec = ModelSpec {
        path: Some(folder.to_path_buf()),
        ..ModelSpec::default()
    };
    let name = folder
        .file_name()
        .map_or("model".into(), |name| name.to_string_lossy());
    let model = Model::open(&name, &spec, &runtime, &Arc::new(Metrics::new()));
    let model = model.map_err(|faults| anyhow!(lines(&faults, "")))?;
    if model.files(ModelPath::Whole).is_none() && model.code_size().is_none() {
        bail!(
            "{}: gives neither reconstructions nor codes of one size, so that nothing can be measured",
            name
        );
    }
    Ok(model)
}

/// A model that was tried with data.
pub(super) struct EvaluationRun {
    pub(super) evaluation: Evaluation,
    pub(super) prepared: PreparedDataset,
    pub(super) options: EvaluateOptions,
    /// Where the records are, unless a folder was named for them.
    _temporary: TempDir,
}

impl EvaluateArgs {
    /// Whether data is named, or the model's card names some.
    pub(super) fn has_data(&self, model: &Model) -> bool {
        !self.source.is_empty() || trained_with(model).is_some()
    }

    /// Whether anything was asked for.
    pub(super) fn is_set(&self) -> bool {
        let Self {
            data,
            source,
            set,
            part,
            corrupt,
            prepared,
        } = self;
        data.is_some()
            || part.is_some()
            || prepared.is_some()
            || [source, set, corrupt].iter().any(|all| !all.is_empty())
    }

    /// Reads the data and tries the model, which lies in `folder`, with it.
    ///
    /// # Errors
    /// What is wrong with what was asked for, or went wrong.
    pub(super) fn evaluate(&self, model: &Model, folder: &Path) -> anyhow::Result<EvaluationRun> {
        let corruptions = self
            .corrupt
            .iter()
            .map(|text| corruption(text))
            .collect::<Result<Vec<_>, _>>()?;
        let spec = self.data_spec(model, folder)?;
        // A denoiser needs nothing that is fitted beside it.
        let all = !self.source.is_empty() && model.code_size().is_none();
        let parts = self
            .part
            .or(all.then_some(SubsetArg::All))
            .map(SubsetArg::subsets)
            .unwrap_or_default();
        let bar = ProgressReporter::new();
        let temporary = TempDir::new("evaluate").context("cannot make a temporary folder")?;
        let prepared = self.prepare(
            model,
            &spec,
            self.prepared.as_deref().unwrap_or(temporary.path()),
            &bar,
        )?;
        let options = EvaluateOptions { parts, corruptions };
        let evaluation = evaluate::evaluate(model, &prepared, &options, &mut |what, done, all| {
            bar.update(what, done, all)
        });
        bar.finish();
        let evaluation = evaluation.map_err(failure)?;
        Ok(EvaluationRun {
            evaluation,
            prepared,
            options,
            _temporary: temporary,
        })
    }

    /// The table of the data: that of the training, or one of the given sources.
    fn data_spec(&self, model: &Model, folder: &Path) -> anyhow::Result<DataSpec> {
        let base = if self.source.is_empty() {
            self.trained_with(model, folder)?
        } else {
            self.other_data()?
        };
        let written = overlay(&base, &self.set, "label=species")
            .map_err(|faults| anyhow!(lines(&faults, "")))?;
        registry::parse_options(written).map_err(|faults| anyhow!(lines(&faults, "data")))
    }

    fn trained_with(&self, model: &Model, folder: &Path) -> anyhow::Result<Value> {
        let Some(mut data) = trained_with(model).cloned() else {
            bail!(
                "the card of {} does not say which data it was trained with; name some with --source, such as a folder of \
                 images or a table's file",
                folder.display()
            );
        };
        if let Value::Object(table) = &mut data {
            // The card names the columns that training has found; what it left out is left out by
            // that.
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
        bar: &ProgressReporter,
    ) -> anyhow::Result<PreparedDataset> {
        let prepared = data::prepare(spec, &model.input_spec(), folder, &mut |records| {
            bar.read(records)
        });
        let prepared = prepared.map_err(|error| match error {
            DataError::Faults(faults) if self.source.is_empty() => {
                let advice = "this is the data that the model was trained with; if it lies elsewhere now, say where with \
                              --data FOLDER, or name other data with --source";
                anyhow!("{}\n{advice}", lines(&faults, "data"))
            }
            DataError::Faults(faults) => anyhow!(lines(&faults, "data")),
            DataError::Stage(error) => anyhow!("data: {error}"),
        })?;
        prepared
            .reasons
            .iter()
            .for_each(|reason| tracing::warn!("not read: {reason}"));
        Ok(prepared)
    }
}

/// The table of the data that a model was trained with, where its card has it.
fn trained_with(model: &Model) -> Option<&Value> {
    model.card()?.training.as_ref()?.file.get("data")
}

/// Why a model could not be tried.
pub(super) fn failure(error: EvaluateError) -> anyhow::Error {
    match error {
        EvaluateError::Faults(faults) => anyhow!(lines(&faults, "corruption")),
        EvaluateError::Stage(error) => anyhow!("{error}"),
    }
}

/// Faults, one a line, with the table that their keys are in.
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

/// A source from the command line: a table, or a path whose kind shows.
fn source(text: &str) -> anyhow::Result<Value> {
    if text.trim_start().starts_with('{') {
        let table: toml::Table = toml::from_str(&format!("source = {text}"))
            .map_err(|error| anyhow!("--source {text}: {}", error.message()))?;
        return Ok(serde_json::to_value(&table["source"])?);
    }
    let path = Path::new(text);
    let name = text.to_lowercase();
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
    let by_name = kinds
        .iter()
        .find(|(end, _)| name.ends_with(end))
        .map(|(_, kind)| *kind);
    let kind = match by_name {
        _ if path.is_dir() => "images",
        Some(kind) => kind,
        None if crate::source::images::EXTENSIONS
            .iter()
            .any(|end| name.ends_with(&format!(".{end}"))) =>
        {
            "images"
        }
        None if !path.exists() => bail!("--source {text}: no such file or folder"),
        None => bail!(
            "--source {text}: neither a folder of images nor a file whose extension tells what it is; write a table, such \
             as '{{ kind = \"csv\", path = \"{text}\" }}'"
        ),
    };
    Ok(json!({ "kind": kind, "path": text }))
}

/// A corruption from the command line, such as `gaussian:25`.
fn corruption(text: &str) -> anyhow::Result<CorruptionSpec> {
    let (noise, amount) = text
        .split_once(':')
        .map_or((text, None), |(noise, amount)| (noise, Some(amount)));
    let amount = amount.map(|amount| {
        let number = amount.parse::<f64>();
        number
            .map(Strength::Fixed)
            .map_err(|_| anyhow!("--corrupt {text}: `{amount}` is no number; write gaussian:25"))
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
            bail!("--corrupt {text}: gray has no amount; write gray")
        }
        CorruptionKind::Gray => {}
    }
    match spec.faults().into_iter().next() {
        Some(fault) => bail!("--corrupt {text}: {} {}", fault.key, fault.message),
        None => Ok(spec),
    }
}

/// What is being done, on a terminal.
struct ProgressReporter(ProgressBar);

impl ProgressReporter {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        // A constant; one that does not parse would show as the plain default.
        let style =
            ProgressStyle::with_template("{msg}  {bar:30} {human_pos}/{human_len}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    fn read(&self, records: u64) {
        self.0
            .set_message(format!("reading the data: {records} records"));
    }

    fn update(&self, what: &str, done: usize, all: usize) {
        self.0.set_message(what.to_owned());
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use expect_test::{Expect, expect};

    use super::*;

    fn check(met: anyhow::Result<String>, expected: Expect) {
        expected.assert_eq(&met.unwrap_or_else(|error| error.to_string()));
    }

    #[test]
    fn a_source_is_known_by_its_extension_or_written_out() {
        let told = |text: &str| source(text).map(|table| table.to_string());
        check(
            told("rows/a.CSV"),
            expect![[r#"{"kind":"csv","path":"rows/a.CSV"}"#]],
        );
        check(
            told("train.idx3-ubyte.gz"),
            expect![[r#"{"kind":"idx","path":"train.idx3-ubyte.gz"}"#]],
        );
        check(
            told("one.jpg"),
            expect![[r#"{"kind":"images","path":"one.jpg"}"#]],
        );
        check(
            told("{ kind = 'tar', path = 'a' }"),
            expect![[r#"{"kind":"tar","path":"a"}"#]],
        );
        check(
            told("{ kind = 'tar'"),
            expect!["--source { kind = 'tar': unclosed inline table, expected `}`"],
        );
        check(
            told("rows.xls"),
            expect!["--source rows.xls: no such file or folder"],
        );
        let folder = env!("CARGO_MANIFEST_DIR");
        assert_eq!(
            source(folder).unwrap(),
            json!({ "kind": "images", "path": folder })
        );
        let unclear = told(&format!("{folder}/LICENSE-MIT"))
            .unwrap_err()
            .to_string();
        assert!(
            unclear
                .contains("neither a folder of images nor a file whose extension tells what it is"),
            "{unclear}"
        );
    }

    #[test]
    fn a_corruption_is_a_noise_and_its_amount() {
        let told = |text: &str| corruption(text).map(|spec| serde_json::to_string(&spec).unwrap());
        check(
            told("gaussian:25"),
            expect![[r#"{"noise":"gaussian","sigma":25.0}"#]],
        );
        check(told("watermark"), expect![[r#"{"noise":"watermark"}"#]]);
        check(
            told("salt_and_pepper:0.1"),
            expect![[r#"{"noise":"salt_and_pepper","rate":0.1}"#]],
        );
        check(
            told("gaussian"),
            expect![
                "--corrupt gaussian: sigma is missing; the standard deviation, such as 25 for pixels"
            ],
        );
        check(
            told("masking:2"),
            expect!["--corrupt masking:2: rate must lie between 0 and 1; met 2"],
        );
        check(
            told("gauss:2"),
            expect![
                "--corrupt gauss:2: unknown variant `gauss`, expected one of `gaussian`, `masking`, `salt_and_pepper`, `watermark_text`, `watermark_grid`, `watermark`, `gray`"
            ],
        );
        check(
            told("gaussian:loud"),
            expect!["--corrupt gaussian:loud: `loud` is no number; write gaussian:25"],
        );
        check(
            told("gray:1"),
            expect!["--corrupt gray:1: gray has no amount; write gray"],
        );
    }
}
