//! Evaluation of a model, with its progress reported to Python.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use latentflow::data::Subset;
use latentflow::error::StageError;
use latentflow::error::code::ErrorCode;
use latentflow::evaluate::EvaluationRequest;
use latentflow::evaluate::options::{EvaluateError, EvaluateEvent};
use latentflow::report::evaluation_html;
use latentflow::temporary_folder::TemporaryFolder;

use pyo3::prelude::*;
use serde_json::json;

use crate::watched::{NativeArgumentError, NativeWorkError, Watcher, run_watched};

/// Evaluates a model folder. Calls `watch` with the kind and the fields, as JSON, of each event.
/// Returns the measurements as JSON, as text and as HTML.
#[pyfunction]
#[pyo3(signature = (folder, data, sources, set, part, corruptions, ensemble, prepared, compare_decode, allow_nondeterministic, watch))]
#[expect(clippy::too_many_arguments, reason = "Python calls it with keywords")]
pub fn evaluate_model(
    py: Python<'_>,
    folder: PathBuf,
    data: Option<PathBuf>,
    sources: Vec<String>,
    set: Vec<String>,
    part: Option<&str>,
    corruptions: Vec<String>,
    ensemble: Vec<PathBuf>,
    prepared: Option<PathBuf>,
    compare_decode: bool,
    allow_nondeterministic: bool,
    watch: &Bound<'_, PyAny>,
) -> PyResult<(String, String, String)> {
    let request = EvaluationRequest {
        data,
        sources,
        set,
        parts: part.map(subsets).transpose()?.unwrap_or_default(),
        corruptions,
        compare_decode,
        allow_nondeterministic,
        prepared,
        ensemble,
    };
    let evaluated = run_watched(py, watch, |watcher| {
        let temporary = TemporaryFolder::new("latentflow-evaluate-").map_err(|error| {
            StageError::new(
                ErrorCode::Io,
                format!("cannot create a temporary folder: {error}"),
            )
        })?;
        let model = request.open(&folder)?;
        let mut watch = |event: EvaluateEvent<'_>| report(watcher, &event);
        request.run(&model, &folder, temporary.path(), &mut watch)
    })?;
    let run = evaluated.map_err(|error| match error {
        EvaluateError::Argument(_) | EvaluateError::Faults(_) => {
            NativeArgumentError::new_err(error.to_string())
        }
        EvaluateError::Stage(_) => NativeWorkError::new_err(error.to_string()),
    })?;
    let evaluation = &run.evaluation;
    let text = serde_json::to_string(evaluation);
    let text = text.map_err(|error| NativeWorkError::new_err(error.to_string()))?;
    Ok((text, evaluation.to_string(), evaluation_html(evaluation)))
}

fn subsets(part: &str) -> PyResult<Vec<Subset>> {
    if part == "all" {
        return Ok(Subset::ALL.to_vec());
    }
    let found = Subset::ALL
        .into_iter()
        .find(|subset| subset.as_str() == part);
    found.map(|subset| vec![subset]).ok_or_else(|| {
        NativeArgumentError::new_err(format!(
            "part is {part:?}; expected \"test\", \"validation\", \"training\" or \"all\""
        ))
    })
}

fn report(watcher: &Watcher, event: &EvaluateEvent<'_>) -> Result<(), StageError> {
    match *event {
        EvaluateEvent::Reading(read) => {
            watcher.report(
                "reading",
                json!({ "done": read.records, "total": read.total }),
            );
        }
        EvaluateEvent::Prepared(prepared) => {
            watcher.report("prepared", json!({ "reasons": prepared.reasons }));
        }
        EvaluateEvent::Step { name, done, total } => {
            watcher.report(
                "step",
                json!({ "name": name, "done": done, "total": total }),
            );
        }
    }
    if watcher.stop.load(Ordering::Relaxed) {
        return Err(StageError::new(
            ErrorCode::Stopped,
            "the evaluation was stopped",
        ));
    }
    Ok(())
}
