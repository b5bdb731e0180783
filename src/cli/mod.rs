//! The command line.
//!
//! - `arguments`: what can be typed; old spellings are rewritten here
//! - `connection`: the way to the daemon
//! - `error`: what goes wrong, and the exit status it leads to
//! - `process_list`: what it shows of the command line
//! - `table`, `terminal`, `question`, `waiting`, `editor`: how people are spoken to
//! - one module per group of commands: `mirrors` (add, remove, enable, disable), `settings` (show, set), `edit`, `apply`,
//!   `geoupdate`, `list`, `scan` (scan, refresh), `logs`, `stats`, `explain`, `export`, `running` (reload, upgrade), `version`,
//!   `config`, `migrate`, `daemon`, `demo`, `packaging` (completions, man)
//!
//! Results go to standard output, messages for people to standard error. The exit status is 0 on success, 1 on failure
//! and 2 for wrong usage.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

mod apply;
mod arguments;
mod config;
mod connection;
mod daemon;
mod demo;
mod edit;
mod editor;
mod error;
mod explain;
mod export;
mod geoupdate;
mod list;
mod logs;
mod migrate;
mod mirrors;
mod packaging;
mod process_list;
mod question;
mod running;
mod scan;
mod settings;
mod stats;
mod table;
mod terminal;
mod version;
mod waiting;

use arguments::{Arguments, Command, ConfigCommand};
use connection::Daemon;
use error::CommandError;

/// Runs the command that `arguments`, the first of which is the name of the program, ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Arguments { connection, command } = match arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Nothing is left to be told to a closed terminal.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    process_list::hide(&connection.password);
    match command {
        Command::Daemon(options) => daemon::exit_code(options.run(connection.debug)),
        Command::Config(ConfigCommand::Check(options)) => exit_code(options.run()),
        Command::Migrate(options) => exit_code(options.run()),
        Command::Demo => exit_code(demo::run().map_err(CommandError::from)),
        Command::Completions(options) => exit_code(options.run()),
        Command::Man => exit_code(packaging::print_manual()),
        Command::Version => exit_code(version::run(&connection)),
        Command::Add(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Remove(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Enable(mirror) => ask(&connection, async |daemon| mirror.change_status(daemon, true).await),
        Command::Disable(mirror) => ask(&connection, async |daemon| mirror.change_status(daemon, false).await),
        Command::Show(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Set(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Edit(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Apply(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::GeoUpdate(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Stats(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Explain(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Export(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::List(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Scan(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Refresh(options) => ask(&connection, async |daemon| options.run(daemon).await),
        Command::Reload => ask(&connection, running::reload),
        Command::Upgrade => ask(&connection, running::upgrade),
        Command::Logs(options) => ask(&connection, async |daemon| options.run(daemon).await),
    }
}

/// Runs a command that the daemon answers.
fn ask(
    connection: &connection::Options,
    command: impl AsyncFnOnce(&mut Daemon) -> Result<(), CommandError>,
) -> ExitCode {
    exit_code(connection.block_on(async {
        let mut daemon = Daemon::connect(connection).await?;
        command(&mut daemon).await
    }))
}

fn exit_code(result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `mirrorbits list | head` has all it wanted.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(terminal::stderr(), "{error}");
            error.exit_code()
        }
    }
}
