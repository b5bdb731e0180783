//! What an answer to a health check means: pure.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice))]

use crate::http::Head;

/// Whether a mirror can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can.
    Up,
    /// It lacks a file that it should have; with the file's path.
    MissingFile(String),
    /// It answers, but not as it should; with the reason.
    Refused(String),
    /// It does not answer.
    Unreachable,
}

impl Verdict {
    /// Whether the mirror can be used.
    pub(super) fn is_up(&self) -> bool {
        *self == Verdict::Up
    }

    /// The reason that is shown to people; `None` when the mirror is up.
    pub(super) fn down_reason(&self) -> Option<String> {
        match self {
            Verdict::Up => None,
            Verdict::MissingFile(path) => Some(format!("File not found {path} (error 404)")),
            Verdict::Refused(reason) => Some(reason.clone()),
            Verdict::Unreachable => Some("Unreachable".to_owned()),
        }
    }
}

/// Judges the answer to a request for `path`; `None` stands for no answer.
pub(super) fn judge(answer: Option<Head>, redirects_allowed: bool, path: &[u8]) -> Verdict {
    match answer.map(|head| head.status) {
        None => Verdict::Unreachable,
        Some(200) => Verdict::Up,
        Some(300..=399) if redirects_allowed => Verdict::Up,
        Some(300..=399) => Verdict::Refused("Unauthorized redirect".to_owned()),
        Some(404) => Verdict::MissingFile(String::from_utf8_lossy(path).into_owned()),
        Some(status) => Verdict::Refused(format!("Got status code {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: u16, redirects_allowed: bool) -> Option<String> {
        judge(Some(Head { status, length: None }), redirects_allowed, b"/a b").down_reason()
    }

    #[test]
    fn reasons_are_those_of_the_reference() {
        assert_eq!(reason(200, false), None);
        assert_eq!(reason(302, true), None);
        assert_eq!(reason(302, false).as_deref(), Some("Unauthorized redirect"));
        assert_eq!(reason(404, true).as_deref(), Some("File not found /a b (error 404)"));
        assert_eq!(reason(503, true).as_deref(), Some("Got status code 503"));
        assert_eq!(reason(206, true).as_deref(), Some("Got status code 206"));
        assert_eq!(judge(None, true, b"/a").down_reason().as_deref(), Some("Unreachable"));
    }
}
