//! `reload`, `upgrade`: orders to the running daemon.

use std::io::Write as _;

use tonic::Response;

use super::connection::Daemon;
use super::error::CommandError;
use super::waiting::Waiting;
use crate::control::rpc::NOTICE_KEY;

/// Has the daemon load its configuration, geo databases and templates again.
pub(super) async fn reload(daemon: &mut Daemon) -> Result<(), CommandError> {
    print_notices(&daemon.rpc.reload(()).await?)
}

/// Has the daemon hand over to a new process of the program that is now at its path.
pub(super) async fn upgrade(daemon: &mut Daemon) -> Result<(), CommandError> {
    let _waiting = Waiting::show("The new process is loading".to_owned());
    print_notices(&daemon.rpc.upgrade(()).await?)
}

fn print_notices(response: &Response<()>) -> Result<(), CommandError> {
    for notice in response.metadata().get_all_bin(NOTICE_KEY) {
        let text = notice.to_bytes().map_err(|error| CommandError::Answer(error.to_string()))?;
        writeln!(super::terminal::stderr(), "{}", String::from_utf8_lossy(&text))?;
    }
    Ok(())
}
