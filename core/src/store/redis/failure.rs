//! Why an operation failed, and what the operator can do about it.

use redis::{ErrorKind, RedisError};

use crate::store::StoreError;

/// A failure before the place and the step are added to it.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is asked for contradicts what is stored; not the database's fault.
    Refused(StoreError),
    /// What is stored is not what this program can use; with the cause and the remedy.
    Unusable(String),
    /// There is no server to talk to; with the cause and the remedy.
    Unreachable(String),
    /// A server reports an error, or does not answer.
    Redis(RedisError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Refused(error)
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        Failure::Redis(error)
    }
}

impl Failure {
    /// Whether the connection may be used on.
    pub(super) fn leaves_connection_usable(&self) -> bool {
        matches!(self, Failure::Refused(_))
    }

    /// Whether a key has another type than ours.
    pub(super) fn is_wrong_type(&self) -> bool {
        matches!(self, Failure::Redis(error) if mentions(error, "WRONGTYPE"))
    }

    /// The failure with the name of the key that has another type than `expected`, if that is what it is.
    pub(super) fn about_key(self, key: &[u8], expected: &str) -> Failure {
        if !self.is_wrong_type() {
            return self;
        }
        let key = key.escape_ascii();
        Failure::Unusable(format!(
            "the key {key} is no {expected}: another program has put something else there; rename or remove that key"
        ))
    }

    /// Whether the server no longer takes writes, as the old master after a failover.
    pub(super) fn is_from_replica(&self) -> bool {
        matches!(self, Failure::Redis(error) if mentions(error, "READONLY"))
    }

    /// The cause and the remedy.
    pub(super) fn text(&self) -> String {
        match self {
            Failure::Refused(error) => error.to_string(),
            Failure::Unusable(text) | Failure::Unreachable(text) => text.clone(),
            Failure::Redis(error) => match remedy(error) {
                Some(remedy) => format!("{}; {remedy}", cause(error)),
                None => cause(error),
            },
        }
    }

    /// The error for the caller; `step` is what was being done at `place`.
    pub(super) fn explain(self, place: &str, step: &str) -> StoreError {
        match self {
            Failure::Refused(error) => error,
            other => StoreError::Database(format!("{place}: {step}: {}", other.text())),
        }
    }
}

fn cause(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    // A transaction has an error for each of its commands; the first says it.
    match error.clone().into_server_errors().and_then(|errors| errors.first().cloned()) {
        Some((_, first)) => format!("{} {}", first.code(), first.details().unwrap_or_default()),
        None => error.to_string(),
    }
}

/// Whether the server's own text has `part`.
fn mentions(error: &RedisError, part: &str) -> bool {
    cause(error).contains(part)
}

/// Error codes of servers. Servers before 7 wrap those of commands in scripts into other texts, hence the search.
const REMEDIES: [(&str, &str); 12] = [
    ("WRONGTYPE", "another program has put data of another type in the place of ours: rename or remove that key"),
    ("NOAUTH", "it wants a password: set RedisPassword"),
    ("WRONGPASS", "the password is not its own: correct RedisPassword"),
    ("invalid password", "the password is not its own: correct RedisPassword"),
    ("no password is set", "it has no password: remove RedisPassword, or set requirepass there"),
    ("without any password configured", "it has no password: remove RedisPassword, or set requirepass there"),
    ("NOPERM", "its access control list does not let this user do that: give it all commands on keys and channels"),
    ("READONLY", "it is a replica and takes no writes: let RedisAddress name the master, or configure RedisSentinels"),
    ("OOM", "its memory is full: raise maxmemory there or make room; nothing was written"),
    ("MISCONF", "it cannot save to its disk and so takes no writes: see its log"),
    ("LOADING", "it is starting and reads its data: this resolves itself"),
    ("max number of clients", "it has too many connections: raise maxclients there"),
];

/// What to do about the errors that have an outside cause.
fn remedy(error: &RedisError) -> Option<&'static str> {
    if let Some((_, remedy)) = REMEDIES.iter().find(|(code, _)| mentions(error, code)) {
        return Some(remedy);
    }
    if error.is_timeout() {
        return Some("it may be overloaded, frozen, or behind a firewall");
    }
    if error.is_connection_refusal() {
        return Some("nothing listens there: start Redis, or correct RedisAddress");
    }
    match error.kind() {
        ErrorKind::Io if error.to_string().contains("certificate") => Some(
            "its certificate is not trusted: install its authority's in the system's store, or name a file of it in SSL_CERT_FILE",
        ),
        ErrorKind::Io => Some("is it running, and does RedisAddress name it (rediss:// for TLS)?"),
        _ => None,
    }
}
