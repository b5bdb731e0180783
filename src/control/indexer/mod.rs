//! The indexer seen from the daemon: a child process that is kept running ([`SupervisedIndexer`]) and a socket to ask it
//! for work ([`IndexerLink`]).
//!
//! The two are independent: with `-monitor=false` nothing is supervised, and an indexer started by other means still
//! answers on the socket.

mod link;
mod supervise;

pub use link::{IndexerLink, LinkError, Outcome};
pub use supervise::{IndexerState, SupervisedIndexer, program};
