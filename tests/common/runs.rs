//! Functions that run the binary on real files in a folder.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The program with these arguments, in `folder`, with the path of ONNX Runtime set.
pub fn latentflow(folder: &Path, arguments: &[&str]) -> Command {
    latentflow_by(&[], folder, arguments)
}

/// As [`latentflow`], started by the command line `wrapper`, which the path of the binary and the
/// arguments complete.
pub fn latentflow_by(wrapper: &[&str], folder: &Path, arguments: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_latentflow");
    let words = [wrapper, &[binary], arguments].concat();
    let mut command = Command::new(words[0]);
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/onnxruntime");
    let library = std::fs::read_dir(runtime)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let library = library
        .filter(|path| path.to_string_lossy().contains("libonnxruntime."))
        .max()
        .unwrap();
    command
        .current_dir(folder)
        .args(&words[1..])
        .env("ORT_DYLIB_PATH", library)
        .env_remove("RUST_LOG");
    // Without this, the tests would record their outputs on separate disks in the home folder of
    // the user.
    command.env(
        "XDG_STATE_HOME",
        std::env::temp_dir().join("latentflow-tests-state"),
    );
    command
}

/// Runs a pipeline to its end. Returns the result and the summary, or null without a summary.
pub fn run(folder: &Path, pipeline: &str, arguments: &[&str]) -> (Output, Value) {
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
    let arguments = [&["run", "p.toml", "--summary", "json"], arguments].concat();
    let output = latentflow(folder, &arguments).output().unwrap();
    let summary = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, summary)
}

/// The text that a program wrote to standard error.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
