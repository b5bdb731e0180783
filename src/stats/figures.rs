//! What is known of deliveries and of the download log, for metrics and `/readyz`: plain numbers that the threads
//! keep up to date and anybody may read.

use std::sync::atomic::{AtomicBool, AtomicU64};

/// The numbers. Each is exact by itself; two of them may be of different moments.
#[derive(Debug, Default)]
pub struct Figures {
    /// Whether the latest attempt to deliver counts failed.
    pub store_is_away: AtomicBool,
    /// Batches that the store took.
    pub deliveries: AtomicU64,
    /// Attempts to deliver that failed.
    pub failed_deliveries: AtomicU64,
    /// How long the latest delivery took, in nanoseconds.
    pub delivery_nanoseconds: AtomicU64,
    /// Downloads that the store took.
    pub delivered_downloads: AtomicU64,
    /// Downloads that are on disk and not in the store.
    pub spooled_downloads: AtomicU64,
    /// Downloads that are in memory alone.
    pub waiting_downloads: AtomicU64,
    /// Whether the spool cannot be written, so that what waits would be lost with this process.
    pub spool_has_failed: AtomicBool,
    /// Lines of the download log that were written.
    pub logged_lines: AtomicU64,
    /// Lines of the download log that were dropped: the disk was full, or the reader of a pipe did not keep up.
    pub dropped_lines: AtomicU64,
}
