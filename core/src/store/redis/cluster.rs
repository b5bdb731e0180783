//! Telling the other nodes that this one is there, as Mirrorbits' nodes do: every second `HELLO<database> <node id>`.
//!
//! It is for outside tools, and for Mirrorbits nodes beside us, which share the checks of mirrors out among all they hear
//! of. Our own nodes take turns by leases and listen to nobody.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::connection::Pool;
use super::keys;
use crate::store::watch::Ended;
use crate::supervise::keep_going;

/// That of Mirrorbits.
const INTERVAL: Duration = Duration::from_secs(1);

/// Starts to announce this process, on a thread of its own, until the watch ends.
pub(super) fn start(pool: Arc<Pool>, ended: Ended) {
    let work = move || {
        let text = format!("HELLO{} {}", pool.database(), node_id());
        keep_going("redis-cluster", || {
            while !ended.is_ended() {
                crate::fault::point("redis-cluster");
                let announced = pool.with_session(|session| {
                    session.query::<i64>(redis::cmd("PUBLISH").arg(keys::CLUSTER_CHANNEL).arg(&text))
                });
                if let Err(failure) = announced {
                    // The watch reports an outage.
                    tracing::debug!("{}: this node is not announced: {}", pool.name(), failure.text());
                }
                thread::sleep(INTERVAL);
            }
        });
    };
    if let Err(cause) = thread::Builder::new().name("redis-cluster".to_owned()).spawn(work) {
        tracing::error!("other nodes do not hear of this one until a restart: no thread can be started: {cause}");
    }
}

/// Host name and process id: no two nodes of a database share both.
fn node_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "node" } else { host }, std::process::id())
}
