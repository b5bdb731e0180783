//! Changes by other nodes and outside tools, as published by them: a connection of its own, made anew when it is lost.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::cluster;
use super::connection::Pool;
use super::failure::Failure;
use super::keys;
use crate::mirror::MirrorId;
use crate::store::watch::{Change, ChangeWatch, Ended};
use crate::supervise::keep_going;

/// How soon the end of a watch is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// After so long without a message the server is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(3);
/// How long its answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Starts to watch, on a thread of its own, and to announce this node, which is what watches.
pub(super) fn start(pool: Arc<Pool>, mut on_change: Box<dyn FnMut(Change) + Send>) -> ChangeWatch {
    let (watch, ended) = ChangeWatch::new();
    cluster::start(Arc::clone(&pool), ended.clone());
    let work = move || {
        let mut reported = false;
        keep_going("redis-watch", || {
            while !ended.is_ended() {
                let mut on_change = |change| {
                    reported = false;
                    on_change(change);
                };
                if let Err(failure) = follow(&pool, &mut on_change, &ended) {
                    if !reported {
                        tracing::warn!(
                            "{}: changes of other nodes are not seen until it is back: {}",
                            pool.name(),
                            failure.text()
                        );
                        reported = true;
                    }
                    pause(&ended);
                }
            }
        });
    };
    if let Err(cause) = thread::Builder::new().name("redis-watch".to_owned()).spawn(work) {
        tracing::error!("changes of other nodes are not seen until a restart: no thread can be started: {cause}");
    }
    watch
}

fn pause(ended: &Ended) {
    let end = Instant::now() + RETRY_PAUSE;
    while !ended.is_ended() && Instant::now() < end {
        thread::sleep(LOOK_INTERVAL.min(RETRY_PAUSE));
    }
}

/// Subscribes, and hands messages over until the watch or the connection ends.
fn follow(pool: &Pool, on_change: &mut dyn FnMut(Change), ended: &Ended) -> Result<(), Failure> {
    let mut session = pool.connect()?;
    let mut subscription = session.connection().as_pubsub();
    subscription.subscribe(keys::MIRROR_CHANNEL)?;
    on_change(Change::Everything);
    subscription.set_read_timeout(Some(LOOK_INTERVAL))?;
    let mut heard = Instant::now();
    while !ended.is_ended() {
        crate::fault::point("redis-watch");
        match subscription.get_message() {
            Ok(message) => {
                heard = Instant::now();
                let id = std::str::from_utf8(message.get_payload_bytes()).ok().and_then(|id| id.parse().ok());
                on_change(id.map_or(Change::Everything, |id| Change::Mirror(MirrorId(id))));
            }
            Err(error) if error.is_timeout() && heard.elapsed() < SILENCE => {}
            Err(error) if error.is_timeout() => {
                subscription.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                subscription.ping::<redis::Value>()?;
                subscription.set_read_timeout(Some(LOOK_INTERVAL))?;
                heard = Instant::now();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
