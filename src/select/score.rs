//! The order of the mirrors that may answer, and the weights by which load is shared among the best of them.

use std::cmp::Reverse;

use mb_core::mirror::DownloadProtocol;

use super::filter::{self, FileCopy, Reason, Source, Wanted};
use super::{Client, MirrorTable};

/// A mirror that may answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accepted {
    /// Its row in the mirror table.
    pub row: u32,
    /// The protocol it would answer over.
    pub protocol: DownloadProtocol,
    /// Kilometres to the client; 0 for a client that is not located.
    pub distance: f32,
    /// The higher, the better; 0 for a client that is not located.
    pub score: i64,
    /// Its share of the draw, relative to the sum of all; 0 when it takes no part.
    pub weight: i64,
}

/// What the rules say about one file and one client: who may answer, in which order, and why the others may not.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// By descending score, equal ones by ascending row; in row order for a client that is not located.
    pub accepted: Vec<Accepted>,
    /// How many of `accepted`, from its start, have a weight.
    pub weighted: usize,
    /// In the order they were given.
    pub excluded: Vec<(u32, Reason)>,
    /// Whether the client is located.
    pub located: bool,
}

/// The request's part in an evaluation.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The file.
    pub source: Source,
    /// The client.
    pub client: Client,
    /// Kilometres from the client to each mirror, by row; ignored when it is not located.
    pub distances: &'a [f32],
    /// Schemes that may answer.
    pub wanted: Wanted,
    /// `WeightDistributionRange`.
    pub weight_distribution_range: f32,
}

impl Evaluation {
    /// Evaluates `candidates`, the rows of the mirrors that have the file with their copies, into `self`, whose memory
    /// is used again.
    pub fn evaluate(
        &mut self,
        table: &MirrorTable,
        query: &Query<'_>,
        candidates: impl Iterator<Item = (u32, FileCopy)>,
    ) {
        self.accepted.clear();
        self.excluded.clear();
        self.weighted = 0;
        self.located = query.client.is_located();
        for (row, copy) in candidates {
            match filter::check(table.row(row), copy, &query.source, &query.client, query.wanted) {
                Ok(protocol) => {
                    let known = query.distances.get(row as usize).filter(|_| self.located);
                    let distance = known.copied().unwrap_or(0.0);
                    self.accepted.push(Accepted { row, protocol, distance, score: 0, weight: 0 });
                }
                Err(reason) => self.excluded.push((row, reason)),
            }
        }
        if self.located && !self.accepted.is_empty() {
            self.score(table, query);
        } else {
            self.accepted.sort_unstable_by_key(|accepted| accepted.row);
        }
    }

    fn score(&mut self, table: &MirrorTable, query: &Query<'_>) {
        let (mut closest, mut farthest) = (f32::INFINITY, 0f32);
        for accepted in &self.accepted {
            closest = closest.min(accepted.distance);
            farthest = farthest.max(accepted.distance);
        }
        let scale = Scale::new(closest, farthest, query.weight_distribution_range);
        for accepted in &mut self.accepted {
            let standing = Standing::of(table.row(accepted.row), &query.client);
            (accepted.score, accepted.weight) = scale.score(&standing, accepted.distance);
        }
        self.accepted.sort_unstable_by_key(|accepted| (Reverse(accepted.score), accepted.row));
        self.weighted = self.accepted.partition_point(|accepted| accepted.weight > 0);
    }

    /// Percentages of the load by place in `accepted`, as the mirror list shows them.
    pub fn weight_percent(&self, place: usize) -> f32 {
        match self.weighted {
            0 => 0.0,
            1 => {
                if place == 0 {
                    100.0
                } else {
                    0.0
                }
            }
            _ => {
                let total: i64 = self.accepted.iter().take(self.weighted).map(|accepted| accepted.weight).sum();
                self.accepted.get(place).map_or(0.0, |accepted| accepted.weight as f32 * 100.0 / total as f32)
            }
        }
    }
}

/// What of a score depends on the mirror and the client alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) country: Country,
    pub(super) same_asn: bool,
    /// `Score` of the mirror: percent added to what the rest comes to.
    pub(super) bonus: i32,
}

/// Where the client stands in a mirror's list of countries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Country {
    First,
    Other,
    None,
}

impl Standing {
    /// That of a mirror which has nothing but its distance.
    pub(super) const PLAIN: Standing = Standing { country: Country::None, same_asn: false, bonus: 0 };

    pub(super) fn of(mirror: &super::TableMirror, client: &Client) -> Standing {
        let country = if mirror.first_country() == client.country {
            Country::First
        } else if filter::contains(&mirror.countries, client.country) {
            Country::Other
        } else {
            Country::None
        };
        let settings = &mirror.mirror.settings;
        Standing { country, same_asn: filter::same_asn(settings.asn, client.asn), bonus: settings.score }
    }
}

/// What all scores of one evaluation are relative to.
pub(super) struct Scale {
    /// Kilometres to the closest accepted mirror, greater than 0.
    closest: f32,
    /// Whole kilometres to the farthest one.
    base: i64,
    /// Kilometres up to which mirrors are about as close as the closest.
    near: f32,
}

impl Scale {
    /// From the distances to the closest and the farthest accepted mirror.
    pub(super) fn new(closest: f32, farthest: f32, weight_distribution_range: f32) -> Scale {
        let closest = if closest == 0.0 { f32::from_bits(1) } else { closest };
        Scale { closest, base: farthest as i64, near: closest * weight_distribution_range }
    }

    /// Kilometres up to which mirrors are about as close as the closest.
    pub(super) fn near(&self) -> f32 {
        self.near
    }

    /// Score and weight.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "no distance exceeds half the earth's circumference, so a few of them and their parts fit by far"
    )]
    pub(super) fn score(&self, standing: &Standing, distance: f32) -> (i64, i64) {
        let base = self.base as f32;
        let mut score = self.base - distance as i64 + 1;
        if distance <= self.near {
            let nearness = base - distance;
            score += (if standing.country == Country::First { nearness } else { nearness / 2.0 }) as i64;
        } else if standing.country == Country::First {
            score += (base - distance * 5.0) as i64;
        } else if standing.country == Country::Other {
            score += (base - self.closest) as i64;
        }
        if standing.same_asn {
            score += self.base / 2;
        }
        let factor = f64::from(standing.bonus) / 100.0;
        let score = (score as f64 + score as f64 * factor + 0.5).max(1.0) as i64;
        (score, score.saturating_sub(self.base).max(0))
    }
}
