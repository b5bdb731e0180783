//! `show` and `set`: the settings of a mirror as keys and values.

use std::io::Write as _;

use clap::Args;

use super::connection::Daemon;
use super::error::CommandError;
use crate::control::mirror_fields;
use crate::control::rpc::wire;

/// Options of `show`.
#[derive(Args, Debug)]
pub(super) struct Show {
    /// Name of the mirror, or a part of it that fits no other
    identifier: String,
}

impl Show {
    /// Prints the settings as YAML, and the comment.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let mirror = daemon.mirror(&self.identifier).await?;
        write!(super::terminal::stdout(), "{}", mirror_fields::to_yaml(&mirror))?;
        Ok(())
    }
}

/// Options of `set`.
#[derive(Args, Debug)]
pub(super) struct Set {
    /// Name of the mirror, or a part of it that fits no other
    identifier: String,
    /// Key and value, with a key that `show` prints
    #[arg(value_name = "KEY=VALUE", required = true)]
    changes: Vec<String>,
}

impl Set {
    /// Changes the settings and prints the difference.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let mut mirror = daemon.mirror(&self.identifier).await?;
        for change in &self.changes {
            let Some((key, value)) = change.split_once('=') else {
                return Err(CommandError::Usage("a change is written as KEY=VALUE"));
            };
            mirror_fields::set(&mut mirror, key, value)?;
        }
        let updated = daemon.rpc.update_mirror(wire::mirror_to_wire(&mirror)).await?.into_inner();
        print_difference(&updated.diff)
    }
}

/// Prints what a change made different.
pub(super) fn print_difference(difference: &str) -> Result<(), CommandError> {
    let mut out = super::terminal::stdout();
    write!(out, "{difference}")?;
    if !difference.is_empty() && !difference.ends_with('\n') {
        writeln!(out)?;
    }
    Ok(())
}
