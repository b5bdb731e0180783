//! Which mirrors may answer for a file, from the shard's cache where files are alike.

use std::rc::Rc;

use mb_core::geo::RecordKey;
use mb_index::{FileIndex, FileRef};

use super::Exchange;
use super::locate::Location;
use crate::select::draw::Candidates;
use crate::select::filter::{FileCopy, Source};
use crate::select::score::Query;
use crate::select::{Client, Wanted};
use crate::snapshot::Snapshot;

/// What makes candidates differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CandidatesKey {
    set: u32,
    place: RecordKey,
    asn: u32,
    wanted: Wanted,
}

impl Exchange<'_, '_, '_> {
    pub(super) fn candidates(
        &mut self,
        files: &FileIndex,
        file: FileRef<'_>,
        location: &Location,
        wanted: Wanted,
    ) -> Rc<Candidates> {
        let client = self.comparable(location.client());
        let exceptional =
            file.exceptions().len() > 0 && self.snapshot.settings.rules.outdated_minutes(file.path()).is_some();
        if exceptional {
            // Copies that differ may be accepted: this file is unlike the others of its set.
            self.evaluate(files, file, location, client, wanted);
            return Rc::new(Candidates::of(&self.scratch.evaluation));
        }
        let key = CandidatesKey { set: file.set().number(), place: location.place_key, asn: client.asn, wanted };
        if let Some(candidates) = self.candidates.get(&key, |candidates| candidates.bytes()) {
            return candidates;
        }
        self.evaluate(files, file, location, client, wanted);
        let candidates = Rc::new(Candidates::of(&self.scratch.evaluation));
        self.candidates.insert(key, candidates.clone(), candidates.bytes());
        candidates
    }

    /// The client without a network that no mirror stands in, so that clients which are alike share their candidates.
    pub(super) fn comparable(&self, client: Client) -> Client {
        Client { asn: if self.snapshot.mirrors.has_asn(client.asn) { client.asn } else { 0 }, ..client }
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
        let query = Query {
            source: self.source(file),
            client,
            distances: &location.place.distances,
            wanted,
            weight_distribution_range: self.snapshot.settings.rules.weight_distribution_range,
        };
        let copies = copies(self.snapshot, files, file);
        self.scratch.evaluation.evaluate(&self.snapshot.mirrors, &query, copies);
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
