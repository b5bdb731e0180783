//! What operators are told in numbers: counted by the shards, added up beside them, shown when somebody asks.
//!
//! - [`tally`]: what one shard counts, in memory that no other core writes
//! - [`hand_over`]: how tallies come to the control thread
//! - [`totals`]: all tallies of this process added up, and the durations of the last minute
//! - [`facts`]: everything that one look at the daemon shows
//! - [`exposition`]: facts as Prometheus reads them
//! - [`readiness`]: facts as `/readyz` tells them
//!
//! `docs/metrics.md` lists the metrics. What asks and serves is [`crate::control::metrics`]: everything here but the
//! hand-over is a function of values.

pub mod exposition;
pub mod facts;
pub mod hand_over;
pub mod readiness;
pub mod tally;
pub mod totals;
