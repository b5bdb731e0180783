//! What the fuzz targets found in the reading of journals.

use std::collections::BTreeMap;

use mb_core::store::{Counts, StatsBatch};
use time::Date;

use super::format::{self, Origin};
use super::{FILE_NAME, Spool};

fn opened(records: &[u8]) -> Spool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = [format::header().as_slice(), records].concat();
    std::fs::write(folder.path().join(FILE_NAME), file).expect("space on the disk");
    Spool::open(folder.path()).expect("a journal").expect("nobody else has it")
}

/// A journal whose rows have the last numbering there is: the next one overflowed.
#[test]
fn the_last_numbering_of_rows_is_followed_by_another() {
    let mut records = Vec::new();
    let last_numbering = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let (loose, no_names, no_days) = (1, 0, 0);
    format::put_record(&mut records, loose, |out| {
        out.extend_from_slice(&last_numbering);
        out.extend_from_slice(&[no_names, no_days]);
    });
    let spool = opened(&records);
    assert_eq!((spool.numbering, spool.downloads()), (0, 0));
}

/// Counts whose sum has no number: opening the journal overflowed.
#[test]
fn counts_beyond_all_numbers_stay_the_largest_one() {
    let day = Date::from_ordinal_date(2026, 1).expect("a day");
    let batch = |sequence| {
        let counts = Counts { files: BTreeMap::from([(b"/a".to_vec(), u64::MAX)]), ..Counts::default() };
        StatsBatch { node: "a".to_owned(), sequence, days: BTreeMap::from([(day, counts)]) }
    };
    let mut records = Vec::new();
    format::put_batch(&mut records, Origin::Fresh, &batch(1));
    format::put_batch(&mut records, Origin::Fresh, &batch(2));
    assert_eq!(opened(&records).downloads(), u64::MAX);
}
