//! Which files a block of a mirror's scan matches: one merge of the block with the source.

use std::cmp::Ordering;

use mb_index::Exception;

use super::compare::TimeReading;
use super::rows::SourceRows;
use crate::scan::results::Block;

/// Mirrors that have the same block and whose file times are read the same way, so that all their copies of a file are
/// judged at once.
#[derive(Clone, Debug)]
pub(super) struct Class {
    /// How the file times are read.
    pub(super) reading: TimeReading,
    /// Ordinals of the mirrors, ascending.
    pub(super) mirrors: Vec<u32>,
}

/// What a block contributes to the index.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// By class, the rows whose copies equal the source.
    pub(super) matches: Vec<Vec<u32>>,
    /// Copies that differ, with their row.
    pub(super) exceptions: Vec<(u32, Exception)>,
}

/// Compares the files of a block with the source, for each class that has the block.
pub(super) fn join(rows: SourceRows<'_>, block: &Block, classes: &[Class]) -> Joined {
    let mut joined = Joined { matches: vec![Vec::new(); classes.len()], exceptions: Vec::new() };
    let mut row = None;
    for file in block.files() {
        let mut at = row.unwrap_or_else(|| rows.lower_bound(file.path));
        while at < rows.len() {
            match rows.path(at).cmp(file.path) {
                Ordering::Less => at += 1,
                Ordering::Equal => {
                    judge(rows, at, (file.size, file.modified), classes, &mut joined);
                    at += 1;
                    break;
                }
                Ordering::Greater => break,
            }
        }
        row = Some(at);
    }
    joined
}

fn judge(
    rows: SourceRows<'_>,
    row: usize,
    copy: (u64, Option<mb_core::time::FileTime>),
    classes: &[Class],
    joined: &mut Joined,
) {
    let number = row as u32;
    for (class, matches) in classes.iter().zip(&mut joined.matches) {
        if class.reading.is_same_version(rows.facts(row), copy) {
            matches.push(number);
        } else {
            let exceptions = class.mirrors.iter().map(|&mirror| Exception { mirror, size: copy.0, modified: copy.1 });
            joined.exceptions.extend(exceptions.map(|exception| (number, exception)));
        }
    }
}
