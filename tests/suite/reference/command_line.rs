//! The commands and their options.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};
use latentflow::cli::Cli;

use super::{cell, check_page, table};

/// The first row of an option: its names and the name of its value.
fn names(arg: &Arg) -> String {
    let mut names = Vec::new();
    names.extend(arg.get_short().map(|short| format!("-{short}")));
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let takes_value = arg.get_action().takes_values();
    let values = arg.get_value_names().unwrap_or_default();
    let value = values
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    match (names.is_empty(), takes_value) {
        (true, _) => format!("`{value}`"),
        (false, true) => format!("`{} {value}`", names.join(", ")),
        (false, false) => format!("`{}`", names.join(", ")),
    }
}

/// The meaning of an option, with its values and its default.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help());
    let mut text = help.map(ToString::to_string).unwrap_or_default();
    let text_end = text.trim_end().ends_with(['.', ':', '!']);
    if !text_end && !text.is_empty() {
        text.push('.');
    }
    let values = arg.get_possible_values();
    let values: Vec<String> = values
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        let _ = write!(text, " One of {}.", values.join(", "));
    }
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " Default: {}.", defaults.join(", "));
    }
    cell(&text)
}

fn add_command(parents: &str, command: &Command, text: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{parents} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "\n## {}\n\n{}\n\n", name.trim(), about.trim());
    let mut shown = command.clone().bin_name(name.trim());
    let _ = write!(text, "```text\n{}\n```\n\n", shown.render_usage());
    let args = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str()));
    let rows: Vec<[String; 2]> = args.map(|arg| [names(arg), meaning(arg)]).collect();
    if !rows.is_empty() {
        *text += &table(["argument", "meaning"], rows);
    }
    for inner in command.get_subcommands() {
        add_command(&name, inner, text);
    }
}

#[test]
fn command_line_is_current() {
    let mut command = Cli::command();
    command.build();
    let mut text = "`latentflow help COMMAND` prints the same, with examples. [Exit codes](exit-codes.md) are common to all commands.\n".to_owned();
    add_command("", &command, &mut text);
    check_page("cli.md", "Command line", &text);
}
