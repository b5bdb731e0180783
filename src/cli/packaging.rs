//! `completions` and `man`: what a package installs beside the programs.
//!
//! Both come out of the definitions of the commands, so that they never lag behind, and need nothing but the program: a
//! package runs them after the build and installs what they print.

use std::io::{self, Write as _};

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::arguments;
use super::error::CommandError;

/// Name under which everything is installed.
const PROGRAM: &str = "mirrorbits";

/// Options of `completions`.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Shell that is to complete
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut arguments::command(), PROGRAM, &mut script);
        io::stdout().write_all(&script)?;
        Ok(())
    }
}

/// Prints the manual page: the program, then each command with its options.
pub(super) fn print_manual() -> Result<(), CommandError> {
    io::stdout().write_all(&manual()?)?;
    Ok(())
}

fn manual() -> io::Result<Vec<u8>> {
    let mut command = arguments::command().disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let program = Man::new(command.clone()).section("8").manual("System administration").source(version());
    program.render_title(&mut page)?;
    program.render_name_section(&mut page)?;
    section("SYNOPSIS", &usage(&command)).to_writer(&mut page)?;
    section("OPTIONS", "Options may be written with one dash or two. These come before the command:")
        .to_writer(&mut page)?;
    describe_arguments(&command, &mut page)?;
    section("COMMANDS", "").to_writer(&mut page)?;
    describe_commands(&command, &mut page)?;
    Ok(page)
}

fn version() -> String {
    format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"))
}

fn section(title: &str, text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff.text([roman(text)]);
    roff
}

/// How `command` is called.
fn usage(command: &clap::Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage: ").to_owned()
}

/// A part of the page for each command below `command`: how it is called, what it does, its options.
fn describe_commands(command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        if subcommand.has_subcommands() {
            describe_commands(subcommand, page)?;
            continue;
        }
        let mut roff = Roff::new();
        roff.control("SS", [usage(subcommand).as_str()]);
        roff.text([roman(subcommand.get_about().map(ToString::to_string).unwrap_or_default())]);
        roff.to_writer(page)?;
        describe_arguments(subcommand, page)?;
    }
    Ok(())
}

/// An entry for each option and value of `command`.
fn describe_arguments(command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
        let mut roff = Roff::new();
        roff.control("TP", []);
        roff.text([bold(argument_as_typed(argument))]);
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        roff.text([roman(help + &default_of(argument))]);
        roff.to_writer(page)?;
    }
    Ok(())
}

/// `-x VALUE`, `-long VALUE`, or the name of a value without an option; with one dash, as scripts write it.
fn argument_as_typed(argument: &clap::Arg) -> String {
    let values: Vec<&str> =
        argument.get_value_names().unwrap_or_default().iter().map(clap::builder::Str::as_str).collect();
    let values = values.join(" ");
    let option = match (argument.get_short(), argument.get_long()) {
        (_, Some(long)) => format!("-{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => return values,
    };
    if arguments::is_switch(argument) { option } else { format!("{option} {values}") }
}

fn default_of(argument: &clap::Arg) -> String {
    let values: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if argument.is_hide_default_value_set() || values.is_empty() {
        String::new()
    } else {
        format!(" (default: {})", values.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_describes_every_command_and_option() {
        let page = String::from_utf8(manual().unwrap()).unwrap().replace("\\-", "-");
        let command = arguments::command();
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            assert!(page.contains(subcommand.get_name()), "{}", subcommand.get_name());
            for option in subcommand.get_arguments().filter_map(clap::Arg::get_long).filter(|long| *long != "help") {
                assert!(page.contains(&format!("-{option}")), "{option} of {}", subcommand.get_name());
            }
        }
        assert!(page.contains("config check"), "commands below commands are described, too");
    }

    #[test]
    fn every_shell_completes_commands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut arguments::command(), PROGRAM, &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["geoupdate", "dry-run", "start-date"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
