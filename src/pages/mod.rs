//! Pages for people: the mirrors of a file (`?mirrorlist`), and all mirrors with what they do (`?mirrorstats`).
//!
//! A page takes a thousand times as long as a redirect, so no shard makes one. It puts a [`Question`] into a bounded queue,
//! and the connection alone waits for the answer. What a page shows is a JSON document, which clients get as it is when they
//! accept JSON. Long JSON answers of other kinds are made here for the same reason.
//!
//! - [`mirror_list`]: the mirrors evaluated and written by the code of the shard's answers ([`Document`])
//! - [`mirror_statistics`]: made here, with the counts of [`traffic`]
//! - [`templates`]: what becomes HTML of it, built in or the operator's own; [`filters`] is how they show numbers and times
//! - [`worker`]: takes the questions and gives the answers

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::handle::{Document, Settings};
use crate::http::response::Content;
use crate::select::MirrorTable;

pub mod filters;
pub mod mirror_list;
pub mod mirror_statistics;
pub(crate) mod sample;
pub mod templates;
pub mod traffic;
pub mod worker;

pub use templates::Templates;

/// What a client wants to see.
#[derive(Debug)]
pub struct Question {
    /// Of what.
    pub subject: Subject,
    /// As what.
    pub form: Form,
    /// Whether it is the answer to a download, and not a list or page.
    pub is_download: bool,
    /// Whether the client takes a compressed answer.
    pub accepts_gzip: bool,
    /// The configuration's part in it, with the templates.
    pub settings: Arc<Settings>,
    /// Where the answer goes. One that is dropped means that it cannot be had.
    pub answer: oneshot::Sender<Content>,
}

/// What an answer is about.
#[derive(Debug)]
pub enum Subject {
    /// The mirrors of a file, all or those that were drawn.
    MirrorList {
        /// The file.
        path: Vec<u8>,
        /// The document.
        document: Document,
    },
    /// All mirrors.
    MirrorStatistics {
        /// The mirrors.
        mirrors: Arc<MirrorTable>,
    },
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// HTML.
    Page,
    /// The document that the page is made of.
    Json {
        /// Indented.
        pretty: bool,
    },
}

/// The pages. Each has a template of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The mirrors of a file.
    MirrorList,
    /// All mirrors.
    MirrorStatistics,
}

impl Page {
    /// All of them.
    pub const ALL: [Page; 2] = [Page::MirrorList, Page::MirrorStatistics];

    /// File name of its template, which is that of Mirrorbits.
    pub fn template(self) -> &'static str {
        match self {
            Page::MirrorList => "mirrorlist.html",
            Page::MirrorStatistics => "mirrorstats.html",
        }
    }
}
