//! What a run found: counts of answers and of every kind of failure, and the latencies of right answers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

use crate::plan::Plan;
use crate::request::{Kind, Request};
use crate::verify::Right;

/// Longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(120);

/// Failures that are described in words.
const EXAMPLES: usize = 10;

/// A way to fail. Each one is one request that got no right answer, but for [`Failure::UnexpectedBytes`] and
/// [`Failure::NotClosed`], which are about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Nobody listened.
    Refused,
    /// No connection came about, for another reason.
    NotConnected,
    /// The connection was reset after the request was sent.
    Reset,
    /// The connection was closed after the request was sent, before the first byte of its answer.
    ClosedUnanswered,
    /// The connection was closed in the middle of the answer.
    ClosedMidAnswer,
    /// No whole answer within the timeout.
    Timeout,
    /// At a fixed rate: no connection was free within the timeout, so that it was never sent.
    NeverSent,
    /// The answer is not HTTP.
    Malformed,
    /// Another status than expected.
    WrongStatus,
    /// A redirect to another file, or to something that is no URL.
    WrongLocation,
    /// A redirect to a mirror that is not in the list.
    WrongMirror,
    /// A document that is no JSON, or about another file.
    WrongBody,
    /// Bytes that answer no request.
    UnexpectedBytes,
    /// The server announced a close and did not close within the timeout.
    NotClosed,
}

/// The counts of one kind of request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Answered, and rightly.
    pub right: u64,
    /// Everything else.
    pub failed: u64,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// By kind, as [`Kind::ALL`].
    pub kinds: [Counts; Kind::ALL.len()],
    /// Well-formed answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// What went wrong, by how.
    pub failures: BTreeMap<Failure, u64>,
    /// The first failures, in words.
    pub examples: Vec<String>,
    /// Latencies of right answers in nanoseconds.
    pub latencies: Histogram<u64>,
    /// Connections that came about.
    pub connections: u64,
    /// Connections that the server closed before any byte of the next request was sent.
    pub closed_idle: u64,
    /// Connections that the server closed as an answer had announced.
    pub closed_announced: u64,
    /// Requests sent once more, since they were behind the last answer of a connection.
    pub sent_again: u64,
    /// `GET` requests that were redirected, by file: what statistics count as downloads.
    pub redirects_by_file: Vec<u64>,
    /// The same by mirror; empty when the plan names none.
    pub redirects_by_mirror: Vec<u64>,
}

impl Report {
    pub(crate) fn new(plan: &Plan) -> Result<Report, CreationError> {
        Ok(Report {
            elapsed: Duration::ZERO,
            kinds: Default::default(),
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            examples: Vec::new(),
            latencies: Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3)?,
            connections: 0,
            closed_idle: 0,
            closed_announced: 0,
            sent_again: 0,
            redirects_by_file: vec![0; plan.files.len()],
            redirects_by_mirror: vec![0; plan.mirrors.len()],
        })
    }

    pub(crate) fn right(&mut self, request: &Request, right: Right, latency: Duration) {
        self.kinds[request.kind as usize].right += 1;
        self.latencies.saturating_record(latency.as_nanos() as u64);
        if let Right::Redirect(mirror) = right
            && request.kind != Kind::Head
        {
            self.redirects_by_file[request.file] += 1;
            if let Some(mirror) = mirror {
                self.redirects_by_mirror[mirror] += 1;
            }
        }
    }

    /// A request that got no right answer.
    pub(crate) fn failed(&mut self, request: &Request, failure: Failure, plan: &Plan, detail: impl fmt::Display) {
        self.kinds[request.kind as usize].failed += 1;
        let Request { kind, file, client } = request;
        let client = client.map(|client| format!(" for {client}")).unwrap_or_default();
        self.count(failure, format_args!("{} {}{client}: {detail}", kind.name(), plan.files[*file].path));
    }

    /// A failure of a connection.
    pub(crate) fn count(&mut self, failure: Failure, detail: impl fmt::Display) {
        *self.failures.entry(failure).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{failure:?}: {detail}"));
        }
    }

    /// Right answers of all kinds.
    pub fn answered(&self) -> u64 {
        self.kinds.iter().map(|counts| counts.right).sum()
    }

    /// Failures of every kind.
    pub fn failures(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Right answers of a kind.
    pub fn right_of(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize].right
    }

    /// Right answers per second.
    pub fn rate(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that `quantile` (0 to 1) of the right answers stayed below.
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(quantile))
    }

    /// Writes everything as one JSON object; latencies in microseconds, counts by file only of files that were redirected.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_json(&self, plan: &Plan, out: impl std::io::Write) -> serde_json::Result<()> {
        let micros = |quantile| self.latency(quantile).as_nanos() as f64 / 1e3;
        let by_file = plan.files.iter().map(|file| &file.path).zip(&self.redirects_by_file);
        let document = Document {
            seconds: self.elapsed.as_secs_f64(),
            answered: self.answered(),
            failed: self.failures(),
            per_second: self.rate(),
            kinds: Kind::ALL.iter().map(|kind| kind.name()).zip(&self.kinds).collect(),
            statuses: &self.statuses,
            failures: &self.failures,
            examples: &self.examples,
            latency_us: QUANTILES.map(|(name, quantile)| (name, micros(quantile))).into_iter().collect(),
            connections: self.connections,
            closed_idle: self.closed_idle,
            closed_announced: self.closed_announced,
            sent_again: self.sent_again,
            redirects_by_file: by_file.filter(|(_, count)| **count > 0).collect(),
            redirects_by_mirror: plan.mirrors.iter().zip(&self.redirects_by_mirror).collect(),
        };
        serde_json::to_writer_pretty(out, &document)
    }
}

const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

#[derive(Serialize)]
struct Document<'a> {
    seconds: f64,
    answered: u64,
    failed: u64,
    per_second: f64,
    kinds: BTreeMap<&'static str, &'a Counts>,
    statuses: &'a BTreeMap<u16, u64>,
    failures: &'a BTreeMap<Failure, u64>,
    examples: &'a [String],
    latency_us: BTreeMap<&'static str, f64>,
    connections: u64,
    closed_idle: u64,
    closed_announced: u64,
    sent_again: u64,
    redirects_by_file: BTreeMap<&'a String, &'a u64>,
    redirects_by_mirror: BTreeMap<&'a String, &'a u64>,
}

/// A summary for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answered, failures) = (self.answered(), self.failures());
        writeln!(f, "{answered} right answers, {failures} failures in {:.2?}: {:.0}/s", self.elapsed, self.rate())?;
        for (kind, Counts { right, failed }) in Kind::ALL.iter().zip(&self.kinds) {
            if right + failed > 0 {
                writeln!(f, "  {:<12} {right} right, {failed} failed", kind.name())?;
            }
        }
        write!(f, "latency")?;
        for (name, quantile) in QUANTILES {
            write!(f, "  {name} {:.1?}", self.latency(quantile))?;
        }
        writeln!(
            f,
            "\n{} connections; the server closed {} while idle and {} as announced; {} requests sent again",
            self.connections, self.closed_idle, self.closed_announced, self.sent_again
        )?;
        for (failure, count) in &self.failures {
            writeln!(f, "  {count} × {failure:?}")?;
        }
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}
