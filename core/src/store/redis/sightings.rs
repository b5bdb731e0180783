//! Downloads under way, so that the parts of one that several nodes answer count once: a key for each, which Redis forgets
//! by itself.
//!
//! A key holds the times of the first and the latest request of its download, in milliseconds of Redis's own clock: nodes
//! say how long ago a request was, so that their clocks need not agree. By those times, not by when a node came to tell of
//! them, it is decided whether a request continues the download.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::Script;

use super::connection::Session;
use super::failure::Failure;
use super::keys;
use crate::store::known_downloads::LATENESS_MAX;
use crate::store::stats::Sighting;

/// Most sightings of one exchange, which keeps Redis busy for a few milliseconds.
const AT_ONCE: usize = 500;

/// Notes the sighting of each key: its first and its last request (milliseconds ago), the interval, and how long the key is
/// kept. Returns of each whether it is new (1) or continues what was noted (0). The rule is that of
/// [`known_downloads`](crate::store::known_downloads).
///
/// Builds before this format wrote `1`, with the interval after the latest request as the time to
/// live, which gives that request's time; they take the values of this one for their own. While
/// nodes of both run, only a download with parts on both for longer than an interval can count
/// twice: the earlier build does not write when its parts came.
static NOTE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local answers = {}
        for place, key in ipairs(KEYS) do
            local first, last = now - ARGV[4 * place - 3], now - ARGV[4 * place - 2]
            local interval, kept = tonumber(ARGV[4 * place - 1]), ARGV[4 * place]
            -- A value of another type is not ours, and is replaced.
            local value = redis.pcall('GET', key)
            local from, to = string.match(type(value) == 'string' and value or '', '^(%d+) (%d+)$')
            from, to = tonumber(from), tonumber(to)
            if value == '1' then
                from = math.min(now, now + redis.call('PTTL', key) - interval)
                to = from
            end
            local continues = from and first <= to + interval and last >= from - interval
            if continues then
                first, last = math.min(first, from), math.max(last, to)
            end
            -- An earlier download that is told late leaves the latest as it is, unless the clock was set back.
            if continues or not from or last > to or last < from - kept then
                redis.call('SET', key, string.format('%.0f %.0f', first, last), 'PX', kept)
            end
            answers[place] = continues and 0 or 1
        end
        return answers",
    )
});

/// Notes sightings, and tells of each whether it is new.
pub(super) fn note(session: &mut Session, sightings: &[Sighting]) -> Result<Vec<bool>, Failure> {
    let mut new = Vec::with_capacity(sightings.len());
    for part in sightings.chunks(AT_ONCE) {
        let now = Instant::now();
        let mut script = NOTE.prepare_invoke();
        for Sighting { hash, first, last, interval } in part {
            let ago = |at: &Instant| milliseconds(now.saturating_duration_since(*at));
            let kept = milliseconds(interval.saturating_add(LATENESS_MAX));
            script.key(keys::sighting(*hash));
            script.arg(ago(first)).arg(ago(last)).arg(milliseconds(*interval)).arg(kept);
        }
        let answers: Vec<bool> = session.run(&script)?;
        new.extend(answers);
    }
    Ok(new)
}

/// In milliseconds; at most a year, which Lua and Redis can count.
fn milliseconds(duration: Duration) -> u64 {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    u64::try_from(duration.as_millis()).map_or(YEAR, |milliseconds| milliseconds.min(YEAR))
}
