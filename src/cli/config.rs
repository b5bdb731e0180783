//! `config check`: what the daemon would make of the configuration file.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::daemon::DEFAULT_CONFIG;
use super::error::CommandError;
use crate::pages::Templates;

/// Options of `config check`.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// Configuration file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

impl Check {
    /// Prints the resolved values, if the templates that they name are right, too; warnings go to standard error.
    pub(super) fn run(self) -> Result<(), CommandError> {
        let loaded = mb_core::config::load(&self.config)?;
        let templates = Templates::load(loaded.config.templates.as_deref())?;
        for warning in loaded.warnings.iter().chain(&templates.notices) {
            writeln!(super::terminal::stderr(), "{warning}")?;
        }
        let resolved = loaded.config.to_string();
        writeln!(super::terminal::stdout(), "{}", resolved.trim_end())?;
        Ok(())
    }
}
