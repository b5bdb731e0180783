//! What became of a request, for those who count, log and measure: facts only, so that [`super::Handler`] need not know
//! who they are.

use std::net::IpAddr;

use crate::http::request::Method;
use crate::http::response::Status;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// What sort of answer it got.
    pub kind: Kind,
    /// Its status; where `is_offloaded`, the one that the answer will have unless it cannot be had.
    pub status: Status,
    /// How it was asked.
    pub method: Method,
    /// The file that it led to.
    pub file: Option<File>,
    /// Who was chosen to serve it.
    pub chosen: Chosen,
    /// Who asked; known where the choice depended on it.
    pub client: Option<Client>,
    /// Nothing is answered yet: another thread makes the answer.
    pub is_offloaded: bool,
}

impl Outcome {
    /// A request that was refused with `status` before anybody looked at what it asked for.
    pub fn refused(method: Method, status: Status) -> Outcome {
        Outcome {
            kind: Kind::Refusal,
            status,
            method,
            file: None,
            chosen: Chosen::Nobody,
            client: None,
            is_offloaded: false,
        }
    }

    /// The file and the row of the mirror that a download is counted for: a `GET` that was redirected to a mirror.
    pub fn download(&self) -> Option<(File, u32)> {
        match (self.kind, self.method, self.file, self.chosen) {
            (Kind::Redirect, Method::Get, Some(file), Chosen::Mirror { row, .. }) => Some((file, row)),
            _ => None,
        }
    }
}

/// Sorts of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A redirect to a mirror or to a fallback.
    Redirect,
    /// The JSON document of the mirrors that were drawn, or of the fallbacks.
    Json,
    /// The JSON document of all mirrors of a file.
    MirrorList,
    /// The page of all mirrors of a file.
    MirrorListPage,
    /// All mirrors with their state and counts.
    MirrorStatistics,
    /// A hash of a file.
    Checksum,
    /// The counts of a file, which the index does not have.
    FileStatistics,
    /// The client's copy is as new as ours.
    NotModified,
    /// A redirect to the clean form of the path.
    CleanPath,
    /// What methods there are.
    Options,
    /// Any answer of status 400 and above.
    Refusal,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Kind; 11] = [
        Kind::Redirect,
        Kind::Json,
        Kind::MirrorList,
        Kind::MirrorListPage,
        Kind::MirrorStatistics,
        Kind::Checksum,
        Kind::FileStatistics,
        Kind::NotModified,
        Kind::CleanPath,
        Kind::Options,
        Kind::Refusal,
    ];
}

/// A file of the index that an outcome is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its row in the files of the snapshot.
    pub row: u32,
    /// Its size in bytes.
    pub size: u64,
}

/// Who was chosen to serve a file; the first of several.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Chosen {
    /// Nobody, or nobody had to be.
    Nobody,
    /// A mirror.
    Mirror {
        /// Its row in the mirrors of the snapshot.
        row: u32,
        /// Kilometres to the client; 0 when it is not located.
        distance: f32,
    },
    /// The fallback in this place of the configuration.
    Fallback(usize),
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address.
    pub address: IpAddr,
    /// The number of the autonomous system; 0 when not known.
    pub asn: u32,
}
