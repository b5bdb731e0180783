//! What the two processes say to each other: `PROTOCOL.md` in this folder has the meaning of each message.

use mb_core::foreign_text::ForeignText;
use serde::{Deserialize, Serialize};

/// Versions of the protocol that this program speaks, newest first.
pub const PROTOCOLS: &[u32] = &[1];
/// Longest message in bytes: far more than the largest, a full batch of sockets with long paths.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most characters of what is wrong with a message that are shown; the text quotes the message.
const SHOWN_MAX: usize = 80;
/// Sockets in one message; the kernel takes 253 at most (SCM_MAX_FD of unix(7)).
pub const MAX_BATCH: usize = 64;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Clients of the redirector.
    Downloads,
    /// The command line.
    Rpc,
    /// Metrics and health.
    Metrics,
}

/// What the old process says of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is for.
    pub role: Role,
    /// Its address as the configuration has it.
    pub configured: String,
    /// The address it is bound to: `127.0.0.1:8080`, `[::]:8080`, `unix:/path`.
    pub local: String,
    /// The shard that accepts from it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shard: Option<usize>,
    /// Whether SO_REUSEPORT is set.
    pub reuse_port: bool,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "lowercase")]
pub enum Message {
    /// New: here I am.
    Hello {
        /// Versions it speaks.
        protocols: Vec<u32>,
        /// Its release, for the log.
        release: String,
    },
    /// Old: what follows.
    Manifest {
        /// Version that both speak from now on.
        protocol: u32,
        /// Its release, for the log.
        release: String,
        /// Its process id, for the log.
        pid: u32,
        /// How many sockets follow.
        listeners: usize,
        /// Whether it answers from an index.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        has_index: bool,
    },
    /// Old: some sockets.
    Listeners {
        /// Number of the first, counted from 0 over all messages.
        first: usize,
        /// One for each descriptor of the packet.
        entries: Vec<Entry>,
    },
    /// New: it cannot take over.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// New: loaded and checked.
    Ready,
    /// Old: accept.
    Go,
    /// New: it accepts.
    Serving,
    /// New: it is about to end and needs what the old process holds.
    Ending,
    /// Old: it holds nothing any more.
    Released,
}

/// A packet that is no message.
#[derive(Debug, thiserror::Error)]
#[error("a message of {length} bytes is not understood: {}", ForeignText::new(&source.to_string()).at_most(SHOWN_MAX))]
pub struct NotUnderstood {
    length: usize,
    source: serde_json::Error,
}

impl Message {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        // Nothing in a message can fail to be JSON: keys are names, values are texts, numbers and lists.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`NotUnderstood`].
    pub fn decode(bytes: &[u8]) -> Result<Message, NotUnderstood> {
        serde_json::from_slice(bytes).map_err(|source| NotUnderstood { length: bytes.len(), source })
    }

    /// Its name, for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello { .. } => "hello",
            Message::Manifest { .. } => "manifest",
            Message::Listeners { .. } => "listeners",
            Message::Failed { .. } => "failed",
            Message::Ready => "ready",
            Message::Go => "go",
            Message::Serving => "serving",
            Message::Ending => "ending",
            Message::Released => "released",
        }
    }
}

/// The highest version that we and the other speak.
pub fn common_protocol(theirs: &[u32]) -> Option<u32> {
    PROTOCOLS.iter().copied().filter(|ours| theirs.contains(ours)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 sends, as the first release with it sent it. Never changed: the next release must read it.
    const VERSION_1: &str = include_str!("fixtures/version-1.jsonl");

    fn entry(role: Role, shard: Option<usize>, address: &str, reuse_port: bool) -> Entry {
        Entry { role, configured: address.to_owned(), local: address.to_owned(), shard, reuse_port }
    }

    /// The conversation of the fixture.
    fn version_1() -> Vec<Message> {
        let downloads = Entry { local: "[::]:8080".to_owned(), ..entry(Role::Downloads, Some(0), ":8080", true) };
        vec![
            Message::Hello { protocols: vec![1], release: "0.1.0".to_owned() },
            Message::Manifest { protocol: 1, release: "0.1.0".to_owned(), pid: 4711, listeners: 4, has_index: false },
            Message::Listeners {
                first: 0,
                entries: vec![
                    downloads.clone(),
                    Entry { shard: Some(1), ..downloads },
                    Entry { local: "127.0.0.1:3390".to_owned(), ..entry(Role::Rpc, None, "localhost:3390", false) },
                ],
            },
            Message::Listeners { first: 3, entries: vec![entry(Role::Downloads, Some(0), "unix:/run/m.sock", false)] },
            Message::Failed { reason: "mirrorbits.conf:3: Shards: 0".to_owned() },
            Message::Ready,
            Message::Go,
            Message::Serving,
            Message::Ending,
            Message::Released,
        ]
    }

    #[test]
    fn version_1_is_read_as_it_was_written() {
        let read: Vec<Message> = VERSION_1.lines().map(|line| Message::decode(line.as_bytes()).unwrap()).collect();
        assert_eq!(read, version_1());
    }

    #[test]
    fn version_1_is_written_as_ever() {
        let written: Vec<String> =
            version_1().iter().map(|message| String::from_utf8(message.encode()).unwrap()).collect();
        assert_eq!(written, VERSION_1.lines().collect::<Vec<_>>());
    }

    #[test]
    fn keys_of_later_releases_are_ignored() {
        let line = br#"{"message":"manifest","protocol":1,"release":"9.0","pid":1,"listeners":0,"colour":"red"}"#;
        assert!(matches!(Message::decode(line), Ok(Message::Manifest { listeners: 0, .. })));
        let line = br#"{"message":"manifest","protocol":1,"release":"9.0","pid":1,"listeners":0,"has_index":true}"#;
        assert!(matches!(Message::decode(line), Ok(Message::Manifest { has_index: true, .. })));
        let line = br#"{"message":"ready","mood":7}"#;
        assert_eq!(Message::decode(line).unwrap(), Message::Ready);
    }

    #[test]
    fn anything_else_is_refused() {
        // What is said of one of any length is a line.
        let long = format!(r#"{{"message":"{}"}}"#, "\u{1b}".repeat(50_000));
        let error = Message::decode(long.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 1_000 && !error.contains('\u{1b}'), "{error}");
        for bytes in [&b""[..], b"go", b"{}", br#"{"message":"dance"}"#, br#"{"message":"manifest"}"#, b"\xff\xfe"] {
            Message::decode(bytes).unwrap_err();
        }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(common_protocol(&[1]), Some(1));
        assert_eq!(common_protocol(&[3, 2, 1]), Some(1));
        assert_eq!(common_protocol(&[2]), None);
        assert_eq!(common_protocol(&[]), None);
    }

    #[test]
    fn a_full_batch_fits_into_a_message() {
        let path = format!("unix:/{}", "a".repeat(106));
        let entries = vec![entry(Role::Downloads, Some(1023), &path, true); MAX_BATCH];
        assert!(Message::Listeners { first: 960, entries }.encode().len() < MAX_MESSAGE);
    }
}
