//! The rule of [`Store::note_sightings`](super::Store::note_sightings), in memory: what tests
//! compare the nodes' side and the script in Redis with, so that both follow the same one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::stats::Sighting;

/// How much longer than its interval a download is remembered: nodes report their requests up to
/// this late. Usual is a second.
pub const LATENESS_MAX: Duration = Duration::from_secs(10);

/// The first and the latest request of each download. Nothing expires here.
#[derive(Clone, Debug, Default)]
pub struct KnownDownloads(HashMap<u128, (Instant, Instant)>);

impl KnownDownloads {
    /// Notes sightings, and returns of each whether it continues no download that was noted before.
    pub fn note(&mut self, sightings: &[Sighting]) -> Vec<bool> {
        sightings.iter().map(|sighting| self.note_one(sighting)).collect()
    }

    fn note_one(&mut self, sighting: &Sighting) -> bool {
        let Sighting { hash, first, last, interval } = *sighting;
        let Some((from, to)) = self.0.get(&hash).copied() else {
            self.0.insert(hash, (first, last));
            return true;
        };
        let continues = first <= to + interval && last + interval >= from;
        if continues {
            self.0.insert(hash, (first.min(from), last.max(to)));
        } else if last > to || last + interval + LATENESS_MAX < from {
            // An earlier download that is reported late leaves the latest as it is, unless the
            // clock was set back.
            self.0.insert(hash, (first, last));
        }
        !continues
    }
}
