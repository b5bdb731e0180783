//! Which mirrors answer for a file: drawn by the shortlist of the client's place, or from candidates that are cached by the
//! file's set of mirrors where a shortlist cannot tell.

use std::rc::Rc;

use mb_index::{FileIndex, FileRef};

use super::Exchange;
use super::locate::{Location, Origin};
use crate::select::associative::{Announced, AssociativeCache, Found};
use crate::select::cache::Cache;
use crate::select::draw::Candidates;
use crate::select::filter::{FileCopy, Source};
use crate::select::score::Query;
use crate::select::shortlist::{self, Shortlist};
use crate::select::{Client, Evaluation, Wanted};
use crate::snapshot::Snapshot;

/// Most bytes of candidates that a shard keeps.
const CANDIDATES_BUDGET: usize = 16 * 1024 * 1024;
/// Most shortlists that a shard keeps, of 2 KB or so each. A guess: the places and networks of an hour's clients.
const SHORTLISTS: usize = 32 * 1024;

/// What was found out about which mirrors may answer.
pub struct Choices {
    shortlists: AssociativeCache<Shortlist>,
    /// Where a shortlist cannot tell.
    candidates: Cache<CandidatesKey, Rc<Candidates>>,
}

impl Choices {
    /// Nothing yet.
    pub fn new() -> Choices {
        Choices { shortlists: AssociativeCache::new(SHORTLISTS), candidates: Cache::new(CANDIDATES_BUDGET) }
    }

    /// Forgets everything: what the choice depends on has changed.
    pub fn clear(&mut self) {
        self.shortlists.clear();
        self.candidates.clear();
    }

    /// Asks for the memory of the shortlist that [`Choices::announce`] was told of.
    pub(super) fn fetch(&self, among: &Among) {
        if let Some(found) = self.shortlists.find(among.shortlist) {
            self.shortlists.fetch(found, shortlist::USUAL_BYTES);
        }
    }

    /// Asks for what is known of the choice for clients of `origin`.
    pub(super) fn announce(&self, snapshot: &Snapshot, origin: &Origin<'_>, wanted: Wanted) -> Among {
        // Clients in a network that no mirror stands in are alike. A mirror's number is of 24 bits at most, as are the
        // mirrors that memory has room for.
        let network = snapshot.mirrors.place_of_asn(origin.asn).unwrap_or(0);
        let key =
            u64::from(origin.place_key.number()) << 32 | u64::from(network) << 8 | (wanted as u64).wrapping_add(1);
        Among { key, shortlist: self.shortlists.announce(key) }
    }
}

/// What makes choices differ: the place, the network if it matters, and the schemes that may answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Among {
    key: u64,
    shortlist: Announced,
}

/// What makes candidates differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CandidatesKey {
    set: u32,
    among: u64,
}

impl Exchange<'_, '_, '_> {
    /// Draws at most `count` mirrors for the file; `false` when none may answer.
    pub(super) fn draw(
        &mut self,
        files: &FileIndex,
        file: FileRef<'_>,
        origin: &Origin<'_>,
        wanted: Wanted,
        count: usize,
    ) -> bool {
        let exceptional =
            file.exceptions().len() > 0 && self.snapshot.settings.rules.outdated_minutes(file.path()).is_some();
        if exceptional {
            // Copies that differ may be accepted: this file is unlike the others of its set.
            let candidates = self.evaluate_for(files, file, origin, wanted);
            return self.draw_among(&candidates, count);
        }
        let among = self.among.take().unwrap_or_else(|| self.choices.announce(self.snapshot, origin, wanted));
        let set = files.set(file.set());
        if let Some(found) = self.shortlist(origin, &among, wanted) {
            let shortlist = self.choices.shortlists.value(found);
            let (drawn, random) = (&mut self.scratch.drawn, &mut *self.random);
            let contains = |ordinal| set.contains(ordinal);
            if shortlist.draw_prepared(|words| set.includes(words), contains, count, drawn, |n| random.u64(..n)) {
                return true;
            }
            let candidates = &mut self.scratch.candidates;
            if shortlist.candidates(&self.snapshot.mirrors, contains, candidates) {
                candidates.draw(count, drawn, |n| random.u64(..n));
                return true;
            }
        }
        let key = CandidatesKey { set: file.set().number(), among: among.key };
        let known = self.choices.candidates.get(&key, |candidates| candidates.bytes());
        let candidates = known.unwrap_or_else(|| {
            let candidates = Rc::new(self.evaluate_for(files, file, origin, wanted));
            self.choices.candidates.insert(key, candidates.clone(), candidates.bytes());
            candidates
        });
        self.draw_among(&candidates, count)
    }

    fn evaluate_for(
        &mut self,
        files: &FileIndex,
        file: FileRef<'_>,
        origin: &Origin<'_>,
        wanted: Wanted,
    ) -> Candidates {
        let location = self.locator.locate(origin);
        let client = comparable(self.snapshot, location.client());
        let scratch = &mut self.scratch.evaluation;
        scratch.evaluate(self.snapshot, files, file, &location, client, wanted);
        Candidates::of(&scratch.evaluation)
    }

    fn draw_among(&mut self, candidates: &Candidates, count: usize) -> bool {
        let random = &mut *self.random;
        candidates.draw(count, &mut self.scratch.drawn, |n| random.u64(..n));
        !candidates.is_empty()
    }

    /// The shortlist of a place; `None` for a client that is not located.
    fn shortlist(&mut self, origin: &Origin<'_>, among: &Among, wanted: Wanted) -> Option<Found> {
        self.choices.shortlists.find(among.shortlist).or_else(|| {
            let snapshot = self.snapshot;
            let location = self.locator.locate(origin);
            let client = comparable(snapshot, location.client());
            if !client.is_located() {
                return None;
            }
            let shortlist = Shortlist::of(
                &snapshot.mirrors,
                snapshot.mirrors_by_ordinal(),
                client,
                wanted,
                snapshot.settings.rules.weight_distribution_range,
                |row| location.place.distance(snapshot.mirrors.row(row)),
            );
            Some(self.choices.shortlists.insert(among.shortlist, shortlist))
        })
    }
}

/// The client without a network that no mirror stands in, so that clients which are alike share their candidates.
pub(super) fn comparable(snapshot: &Snapshot, client: Client) -> Client {
    let asn = if snapshot.mirrors.place_of_asn(client.asn).is_some() { client.asn } else { 0 };
    Client { asn, ..client }
}

pub(super) fn source(snapshot: &Snapshot, file: FileRef<'_>) -> Source {
    let rules = &snapshot.settings.rules;
    Source {
        size: file.size(),
        modified: file.modified(),
        outdated_minutes: rules.outdated_minutes(file.path()),
        fix_timezone_offsets: rules.fix_timezone_offsets,
    }
}

/// Memory of evaluations, used again from one to the next.
#[derive(Default)]
pub(super) struct EvaluationScratch {
    pub(super) evaluation: Evaluation,
    distances: Vec<f32>,
}

impl EvaluationScratch {
    /// Evaluates all mirrors for `client`, which is at `location`.
    pub(super) fn evaluate(
        &mut self,
        snapshot: &Snapshot,
        files: &FileIndex,
        file: FileRef<'_>,
        location: &Location,
        client: Client,
        wanted: Wanted,
    ) {
        self.distances.resize(snapshot.mirrors.len(), 0.0);
        for (row, _) in copies(snapshot, files, file) {
            if let Some(distance) = self.distances.get_mut(row as usize) {
                *distance = location.place.distance(snapshot.mirrors.row(row));
            }
        }
        let query = Query {
            source: source(snapshot, file),
            client,
            distances: &self.distances,
            wanted,
            weight_distribution_range: snapshot.settings.rules.weight_distribution_range,
        };
        self.evaluation.evaluate(&snapshot.mirrors, &query, copies(snapshot, files, file));
    }
}

/// The mirrors that have `file`, by their rows, with their copies.
pub(super) fn copies<'a>(
    snapshot: &'a Snapshot,
    files: &'a FileIndex,
    file: FileRef<'a>,
) -> impl Iterator<Item = (u32, FileCopy)> + 'a {
    let matching = files.set(file.set()).ordinals().map(|ordinal| (ordinal, FileCopy::Matches));
    let differing = file
        .exceptions()
        .map(|exception| (exception.mirror, FileCopy::Differs { size: exception.size, modified: exception.modified }));
    matching.chain(differing).filter_map(|(ordinal, copy)| Some((snapshot.row(ordinal)?, copy)))
}
