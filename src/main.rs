//! Parses the command line, runs the command, and maps its result to an exit code.

use clap::Parser;
use latentflow::cli::exit::ExitCode;
use latentflow::cli::{self, Cli};

fn main() -> std::process::ExitCode {
    disable_ort_telemetry();
    latentflow::system::tune_allocator();
    latentflow::file_descriptors::raise_limit();
    let exit = match Cli::parse().run() {
        Ok(exit) => exit,
        Err(error) => {
            let exit = ExitCode::from_error(&error);
            cli::exit::report_failure(&error, exit);
            exit
        }
    };
    cli::flush();
    std::process::ExitCode::from(exit as u8)
}

/// Disables the telemetry of ONNX Runtime before the library is loaded: from 1.29 on it reports its
/// use to its vendor unless this variable is set. A value that the user has set is kept.
#[expect(
    unsafe_code,
    reason = "the library reads its settings from the environment only"
)]
fn disable_ort_telemetry() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: this is the first action of the process, so no other thread reads the environment
        // concurrently.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}
