//! The control plane: everything beside the answering of requests, on one tokio thread.
//!
//! - [`change_feed`]: brings what others change in the store before the shards, too
//! - [`daemon`]: puts it all together, from start to end
//! - [`orders`]: what operators order of the running daemon
//! - `connections`: limits of the connections to its servers
//! - [`control_socket`]: a listening socket of the control plane
//! - `freed_memory`: returns freed memory to the system
//! - [`index_watch`]: puts new generations of the index before the shards
//! - [`mirror_table`]: publishes the mirrors that the store holds, so that shards see them
//! - [`indexer`]: runs and watches `mb-indexer run`, and talks to it
//! - [`metrics`]: numbers and health of the daemon over HTTP
//! - [`retention`]: drops old statistics
//! - [`rpc`]: the gRPC service behind the command line
//! - [`mirror_fields`]: a mirror as keys and values, the way operators read and write it
//! - [`mirror_documents`]: the same, read back from YAML
//! - [`explain`]: which mirrors a client would be sent to, and why not to the others
//! - [`logging`], [`pid_file`], [`service_manager`]: what the system sees of the daemon
//! - [`version`]: what program this is

pub mod change_feed;
mod connections;
pub mod control_socket;
pub mod daemon;
pub mod explain;
mod freed_memory;
pub mod index_watch;
pub mod indexer;
pub mod logging;
pub mod metrics;
pub mod mirror_documents;
pub mod mirror_fields;
pub mod mirror_table;
pub mod orders;
pub mod pid_file;
pub mod retention;
pub mod rpc;
pub mod service_manager;
mod tasks;
pub mod version;
