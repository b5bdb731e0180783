//! What one shard counts.
//!
//! Counting is adding to a plain number in memory of the shard's own. Mirrors are counted by their row, which is at hand; when
//! another mirror table takes over, rows become ids ([`Tally::settle`]), so that no count is lost or moves to another mirror.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use mb_core::mirror::MirrorId;

use crate::handle::outcome::{Chosen, Kind, Outcome};
use crate::http::request::Method;
use crate::http::response::Status;
use crate::select::MirrorTable;

/// Shorter durations are not told apart, in nanoseconds: reading the clock takes about as long.
const SHORTEST: u64 = 64;
/// Longer durations count as this one, in nanoseconds: ten seconds. An answer waits for nothing.
const LONGEST: u64 = 10_000_000_000;
/// Durations are kept to two significant digits.
const DIGITS: u8 = 2;

/// An empty histogram of durations in nanoseconds.
///
/// # Errors
/// Never for these bounds, but the library says so.
pub fn durations() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS)
}

/// Answers by [`Kind`] and [`Status`], in the order of their numbers.
pub type Answers = [[u64; Status::ALL.len()]; Kind::ALL.len()];

/// What a mirror was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Redirects to it, for GET and HEAD.
    pub redirects: u64,
    /// Sizes of the files that GET was redirected for, each in full.
    pub bytes: u64,
}

impl Given {
    /// Adds `other`.
    pub fn add(&mut self, other: Given) {
        self.redirects += other.redirects;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What a shard counted since it last handed over, and how it is doing.
#[derive(Debug)]
pub struct Tally {
    /// Answers by kind and status.
    pub answers: Answers,
    /// Redirects and JSON documents that name fallbacks.
    pub fallbacks: u64,
    /// What mirrors were given, by row of the table in use.
    rows: Vec<Given>,
    /// The same by id, of tables that are not in use any more, and of all when handed over.
    pub mirrors: Vec<(MirrorId, Given)>,
    /// How long answers took, in nanoseconds.
    pub durations: Histogram<u64>,
    /// The sum of what is in `durations`, exactly.
    pub nanoseconds: u64,
    /// Answers made since the clock was last read.
    unmeasured: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Failures to accept one.
    pub accept_errors: u64,
    /// Connections closed because of a panic while they were served.
    pub panics: u64,
    /// Connections closed because all together held too much memory.
    pub closed_for_memory: u64,
    /// Connections closed to make room for new ones.
    pub closed_for_room: u64,
    /// Shards that took the place of one that ended badly.
    pub restarts: u64,
    /// Bytes that connections hold.
    pub held: usize,
    /// Connections open when the tally was handed over.
    pub open: usize,
    /// Processor time of the shard's thread since it started.
    pub processor_time: Duration,
}

impl Tally {
    /// A tally of nothing.
    ///
    /// # Errors
    /// See [`durations`].
    pub fn new() -> Result<Tally, CreationError> {
        Ok(Tally {
            answers: [[0; Status::ALL.len()]; Kind::ALL.len()],
            fallbacks: 0,
            rows: Vec::new(),
            mirrors: Vec::new(),
            durations: durations()?,
            nanoseconds: 0,
            unmeasured: 0,
            accepted: 0,
            accept_errors: 0,
            panics: 0,
            closed_for_memory: 0,
            closed_for_room: 0,
            restarts: 0,
            held: 0,
            open: 0,
            processor_time: Duration::ZERO,
        })
    }

    /// Counts a request; its answer, too, unless that was offloaded and is counted when it is there.
    #[inline]
    pub fn count(&mut self, outcome: &Outcome) {
        if !outcome.is_offloaded {
            self.count_answer(outcome.kind, outcome.status);
        }
        self.unmeasured += 1;
        match (outcome.kind, outcome.chosen) {
            (Kind::Redirect, Chosen::Mirror { row, .. }) => {
                if self.rows.len() <= row as usize {
                    self.rows.resize(row as usize + 1, Given::default());
                }
                let given = &mut self.rows[row as usize];
                given.redirects += 1;
                if let (Method::Get, Some(file)) = (outcome.method, outcome.file) {
                    given.bytes = given.bytes.saturating_add(file.size);
                }
            }
            (_, Chosen::Fallback(_)) => self.fallbacks += 1,
            _ => {}
        }
    }

    /// Counts an answer.
    #[inline]
    pub fn count_answer(&mut self, kind: Kind, status: Status) {
        self.answers[kind as usize][status as usize] += 1;
    }

    /// Notes that the answers since the last call took `duration`, each.
    #[inline]
    pub fn measure(&mut self, duration: Duration) {
        if self.unmeasured == 0 {
            return;
        }
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(LONGEST);
        self.durations.saturating_record_n(nanoseconds, self.unmeasured);
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds.saturating_mul(self.unmeasured));
        self.unmeasured = 0;
    }

    /// Turns the counts by row into counts by id. To be called before another table than `table` is used.
    pub fn settle(&mut self, table: &MirrorTable) {
        let rows = self.rows.drain(..).zip(table.rows());
        let given = rows.filter(|(given, _)| given.redirects > 0);
        self.mirrors.extend(given.map(|(given, row)| (row.mirror.id, given)));
    }

    /// Makes it a tally of nothing again, and keeps its memory.
    pub fn clear(&mut self) {
        let Tally {
            answers,
            fallbacks,
            rows,
            mirrors,
            durations,
            nanoseconds,
            unmeasured,
            accepted,
            accept_errors,
            panics,
            closed_for_memory,
            closed_for_room,
            restarts,
            ..
        } = self;
        *answers = [[0; Status::ALL.len()]; Kind::ALL.len()];
        rows.clear();
        mirrors.clear();
        durations.reset();
        for count in [
            fallbacks,
            nanoseconds,
            unmeasured,
            accepted,
            accept_errors,
            panics,
            closed_for_memory,
            closed_for_room,
            restarts,
        ] {
            *count = 0;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use mb_core::mirror::{Mirror, MirrorSettings, MirrorState};

    use super::*;
    use crate::handle::outcome::File;

    /// A table of mirrors with these ids.
    pub fn table(ids: &[u32]) -> MirrorTable {
        let mirror = |&id: &u32| Mirror {
            id: MirrorId(id),
            settings: MirrorSettings { name: format!("m{id}"), ..MirrorSettings::default() },
            state: MirrorState::default(),
        };
        MirrorTable::new(ids.iter().map(mirror).collect())
    }

    /// A redirect to the mirror in `row`.
    pub fn redirect(method: Method, row: u32) -> Outcome {
        Outcome {
            kind: Kind::Redirect,
            file: Some(File { row: 0, size: 10 }),
            chosen: Chosen::Mirror { row, distance: 0.0 },
            ..Outcome::refused(method, Status::Found)
        }
    }

    #[test]
    fn counts_follow_their_mirror_when_rows_change() {
        let mut tally = Tally::new().unwrap();
        let (before, after) = (table(&[3, 5]), table(&[5, 9]));
        tally.count(&redirect(Method::Get, 1));
        tally.settle(&before);
        tally.count(&redirect(Method::Get, 0));
        tally.count(&redirect(Method::Head, 1));
        tally.settle(&after);
        let given = |redirects, bytes| Given { redirects, bytes };
        assert_eq!(
            tally.mirrors,
            [(MirrorId(5), given(1, 10)), (MirrorId(5), given(1, 10)), (MirrorId(9), given(1, 0))]
        );
    }

    #[test]
    fn fallbacks_and_refusals_are_told_apart() {
        let mut tally = Tally::new().unwrap();
        let fallback = Outcome { kind: Kind::Redirect, chosen: Chosen::Fallback(0), ..redirect(Method::Get, 0) };
        tally.count(&fallback);
        tally.count(&Outcome { kind: Kind::Json, ..fallback });
        tally.count(&Outcome::refused(Method::Get, Status::NotFound));
        tally.settle(&table(&[1]));
        assert_eq!((tally.fallbacks, tally.mirrors.len()), (2, 0));
        assert_eq!(tally.answers[Kind::Redirect as usize][Status::Found as usize], 1);
        assert_eq!(tally.answers[Kind::Refusal as usize][Status::NotFound as usize], 1);
    }

    #[test]
    fn answers_of_one_cycle_took_as_long_as_it_did() {
        let mut tally = Tally::new().unwrap();
        tally.count(&redirect(Method::Get, 0));
        tally.count(&redirect(Method::Get, 0));
        tally.measure(Duration::from_micros(5));
        tally.measure(Duration::from_micros(9));
        assert_eq!((tally.durations.len(), tally.nanoseconds), (2, 10_000));
        tally.count(&redirect(Method::Get, 0));
        tally.measure(Duration::from_secs(3600));
        assert_eq!(tally.durations.len(), 3);
        assert!(tally.durations.equivalent(tally.durations.max(), LONGEST));
    }

    #[test]
    fn a_cleared_tally_is_a_new_one() {
        let mut tally = Tally::new().unwrap();
        tally.count(&redirect(Method::Get, 0));
        tally.measure(Duration::from_micros(5));
        tally.accepted += 1;
        tally.settle(&table(&[1]));
        tally.clear();
        assert_eq!(tally.answers.iter().flatten().sum::<u64>(), 0);
        assert_eq!((tally.mirrors.len(), tally.rows.len(), tally.accepted), (0, 0, 0));
        assert_eq!((tally.durations.len(), tally.nanoseconds, tally.unmeasured), (0, 0, 0));
    }
}
