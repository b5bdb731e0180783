//! Numbers and health of the daemon on `MetricsListenAddress`: `/metrics`, `/healthz`, `/readyz`.
//!
//! - [`Watch`]: gathers what they show
//! - `server`: serves them
//!
//! What is made of the facts is in [`crate::metrics`]. Nothing here waits for the store: it is asked now and then, and a look
//! shows what it answered last.

mod server;
mod watch;

pub use server::serve;
pub use watch::{Sources, Watch};
