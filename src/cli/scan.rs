//! `scan` and `refresh`: what the mirrors have, and what the repository has.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use mb_core::mirror::Mirror;
use tonic::Code;

use super::connection::Daemon;
use super::error::CommandError;
use super::waiting::Waiting;
use crate::control::rpc::proto::scan_mirror_request::Method;
use crate::control::rpc::proto::{MirrorId, RefreshRepositoryRequest, ScanMirrorReply, ScanMirrorRequest};
use crate::control::rpc::wire;

/// Options of `scan`.
#[derive(Args, Debug)]
pub(super) struct Scan {
    /// Scan all mirrors, disabled ones too
    #[arg(long)]
    all: bool,
    /// Enable a mirror when its scan succeeds
    #[arg(long)]
    enable: bool,
    /// Scan by FTP only
    #[arg(long)]
    ftp: bool,
    /// Scan by rsync only
    #[arg(long)]
    rsync: bool,
    /// Scan by HTTP only
    #[arg(long)]
    http: bool,
    /// Give up after so many seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Name of the mirror, or a part of it that fits no other
    identifier: Option<String>,
}

impl Scan {
    /// Scans one mirror after the other; a failed scan does not stop the next one.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        match self.timeout {
            0 => self.scan_mirrors(daemon).await,
            seconds => tokio::time::timeout(Duration::from_secs(seconds), self.scan_mirrors(daemon))
                .await
                .unwrap_or_else(|_| {
                    writeln!(super::terminal::stdout())?;
                    Err(CommandError::Timeout(seconds))
                }),
        }
    }

    async fn scan_mirrors(&self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let mirrors = match (&self.identifier, self.all) {
            (Some(identifier), false) => vec![daemon.find(identifier).await?],
            (None, true) => all_mirrors(daemon).await?,
            _ => return Err(CommandError::Usage("scan either one mirror by its name, or -all")),
        };
        let mut failed = 0;
        for mirror in &mirrors {
            let mut out = super::terminal::stdout();
            // Without a terminal the line starts now, so that a log shows what is being waited for.
            let announcement = format!("Scanning {}... ", mirror.name);
            let at_once = !out.is_terminal();
            if at_once {
                write!(out, "{announcement}")?;
                out.flush()?;
            }
            let request =
                ScanMirrorRequest { id: mirror.id, auto_enable: self.enable, protocol: self.protocol().into() };
            let waiting = Waiting::show(format!("Scanning {}", mirror.name));
            let scanned = daemon.rpc.scan_mirror(request).await;
            drop(waiting);
            if !at_once {
                write!(out, "{announcement}")?;
            }
            match scanned {
                Ok(report) => write!(out, "{}", report_text(report.get_ref()))?,
                Err(status) => {
                    writeln!(out, "failed")?;
                    // The repository was not scanned, or nobody is there to scan: so it is for all mirrors.
                    let concerns_all =
                        matches!(status.code(), Code::FailedPrecondition | Code::Unavailable | Code::Unauthenticated);
                    if concerns_all || mirrors.len() == 1 {
                        return Err(status.into());
                    }
                    writeln!(super::terminal::stderr(), "{}: {}", mirror.name, status.message())?;
                    failed += 1;
                }
            }
        }
        if failed == 0 { Ok(()) } else { Err(CommandError::Scans { failed, all: mirrors.len() }) }
    }

    /// The one protocol that was asked for; all that the mirror offers when there was none, or more than one.
    fn protocol(&self) -> Method {
        match (self.rsync, self.ftp, self.http) {
            (true, false, false) => Method::Rsync,
            (false, true, false) => Method::Ftp,
            (false, false, true) => Method::Http,
            _ => Method::All,
        }
    }
}

async fn all_mirrors(daemon: &mut Daemon) -> Result<Vec<MirrorId>, CommandError> {
    let to_message = |mirror: Mirror| MirrorId { id: wire::id_to_wire(mirror.id), name: mirror.settings.name };
    Ok(daemon.mirrors().await?.into_iter().map(to_message).collect())
}

fn report_text(report: &ScanMirrorReply) -> String {
    let ScanMirrorReply { enabled, files_indexed, known_indexed, removed, tz_offset_ms } = *report;
    let mut text = format!("{files_indexed} files indexed, {known_indexed} known and {removed} removed\n");
    if tz_offset_ms != 0 {
        text.push_str(&format!("  ∟ Timezone offset detected and corrected: {tz_offset_ms} milliseconds\n"));
    }
    if enabled {
        text.push_str("  ∟ Enabled\n");
    }
    text
}

/// Options of `refresh`.
#[derive(Args, Debug)]
pub(super) struct Refresh {
    /// Hash all files again
    #[arg(long)]
    rehash: bool,
    /// Accept a repository that is empty or lost more than half of its files
    #[arg(long)]
    force: bool,
}

impl Refresh {
    /// Scans the repository and waits for the end.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let request = RefreshRepositoryRequest { rehash: self.rehash, force: self.force };
        let waiting = Waiting::show("Scanning the repository".to_owned());
        let refreshed = daemon.rpc.refresh_repository(request).await;
        drop(waiting);
        refreshed?;
        writeln!(super::terminal::stderr(), "Repository refreshed successfully")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_reported_with_what_applies() {
        let plain = ScanMirrorReply { files_indexed: 12, known_indexed: 10, removed: 1, ..ScanMirrorReply::default() };
        assert_eq!(report_text(&plain), "12 files indexed, 10 known and 1 removed\n");
        let more = ScanMirrorReply { enabled: true, tz_offset_ms: -3_600_000, ..plain };
        assert_eq!(
            report_text(&more),
            "12 files indexed, 10 known and 1 removed\n  ∟ Timezone offset detected and corrected: -3600000 \
             milliseconds\n  ∟ Enabled\n"
        );
    }
}
