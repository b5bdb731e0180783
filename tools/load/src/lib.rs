//! Load on a redirector, with a look at every answer: what a test of the statistics counts by, what an upgrade must not
//! disturb, and what a latency at a fixed rate is measured with.
//!
//! - [`plan`]: what to send, how fast, how long; only ever to a loopback address
//! - [`request`]: the sequence of requests, decided by a seed
//! - [`answer`]: one HTTP answer out of received bytes, without mercy
//! - [`verify`]: whether it is the right answer
//! - `schedule`: who sends the next request, and when it was meant to be sent
//! - `client`: one connection after the other, and every way in which one can fail
//! - [`report`]: the counts and the latencies
//! - [`run`]: all of it on a thread of its own
//!
//! A request that was sent and not answered is a failure, whoever closed the connection and however politely. What is not:
//! a connection that the server closes before any byte of the next request was sent, and a close that an answer announced.

pub mod answer;
mod client;
pub mod plan;
pub mod report;
pub mod request;
pub mod run;
mod schedule;
pub mod verify;

pub use plan::{Limit, Mode, Pace, Plan, PlanError};
pub use report::{Failure, Report};
pub use request::{File, Kind, Mix};
pub use run::{Running, start};
