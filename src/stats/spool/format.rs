//! How the records of the spool are written and read (`FORMAT.md`).

use mb_core::mirror::MirrorId;
use mb_core::store::{Counts, StatsBatch, Traffic};
use mb_index::FileIndex;
use time::Date;
use xxhash_rust::xxh3::xxh3_64;

use crate::stats::delivery::{Days, Gathered};
use crate::stats::row_counts::RowSet;

/// Format version that this program writes and reads.
pub(super) const VERSION: u32 = 1;
/// Length of what stands in front of the records.
pub(super) const HEADER_LENGTH: usize = 16;
/// Length of what stands in front of a record's content.
const FRAME_LENGTH: usize = 24;

const MAGIC: [u8; 8] = *b"mb-spool";

const LOOSE: u8 = 1;
const SENT_BATCH: u8 = 2;
const CUT_BATCH: u8 = 3;
const DONE: u8 = 4;

/// What stands in front of the records.
pub(super) fn header() -> [u8; HEADER_LENGTH] {
    let mut header = [0; HEADER_LENGTH];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// The version in a header; `None` when it is not one of a spool.
pub(super) fn version(header: &[u8; HEADER_LENGTH]) -> Option<u32> {
    let [magic @ .., _, _, _, _, _, _, _, _] = header;
    let [.., a, b, c, d, _, _, _, _] = header;
    (*magic == MAGIC).then(|| u32::from_le_bytes([*a, *b, *c, *d]))
}

/// Whether a batch was in the loose counts before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was not.
    Fresh,
    /// It was, and is no more.
    Loose,
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Counts that were never sent.
    Loose(Loose),
    /// A batch that was sent, or is about to be.
    Batch(Origin, StatsBatch),
    /// The store has this batch.
    Done {
        /// Who counted.
        node: String,
        /// Which of the node's.
        sequence: u64,
    },
}

/// Counts that were never sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loose {
    /// Of what the rows are.
    pub(super) numbering: u64,
    /// Rows that get a path.
    pub(super) names: Vec<(u32, Vec<u8>)>,
    /// Downloads by row.
    pub(super) rows: Vec<(Date, u32, u64)>,
    /// What is not counted by row.
    pub(super) days: Days,
}

/// Appends a record of what is gathered; the rows in `unnamed` get their paths by it.
pub(super) fn put_loose(out: &mut Vec<u8>, gathered: &Gathered, numbering: u64, unnamed: &RowSet) {
    put_record(out, LOOSE, |out| {
        put_number(out, numbering);
        let files = gathered.files().map(|files| (&**files, unnamed));
        put_number(out, files.map_or(0, |(_, unnamed)| unnamed.len() as u64));
        if let Some((files, unnamed)) = files {
            put_names(out, files, unnamed);
        }
        put_number(out, gathered.days().len() as u64);
        for (day, counted) in gathered.days() {
            put_day(out, *day);
            put_number(out, counted.rows.rows().len() as u64);
            let mut before = 0;
            for (row, requests) in counted.rows.iter() {
                put_number(out, u64::from(row - before));
                put_number(out, requests.into());
                before = row;
            }
            put_files(out, counted.paths.iter().map(|(path, requests)| (path.as_slice(), *requests)));
            put_mirrors(out, counted.mirrors.iter());
        }
    });
}

/// Appends a record of a batch.
pub(super) fn put_batch(out: &mut Vec<u8>, origin: Origin, batch: &StatsBatch) {
    let kind = match origin {
        Origin::Fresh => SENT_BATCH,
        Origin::Loose => CUT_BATCH,
    };
    put_record(out, kind, |out| {
        put_id(out, batch);
        put_number(out, batch.days.len() as u64);
        for (day, counts) in &batch.days {
            put_day(out, *day);
            put_files(out, counts.files.iter().map(|(path, requests)| (path.as_slice(), *requests)));
            put_mirrors(out, counts.mirrors.iter());
        }
    });
}

/// Appends a record that the store has a batch.
pub(super) fn put_done(out: &mut Vec<u8>, batch: &StatsBatch) {
    put_record(out, DONE, |out| put_id(out, batch));
}

/// Appends a record with this content.
pub(super) fn put_record(out: &mut Vec<u8>, kind: u8, content: impl FnOnce(&mut Vec<u8>)) {
    let frame = out.len();
    out.resize(frame + FRAME_LENGTH, 0);
    out.push(kind);
    content(out);
    let content = &out[frame + FRAME_LENGTH..];
    let length = (content.len() as u64).to_le_bytes();
    let checksum = xxh3_64(content).to_le_bytes();
    out[frame..frame + 8].copy_from_slice(&length);
    out[frame + 8..frame + 16].copy_from_slice(&xxh3_64(&length).to_le_bytes());
    out[frame + 16..frame + FRAME_LENGTH].copy_from_slice(&checksum);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_day(out: &mut Vec<u8>, day: Date) {
    out.extend_from_slice(&day.to_julian_day().to_le_bytes());
}

fn put_id(out: &mut Vec<u8>, batch: &StatsBatch) {
    put_number(out, batch.node.len() as u64);
    out.extend_from_slice(batch.node.as_bytes());
    put_number(out, batch.sequence);
}

fn put_names(out: &mut Vec<u8>, files: &FileIndex, rows: &RowSet) {
    let (mut before, mut path_before): (u32, &[u8]) = (0, &[]);
    for (row, path) in rows.iter().zip(files.paths(rows.iter())) {
        put_number(out, u64::from(row - before));
        put_path(out, path_before, path);
        (before, path_before) = (row, path);
    }
}

fn put_path(out: &mut Vec<u8>, before: &[u8], path: &[u8]) {
    let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
    put_number(out, shared as u64);
    put_number(out, (path.len() - shared) as u64);
    out.extend_from_slice(&path[shared..]);
}

fn put_files<'a>(out: &mut Vec<u8>, files: impl ExactSizeIterator<Item = (&'a [u8], u64)>) {
    put_number(out, files.len() as u64);
    let mut before: &[u8] = &[];
    for (path, requests) in files {
        put_path(out, before, path);
        put_number(out, requests);
        before = path;
    }
}

fn put_mirrors<'a>(out: &mut Vec<u8>, mirrors: impl ExactSizeIterator<Item = (&'a MirrorId, &'a Traffic)>) {
    put_number(out, mirrors.len() as u64);
    for (id, traffic) in mirrors {
        put_number(out, id.0.into());
        put_number(out, traffic.requests);
        put_number(out, traffic.bytes);
    }
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record, and the bytes behind it.
    Record(Record, usize),
    /// Nothing.
    End,
    /// The beginning of a record.
    Torn,
    /// What is no record.
    Damaged,
}

/// Reads the record at the beginning of `bytes`; [`Next::Record`] says how many bytes it takes.
pub(super) fn next(bytes: &[u8]) -> Next {
    if bytes.is_empty() {
        return Next::End;
    }
    let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let (Some(length), Some(check), Some(checksum)) = (word(0), word(8), word(16)) else { return Next::Torn };
    if xxh3_64(&length.to_le_bytes()) != check {
        return Next::Damaged;
    }
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(FRAME_LENGTH));
    let Some(content) = end.and_then(|end| bytes.get(FRAME_LENGTH..end)) else { return Next::Torn };
    let record = (xxh3_64(content) == checksum).then(|| record(content)).flatten();
    record.map_or(Next::Damaged, |record| Next::Record(record, FRAME_LENGTH + content.len()))
}

/// The record with this content; `None` when it is not as `FORMAT.md` says.
fn record(content: &[u8]) -> Option<Record> {
    let mut reader = Reader(content);
    let record = match reader.byte()? {
        LOOSE => Record::Loose(reader.loose()?),
        SENT_BATCH => Record::Batch(Origin::Fresh, reader.batch()?),
        CUT_BATCH => Record::Batch(Origin::Loose, reader.batch()?),
        DONE => {
            let (node, sequence) = reader.id()?;
            Record::Done { node, sequence }
        }
        _ => return None,
    };
    reader.0.is_empty().then_some(record)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit.
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn day(&mut self) -> Option<Date> {
        Date::from_julian_day(i32::from_le_bytes(self.bytes(4)?.try_into().ok()?)).ok()
    }

    fn id(&mut self) -> Option<(String, u64)> {
        let length = self.number()?;
        let node = String::from_utf8(self.bytes(length)?.to_vec()).ok()?;
        Some((node, self.number()?))
    }

    /// Makes `path`, which is the one before, the next one.
    fn path(&mut self, path: &mut Vec<u8>) -> Option<()> {
        let shared = usize::try_from(self.number()?).ok()?;
        let length = self.number()?;
        let rest = self.bytes(length)?;
        if shared > path.len() {
            return None;
        }
        path.truncate(shared);
        path.extend_from_slice(rest);
        Some(())
    }

    /// Makes `row`, which is the one before, the next one.
    fn row(&mut self, row: &mut u32) -> Option<()> {
        *row = row.checked_add(u32::try_from(self.number()?).ok()?)?;
        Some(())
    }

    fn counts(&mut self) -> Option<Counts> {
        let mut counts = Counts::default();
        let mut path = Vec::new();
        for _ in 0..self.number()? {
            self.path(&mut path)?;
            counts.files.insert(path.clone(), self.number()?);
        }
        for _ in 0..self.number()? {
            let id = MirrorId(u32::try_from(self.number()?).ok()?);
            counts.mirrors.insert(id, Traffic { requests: self.number()?, bytes: self.number()? });
        }
        Some(counts)
    }

    fn batch(&mut self) -> Option<StatsBatch> {
        let (node, sequence) = self.id()?;
        let mut days = Days::new();
        for _ in 0..self.number()? {
            let day = self.day()?;
            days.insert(day, self.counts()?);
        }
        Some(StatsBatch { node, sequence, days })
    }

    fn loose(&mut self) -> Option<Loose> {
        let mut loose = Loose { numbering: self.number()?, ..Loose::default() };
        let (mut row, mut path) = (0, Vec::new());
        for _ in 0..self.number()? {
            self.row(&mut row)?;
            self.path(&mut path)?;
            loose.names.push((row, path.clone()));
        }
        for _ in 0..self.number()? {
            let day = self.day()?;
            let mut row = 0;
            for _ in 0..self.number()? {
                self.row(&mut row)?;
                loose.rows.push((day, row, self.number()?));
            }
            loose.days.insert(day, self.counts()?);
        }
        Some(loose)
    }
}
