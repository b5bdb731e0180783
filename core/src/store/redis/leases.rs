//! Leases between nodes, in the lock keys of Mirrorbits: a Mirrorbits node beside us respects them, and we its.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::connection::Session;
use super::failure::Failure;
use crate::store::LeaseName;

/// KEYS: the lock. ARGV: holder, milliseconds.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local holder = redis.call('GET', KEYS[1])
        if holder and holder ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
        return 1",
    )
});

/// KEYS: the lock. ARGV: holder.
static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"));

/// Takes or extends a lease unless another holder's still lasts. Returns whether `holder` has it.
pub(super) fn take(session: &mut Session, name: LeaseName, holder: &str, duration: Duration) -> Result<bool, Failure> {
    // Redis refuses 0.
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1);
    session.run(TAKE.key(name.key()).arg(holder).arg(milliseconds))
}

/// Ends a lease that `holder` has.
pub(super) fn give_back(session: &mut Session, name: LeaseName, holder: &str) -> Result<(), Failure> {
    session.run(GIVE_BACK.key(name.key()).arg(holder))
}
