//! What the redirector (`mirrorbits`) and the indexer (`mb-indexer`) share.
//!
//! - [`arguments`]: command-line options with one dash, as existing scripts write them
//! - [`config`]: the configuration file, as typed by the operator and as used by the programs
//! - [`fault`]: panics and shorter limits that tests ask a running program for
//! - [`folder_lock`]: for what one process at a time changes in a folder
//! - [`foreign_text`]: text of foreign origin, escaped for terminals and logs
//! - [`log_writer`]: a log whose writing holds nothing up
//! - [`memory`]: asked for ahead of its use, and in huge pages
//! - [`mirror`]: the mirror record and its states
//! - [`priority`]: what gives way to answering requests
//! - [`path`]: repository paths: decoding, cleaning, encoding
//! - [`geo`]: from a network address to a place and an autonomous system
//! - [`secret`]: passwords, and URLs without them
//! - [`store`]: mirror records, source files and mirror logs, behind one trait
//! - [`supervise`]: parts of a program that go on after a panic, and how long their work takes
//! - [`link`]: the messages between the daemon and the indexer it supervises
//! - [`time`]: Unix seconds as the store and the wire know them, and file times in nanoseconds
//!
//! Nothing here knows how requests are answered or mirrors are scanned.

pub mod arguments;
pub mod config;
pub mod fault;
pub mod folder_lock;
pub mod foreign_text;
pub mod geo;
pub mod link;
pub mod log_writer;
pub mod memory;
pub mod mirror;
pub mod path;
pub mod priority;
pub mod secret;
pub mod store;
pub mod supervise;
pub mod time;
