//! Parses the command line, calls, and maps what came of it to an exit code.

use clap::Parser;
use latentflow::cli::{Cli, Exit};

fn main() -> std::process::ExitCode {
    let exit = match Cli::parse().run() {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("latentflow: {error:#}");
            Exit::of(&error)
        }
    };
    std::process::ExitCode::from(exit as u8)
}
