//! `logs`: what happened to a mirror.

use std::io::Write as _;

use clap::Args;

use super::connection::Daemon;
use super::error::CommandError;
use crate::control::rpc::proto::GetMirrorLogsRequest;

/// Options of `logs`.
#[derive(Args, Debug)]
pub(super) struct Logs {
    /// How many entries, the newest
    #[arg(short = 'l', value_name = "N", default_value_t = 500)]
    limit: i32,
    /// Name of the mirror, or a part of it that fits no other
    identifier: String,
}

impl Logs {
    /// Prints the entries, oldest first.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let id = daemon.find(&self.identifier).await?.id;
        let request = GetMirrorLogsRequest { id, max_results: self.limit };
        let lines = daemon.rpc.get_mirror_logs(request).await?.into_inner().line;
        let mut out = super::terminal::stdout();
        for line in lines {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}
