//! `mb-indexer scan`: one scan of the source, of a mirror, or of all of them.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mb_core::foreign_text::ForeignText;
use mb_core::link::ScanReport;
use mb_core::mirror::{Found, Mirror, find_by_name};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::{CommandError, block_on, end_signal, open};
use crate::indexer::{Indexer, StartError};
use crate::progress::Progress;
use crate::scan::place::ScanPlace;
use crate::scan::{Occasion, ScanError, ScanOrder, scan_mirror};

/// How often progress is shown on a terminal.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);

/// What to scan.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct ScanArguments {
    /// Scan all mirrors
    #[arg(long, group = "what", conflicts_with = "name")]
    all: bool,
    /// Scan the source repository; with -all or NAME, before the mirrors
    #[arg(long, group = "what")]
    source: bool,
    /// Scan one mirror: its name, or a part of it that fits no other
    #[arg(group = "what")]
    name: Option<String>,
    /// Enable a mirror when its scan succeeds
    #[arg(long)]
    enable: bool,
    /// Hash every file of the source again
    #[arg(long, requires = "source")]
    rehash: bool,
    /// Accept a source that lost more than half of its files
    #[arg(long, requires = "source")]
    force: bool,
    /// Give a mirror's scan up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
}

/// Scans once. What fails is said at once; the others go on.
pub(super) fn scan(config_path: &Path, arguments: ScanArguments) -> Result<(), CommandError> {
    let indexer = open(config_path)?;
    block_on(&indexer, async {
        tokio::select! {
            outcome = scan_what(&indexer, &arguments) => outcome,
            signal = end_signal() => {
                signal.map_err(CommandError::System)?;
                Err(CommandError::Interrupted)
            }
        }
    })?
}

async fn scan_what(indexer: &Arc<Indexer>, arguments: &ScanArguments) -> Result<(), CommandError> {
    if arguments.source {
        scan_source(indexer, arguments).await?;
    }
    let mirrors = indexer.blocking(|indexer| indexer.store.mirrors()).await.map_err(StartError::Store)?;
    match &arguments.name {
        Some(name) => scan_all(indexer, arguments, vec![named(&mirrors, name)?.clone()]).await,
        None if arguments.all => scan_all(indexer, arguments, mirrors).await,
        None => Ok(()),
    }
}

fn named<'m>(mirrors: &'m [Mirror], name: &str) -> Result<&'m Mirror, CommandError> {
    match find_by_name(mirrors, |mirror| &mirror.settings.name, name) {
        Found::One(mirror) => Ok(mirror),
        Found::None => Err(CommandError::NoSuchMirror(format!("no mirror is named {name}"))),
        Found::Several(several) => {
            let names: Vec<_> = several.iter().map(|mirror| mirror.settings.name.as_str()).collect();
            Err(CommandError::NoSuchMirror(format!("{name} fits several mirrors: {}", names.join(", "))))
        }
    }
}

async fn scan_source(indexer: &Arc<Indexer>, arguments: &ScanArguments) -> Result<(), CommandError> {
    let (progress, messages) = Progress::channel();
    let shown = show(messages);
    let outcome = indexer.scan_source(arguments.rehash, arguments.force, true, &progress).await;
    shown.abort();
    clear_line();
    match outcome {
        Ok(report) => {
            println!(
                "Scanning the repository... {} files, {} hashed, {} removed, {} not readable",
                report.files, report.hashed, report.removed, report.unreadable
            );
            Ok(())
        }
        Err(error) => {
            eprintln!("mb-indexer: {}", ForeignText::new(&error.to_string()));
            Err(CommandError::Scans)
        }
    }
}

async fn scan_all(indexer: &Arc<Indexer>, arguments: &ScanArguments, mirrors: Vec<Mirror>) -> Result<(), CommandError> {
    let places = Arc::new(Semaphore::new(indexer.config().concurrent_sync));
    let (progress, messages) = Progress::channel();
    let shown = show(messages);
    let scans: Vec<_> = mirrors
        .iter()
        .map(|mirror| {
            let order = ScanOrder {
                mirror: mirror.id,
                enable: arguments.enable,
                protocol: None,
                limit: arguments.timeout.map(Duration::from_secs),
                occasion: Occasion::Asked,
            };
            let (indexer, places, progress) = (Arc::clone(indexer), Arc::clone(&places), progress.clone());
            tokio::spawn(async move {
                // The semaphore is never closed.
                let place = ScanPlace::kept(places.acquire_owned().await.ok());
                scan_mirror(&indexer, order, &progress, place).await
            })
        })
        .collect();
    let mut all_succeeded = true;
    for (mirror, scan) in mirrors.iter().zip(scans) {
        all_succeeded &= report(&mirror.settings.name, scan).await;
    }
    shown.abort();
    clear_line();
    if all_succeeded { Ok(()) } else { Err(CommandError::Scans) }
}

/// Prints the outcome of a scan when it is there; returns whether it succeeded.
async fn report(name: &str, scan: JoinHandle<Result<ScanReport, ScanError>>) -> bool {
    let outcome = scan.await;
    clear_line();
    let name = ForeignText::new(name);
    match outcome {
        Ok(Ok(report)) => {
            println!(
                "Scanning {name}... {} files indexed, {} known and {} removed",
                report.files_indexed, report.known_indexed, report.removed
            );
            if report.timezone_offset_ms != 0 {
                println!("  ∟ Timezone offset detected and corrected: {} milliseconds", report.timezone_offset_ms);
            }
            if report.enabled {
                println!("  ∟ Enabled");
            }
            true
        }
        Ok(Err(error)) => {
            eprintln!("Scanning {name}... {}", ForeignText::new(&error.to_string()));
            false
        }
        Err(error) => {
            eprintln!("Scanning {name}... {}", ForeignText::new(&error.to_string()));
            false
        }
    }
}

/// Shows the latest progress message on a terminal; elsewhere the output stays plain.
fn show(mut messages: watch::Receiver<String>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if !std::io::stderr().is_terminal() {
            return;
        }
        while messages.changed().await.is_ok() {
            let message = messages.borrow_and_update().clone();
            eprint!("\r\x1b[K{}", ForeignText::new(&message));
            tokio::time::sleep(SHOW_INTERVAL).await;
        }
    })
}

fn clear_line() {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // A terminal that cannot be written to needs no clean line.
        let _ = stderr.write_all(b"\r\x1b[K");
    }
}
