//! What a spool says, from its records: what is loose, and which batches the store may or may not have.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use mb_core::store::{StatsBatch, Traffic};
use time::Date;

use super::format::{self, Loose, Next, Origin, Record};
use crate::stats::delivery::Days;

/// What a spool says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Counts that were never sent.
    pub(super) loose: Days,
    /// Batches of unknown fate, the oldest first.
    pub(super) batches: Vec<StatsBatch>,
    /// The latest numbering of rows.
    pub(super) numbering: u64,
    /// Length of the records that were read.
    pub(super) length: usize,
    /// How they end.
    pub(super) tail: Tail,
}

/// How the records end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tail {
    /// With the file.
    #[default]
    Whole,
    /// With the beginning of a record: its writer died.
    Torn,
    /// With something that is no record.
    Damaged,
}

/// Reads all records, up to the first that is not whole.
pub(super) fn recover(records: &[u8]) -> Recovered {
    let mut replay = Replay::default();
    let mut recovered = Recovered::default();
    recovered.tail = loop {
        let (record, length) = match format::next(&records[recovered.length..]) {
            Next::Record(record, length) => (record, length),
            Next::End => break Tail::Whole,
            Next::Torn => break Tail::Torn,
            Next::Damaged => break Tail::Damaged,
        };
        if !replay.apply(record) {
            break Tail::Damaged;
        }
        recovered.length += length;
    };
    replay.end_numbering();
    recovered.loose = less(replay.loose, &replay.cut);
    recovered.batches = replay.batches;
    recovered.numbering = replay.numbering;
    recovered
}

/// What the records so far add up to. Only sums matter, so what was cut is taken away once, at the end.
#[derive(Default)]
struct Replay {
    /// The numbering that the names belong to.
    numbering: u64,
    names: HashMap<u32, Vec<u8>>,
    /// Loose, by row of the numbering.
    rows: BTreeMap<Date, HashMap<u32, u64>>,
    /// Loose, but for the rows.
    loose: Days,
    /// Cut from what is loose.
    cut: Days,
    batches: Vec<StatsBatch>,
}

impl Replay {
    /// Takes a record in; `false`, and nothing of its counts, when it has a row without a name.
    fn apply(&mut self, record: Record) -> bool {
        match record {
            Record::Loose(loose) => return self.add_loose(loose),
            Record::Batch(origin, batch) => {
                if origin == Origin::Loose {
                    add(&mut self.cut, &batch.days);
                }
                self.batches.push(batch);
            }
            Record::Done { node, sequence } => {
                self.batches.retain(|batch| batch.node != node || batch.sequence != sequence);
            }
        }
        true
    }

    fn add_loose(&mut self, loose: Loose) -> bool {
        if loose.numbering != self.numbering {
            self.end_numbering();
            self.numbering = loose.numbering;
        }
        self.names.extend(loose.names);
        if loose.rows.iter().any(|(_, row, _)| !self.names.contains_key(row)) {
            return false;
        }
        for (day, row, requests) in loose.rows {
            let sum = self.rows.entry(day).or_default().entry(row).or_default();
            *sum = sum.saturating_add(requests);
        }
        add(&mut self.loose, &loose.days);
        true
    }

    /// Turns rows into paths, since the names end.
    fn end_numbering(&mut self) {
        let names = mem::take(&mut self.names);
        for (day, rows) in mem::take(&mut self.rows) {
            let files = &mut self.loose.entry(day).or_default().files;
            for (row, requests) in rows {
                if let Some(path) = names.get(&row) {
                    let sum = files.entry(path.clone()).or_default();
                    *sum = sum.saturating_add(requests);
                }
            }
        }
    }
}

fn add(sum: &mut Days, days: &Days) {
    for (day, counts) in days {
        let of_day = sum.entry(*day).or_default();
        for (path, requests) in &counts.files {
            let count = of_day.files.entry(path.clone()).or_default();
            *count = count.saturating_add(*requests);
        }
        for (mirror, traffic) in &counts.mirrors {
            of_day.mirrors.entry(*mirror).or_default().add(*traffic);
        }
    }
}

/// What is left of `days`, which hold all that was `cut` from them.
fn less(mut days: Days, cut: &Days) -> Days {
    for (day, cut) in cut {
        let Some(counts) = days.get_mut(day) else { continue };
        for (path, requests) in &cut.files {
            if let Some(count) = counts.files.get_mut(path) {
                *count = count.saturating_sub(*requests);
            }
        }
        for (mirror, Traffic { requests, bytes }) in &cut.mirrors {
            if let Some(traffic) = counts.mirrors.get_mut(mirror) {
                traffic.requests = traffic.requests.saturating_sub(*requests);
                traffic.bytes = traffic.bytes.saturating_sub(*bytes);
            }
        }
    }
    for counts in days.values_mut() {
        counts.files.retain(|_, requests| *requests > 0);
        counts.mirrors.retain(|_, traffic| *traffic != Traffic::default());
    }
    days.retain(|_, counts| !counts.files.is_empty() || !counts.mirrors.is_empty());
    days
}
