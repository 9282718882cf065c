//! Parses the command line, calls, and maps what came of it to an exit code.

use clap::Parser;
use latentflow::cli::{self, Cli, ExitCode};

fn main() -> std::process::ExitCode {
    disable_ort_telemetry();
    latentflow::system::tune_allocator();
    latentflow::file_descriptors::raise_limit();
    let exit = match Cli::parse().run() {
        Ok(exit) => exit,
        Err(error) => {
            let exit = ExitCode::of(&error);
            cli::report_failure(&error, exit);
            exit
        }
    };
    cli::flush();
    std::process::ExitCode::from(exit as u8)
}

/// Tells ONNX Runtime, before it is loaded, to report nothing: from 1.29 on it sends word of its
/// use to its maker, unless this variable says otherwise. Who has set it, has decided.
#[expect(
    unsafe_code,
    reason = "there is no other way to tell a library that reads the environment"
)]
fn disable_ort_telemetry() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: this is the first that the process does. No other thread is there to read the
        // environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}
