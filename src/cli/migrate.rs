//! `migrate`: everything from one database to the other, without a daemon.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mb_core::config::DatabaseKind;
use mb_core::store::migrate::{Migrated, Part, Progress, migrate};

use super::daemon::DEFAULT_CONFIG;
use super::error::CommandError;

/// Options of `migrate`.
#[derive(Args, Debug)]
pub(super) struct Migrate {
    /// Database to copy
    #[arg(long, value_name = "DATABASE")]
    from: Database,
    /// Database that becomes the copy
    #[arg(long, value_name = "DATABASE")]
    to: Database,
    /// Configuration file, which says where both are
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Replace data that a program has written into the target
    #[arg(short, long)]
    force: bool,
}

/// A database, as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Database {
    /// Redis or Valkey
    Redis,
    /// The file in StateDir
    Embedded,
}

impl From<Database> for DatabaseKind {
    fn from(database: Database) -> DatabaseKind {
        match database {
            Database::Redis => DatabaseKind::Redis,
            Database::Embedded => DatabaseKind::Embedded,
        }
    }
}

impl Migrate {
    /// Copies, and prints what was copied.
    pub(super) fn run(self) -> Result<(), CommandError> {
        let loaded = mb_core::config::load(&self.config)?;
        for warning in &loaded.warnings {
            writeln!(super::terminal::stderr(), "{warning}")?;
        }
        let mut display = Display::default();
        let outcome = migrate(&loaded.config, self.from.into(), self.to.into(), self.force, &mut |progress| {
            display.show(progress);
        });
        drop(display);
        let Migrated { mirrors, log_entries, source_entries, downloads } = outcome?;
        writeln!(
            super::terminal::stdout(),
            "Copied {mirrors} mirrors, {log_entries} log entries, {source_entries} paths of the repository and the \
             statistics of {downloads} downloads"
        )?;
        let target = match self.to {
            Database::Redis => "redis",
            Database::Embedded => "embedded",
        };
        writeln!(super::terminal::stderr(), "To use the copy, set `Database: {target}` in {}", self.config.display())?;
        Ok(())
    }
}

/// How far the copy is: a bar on a terminal, else a line when a part begins.
#[derive(Default)]
struct Display {
    part: Option<(Part, ProgressBar)>,
}

impl Display {
    fn show(&mut self, Progress { part, done, all }: Progress) {
        if self.part.as_ref().is_none_or(|(shown, _)| *shown != part) {
            self.finish();
            self.part = Some((part, bar(part, all)));
        }
        if let Some((_, bar)) = &self.part {
            bar.set_position(done as u64);
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.part.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(part: Part, all: usize) -> ProgressBar {
    let name = match part {
        Part::Mirrors => "mirrors",
        Part::Logs => "logs of mirrors",
        Part::SourceEntries => "paths of the repository",
        Part::Statistics => "periods of the statistics",
    };
    if !io::stderr().is_terminal() {
        // Nothing is left to be told to a closed stream.
        let _ = writeln!(super::terminal::stderr(), "Copying {all} {name}");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(all as u64), ProgressDrawTarget::stderr()).with_message(name);
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
