//! Range deduplication: the parts of one download, requested by `Range` one after the other, count once over all nodes.
//!
//! Requests of one client and user agent for one file are one download as long as each comes within an interval after the
//! one before. Shards only hand over a hash of who asked for what, and when; the rest is done here, off the request path:
//!
//! 1. A request that continues a download which this node knows (`RecentDownloads`) does not count.
//! 2. Any other is a *candidate*. The store, which the nodes share, is asked about all candidates of a collection in one
//!    [`Question`]; those that are new to it count.
//! 3. The same question tells the store of the requests that continued a download, so that the other nodes know it as long.
//!    A candidate and what continued it within one collection are one entry: told apart, the second would make the first
//!    look like the continuation of itself.
//! 4. Without an answer (store away, or late) each candidate counts: a download counts at least once on each node that
//!    could not ask, and never not at all.
//!
//! [`DownloadDedup`] is a value without clock, thread or store, so that a test can play every order of events.

#[cfg(test)]
mod model;
mod recent;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mb_core::store::Sighting;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use self::recent::RecentDownloads;

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

/// What the store is asked and told after a collection. It answers for each entry whether it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Comes back with the answer.
    pub number: u64,
    /// The entries, in order of time.
    pub sightings: Vec<Sighting>,
}

/// The range deduplication of one node. `T` is what a candidate counts for.
#[derive(Debug)]
pub struct DownloadDedup<T> {
    recent: RecentDownloads,
    /// Of the next question: what it says, and what counts if that is new.
    next: Vec<(Sighting, Option<T>)>,
    /// Where in `next` the latest entry of a download is.
    places: HashMap<u128, usize>,
    /// Of the question that waits for its answer, by the places of its entries.
    asked: Option<(u64, Vec<Option<T>>)>,
    /// Of the latest question.
    number: u64,
}

impl<T> Default for DownloadDedup<T> {
    fn default() -> DownloadDedup<T> {
        DownloadDedup {
            recent: RecentDownloads::default(),
            next: Vec::new(),
            places: HashMap::new(),
            asked: None,
            number: 0,
        }
    }
}

impl<T> DownloadDedup<T> {
    /// Takes a request of the time `at`, which counts for `download` if it continues none. The requests of a collection are
    /// to come in order of time.
    pub fn note(&mut self, hash: u128, at: Instant, interval: Duration, download: impl FnOnce() -> T) {
        let continues = self.recent.note(hash, at, interval);
        if continues && let Some((sighting, _)) = self.places.get(&hash).and_then(|place| self.next.get_mut(*place)) {
            sighting.first = sighting.first.min(at);
            sighting.last = sighting.last.max(at);
            sighting.interval = interval;
            return;
        }
        self.places.insert(hash, self.next.len());
        self.next.push((Sighting { hash, first: at, last: at, interval }, (!continues).then(download)));
    }

    /// What is to be asked now; `None` when there is nothing, or while an answer is to come.
    pub fn question(&mut self) -> Option<Question> {
        if self.asked.is_some() || self.next.is_empty() {
            return None;
        }
        self.places.clear();
        let (sightings, candidates) = self.next.drain(..).unzip();
        self.number += 1;
        self.asked = Some((self.number, candidates));
        Some(Question { number: self.number, sightings })
    }

    /// The candidates that count, by the answer to the question with this number: `new` of each entry, or nothing when it
    /// failed. Nothing counts by an answer that comes after [`DownloadDedup::decide_alone`].
    pub fn answered(&mut self, number: u64, new: Option<&[bool]>) -> Vec<T> {
        let Some((_, candidates)) = self.asked.take_if(|(asked, _)| *asked == number) else { return Vec::new() };
        // An entry without an answer counts.
        let counts = |place: usize| new.and_then(|new| new.get(place)).copied().unwrap_or(true);
        candidates.into_iter().enumerate().filter(|(place, _)| counts(*place)).filter_map(|(_, what)| what).collect()
    }

    /// All candidates: the store does not answer in time.
    pub fn decide_alone(&mut self) -> Vec<T> {
        self.places.clear();
        let asked = self.asked.take().map(|(_, candidates)| candidates).unwrap_or_default();
        asked.into_iter().chain(self.next.drain(..).map(|(_, what)| what)).flatten().collect()
    }

    /// Whether an answer is to come.
    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Candidates that are not decided.
    pub fn undecided(&self) -> usize {
        let asked = self.asked.iter().flat_map(|(_, candidates)| candidates);
        asked.chain(self.next.iter().map(|(_, what)| what)).flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two requests for parts of a download within one collection counted 0: the second was told to the store before it
    /// was asked about the first.
    #[test]
    fn parts_of_one_collection_are_one_entry() {
        let start = Instant::now();
        let interval = Duration::from_secs(600);
        let mut dedup = DownloadDedup::default();
        for milliseconds in [0, 10, 20] {
            dedup.note(7, start + Duration::from_millis(milliseconds), interval, || milliseconds);
        }
        let question = dedup.question().unwrap();
        let last = start + Duration::from_millis(20);
        assert_eq!(question.sightings, [Sighting { hash: 7, first: start, last, interval }]);
        assert!(dedup.question().is_none() && dedup.is_asking() && dedup.undecided() == 1);
        assert_eq!(dedup.answered(question.number, Some(&[true])), [0]);
        assert!(dedup.question().is_none() && dedup.undecided() == 0);
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
