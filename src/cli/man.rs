//! `latentflow man`: prints or writes the manual pages.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, print_as_is};
use crate::cli::exit::ExitCode;

#[derive(Debug, Args)]
pub(super) struct ManCommand {
    /// Folder to write the page of the program and one page per command to, such as man/man1.
    ///
    /// The folder is created if it does not exist, and existing pages are replaced. Without a
    /// folder, the page of the program is printed.
    folder: Option<PathBuf>,
}

impl ManCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        // `latentflow help` has no page.
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        match self.folder {
            Some(folder) => std::fs::create_dir_all(&folder)
                .and_then(|()| write_pages(&program, &folder))
                .with_context(|| format!("cannot write manual pages to {}", folder.display()))?,
            None => print_as_is(&String::from_utf8_lossy(&render(&page(&program))?))?,
        }
        Ok(ExitCode::Done)
    }
}

/// The footer of every page has the version of the program, since commands have no versions.
fn page(command: &Command) -> Man {
    Man::new(command.clone()).source(concat!("latentflow ", env!("CARGO_PKG_VERSION")))
}

fn render(page: &Man) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    Ok(text)
}

fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for part in command.get_subcommands() {
        write_pages(part, folder)?;
    }
    let page = page(command);
    std::fs::write(folder.join(page.get_filename()), render(&page)?)
}
