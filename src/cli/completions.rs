//! `latentflow completions`: prints a completion script for a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, print_as_is};
use crate::cli::exit::ExitCode;

#[derive(Debug, Args)]
pub(super) struct CompletionsCommand {
    /// Shell that the script is for.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "latentflow", &mut script);
        print_as_is(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::Done)
    }
}
