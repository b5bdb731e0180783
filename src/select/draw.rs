//! The random choice of one request among the mirrors that may answer it.

use super::{Accepted, Evaluation};

/// How many mirrors a draw keeps: the one chosen and its alternatives.
pub const KEPT: usize = 5;

/// What a draw needs of an [`Evaluation`], in the form that makes it one random number and one search.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    accepted: Vec<Accepted>,
    /// Sums of the weights of all candidates up to each; empty when load is not shared by weight.
    cumulative: Vec<u64>,
    located: bool,
}

impl Candidates {
    /// Candidates of `evaluation`. Where more than one has a weight, those without one can never be chosen and are left
    /// out.
    pub fn of(evaluation: &Evaluation) -> Candidates {
        let shared = evaluation.located && evaluation.weighted > 1;
        let weighted = evaluation.accepted.get(..evaluation.weighted).filter(|_| shared);
        let kept = weighted.unwrap_or(&evaluation.accepted);
        let mut sum = 0_u64;
        let cumulative = kept.iter().map(|accepted| {
            sum = sum.saturating_add(accepted.weight as u64);
            sum
        });
        Candidates {
            cumulative: if shared { cumulative.collect() } else { Vec::new() },
            accepted: kept.into(),
            located: evaluation.located,
        }
    }

    /// Empties them for a located client's mirrors with a weight, which [`Candidates::push_shared`] adds.
    pub(super) fn clear_shared(&mut self) {
        self.accepted.clear();
        self.cumulative.clear();
        self.located = true;
    }

    /// Adds a mirror whose weight is positive. The order makes no difference to a draw.
    pub(super) fn push_shared(&mut self, accepted: Accepted) {
        let sum = self.cumulative.last().copied().unwrap_or(0);
        self.cumulative.push(sum.saturating_add(accepted.weight as u64));
        self.accepted.push(accepted);
    }

    /// Whether there is more than one mirror with a weight.
    pub(super) fn is_shared(&self) -> bool {
        self.cumulative.len() > 1
    }

    /// The weights up to that of a place, added up.
    pub(super) fn sum(&self, place: usize) -> u64 {
        self.cumulative.get(place).copied().unwrap_or(0)
    }

    /// All of them.
    pub(super) fn accepted(&self) -> &[Accepted] {
        &self.accepted
    }

    /// Whether nobody may answer.
    pub fn is_empty(&self) -> bool {
        self.accepted.is_empty()
    }

    /// Size in memory, in bytes, for the cache's bound.
    pub fn bytes(&self) -> usize {
        let tables = size_of_val(self.accepted.as_slice()).saturating_add(size_of_val(self.cumulative.as_slice()));
        tables.saturating_add(size_of::<Self>())
    }

    /// Draws at most `wanted` mirrors into `drawn`, the chosen one first.
    ///
    /// - client not located: at most [`KEPT`] in random order
    /// - load shared by weight: at most [`KEPT`], one after another without replacement
    /// - otherwise: all in sorted order
    ///
    /// `random_below(n)` returns a uniform number below `n`, which is positive.
    pub fn draw(&self, wanted: usize, drawn: &mut Vec<Accepted>, random_below: impl FnMut(u64) -> u64) {
        drawn.clear();
        if !self.located {
            self.shuffle(wanted.min(KEPT), drawn, random_below);
        } else if self.cumulative.is_empty() {
            drawn.extend(self.accepted.iter().take(wanted));
        } else {
            let take = |place: usize| {
                if let Some(&accepted) = self.accepted.get(place) {
                    drawn.push(accepted);
                }
            };
            draw_by_weight(self.cumulative.len(), |place| self.sum(place), wanted.min(KEPT), random_below, take);
        }
    }

    /// The first `wanted` steps of a Fisher-Yates shuffle, without moving the candidates.
    fn shuffle(&self, wanted: usize, drawn: &mut Vec<Accepted>, mut random_below: impl FnMut(u64) -> u64) {
        let mut places = [0usize; KEPT];
        for step in 0..wanted.min(self.accepted.len()) {
            let left = self.accepted.len().saturating_sub(step);
            let mut place = random_below(left as u64) as usize;
            // The places taken before are skipped in ascending order, which `places` is kept in.
            let mut slot = 0_usize;
            for &taken in places.iter().take(step) {
                if taken > place {
                    break;
                }
                place = place.wrapping_add(1);
                slot = slot.wrapping_add(1);
            }
            insert(&mut places, step, slot, place);
            drawn.extend(self.accepted.get(place));
        }
    }
}

/// Inserts an item at `at` into the first `held` items, behind which there is room for one more.
#[inline]
fn insert<T>(items: &mut [T; KEPT], held: usize, at: usize, mut item: T) {
    for place in items.iter_mut().take(held.saturating_add(1)).skip(at) {
        std::mem::swap(place, &mut item);
    }
}

/// Draws at most `wanted` of `count` places one after another without replacement, each with a probability of its weight
/// among those that are left. `sum` tells the weights of all places up to one, added up; every weight is positive.
#[inline]
pub(super) fn draw_by_weight(
    count: usize,
    sum: impl Fn(usize) -> u64,
    wanted: usize,
    mut random_below: impl FnMut(u64) -> u64,
    mut take: impl FnMut(usize),
) {
    let Some(last) = count.checked_sub(1) else { return };
    let total = sum(last);
    let mut chosen = Chosen::default();
    for _ in 0..wanted.min(count) {
        // What was chosen is part of the total, and sums ascend: neither of these wraps.
        let point = chosen.skip_over(random_below(total.wrapping_sub(chosen.weight)));
        let place = place_of(point, count, &sum);
        let start = place.checked_sub(1).map_or(0, &sum);
        chosen.insert(start, sum(place).wrapping_sub(start));
        take(place);
    }
}

/// The first of `count` places whose sum is above `point`. Halves without a branch, since no processor foresees the way.
#[inline]
fn place_of(point: u64, count: usize, sum: impl Fn(usize) -> u64) -> usize {
    // `start` and `left` together never exceed `count`, and `half` is from 1 to `left`: nothing wraps.
    let (mut start, mut left) = (0_usize, count);
    while left > 1 {
        let half = left / 2;
        let is_before = sum(start.wrapping_add(half).wrapping_sub(1)) <= point;
        start = start.wrapping_add(if is_before { half } else { 0 });
        left = left.wrapping_sub(half);
    }
    start
}

/// The spans of cumulative weight that earlier draws took, ascending.
#[derive(Default)]
struct Chosen {
    spans: [(u64, u64); KEPT],
    count: usize,
    weight: u64,
}

impl Chosen {
    /// The `point`th unit of weight among those that are not taken.
    fn skip_over(&self, mut point: u64) -> u64 {
        for &(start, weight) in self.spans.iter().take(self.count) {
            if point < start {
                break;
            }
            point = point.saturating_add(weight);
        }
        point
    }

    fn insert(&mut self, start: u64, weight: u64) {
        let slot = self.spans.iter().take(self.count).take_while(|span| span.0 < start).count();
        insert(&mut self.spans, self.count, slot, (start, weight));
        self.count = self.count.saturating_add(1);
        self.weight = self.weight.saturating_add(weight);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use mb_core::mirror::DownloadProtocol;
    use proptest::prelude::*;

    use super::*;

    fn evaluation(weights: &[i64], located: bool) -> Evaluation {
        let accepted = weights.iter().enumerate().map(|(row, &weight)| Accepted {
            row: row as u32,
            protocol: DownloadProtocol::Https,
            distance: 0.0,
            score: weight,
            weight,
        });
        Evaluation {
            accepted: accepted.collect(),
            weighted: weights.iter().filter(|&&weight| weight > 0).count(),
            excluded: Vec::new(),
            located,
        }
    }

    #[test]
    fn first_draws_follow_the_weights() {
        let candidates = Candidates::of(&evaluation(&[700, 200, 100, 0], true));
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = Vec::new();
        let mut counts = [0; 4];
        for _ in 0..100_000 {
            candidates.draw(1, &mut drawn, |n| random.u64(..n));
            counts[drawn[0].row as usize] += 1;
        }
        assert_eq!(counts[3], 0);
        for (count, expected) in counts.iter().zip([70_000f64, 20_000.0, 10_000.0]) {
            assert!((f64::from(*count) - expected).abs() < 600.0, "{counts:?}");
        }
    }

    #[test]
    fn second_draws_follow_the_remaining_weights() {
        let candidates = Candidates::of(&evaluation(&[600, 300, 100], true));
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = Vec::new();
        let (mut first_is_0, mut then_1) = (0, 0);
        for _ in 0..100_000 {
            candidates.draw(2, &mut drawn, |n| random.u64(..n));
            if drawn[0].row == 0 {
                first_is_0 += 1;
                then_1 += i32::from(drawn[1].row == 1);
            }
        }
        let share = f64::from(then_1) / f64::from(first_is_0);
        assert!((share - 0.75).abs() < 0.01, "{share}");
    }

    #[test]
    fn unlocated_clients_spread_evenly() {
        let candidates = Candidates::of(&evaluation(&[0; 8], false));
        let mut random = fastrand::Rng::with_seed(7);
        let mut drawn = Vec::new();
        let mut counts = [0; 8];
        for _ in 0..80_000 {
            candidates.draw(KEPT, &mut drawn, |n| random.u64(..n));
            assert_eq!(drawn.len(), KEPT);
            for accepted in &drawn {
                counts[accepted.row as usize] += 1;
            }
        }
        assert!(counts.iter().all(|count| (count - 50_000i32).abs() < 800), "{counts:?}");
    }

    proptest! {
        #[test]
        fn nobody_is_drawn_twice(
            mut weights in prop::collection::vec(0i64..5000, 0..40), located: bool, seed: u64, wanted in 0usize..50
        ) {
            weights.sort_unstable_by(|a, b| b.cmp(a));
            let evaluation = evaluation(&weights, located);
            let mut random = fastrand::Rng::with_seed(seed);
            let mut drawn = Vec::new();
            Candidates::of(&evaluation).draw(wanted, &mut drawn, |n| random.u64(..n));
            let rows: HashSet<u32> = drawn.iter().map(|accepted| accepted.row).collect();
            prop_assert_eq!(rows.len(), drawn.len());
            let available = match (located, evaluation.weighted) {
                (false, _) => weights.len().min(KEPT),
                (true, 0 | 1) => weights.len(),
                (true, weighted) => weighted.min(KEPT),
            };
            prop_assert_eq!(drawn.len(), wanted.min(available));
            if located && evaluation.weighted > 1 {
                prop_assert!(drawn.iter().all(|accepted| accepted.weight > 0));
            }
        }
    }
}
