//! What the servers are asked.

use clap::ValueEnum;
use serde::Serialize;

/// Something to measure. Each one belongs to one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Random files and clients, a repository and mirrors of a hundredth and an eighth of the size.
    Small,
    /// One file and one client, over and over.
    KeepAlive,
    /// The same, 16 requests in one write.
    Pipelined,
    /// The same, a connection for each request.
    PerRequest,
    /// Random files and clients.
    Random,
    /// The same beside many connections that do nothing.
    Idle,
    /// Random files and clients, answered in JSON.
    Json,
    /// From a `disable` to the first changed answer.
    Change,
    /// Redirects at a fixed rate, without and beside clients of mirror lists.
    Lists,
    /// How evenly connections are spread over two shards.
    Spread,
    /// Random files and clients, many distinct sets of mirrors.
    Sets,
    /// The index is exchanged while random files are asked for at a fixed rate.
    Swap,
    /// Times and sizes of the index, without servers.
    Index,
}

impl Workload {
    /// Those of a world.
    pub(crate) fn of(world: &str) -> impl Iterator<Item = Workload> {
        use Workload::*;
        let of: &[Workload] = match world {
            "small" => &[Small],
            "complete" => &[KeepAlive, Pipelined, PerRequest, Random, Idle, Json, Lists, Change, Spread],
            _ => &[Sets, Swap, Index],
        };
        of.iter().copied()
    }

    /// What the table calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Workload::Small => "random files and clients, small",
            Workload::KeepAlive => "one file, keep-alive",
            Workload::Pipelined => "one file, 16 pipelined",
            Workload::PerRequest => "one file, one connection per request",
            Workload::Random => "random files and clients",
            Workload::Idle => "random, beside idle connections",
            Workload::Json => "random, JSON",
            Workload::Change => "`disable` to the first changed answer",
            Workload::Lists => "mirror lists beside redirects",
            Workload::Spread => "spread over two shards",
            Workload::Sets => "random, many sets of mirrors",
            Workload::Swap => "swaps under load",
            Workload::Index => "index",
        }
    }

    /// Whether all servers are asked by wrk, only ours, or none.
    pub(crate) fn by_wrk(self) -> bool {
        !matches!(self, Workload::Lists | Workload::Change | Workload::Spread | Workload::Swap | Workload::Index)
    }

    pub(crate) fn only_ours(self) -> bool {
        self == Workload::Json
    }

    pub(crate) fn is_random(self) -> bool {
        !matches!(self, Workload::KeepAlive | Workload::Pipelined | Workload::PerRequest)
    }

    /// Requests in one write.
    pub(crate) fn pipelined(self) -> usize {
        if self == Workload::Pipelined { 16 } else { 1 }
    }

    /// Header lines for wrk.
    pub(crate) fn headers(self) -> &'static str {
        match self {
            Workload::PerRequest => "Connection: close",
            Workload::Json => "Accept: application/json",
            _ => "",
        }
    }
}
