//! Starts real programs in a temporary folder on loopback addresses of their own, and ends them when dropped.
//!
//! - [`host`]: loopback addresses that no other test uses, in places that the test geo databases know
//! - [`program`]: a running program, its output, its end
//! - [`tree`]: folders of files with given sizes and times
//! - [`servers`]: rsync daemon and nginx, the mirrors
//! - [`redis`]: a Redis server and its command line
//! - [`redirector`]: the daemon under test, its configuration and its command line
//! - [`near_and_far`]: two mirrors, of which a client is sent to the near one
//! - [`http`]: a client that sends and shows exact bytes
//! - [`metrics`]: the page of metrics, taken apart

pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod metrics;
pub(crate) mod near_and_far;
pub(crate) mod program;
pub(crate) mod redirector;
pub(crate) mod redis;
pub(crate) mod servers;
pub(crate) mod tree;

use std::time::{Duration, Instant};

/// How long anything that must happen may take on a slow, busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Waits until `condition` gives a value, and panics with `what` and its last answer when it takes longer than [`PATIENCE`].
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) if Instant::now() >= deadline => panic!("{what}: not within {PATIENCE:?}: {why}"),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}
