//! The whole system under test: the real programs, real mirrors on loopback, real files.
//!
//! One module per story. All of them start what they need through [`harness`] and share nothing, so they run at the same
//! time, as threads of one process (`cargo test`) or as processes (nextest).

mod bad_input;
mod damaged_index;
mod demo;
mod descriptors;
mod existing_installation;
mod harness;
mod hostile_records;
mod hostile_requests;
mod http_surface;
mod indexer_killed;
mod interrupted_start;
mod many_mirrors;
mod metrics;
mod migrate;
mod mirror_changes;
mod mirror_lists;
mod no_threads;
mod outdated_files;
mod outside_changes;
mod packaging;
mod pages;
mod replaced_database;
mod repository_links;
mod right_file;
mod runtimes;
mod scripts;
mod secrets;
mod several_nodes;
mod shard_supervision;
mod statistics;
mod stopped_log_reader;
mod stopped_neighbours;
mod store_outage;
mod thread_panics;
mod two_daemons;
mod unread_answers;
mod upgrade;
