//! The mirrors that clients of one place may be sent to, prepared so that a file's set of mirrors only has to be laid over
//! them.
//!
//! Load is shared among mirrors with a weight, and few can have one: those that are nearly as close as the closest, and
//! those that stand in the client's country or network, or have a score set. The rest only tells how far the farthest one
//! is. A shortlist holds these few with everything that does not depend on the file. It takes a look at some dozens of
//! mirrors per request instead of an evaluation of all, and works for any number of distinct sets. For a set that has the
//! closest and the farthest mirror, the weights are prepared; for one that has all that matter here, as that of a file
//! which most mirrors have, so are their sums.

use mb_core::mirror::DownloadProtocol;
use mb_core::time::FileTime;

use super::draw::{Candidates, KEPT, draw_by_weight};
use super::filter::{self, FileCopy, Source, Wanted};
use super::score::{Country, Scale, Standing};
use super::{Accepted, Client, MirrorTable};

/// Nearest mirrors that are held. A guess: a set that has none of them is rare, and evaluated as a whole.
const NEAREST: usize = 64;
/// Farthest mirrors that are held, likewise.
const FARTHEST: usize = 16;

/// Mirrors with a weight that are prepared for a draw. A guess: more are rare, and then nothing is prepared.
const PREPARED: usize = 64;
/// Bytes at the start of a shortlist that a draw usually reads: those before the choices, and 32 of these.
pub const USUAL_BYTES: usize = 128 + 32 * size_of::<Choice>();
/// Words of the bitmap of mirrors that matter: with the count before it, two cache lines. Nothing is prepared for an
/// index of more mirrors than these have bits.
const NEEDED_WORDS: usize = 15;

/// The mirrors that matter to the clients of one place and network.
#[derive(Debug)]
#[repr(C)]
pub struct Shortlist {
    /// First, since it is read first.
    prepared: Prepared,
    /// Those that may have a weight however far they are, then the nearest by ascending distance, then the farthest by
    /// descending distance: one piece of memory, since what a request waits for is memory.
    contenders: Box<[Contender]>,
    favoured: usize,
    nearest: usize,
    /// All mirrors up to this distance are among the nearest; none when there are more at one distance than are held.
    reach: Option<f32>,
    range: f32,
}

/// What a draw needs when the set has the closest and the farthest mirror, so that weights are what they are for all mirrors.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Prepared {
    /// How many may be drawn; 0 when nothing is prepared.
    count: u32,
    /// What a weight is to be added to for the score.
    base: u32,
    /// The ordinals of the closest, the farthest and all that may be drawn. Others make no difference.
    needed: [u64; NEEDED_WORDS],
    choices: [Choice; PREPARED],
    ordinals: [u16; PREPARED],
    /// Ordinals of the closest and the farthest, on which all weights depend.
    ends: [u16; 2],
}

/// A mirror that may be drawn, in 12 bytes.
#[derive(Clone, Copy, Debug)]
struct Choice {
    /// The weights up to this one, added up.
    sum: u32,
    distance: f32,
    row: u16,
    protocol: DownloadProtocol,
}

impl Prepared {
    const NOTHING: Prepared = Prepared {
        count: 0,
        base: 0,
        needed: [0; NEEDED_WORDS],
        choices: [Choice { sum: 0, distance: 0.0, row: 0, protocol: DownloadProtocol::Https }; PREPARED],
        ordinals: [0; PREPARED],
        ends: [0; 2],
    };

    /// Notes that the mirror `ordinal` is needed; `None` when there is no bit for it.
    fn need(&mut self, ordinal: u16) -> Option<()> {
        *self.needed.get_mut(usize::from(ordinal / 64))? |= 1 << (ordinal % 64);
        Some(())
    }
}

/// A mirror that serves this client, in 12 bytes.
#[derive(Clone, Copy, Debug)]
struct Contender {
    distance: f32,
    /// Its bit in the sets of the files index.
    ordinal: u16,
    row: u16,
    protocol: DownloadProtocol,
    country: Country,
    same_asn: bool,
    favour: Favour,
}

/// Whether a mirror may have a weight however far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Favour {
    None,
    Usual,
    /// The table has its score.
    WithScore,
}

impl Contender {
    fn standing(&self, table: &MirrorTable) -> Standing {
        let bonus = if self.favour == Favour::WithScore { table.row(self.row.into()).mirror.settings.score } else { 0 };
        Standing { country: self.country, same_asn: self.same_asn, bonus }
    }
}

impl Shortlist {
    /// The shortlist of a located `client` over `mirrors`, the ordinals and rows of all that the index knows. `distance`
    /// tells the kilometres to a row.
    pub fn of(
        table: &MirrorTable,
        mirrors: impl Iterator<Item = (u32, u32)>,
        client: Client,
        wanted: Wanted,
        weight_distribution_range: f32,
        distance: impl Fn(u32) -> f32,
    ) -> Shortlist {
        // A copy that equals its source passes whatever the source is.
        let source = Source {
            size: 0,
            modified: FileTime::from_seconds(0),
            outdated_minutes: None,
            fix_timezone_offsets: false,
        };
        let serving = mirrors.filter_map(|(ordinal, row)| {
            let mirror = table.row(row);
            let protocol = filter::check(mirror, FileCopy::Matches, &source, &client, wanted).ok()?;
            let (distance, standing) = (distance(row), Standing::of(mirror, &client));
            let favour = if standing.bonus != 0 {
                Favour::WithScore
            } else if standing != Standing::PLAIN || distance < 1.0 {
                // Below a kilometre, truncation leaves even the farthest mirror a weight.
                Favour::Usual
            } else {
                Favour::None
            };
            let Standing { country, same_asn, .. } = standing;
            let numbers = u16::try_from(ordinal).ok().zip(u16::try_from(row).ok());
            Some(numbers.map(|(ordinal, row)| Contender {
                distance,
                ordinal,
                row,
                protocol,
                country,
                same_asn,
                favour,
            }))
        });
        // With more mirrors than these numbers hold, the list is empty and never tells.
        let mut serving = serving.collect::<Option<Vec<_>>>().unwrap_or_default();
        serving.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance));
        let mut reach = Some(f32::INFINITY);
        if let Some(first_left_out) = serving.get(NEAREST).map(|mirror| mirror.distance) {
            // Of several at one distance, either all are held or the reach ends before them.
            let held = serving.partition_point(|mirror| mirror.distance < first_left_out);
            reach = held.checked_sub(1).and_then(|last| serving.get(last)).map(|mirror| mirror.distance);
        }
        let favoured = serving.iter().filter(|mirror| mirror.favour != Favour::None);
        let contenders = favoured.chain(serving.iter().take(NEAREST)).chain(serving.iter().rev().take(FARTHEST));
        let mut shortlist = Shortlist {
            prepared: Prepared::NOTHING,
            contenders: contenders.copied().collect(),
            favoured: serving.iter().filter(|mirror| mirror.favour != Favour::None).count(),
            nearest: serving.len().min(NEAREST),
            reach,
            range: weight_distribution_range,
        };
        shortlist.prepared = shortlist.prepare(table).unwrap_or(Prepared::NOTHING);
        shortlist
    }

    /// What can be prepared: nothing where a set that has all mirrors cannot be told.
    fn prepare(&self, table: &MirrorTable) -> Option<Prepared> {
        let mut candidates = Candidates::default();
        if !self.candidates(table, |_| true, &mut candidates) {
            return None;
        }
        let accepted = candidates.accepted();
        let mut prepared = Prepared { count: u32::try_from(accepted.len()).ok()?, ..Prepared::NOTHING };
        let (favoured, rest) = self.contenders.split_at(self.favoured);
        let (nearest, farthest) = rest.split_at(self.nearest);
        prepared.ends = [nearest.first()?.ordinal, farthest.first()?.ordinal];
        for end in prepared.ends {
            prepared.need(end)?;
        }
        for (place, accepted) in accepted.iter().enumerate() {
            let ordinal =
                |contender: &Contender| (u32::from(contender.row) == accepted.row).then_some(contender.ordinal);
            let ordinal = nearest.iter().chain(favoured).find_map(ordinal)?;
            prepared.need(ordinal)?;
            let sum = u32::try_from(candidates.sum(place)).ok()?;
            let Accepted { row, distance, protocol, .. } = *accepted;
            let choice = Choice { sum, distance, row: u16::try_from(row).ok()?, protocol };
            *prepared.choices.get_mut(place)? = choice;
            *prepared.ordinals.get_mut(place)? = ordinal;
            prepared.base = u32::try_from(accepted.score.checked_sub(accepted.weight)?).ok()?;
        }
        Some(prepared)
    }

    /// Draws as [`Candidates::draw`] does from the candidates of a set on which all weights are those that were prepared:
    /// `includes` tells whether it has all mirrors of a bitmap, `contains` whether it has one. Returns `false` for any
    /// other set, or when nothing is prepared; nothing is drawn then.
    #[inline]
    pub fn draw_prepared(
        &self,
        includes: impl FnOnce(&[u64]) -> bool,
        contains: impl Fn(u32) -> bool,
        wanted: usize,
        drawn: &mut Vec<Accepted>,
        random_below: impl FnMut(u64) -> u64,
    ) -> bool {
        drawn.clear();
        let Prepared { base, needed, choices, ends, ordinals, .. } = &self.prepared;
        let count = self.prepared.count as usize;
        if count == 0 {
            return false;
        }
        let prepared = |place: usize| choices.get(place).map_or(0, |choice| u64::from(choice.sum));
        // Sums ascend, and are numbers of 32 bits: neither this nor a score wraps.
        let weight = |place: usize| prepared(place).wrapping_sub(place.checked_sub(1).map_or(0, prepared));
        let mut take = |place: usize| {
            let Some(&Choice { distance, row, protocol, .. }) = choices.get(place) else { return };
            let weight = weight(place) as i64;
            let (row, score) = (u32::from(row), i64::from(*base).wrapping_add(weight));
            drawn.push(Accepted { row, protocol, distance, score, weight });
        };
        if includes(needed) {
            draw_by_weight(count, prepared, wanted.min(KEPT), random_below, take);
            return true;
        }
        if !ends.iter().all(|&end| contains(end.into())) {
            return false;
        }
        // A mirror that is not there has no weight, and is never drawn.
        let mut sums = [0; PREPARED];
        let (mut sum, mut held) = (0_u64, 0_usize);
        for (place, (own_sum, &ordinal)) in sums.iter_mut().zip(ordinals).take(count).enumerate() {
            let is_held = contains(ordinal.into());
            // A part of the sums that were prepared, which are of 32 bits.
            sum = sum.wrapping_add(weight(place).wrapping_mul(u64::from(is_held)));
            held = held.wrapping_add(usize::from(is_held));
            *own_sum = sum;
        }
        if held < 2 {
            return false;
        }
        let sum = |place: usize| sums.get(place).copied().unwrap_or(0);
        draw_by_weight(count, sum, wanted.min(KEPT).min(held), random_below, &mut take);
        true
    }

    /// Makes `candidates` those of a set, which `contains` ordinals. `table` is the one it was made from. Returns `false`, with
    /// `candidates` undefined, where load is not shared by weight or too few mirrors of the set are on the list to tell: the set is then to be evaluated
    /// as a whole.
    pub fn candidates(&self, table: &MirrorTable, contains: impl Fn(u32) -> bool, candidates: &mut Candidates) -> bool {
        let (favoured, rest) = self.contenders.split_at(self.favoured);
        let (nearest, farthest) = rest.split_at(self.nearest);
        let first = nearest.iter().position(|mirror| contains(mirror.ordinal.into()));
        let Some(near @ [first, ..]) = first.and_then(|first| nearest.get(first..)) else { return false };
        let Some(farthest) = farthest.iter().find(|mirror| contains(mirror.ordinal.into())) else { return false };
        let closest = first.distance;
        let scale = Scale::new(closest, farthest.distance, self.range);
        if self.reach.is_none_or(|reach| closest > reach || scale.near() > reach) {
            return false;
        }
        candidates.clear_shared();
        let near = near.iter().take_while(|mirror| mirror.distance <= scale.near());
        for mirror in near.filter(|mirror| mirror.favour == Favour::None).chain(favoured) {
            if !contains(mirror.ordinal.into()) {
                continue;
            }
            let (score, weight) = scale.score(&mirror.standing(table), mirror.distance);
            if weight > 0 {
                let Contender { row, protocol, distance, .. } = *mirror;
                candidates.push_shared(Accepted { row: row.into(), protocol, distance, score, weight });
            }
        }
        candidates.is_shared()
    }
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{Health, Mirror, MirrorId, MirrorSettings, MirrorState};
    use proptest::prelude::*;

    use super::super::distance::{Point, Position, kilometres};
    use super::super::score::Query;
    use super::super::{Code, Evaluation};
    use super::*;

    const COUNTRIES: [&str; 5] = ["FR", "DE", "US", "JP", ""];

    fn mirror(id: u32, random: &mut fastrand::Rng) -> Mirror {
        let rarely = |random: &mut fastrand::Rng| random.u8(..10) == 0;
        let countries = [COUNTRIES[random.usize(..5)], COUNTRIES[random.usize(..5)]];
        Mirror {
            id: MirrorId(id),
            settings: MirrorSettings {
                http_url: "https://mirror.example.org/".to_owned(),
                country_codes: countries.join(" "),
                // Some at the same place, and some at the client's.
                latitude: random.i32(-8..8) as f32 * 10.0,
                longitude: random.i32(-9..9) as f32 * 20.0,
                asn: random.u32(0..4),
                score: if rarely(random) { random.i32(-50..300) } else { 0 },
                country_only: rarely(random),
                ..MirrorSettings::default()
            },
            state: MirrorState {
                enabled: !rarely(random),
                https: Health { up: !rarely(random), down_reason: String::new() },
                ..MirrorState::default()
            },
        }
    }

    proptest! {
        #[test]
        fn it_tells_what_an_evaluation_of_all_would(
            seed: u64, mirrors in 0u32..200, density in 1u8..=100, range in prop::sample::select(vec![0.0f32, 0.5, 1.5, 50.0])
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let table = MirrorTable::new((1..=mirrors).map(|id| mirror(id, &mut random)).collect());
            let has: Vec<bool> = (0..mirrors).map(|_| random.u8(0..100) < density).collect();
            let client = Client { country: Code::of(COUNTRIES[random.usize(..4)]), asn: random.u32(0..4), ..Client::default() };
            let here = Position::from(Point { latitude: random.i32(-8..8) as f32 * 10.0, longitude: random.i32(-9..9) as f32 * 20.0 });
            let distances: Vec<f32> = table.rows().iter().map(|row| kilometres(&here, &row.position)).collect();

            let source =
                Source { size: 0, modified: FileTime::from_seconds(0), outdated_minutes: None, fix_timezone_offsets: false };
            let query =
                Query { source, client, distances: &distances, wanted: Wanted::Any, weight_distribution_range: range };
            let mut evaluation = Evaluation::default();
            let copies = (0..mirrors).filter(|&row| has[row as usize]).map(|row| (row, FileCopy::Matches));
            evaluation.evaluate(&table, &query, copies);

            let ordinals = (0..mirrors).map(|row| (row, row));
            let distance = |row: u32| distances[row as usize];
            let shortlist = Shortlist::of(&table, ordinals, client, Wanted::Any, range, distance);
            let mut candidates = Candidates::default();
            let told = shortlist.candidates(&table, |ordinal| has[ordinal as usize], &mut candidates);
            // Drawn from what is prepared as from the rest, and only where the set has all that is needed.
            let includes = |words: &[u64]| {
                let needed = |ordinal: usize| words.get(ordinal / 64).is_some_and(|word| word >> (ordinal % 64) & 1 == 1);
                (0..mirrors as usize).all(|ordinal| has[ordinal] || !needed(ordinal))
            };
            let (mut prepared, mut drawn) = (Vec::new(), Vec::new());
            let mut random = fastrand::Rng::with_seed(seed);
            let contains = |ordinal: u32| has[ordinal as usize];
            if shortlist.draw_prepared(includes, contains, KEPT, &mut prepared, |n| random.u64(..n)) {
                prop_assert!(told);
                let mut random = fastrand::Rng::with_seed(seed);
                candidates.draw(KEPT, &mut drawn, |n| random.u64(..n));
                prop_assert_eq!(prepared, drawn);
            } else {
                prop_assert!(!told || has.contains(&false) || evaluation.weighted > PREPARED);
            }
            if told {
                let mut listed = candidates.accepted().to_vec();
                listed.sort_unstable_by_key(|accepted| (std::cmp::Reverse(accepted.score), accepted.row));
                prop_assert_eq!(listed, &evaluation.accepted[..evaluation.weighted]);
            } else if mirrors as usize <= NEAREST.min(FARTHEST) {
                // All are on the list.
                prop_assert!(evaluation.weighted <= 1);
            }
        }
    }
}
