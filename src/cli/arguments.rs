//! What can be typed, and the old ways of typing it.
//!
//! Scripts written for Mirrorbits use Go's conventions: one dash before long options, `-switch=false`, values that start
//! with a dash, `-D` for the daemon. [`parse`] rewrites or allows all of them at one place, so that the definitions of
//! the commands stay plain.

use std::ffi::OsString;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use mb_core::arguments::normalise;

use super::{
    apply, config, connection, daemon, edit, explain, export, geoupdate, list, logs, migrate, mirrors, packaging, scan,
    settings, stats,
};

/// The command line of the daemon and its control.
#[derive(Parser, Debug)]
#[command(
    name = "mirrorbits",
    about = "Download redirector: sends each request to a mirror that has the file, is up, and is near",
    disable_help_flag = true
)]
struct Typed {
    #[command(flatten)]
    connection: connection::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// A complete command line.
#[derive(Debug)]
pub(super) struct Arguments {
    /// How to reach the daemon.
    pub(super) connection: connection::Options,
    /// What to do.
    pub(super) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Run the redirector
    Daemon(daemon::Daemon),
    /// Add a mirror
    Add(mirrors::Add),
    /// Remove a mirror
    Remove(mirrors::Remove),
    /// Let a mirror be selected
    Enable(mirrors::OneMirror),
    /// Let a mirror not be selected any more
    Disable(mirrors::OneMirror),
    /// Print the settings of a mirror
    Show(settings::Show),
    /// Change settings of a mirror
    Set(settings::Set),
    /// Change settings of a mirror in an editor
    Edit(edit::Edit),
    /// Add, change and remove mirrors as a file lists them
    Apply(apply::Apply),
    /// Look up again where a mirror stands
    #[command(name = "geoupdate")]
    GeoUpdate(geoupdate::GeoUpdate),
    /// List the mirrors, the latest change of state first
    List(list::List),
    /// Scan a mirror, or all of them
    Scan(scan::Scan),
    /// Scan the local repository
    Refresh(scan::Refresh),
    /// Print the log of a mirror
    Logs(logs::Logs),
    /// Print downloads of files or of a mirror
    Stats(stats::Stats),
    /// Tell which mirrors a client would be sent to, and why not to the others
    Explain(explain::Explain),
    /// Print the mirrors for other programs
    Export(export::Export),
    /// Have the daemon load its configuration, geo databases and templates again
    Reload,
    /// Have the daemon hand over to the program that is now at its path, without losing a request
    Upgrade,
    /// Print the versions of this program and of the daemon
    Version,
    /// Work on the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Copy everything from one database to the other
    Migrate(migrate::Migrate),
    /// Serve a small repository from three mirrors on this machine, to try things out
    Demo,
    /// Print the script by which a shell completes commands and options
    Completions(packaging::Completions),
    /// Print the manual page
    Man,
}

/// What to do with the configuration file.
#[derive(Subcommand, Debug)]
pub(super) enum ConfigCommand {
    /// Load the file as the daemon would, and print the resolved values
    Check(config::Check),
}

/// The definitions of all commands, as they are understood.
pub(super) fn command() -> clap::Command {
    with_go_conventions(Typed::command())
}

/// Whether `argument` is on or off, and needs no value.
pub(super) fn is_switch(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|count| count.min_values() == 0)
}

/// Understands `arguments`, the first of which is the name of the program.
///
/// # Errors
/// Wrong usage, or a request for help, which is no failure: the error knows its text, stream and exit status.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let mut command = command();
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    name_the_daemon(&command, &mut arguments);
    let mut long_options = Vec::new();
    collect_long_options(&command, &mut long_options);
    let long_options: Vec<&str> = long_options.iter().map(String::as_str).collect();
    let matches = command.try_get_matches_from_mut(normalise(arguments.into_iter(), &long_options))?;
    match Typed::from_arg_matches(&matches)? {
        Typed { connection, command: Some(command) } => Ok(Arguments { connection, command }),
        Typed { command: None, .. } => parse(["mirrorbits".into(), "help".into()]),
    }
}

/// Replaces the old `-D`, wherever it stands among the options before a command, by the command `daemon`.
fn name_the_daemon(command: &clap::Command, arguments: &mut Vec<OsString>) {
    let is_command = |argument: &OsString| command.get_subcommands().any(|known| argument == known.get_name());
    let options = arguments.iter().position(is_command).unwrap_or(arguments.len());
    if let Some(old) = arguments[..options].iter().position(|argument| argument == "-D" || argument == "--D") {
        arguments.remove(old);
        arguments.insert(1.min(old), "daemon".into());
    }
}

/// Gives every command `--help`, lets every switch be written as `-x=false`, lets the value of an option start with a dash,
/// and lets the last of repeated options win.
fn with_go_conventions(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_action() {
        ArgAction::SetTrue => {
            let has_default = !argument.get_default_values().is_empty();
            let switch = argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(BoolishValueParser::new())
                .hide_possible_values(true)
                .value_name("BOOL");
            if has_default { switch } else { switch.default_value("false").hide_default_value(true) }
        }
        ArgAction::Set if !argument.is_positional() => argument.allow_hyphen_values(true),
        _ => argument,
    });
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print help");
    command.args_override_self(true).mut_subcommands(with_go_conventions).arg(help)
}

fn collect_long_options(command: &clap::Command, options: &mut Vec<String>) {
    options.extend(command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)));
    for subcommand in command.get_subcommands() {
        collect_long_options(subcommand, options);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Arguments, clap::Error> {
        parse(std::iter::once("mirrorbits").chain(line.split_whitespace()).map(OsString::from))
    }

    fn shown(line: &str) -> String {
        let arguments = typed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        format!("{:?} {:?}", arguments.connection, arguments.command)
    }

    #[test]
    fn the_definitions_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_lines_of_existing_scripts_are_understood() {
        let lines: [(&str, &[&str]); 24] = [
            ("list -state=false", &["List", "state: false"]),
            ("list", &["List", "state: true", "down: false"]),
            ("list -rsync -http --ftp -location -score", &["rsync: true", "http: true", "ftp: true", "score: true"]),
            ("list -enabled=1 --down=t", &["enabled: true", "down: true"]),
            ("add -http= -rsync= NAME", &["http: \"\"", "rsync: \"\"", "identifier: \"NAME\""]),
            (
                "add -http=http://a/ --rsync rsync://a/m -score -5 -comment -none- -as-only NAME",
                &["http: \"http://a/\"", "rsync: \"rsync://a/m\"", "score: -5", "comment: \"-none-\"", "as_only: true"],
            ),
            ("scan -all -enable -timeout=120", &["all: true", "enable: true", "timeout: 120"]),
            ("scan -rsync NAME", &["rsync: true", "identifier: Some(\"NAME\")"]),
            ("remove -f NAME", &["Remove", "force: true"]),
            ("remove NAME -f=false", &["force: false", "\"NAME\""]),
            ("-h H -p 3391 -a list", &["host: \"H\"", "port: 3391", "ask: true"]),
            ("-P -secret -p=3391 --h=::1 version", &["password: ***", "port: 3391", "host: \"::1\"", "Version"]),
            (
                "daemon -config a.conf -monitor=false -p pid",
                &["\"a.conf\"", "monitor: false", "pid_file: Some(\"pid\")"],
            ),
            ("-D -config a.conf -p pid -log l", &["Daemon", "\"a.conf\"", "monitor: true", "log_file: Some(\"l\")"]),
            ("-debug -D", &["Daemon", "debug: true"]),
            ("-h A -p 1 -h B -p=2 list -score -score=false", &["host: \"B\"", "port: 2", "score: false"]),
            ("geoupdate -f NAME", &["force: true"]),
            (
                "export mirmon -rsync=false -disabled=false",
                &["rsync: false", "http: true", "disabled: false", "Mirmon"],
            ),
            (
                "stats -start-date 2026-1-2 -end-date=2026-11-22 -h=false file \\.iso$",
                &["start_date: Some(2026-01-02)", "end_date: Some(2026-11-22)", "human: false", "File"],
            ),
            ("stats mirror NAME", &["start_date: None", "human: true", "Mirror"]),
            ("stats prune", &["Prune", "subject: None"]),
            ("apply -dry-run -prune FILE", &["dry_run: true", "prune: true", "\"FILE\""]),
            ("logs -l 20 NAME", &["limit: 20"]),
            ("set NAME Score=5 Comment=-D", &["\"Score=5\"", "\"Comment=-D\""]),
        ];
        for (line, expected) in lines {
            let shown = shown(line);
            for part in expected {
                assert!(shown.contains(part), "{line}: {part} is not in {shown}");
            }
        }
    }

    #[test]
    fn rsync_is_not_taken_for_short_options() {
        assert!(typed("add -rsync").is_err_and(|error| error.exit_code() == 2));
        assert!(typed("list -rsyncx").is_err_and(|error| error.exit_code() == 2));
    }

    #[test]
    fn wrong_usage_is_told_from_help() {
        for line in [
            "list -colour",
            "stats file",
            "stats -start-date=today file .",
            "export csv",
            "explain -from here /a",
            "nonsense",
            "add -http=x",
            "enable",
            "list -state=maybe",
            "set NAME",
            "-p port list",
        ] {
            assert_eq!(typed(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in ["", "help", "--help", "-help", "list --help", "add -help", "help scan", "config check --help"] {
            assert_eq!(typed(line).unwrap_err().exit_code(), 0, "{line}");
        }
    }
}
