//! Exit codes, and the report of the error that ends the program.

use schemars::JsonSchema;

use crate::cli::log;
use crate::config::Diagnostics;
use crate::error::StageError;
use crate::error::code::ErrorCode;
use crate::error::failure::StageFailure;
use crate::evaluate::options::EvaluateError;

/// The exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[repr(u8)]
pub enum ExitCode {
    /// The command completed; a run with an unbounded source was drained on request.
    Done = 0,
    /// A stage or the environment failed.
    Failed = 1,
    /// The command line or the pipeline file is invalid, or an existing output or an input refuses
    /// the pipeline; nothing was started.
    Usage = 2,
    /// More records were rejected than `rejects.max_share` or `rejects.max` allows, or `preview` shows
    /// an image that a run rejects.
    Rejects = 3,
    /// The run was drained on request before the end of the input; the next run resumes it.
    Drained = 4,
    /// A signal stopped the process immediately: the second one during a run, whose next run repeats
    /// uncommitted records, or the first one during a command without a state to save.
    Killed = 130,
}

impl ExitCode {
    /// All exit codes.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Rejects,
        Self::Drained,
        Self::Killed,
    ];

    /// Returns the exit code for an error: [`Usage`](Self::Usage) if the user has to change the
    /// pipeline, otherwise [`Failed`](Self::Failed).
    pub fn from_error(error: &anyhow::Error) -> Self {
        let is_refusal = match error.downcast_ref::<Diagnostics>() {
            Some(problems) => !problems.are_of_environment(),
            None => error
                .downcast_ref::<StageFailure>()
                .is_some_and(|failure| failure.error.code().is_refusal()),
        };
        if is_refusal {
            Self::Usage
        } else {
            Self::Failed
        }
    }
}

/// The failure of a stage during a run. Unlike a failure before the run, it is not a refusal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RunFailure(pub(super) StageFailure);

/// An error of a command outside of the stages of a pipeline, such as an invalid argument.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct CommandError {
    code: ErrorCode,
    message: String,
}

impl CommandError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Returns the code of one error in a chain of causes. Its text contains the causes below it.
fn code_at(cause: &(dyn std::error::Error + 'static)) -> Option<ErrorCode> {
    if let Some(RunFailure(failure)) = cause.downcast_ref::<RunFailure>() {
        return Some(failure.error.code());
    }
    if let Some(failure) = cause.downcast_ref::<StageFailure>() {
        return Some(failure.error.code());
    }
    #[cfg(feature = "train")]
    if let Some(error) = cause.downcast_ref::<crate::train::TrainError>() {
        return Some(error.code());
    }
    let stage = cause.downcast_ref::<StageError>().map(StageError::code);
    let command = || Some(cause.downcast_ref::<CommandError>()?.code);
    let evaluation = || Some(cause.downcast_ref::<EvaluateError>()?.code());
    let io = || cause.downcast_ref::<std::io::Error>().map(ErrorCode::of_io);
    let faults = || cause.downcast_ref::<Diagnostics>().map(Diagnostics::code);
    stage
        .or_else(command)
        .or_else(evaluation)
        .or_else(faults)
        .or_else(io)
}

/// Returns the stable code of an error.
fn code_of(error: &anyhow::Error) -> ErrorCode {
    error
        .chain()
        .find_map(code_at)
        .unwrap_or(ErrorCode::Internal)
}

/// An error and its causes in one line.
fn causes(error: &anyhow::Error) -> String {
    let mut texts = Vec::new();
    for cause in error.chain() {
        texts.push(cause.to_string());
        if code_at(cause).is_some() {
            break;
        }
    }
    texts.join(": ")
}

/// Reports the error that ends the program, in the format of its log.
pub fn report_failure(error: &anyhow::Error, exit: ExitCode) {
    let code = code_of(error);
    let prefix = format!("latentflow: error[{code}]:");
    match exit {
        // Faults of a pipeline have no prefix, one per line, so that editors can jump to them.
        ExitCode::Usage => log::fatal(code, &format!("{error}\n{prefix} nothing was started")),
        _ => log::fatal(code, &format!("{prefix} {}", causes(error))),
    }
}
