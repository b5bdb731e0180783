//! The selection engine: which mirrors may answer a request, and in which order.
//!
//! Pure: mirrors, file, client, settings and random numbers come in as arguments. The stages are files of their own:
//!
//! - [`table`]: the mirrors of one generation, prepared for comparison
//! - [`filter`]: whether a mirror may answer, and if not, why
//! - [`score`]: the order of those that may, and how load is shared among them
//! - [`shortlist`]: the few that matter to the clients of one place
//! - [`draw`]: the random choice of one request
//! - [`fallback`]: servers of last resort
//! - [`cache`], [`associative`]: what is kept between requests
//!
//! The rules are those of Mirrorbits 0.6.1, number by number; `tests/fixtures/vectors` records its answers. All arithmetic
//! widths are part of the rules: "f32" in a comment marks where rounding to 32 bits decides.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

pub mod associative;
pub mod cache;
pub mod distance;
pub mod draw;
pub mod fallback;
pub mod filter;
pub mod score;
pub mod shortlist;
pub mod table;

#[cfg(test)]
mod vectors;

pub use filter::{Reason, Wanted};
pub use score::{Accepted, Evaluation};
pub use table::{Code, MirrorTable, TableMirror};

/// The client as the rules see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Country; [`Code::NONE`] for a client that is not located.
    pub country: Code,
    /// Continent.
    pub continent: Code,
    /// Autonomous system number; 0 when unknown.
    pub asn: u32,
}

impl Client {
    /// Whether the rules know where the client is. Only its country counts, not its coordinates.
    pub fn is_located(&self) -> bool {
        self.country != Code::NONE
    }
}

/// The configuration's part in the rules.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `WeightDistributionRange`.
    pub weight_distribution_range: f32,
    /// `FixTimezoneOffsets`.
    pub fix_timezone_offsets: bool,
    /// `AllowOutdatedFiles`.
    pub allow_outdated_files: Vec<mb_core::config::OutdatedRule>,
}

impl Rules {
    /// How many minutes a copy of the file at `path` may be behind its source; `None` when no rule speaks of it.
    pub fn outdated_minutes(&self, path: &[u8]) -> Option<u32> {
        self.allow_outdated_files.iter().find(|rule| path.starts_with(rule.prefix.as_bytes())).map(|rule| rule.minutes)
    }
}
