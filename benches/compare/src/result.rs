//! Medians, as JSON and as the table of docs/performance.md.

use std::fmt::Write as _;
use std::process::Command;

use mb_load::Report;
use serde::Serialize;

use crate::index::IndexResult;
use crate::workload::Workload;
use crate::{Arguments, BenchError};

/// One server under one workload in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) server: &'static str,
    pub(crate) workload: Workload,
    pub(crate) per_second: f64,
    /// Processor time of the server for each request, in microseconds.
    pub(crate) cpu_us: f64,
    /// The part of it that is not the kernel's.
    pub(crate) user_us: f64,
    /// Share of the core that the server used; where it is well below 1, wrk was the limit.
    pub(crate) busy: f64,
    /// Share of its core that wrk used.
    pub(crate) client_busy: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    /// Resident memory that each idle connection added.
    pub(crate) idle_bytes: Option<f64>,
}

/// Load at a fixed rate beside something else; latencies from the intended moment, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PacedResult {
    server: &'static str,
    what: &'static str,
    /// How often the other thing was done meanwhile: swaps, or mirror lists.
    times: u64,
    answered: u64,
    failed: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

impl PacedResult {
    pub(crate) fn new(server: &'static str, what: &'static str, times: u64, report: &Report) -> PacedResult {
        let micros = |quantile| report.latency(quantile).as_nanos() as f64 / 1e3;
        let (answered, failed) = (report.answered(), report.failures());
        let (p50_us, p99_us, p999_us) = (micros(0.5), micros(0.99), micros(0.999));
        PacedResult { server, what, times, answered, failed, p50_us, p99_us, p999_us }
    }

    /// Several rounds of the same as one: the sums of what was counted, the medians of the latencies.
    pub(crate) fn of_rounds(rounds: &[PacedResult]) -> Option<PacedResult> {
        let sum = |count: fn(&PacedResult) -> u64| rounds.iter().map(count).sum();
        let middle = |latency: fn(&PacedResult) -> f64| median(rounds.iter().map(latency).collect());
        Some(PacedResult {
            times: sum(|round| round.times),
            answered: sum(|round| round.answered),
            failed: sum(|round| round.failed),
            p50_us: middle(|round| round.p50_us)?,
            p99_us: middle(|round| round.p99_us)?,
            p999_us: middle(|round| round.p999_us)?,
            ..*rounds.first()?
        })
    }
}

/// Everything that was measured, and where.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    machine: String,
    versions: Vec<String>,
    workload_size: String,
    measurements: Vec<Measurement>,
    pub(crate) swaps: Vec<PacedResult>,
    /// Without and beside mirror lists.
    pub(crate) lists: Vec<PacedResult>,
    pub(crate) change_ms: Option<Vec<f64>>,
    /// Largest part that one of two shards had, in each round.
    pub(crate) spread: Option<Vec<f64>>,
    pub(crate) index: Option<IndexResult>,
}

impl Results {
    pub(crate) fn new(arguments: &Arguments) -> Result<Results, BenchError> {
        let (server, client) = arguments.cores()?;
        let Arguments { rounds, seconds, files, mirrors, idle, rate, .. } = arguments;
        Ok(Results {
            machine: machine(server, client),
            versions: versions(),
            workload_size: format!(
                "{files} files, {mirrors} mirrors; small: a hundredth and an eighth of that; 64 connections; {idle} idle \
                 ones; swaps at {rate} requests per second; medians of {rounds} rounds of {seconds} s"
            ),
            measurements: Vec::new(),
            swaps: Vec::new(),
            lists: Vec::new(),
            change_ms: None,
            spread: None,
            index: None,
        })
    }

    pub(crate) fn add(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    /// The tables of docs/performance.md.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("Machine: {}.\n\n", self.machine);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Versions: {}.\n\nWorkloads: {}.\n", self.versions.join("; "), self.workload_size);
        if !self.measurements.is_empty() {
            text.push_str(
                "| workload | server | requests/s | × nginx | CPU µs/request | user | × floor | core | wrk's core | p50 µs \
                 | p99 µs | p99.9 µs |\n",
            );
            text.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        }
        let mut idle = Vec::new();
        for (workload, server) in self.pairs() {
            let of = |value: fn(&Measurement) -> Option<f64>, decimals| match self.median(workload, server, value) {
                Some(median) => format!("{median:.decimals$}"),
                None => "–".to_owned(),
            };
            let ratio =
                |to, value| self.ratio(workload, server, to, value).map_or("–".into(), |it| format!("{it:.2}"));
            let _ = writeln!(
                text,
                "| {} | {server} | {} | {} | {} | {} | {} | {} % | {} % | {} | {} | {} |",
                workload.title(),
                of(|m| Some(m.per_second), 0),
                ratio("nginx", |m| m.per_second),
                of(|m| Some(m.cpu_us), 2),
                of(|m| Some(m.user_us), 2),
                ratio("epoll floor", |m| m.cpu_us),
                of(|m| Some(m.busy * 100.0), 0),
                of(|m| Some(m.client_busy * 100.0), 0),
                of(|m| m.p50_us, 0),
                of(|m| m.p99_us, 0),
                of(|m| m.p999_us, 0),
            );
            if let Some(most) = self.of(workload, server).filter_map(|m| m.idle_bytes).reduce(f64::max) {
                idle.push(format!("{server} {most:.0} bytes"));
            }
        }
        if !idle.is_empty() {
            let _ = writeln!(text, "\nResident memory that an idle connection adds: {}.", idle.join(", "));
        }
        self.write_paced(&mut text);
        if let Some(times) = &self.change_ms {
            let middle = median(times.clone()).unwrap_or_default();
            let longest = times.iter().copied().fold(0.0, f64::max);
            let _ = writeln!(
                text,
                "\nFrom `mirrorbits disable` to the first changed answer: {middle:.0} ms, {longest:.0} ms at most."
            );
        }
        if let Some(parts) = &self.spread {
            let parts: Vec<String> = parts.iter().map(|part| format!("{:.0} %", part * 100.0)).collect();
            let _ = writeln!(
                text,
                "\n{} connections on two shards, the larger part in each round: {}.",
                crate::spread::CONNECTIONS,
                parts.join(", ")
            );
        }
        if let Some(index) = &self.index {
            let _ = writeln!(
                text,
                "\nIndex: {:.1} bytes per file besides path and SHA-256; {:.1} MB; assembled in {:.0} ms, published in \
                 {:.0} ms, opened and verified in {:.0} ms.",
                index.bytes_per_file,
                index.file_bytes as f64 / 1e6,
                index.assemble_ms,
                index.publish_ms,
                index.open_ms,
            );
        }
        text
    }

    fn write_paced(&self, text: &mut String) {
        if self.swaps.is_empty() && self.lists.is_empty() {
            return;
        }
        text.push_str(
            "\n| at a fixed rate | server | swaps, lists | right answers | failed | p50 µs | p99 µs | p99.9 µs |\n",
        );
        text.push_str("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        let paced = self.lists.iter().chain(&self.swaps);
        for PacedResult { server, what, times, answered, failed, p50_us, p99_us, p999_us } in paced {
            let _ = writeln!(
                text,
                "| {what} | {server} | {times} | {answered} | {failed} | {p50_us:.0} | {p99_us:.0} | {p999_us:.0} |"
            );
        }
    }

    /// What was measured, in the order of its first round.
    fn pairs(&self) -> Vec<(Workload, &'static str)> {
        let mut pairs = Vec::new();
        for measurement in &self.measurements {
            let pair = (measurement.workload, measurement.server);
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        pairs
    }

    fn of(&self, workload: Workload, server: &str) -> impl Iterator<Item = &Measurement> {
        self.measurements.iter().filter(move |m| m.workload == workload && m.server == server)
    }

    /// The median of how often `value` holds that of the server `to`, each taken in the same round: the speed of a virtual
    /// machine changes by a fifth from one minute to the next.
    fn ratio(&self, workload: Workload, server: &str, to: &str, value: fn(&Measurement) -> f64) -> Option<f64> {
        let rounds = self.of(workload, server).zip(self.of(workload, to));
        median(rounds.map(|(ours, theirs)| value(ours) / value(theirs)).collect())
    }

    fn median(&self, workload: Workload, server: &str, value: fn(&Measurement) -> Option<f64>) -> Option<f64> {
        median(self.of(workload, server).filter_map(value).collect())
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

fn machine(server_core: usize, client_core: usize) -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        line.map(|value| value.trim_start_matches([' ', '\t', ':']).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{}, {cores} cores, {} of memory, Linux {}; servers on core {server_core}, clients on core {client_core}; load {} \
         before",
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        rustix::system::uname().release().to_string_lossy(),
        load.split(' ').next().unwrap_or_default(),
    )
}

fn versions() -> Vec<String> {
    let profile = if cfg!(debug_assertions) { "debug build" } else { "release profile" };
    let mut versions = vec![format!("mirrorbits {} ({profile})", env!("CARGO_PKG_VERSION"))];
    for (program, option) in [("/usr/sbin/nginx", "-v"), ("wrk", "-v")] {
        let Ok(output) = Command::new(program).arg(option).output() else { continue };
        let text = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
        let line = text.lines().next().unwrap_or_default();
        versions
            .push(line.split(" Copyright").next().unwrap_or_default().trim_start_matches("nginx version: ").to_owned());
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
