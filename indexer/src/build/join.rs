//! Which files a block of a mirror's scan matches: one merge of the block with the source.

use std::cmp::Ordering;

use mb_core::time::FileTime;

use super::BuildSettings;
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
    /// Copies that differ, of those that may be kept: see [`BuildSettings::explained_exceptions`].
    pub(super) copies: Vec<DifferingCopy>,
    /// By class, how many copies differ, and the row of the first.
    pub(super) differing: Vec<Differing>,
}

/// Copies of a mirror that differ from the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Differing {
    /// How many there are.
    pub(super) count: u64,
    /// The row of one of them.
    pub(super) example: Option<u32>,
}

/// A copy that differs from the source, on all mirrors of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct DifferingCopy {
    /// Its row.
    pub(super) row: u32,
    /// Place of the class.
    pub(super) class: usize,
    /// Its size in bytes.
    pub(super) size: u64,
    /// Its modification time.
    pub(super) modified: Option<FileTime>,
}

/// Compares the files of a block with the source, for each class that has the block.
pub(super) fn join(rows: SourceRows<'_>, block: &Block, classes: &[Class], settings: &BuildSettings) -> Joined {
    let mut joined = Joined {
        matches: vec![Vec::new(); classes.len()],
        copies: Vec::new(),
        differing: vec![Differing::default(); classes.len()],
    };
    let mut row = None;
    for file in block.files() {
        let mut at = row.unwrap_or_else(|| rows.lower_bound(file.path));
        while at < rows.len() {
            match rows.path(at).cmp(file.path) {
                Ordering::Less => at += 1,
                Ordering::Equal => {
                    judge(rows, at, (file.size, file.modified), classes, settings, &mut joined);
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
    copy: (u64, Option<FileTime>),
    classes: &[Class],
    settings: &BuildSettings,
    joined: &mut Joined,
) {
    let number = row as u32;
    let found = joined.matches.iter_mut().zip(&mut joined.differing);
    for ((class, Class { reading, .. }), (matches, differing)) in classes.iter().enumerate().zip(found) {
        if reading.is_same_version(rows.facts(row), copy) {
            matches.push(number);
            continue;
        }
        differing.count += 1;
        differing.example.get_or_insert(number);
        if differing.count <= settings.explained_exceptions || settings.has_rule_for(rows.path(row)) {
            joined.copies.push(DifferingCopy { row: number, class, size: copy.0, modified: copy.1 });
        }
    }
}
