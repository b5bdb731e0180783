//! Range requests of one client for one file are one download as long as each comes within an interval after the one
//! before. Decided off the request path: shards only hand over a hash of who asked for what, and when.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// Downloads remembered in one generation; there are two. With 48 bytes each, at most 50 MB, when half a million clients
/// resume downloads within one interval.
const GENERATION_MAX: usize = 500_000;

/// Stands for client and file. The nodes of a cluster know a download by it, so it has no secret: a client that looks for
/// collisions can only keep its own downloads from being counted.
pub fn hash(client: IpAddr, user_agent: &[u8], path: &[u8]) -> u128 {
    let address = match client {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let who = xxh3_64_with_seed(user_agent, xxh3_64_with_seed(&address.octets(), 0));
    xxh3_128_with_seed(path, who)
}

/// The downloads that this node saw lately.
///
/// Kept in two generations, of which the older is dropped when it is older than an interval, or when the younger is full:
/// what is forgotten too early counts once more.
#[derive(Debug, Default)]
pub struct SeenDownloads {
    young: HashMap<u128, Instant>,
    old: HashMap<u128, Instant>,
    /// When the younger generation began.
    began: Option<Instant>,
}

impl SeenDownloads {
    /// Notes a request of the time `at`, and tells whether it continues a download: the same was seen within `interval`
    /// before it.
    pub fn note(&mut self, hash: u128, at: Instant, interval: Duration) -> bool {
        let began = *self.began.get_or_insert(at);
        if at.saturating_duration_since(began) > interval || self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
            self.began = Some(at);
        }
        let before = self.young.insert(hash, at).or_else(|| self.old.remove(&hash));
        before.is_some_and(|before| at.saturating_duration_since(before) <= interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn every_request_restarts_the_interval() {
        let mut seen = SeenDownloads::default();
        let start = Instant::now();
        let mut note = |after: Duration| seen.note(1, start + after, MINUTE);
        assert!(!note(Duration::ZERO));
        assert!(note(MINUTE));
        assert!(note(2 * MINUTE));
        assert!(!note(3 * MINUTE + Duration::from_millis(1)));
        assert!(note(3 * MINUTE), "shards hand over one after the other");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = SeenDownloads::default();
        let start = Instant::now();
        for hash in 0..3 * GENERATION_MAX as u128 {
            seen.note(hash, start, MINUTE);
        }
        assert!(seen.young.len() + seen.old.len() <= 2 * GENERATION_MAX);
        assert!(seen.note(3 * GENERATION_MAX as u128 - 1, start, MINUTE));
        for hash in 0..10 {
            seen.note(hash, start + 10 * MINUTE, MINUTE);
            seen.note(hash, start + 20 * MINUTE, MINUTE);
        }
        assert!(seen.young.len() + seen.old.len() <= 20, "what is over is forgotten");
    }

    #[test]
    fn client_agent_and_file_tell_downloads_apart() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = hash(address("192.0.2.1"), b"wget", b"/a");
        assert_eq!(first, hash(address("::ffff:192.0.2.1"), b"wget", b"/a"));
        assert_ne!(first, hash(address("192.0.2.2"), b"wget", b"/a"));
        assert_ne!(first, hash(address("192.0.2.1"), b"curl", b"/a"));
        assert_ne!(first, hash(address("192.0.2.1"), b"wget", b"/b"));
    }
}
