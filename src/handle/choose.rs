//! Which mirrors answer for a file: drawn by the shortlist of the client's place, or from candidates that are cached by the
//! file's set of mirrors where a shortlist cannot tell.

use std::rc::Rc;

use mb_core::geo::RecordKey;
use mb_index::{FileIndex, FileRef};

use super::Exchange;
use super::locate::{Location, Origin};
use crate::select::cache::Cache;
use crate::select::draw::Candidates;
use crate::select::filter::{FileCopy, Source};
use crate::select::score::Query;
use crate::select::shortlist::Shortlist;
use crate::select::{Client, Wanted};
use crate::snapshot::Snapshot;

/// Most bytes of candidates that a shard keeps.
const CANDIDATES_BUDGET: usize = 16 * 1024 * 1024;
/// Most bytes of shortlists that a shard keeps: some 20,000 places and networks with 64 or more mirrors.
const SHORTLISTS_BUDGET: usize = 48 * 1024 * 1024;

/// What was found out about which mirrors may answer.
pub struct Choices {
    shortlists: Cache<ShortlistKey, Shortlist>,
    /// Where a shortlist cannot tell.
    candidates: Cache<CandidatesKey, Rc<Candidates>>,
}

impl Choices {
    /// Nothing yet.
    pub fn new() -> Choices {
        Choices { shortlists: Cache::new(SHORTLISTS_BUDGET), candidates: Cache::new(CANDIDATES_BUDGET) }
    }

    /// Forgets everything: what the choice depends on has changed.
    pub fn clear(&mut self) {
        self.shortlists.clear();
        self.candidates.clear();
    }
}

/// What makes shortlists differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ShortlistKey {
    place: RecordKey,
    asn: u32,
    wanted: Wanted,
}

/// What makes candidates differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CandidatesKey {
    set: u32,
    among: ShortlistKey,
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
        let among = ShortlistKey { place: origin.place_key, asn: self.comparable_asn(origin.asn), wanted };
        if let Some(shortlist) = self.shortlist(origin, among) {
            let set = files.set(file.set());
            let mut candidates = std::mem::take(&mut self.scratch.candidates);
            let mirrors = &self.snapshot.mirrors;
            let told = shortlist.candidates(mirrors, |ordinal| set.contains(ordinal), &mut candidates);
            let drawn = told && self.draw_among(&candidates, count);
            self.scratch.candidates = candidates;
            if drawn {
                return true;
            }
        }
        let key = CandidatesKey { set: file.set().number(), among };
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
        let client = self.comparable(location.client());
        self.evaluate(files, file, &location, client, wanted);
        Candidates::of(&self.scratch.evaluation)
    }

    fn draw_among(&mut self, candidates: &Candidates, count: usize) -> bool {
        let random = &mut *self.random;
        candidates.draw(count, &mut self.scratch.drawn, |n| random.u64(..n));
        !candidates.is_empty()
    }

    /// The shortlist of a place; `None` for a client that is not located.
    fn shortlist(&mut self, origin: &Origin<'_>, key: ShortlistKey) -> Option<Shortlist> {
        let known = self.choices.shortlists.get(&key, |shortlist| shortlist.bytes());
        known.or_else(|| {
            let snapshot = self.snapshot;
            let location = self.locator.locate(origin);
            let client = self.comparable(location.client());
            if !client.is_located() {
                return None;
            }
            let shortlist = Shortlist::of(
                &snapshot.mirrors,
                snapshot.mirrors_by_ordinal(),
                client,
                key.wanted,
                snapshot.settings.rules.weight_distribution_range,
                |row| location.place.distance(snapshot.mirrors.row(row)),
            );
            self.choices.shortlists.insert(key, shortlist.clone(), shortlist.bytes());
            Some(shortlist)
        })
    }

    /// The client without a network that no mirror stands in, so that clients which are alike share their candidates.
    pub(super) fn comparable(&self, client: Client) -> Client {
        Client { asn: self.comparable_asn(client.asn), ..client }
    }

    fn comparable_asn(&self, asn: u32) -> u32 {
        if self.snapshot.mirrors.has_asn(asn) { asn } else { 0 }
    }

    pub(super) fn source(&self, file: FileRef<'_>) -> Source {
        let rules = &self.snapshot.settings.rules;
        Source {
            size: file.size(),
            modified: file.modified(),
            outdated_minutes: rules.outdated_minutes(file.path()),
            fix_timezone_offsets: rules.fix_timezone_offsets,
        }
    }

    pub(super) fn evaluate(
        &mut self,
        files: &FileIndex,
        file: FileRef<'_>,
        location: &Location,
        client: Client,
        wanted: Wanted,
    ) {
        let snapshot = self.snapshot;
        let mut distances = std::mem::take(&mut self.scratch.distances);
        distances.resize(snapshot.mirrors.len(), 0.0);
        for (row, _) in copies(snapshot, files, file) {
            distances[row as usize] = location.place.distance(snapshot.mirrors.row(row));
        }
        let query = Query {
            source: self.source(file),
            client,
            distances: &distances,
            wanted,
            weight_distribution_range: self.snapshot.settings.rules.weight_distribution_range,
        };
        let copies = copies(self.snapshot, files, file);
        self.scratch.evaluation.evaluate(&self.snapshot.mirrors, &query, copies);
        self.scratch.distances = distances;
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
