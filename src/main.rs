//! Parses the command line, calls, and maps what came of it to an exit code.

use clap::Parser;
use latentflow::cli::{Cli, Exit};

fn main() -> std::process::ExitCode {
    let exit = match Cli::parse().run() {
        Ok(exit) => exit,
        Err(error) => {
            let exit = Exit::of(&error);
            match exit {
                // Faults of a pipeline stand alone, one a line, so that editors can jump to them.
                Exit::Usage => eprintln!("{error}\nlatentflow: nothing was started"),
                _ => eprintln!("latentflow: {error:#}"),
            }
            exit
        }
    };
    std::process::ExitCode::from(exit as u8)
}
