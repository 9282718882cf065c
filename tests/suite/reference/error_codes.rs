//! The codes of errors, exits and rejects.

use latentflow::batch::reject::RejectCode;
use latentflow::cli::exit::ExitCode;
use latentflow::error::code::ErrorCode;

use schemars::JsonSchema;
use serde_json::Value;

use super::{check_page, table};

/// The doc comments of the variants of an enum, in their order.
fn meanings<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T).to_value();
    let variants = schema["oneOf"].as_array().unwrap();
    let text = |variant: &Value| variant["description"].as_str().unwrap().to_owned();
    variants.iter().map(text).collect()
}

#[test]
fn error_codes_are_current() {
    let rows = ErrorCode::ALL.iter().map(|code| {
        let exit = match code.is_refusal() {
            true => "2",
            false => "1",
        };
        [
            format!("`{code}`"),
            code.cause().to_owned(),
            code.remedy().to_owned(),
            exit.to_owned(),
        ]
    });
    let text = format!(
        "The error that ends a command has a code, which stays the same when the text of the message changes. Programs and\n\
         alerts match on it:\n\n\
         - standard error has it in brackets: `latentflow: error[output_locked]: ...`;\n\
         - a log in JSON (`--log-format json`) has it in `fields.code`;\n\
         - the summary in JSON (`--summary json`) has it in `error.code`, with `error.stage` and `error.message`.\n\n\
         The last column is the exit code of a command that could not start; a run that fails later exits with 1.\n\n{}",
        table(["code", "cause", "remedy", "exit"], rows)
    );
    check_page("error-codes.md", "Error codes", &text);
}

#[test]
fn exit_codes_are_current() {
    let rows = ExitCode::ALL
        .iter()
        .zip(meanings::<ExitCode>())
        .map(|(code, meaning)| [(*code as u8).to_string(), meaning]);
    let text = format!(
        "Every command of `latentflow` exits with one of these codes.\n\n{}",
        table(["code", "meaning"], rows)
    );
    check_page("exit-codes.md", "Exit codes", &text);
}

#[test]
fn reject_codes_are_current() {
    let rows = RejectCode::ALL
        .iter()
        .zip(meanings::<RejectCode>())
        .map(|(code, meaning)| [format!("`{}`", code.as_str()), meaning]);
    let text = format!(
        "A record that cannot be processed is rejected with one of these codes. It is the column `code` of a rejects dataset and\n\
         the label `reason` of the metric `latentflow_rejects_total`. [Rejects](../concepts/rejects.md) describes the dataset.\n\n{}",
        table(["code", "meaning"], rows)
    );
    check_page("reject-codes.md", "Reject codes", &text);
}
