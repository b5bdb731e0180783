//! `version`: of this program and of the daemon.

use std::io::Write as _;

use super::connection::{Daemon, Options};
use super::error::CommandError;
use crate::control::rpc::proto::VersionReply;
use crate::control::version::version;

/// Prints both versions; this program's own one also when the daemon cannot be reached.
pub(super) fn run(connection: &Options) -> Result<(), CommandError> {
    print("Client", &version())?;
    let server = connection.block_on(async {
        let mut daemon = Daemon::connect(connection).await?;
        Ok(daemon.rpc.get_version(()).await?.into_inner())
    })?;
    writeln!(super::terminal::stdout())?;
    print("Server", &server)
}

fn print(whose: &str, version: &VersionReply) -> Result<(), CommandError> {
    let mut out = super::terminal::stdout();
    writeln!(out, "{whose}:")?;
    let cores = version.go_max_procs.to_string();
    let lines = [
        ("Version:", &version.version),
        ("Build:", &version.build),
        ("Go version:", &version.go_version),
        ("Operating system:", &version.os),
        ("Architecture:", &version.arch),
        ("Processors:", &cores),
    ];
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "  {name:<18}{value}")?;
    }
    Ok(())
}
