//! The control plane: everything beside the answering of requests, on one tokio thread.
//!
//! - [`mirror_table`]: publishes the mirrors that the store holds, so that shards see them
//! - [`indexer`]: runs and watches `mb-indexer run`, and talks to it
//! - [`rpc`]: the gRPC service behind the command line
//! - [`mirror_fields`]: a mirror as keys and values, the way operators read and write it
//! - [`version`]: what program this is
//!
//! # How the daemon puts it together
//!
//! ```ignore
//! let table = Arc::new(MirrorTable::new(store, &config.index_dir()));
//! // Or none, with -monitor=false:
//! let indexer = SupervisedIndexer::start(indexer::program(), config_path, &config.state_dir);
//! let link = IndexerLink::new(&config.state_dir);
//! let listener = rpc::bind(&config.rpc_listen_address).await?;
//! let locate: rpc::Locate = Arc::new(move |address| {
//!     let located = geo.locate(address);
//!     (located.place(), located.autonomous_system())
//! });
//! let service = rpc::Service::new(table, link, locate, config.rpc_password.as_bytes());
//! rpc::serve(listener, service, shutdown).await?;
//! indexer.stop().await;
//! ```
//!
//! [`rpc::serve`] also publishes again what could not be published at once. [`rpc::bind`] is apart from it, since a
//! listener can as well be handed over by another process. `locate` is called once per added mirror, so it may look up
//! whichever geo database is in use then.

pub mod indexer;
pub mod mirror_fields;
pub mod mirror_table;
pub mod rpc;
pub mod version;
