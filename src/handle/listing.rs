//! Documents of mirrors: of all that have a file, or of those that were drawn for a client.
//!
//! Writing one of 400 mirrors takes as long as hundreds of redirects, compressing it as long as thousands. A [`Listing`] is what
//! another thread needs for that, and the result is the document that the shard would write.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use mb_index::{FileIndex, FileRef};

use super::choose::{EvaluationScratch, comparable, copies, source};
use super::document::{self, Listed, Subject};
use super::locate::Location;
use crate::http::json::JsonWriter;
use crate::select::{Accepted, Reason, Wanted, filter};
use crate::snapshot::Snapshot;

/// A document of an offloaded answer.
#[derive(Debug)]
pub enum Document {
    /// Written already, since it is short.
    Written(Vec<u8>),
    /// Still to be written.
    Listing(Listing),
}

impl Document {
    /// The document as text, indented if `pretty`; one that is written stays as it is.
    pub fn write(self, pretty: bool) -> Vec<u8> {
        match self {
            Document::Written(document) => document,
            Document::Listing(listing) => listing.write(pretty),
        }
    }
}

/// A document of mirrors that is still to be written.
///
/// It keeps the snapshot that it speaks of, and is to be dropped as soon as it is written: an old snapshot takes much memory.
pub struct Listing {
    snapshot: Arc<Snapshot>,
    plan: Plan,
}

/// What a document is to list, without the snapshot that it is about.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Row of the file.
    pub(super) file: u32,
    /// The client, or where the mirrors are to be seen from.
    pub(super) address: IpAddr,
    pub(super) wanted: Wanted,
    pub(super) mirrors: Mirrors,
}

/// Which mirrors a document lists.
#[derive(Clone, Debug)]
pub(super) enum Mirrors {
    /// All that have the file, with their weights.
    All,
    /// Those drawn, and those that may not answer.
    Drawn { drawn: Vec<Accepted>, excluded: Vec<(u32, Reason)> },
}

impl Listing {
    pub(super) fn new(snapshot: Arc<Snapshot>, plan: Plan) -> Listing {
        Listing { snapshot, plan }
    }

    /// The document, indented if `pretty`.
    pub fn write(&self, pretty: bool) -> Vec<u8> {
        let Listing { snapshot, plan: Plan { file, address, wanted, mirrors } } = self;
        let mut text = Vec::new();
        // One that speaks of a file has the files.
        if let Some(files) = &snapshot.files {
            let mut json = JsonWriter::new(&mut text, pretty);
            let about = About {
                snapshot,
                file: files.file(*file),
                location: &Location::look_up(&snapshot.geo, *address),
                wanted: *wanted,
            };
            match mirrors {
                Mirrors::All => about.write_all(files, &mut json),
                Mirrors::Drawn { drawn, excluded } => about.write_drawn(drawn, excluded, &mut json),
            }
        }
        text
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// What a document of mirrors is about.
pub(super) struct About<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) file: FileRef<'a>,
    pub(super) location: &'a Location,
    pub(super) wanted: Wanted,
}

impl About<'_> {
    fn write_all(&self, files: &FileIndex, json: &mut JsonWriter<'_>) {
        let mut scratch = EvaluationScratch::default();
        scratch.evaluate(self.snapshot, files, self.file, self.location, self.location.client(), self.wanted);
        let evaluation = &mut scratch.evaluation;
        evaluation.excluded.sort_unstable_by_key(|&(row, _)| row);
        let listed = evaluation.accepted.iter().enumerate();
        let listed = listed.map(|(place, accepted)| self.accepted(accepted, Some(evaluation.weight_percent(place))));
        self.write(listed, &evaluation.excluded, json);
    }

    /// Writes the document of the mirrors `drawn`; `excluded` are in the order of their rows.
    pub(super) fn write_drawn(&self, drawn: &[Accepted], excluded: &[(u32, Reason)], json: &mut JsonWriter<'_>) {
        self.write(drawn.iter().map(|accepted| self.accepted(accepted, None)), excluded, json);
    }

    /// The mirrors that have the file and may not answer, in the order of their rows, into `excluded`.
    pub(super) fn exclude(&self, files: &FileIndex, excluded: &mut Vec<(u32, Reason)>) {
        let About { snapshot, file, location, wanted } = *self;
        let (source, client) = (source(snapshot, file), comparable(snapshot, location.client()));
        excluded.clear();
        excluded.extend(copies(snapshot, files, file).filter_map(|(row, copy)| {
            filter::check(snapshot.mirrors.row(row), copy, &source, &client, wanted).err().map(|reason| (row, reason))
        }));
        excluded.sort_unstable_by_key(|&(row, _)| row);
    }

    fn write<'m>(
        &'m self,
        listed: impl Iterator<Item = Listed<'m>>,
        excluded: &[(u32, Reason)],
        json: &mut JsonWriter<'_>,
    ) {
        let About { snapshot, file, location, .. } = *self;
        let subject = Subject { path: file.path(), file: Some(file), location, settings: &snapshot.settings };
        let refused = excluded.iter().map(|&(row, reason)| self.refused(row, reason));
        document::write(json, &subject, listed, refused, false);
    }

    fn accepted(&self, accepted: &Accepted, weight: Option<f32>) -> Listed<'_> {
        let row = self.snapshot.mirrors.row(accepted.row);
        Listed {
            id: i64::from(row.mirror.id.0),
            settings: &row.mirror.settings,
            state: &row.mirror.state,
            absolute_url: row.url(accepted.protocol),
            distance: accepted.distance,
            score: accepted.score,
            weight,
            excluded: None,
        }
    }

    fn refused(&self, row: u32, reason: Reason) -> Listed<'_> {
        let mirror = self.snapshot.mirrors.row(row);
        Listed {
            id: i64::from(mirror.mirror.id.0),
            settings: &mirror.mirror.settings,
            state: &mirror.mirror.state,
            absolute_url: filter::check_scheme(mirror, self.wanted).map_or("", |protocol| mirror.url(protocol)),
            distance: self.location.place.distance(mirror),
            score: 0,
            weight: None,
            excluded: Some((reason, mirror)),
        }
    }
}
