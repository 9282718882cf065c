//! Training of a model, with its progress reported to Python.

use std::path::{Path, PathBuf};

use latentflow::config::{Diagnostics, Override};
use latentflow::train::{TrainError, TrainEvent, TrainOptions, TrainResult, TrainingFile, train};
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::engine::pipeline_error;
use crate::watched::{NativeWorkError, Watcher, run_watched};

/// Trains the model of a training file. Calls `watch` with the kind and the fields, as JSON, of each
/// event. Returns the result as JSON.
#[pyfunction]
#[pyo3(signature = (name, text, out, set, threads, restart, watch))]
#[expect(clippy::too_many_arguments, reason = "Python calls it with keywords")]
pub fn train_model(
    py: Python<'_>,
    name: &str,
    text: &str,
    out: PathBuf,
    set: Vec<String>,
    threads: Option<usize>,
    restart: bool,
    watch: &Bound<'_, PyAny>,
) -> PyResult<String> {
    let overrides: Vec<Override> = set.iter().map(|pair| Override::set(pair)).collect();
    let (file, key_spans) = TrainingFile::parse(Path::new(name), text, &overrides)
        .map_err(|faults| pipeline_error(&faults))?;
    let threads = threads.unwrap_or_else(latentflow::system::available_cores);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool =
        pool.map_err(|error| NativeWorkError::new_err(format!("cannot start threads: {error}")))?;
    let trained = run_watched(py, watch, |watcher| {
        let options = TrainOptions {
            restart,
            stop: std::sync::Arc::clone(&watcher.stop),
        };
        pool.install(|| {
            train(&file, &out, &options, &mut |event| {
                report(watcher, &event);
            })
        })
    })?;
    match trained {
        Ok(result) => Ok(result_of(&file, &result).to_string()),
        Err(TrainError::Faults(faults)) => {
            Err(pipeline_error(&Diagnostics::new(&key_spans, faults)))
        }
        Err(error) => Err(NativeWorkError::new_err(error.to_string())),
    }
}

fn result_of(file: &TrainingFile, result: &TrainResult) -> Value {
    json!({
        "name": file.head.name,
        "finished": result.finished,
        "has_checkpoint": result.has_checkpoint,
        "best_epoch": result.best_epoch,
        "curve": result.curve,
        "seconds": result.seconds,
    })
}

fn report(watcher: &Watcher, event: &TrainEvent<'_>) {
    let (kind, fields) = match event {
        TrainEvent::Reading(read) => (
            "reading",
            json!({ "done": read.records, "total": read.total }),
        ),
        TrainEvent::Prepared(prepared) => (
            "prepared",
            json!({
                "training": prepared.training.len(),
                "validation": prepared.validation.len(),
                "rejects": prepared.rejects,
                "reasons": prepared.reasons,
                "nulls": prepared.nulls,
                "without_label": prepared.without_label,
            }),
        ),
        TrainEvent::OutOfRange(found) => (
            "out_of_range",
            json!({
                "part": found.part.as_str(),
                "values": found.range.name,
                "low": found.range.low,
                "high": found.range.high,
                "effect": found.effect,
            }),
        ),
        TrainEvent::Started(started) => (
            "started",
            json!({
                "records": started.records,
                "batches": started.batches,
                "epochs": started.epochs,
                "resumed": started.resumed,
            }),
        ),
        TrainEvent::Stepped(step) => (
            "step",
            json!({ "epoch": step.epoch, "batch": step.batch, "loss": step.loss }),
        ),
        TrainEvent::Epoch(record, is_best) => {
            ("epoch", json!({ "record": record, "is_best": is_best }))
        }
        TrainEvent::Finishing => ("finishing", json!({})),
        TrainEvent::Measured(failed) => (
            "measured",
            json!({ "failed": failed.records, "reason": failed.reason }),
        ),
        TrainEvent::WorseThanPca(found) => (
            "worse_than_pca",
            json!({
                "mse": found.model_mse,
                "pca_mse": found.pca_mse,
                "components": found.components,
            }),
        ),
    };
    watcher.report(kind, fields);
}
