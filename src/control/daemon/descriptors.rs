//! The limit of descriptors of this process: raised as far as the system allows, since each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of descriptors to the hard one, and logs both. A limit that cannot be raised stays.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let [from, to] = [limit.current, limit.maximum].map(text);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => tracing::info!("limit of open files: raised from {from} to {to}"),
        Err(error) => tracing::warn!("limit of open files: {from} cannot be raised to {to}: {error}"),
    }
}

fn text(limit: Option<u64>) -> String {
    limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
}
