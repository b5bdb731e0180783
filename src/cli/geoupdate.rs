//! `geoupdate`: the place of a mirror looked up again.

use std::io::Write as _;

use clap::Args;

use super::connection::Daemon;
use super::error::CommandError;
use super::question::confirm;
use super::settings::print_difference;
use crate::control::rpc::proto::MirrorIdRequest;

/// Options of `geoupdate`.
#[derive(Args, Debug)]
pub(super) struct GeoUpdate {
    /// Do not ask
    #[arg(short = 'f')]
    force: bool,
    /// Name of the mirror, or a part of it that fits no other
    identifier: String,
}

impl GeoUpdate {
    /// Prints what is different now and stores it, after a question unless told not to ask.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let found = daemon.find(&self.identifier).await?;
        let located = daemon.rpc.geo_update_mirror(MirrorIdRequest { id: found.id }).await?.into_inner();
        for warning in &located.warnings {
            writeln!(super::terminal::stderr(), "{warning}")?;
        }
        if located.diff.is_empty() {
            writeln!(
                super::terminal::stderr(),
                "The place of mirror '{}' is up to date: nothing was changed",
                found.name
            )?;
            return Ok(());
        }
        print_difference(&located.diff)?;
        if !self.force {
            confirm(&format!("Update mirror '{}'?", found.name))?;
        }
        let mirror = located.mirror.ok_or_else(|| CommandError::Answer("no mirror came with its place".to_owned()))?;
        let stored = daemon.rpc.update_mirror(mirror).await?.into_inner().diff;
        if stored != located.diff {
            writeln!(
                super::terminal::stderr(),
                "The mirror was changed by somebody else meanwhile; this is what is different now:"
            )?;
            print_difference(&stored)?;
        }
        writeln!(super::terminal::stderr(), "Mirror '{}' updated successfully", found.name)?;
        Ok(())
    }
}
