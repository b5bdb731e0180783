//! Downloads under way, so that the parts of one that several nodes answer count once: a key for each, which Redis forgets
//! by itself.

use super::connection::Session;
use super::failure::Failure;
use super::keys;
use crate::store::stats::Sighting;

/// Most sightings of one exchange, which keeps Redis busy for a millisecond or two.
const AT_ONCE: usize = 1_000;

/// Notes sightings, and tells of each whether it is new.
pub(super) fn note(session: &mut Session, sightings: &[Sighting]) -> Result<Vec<bool>, Failure> {
    let mut new = Vec::with_capacity(sightings.len());
    for part in sightings.chunks(AT_ONCE) {
        let mut pipeline = redis::pipe();
        for Sighting { hash, interval } in part {
            // Redis refuses 0.
            let milliseconds = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
            let key = keys::sighting(*hash);
            pipeline.cmd("SET").arg(&key).arg(1).arg("PX").arg(milliseconds).arg("NX");
            // Also one that was noted before is remembered from now on.
            pipeline.cmd("PEXPIRE").arg(&key).arg(milliseconds).ignore();
        }
        let answers: Vec<Option<String>> = session.query_all(&pipeline)?;
        new.extend(answers.iter().map(Option::is_some));
    }
    Ok(new)
}
