//! When each job is due: pure, over the clocks that are passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mb_core::mirror::{Mirror, MirrorId};
use mb_core::time::Timestamp;

/// After a start, first health checks are spread over this time, so that mirrors come up soon but not all requests leave
/// at once.
const FIRST_CHECKS_WITHIN: Duration = Duration::from_secs(5);

/// Intervals are varied by up to a tenth, so that checks of many mirrors do not fall into step.
const JITTER: f64 = 0.1;

/// Nothing recurs more often than this, whatever the configuration says.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// A job for a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Job {
    /// Scan it.
    Scan(MirrorId),
    /// Check its health.
    Check(MirrorId),
}

/// The intervals of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    /// Between two scans of a mirror.
    pub(super) scan: Duration,
    /// Between two health checks of a mirror.
    pub(super) check: Duration,
}

/// When jobs are due that are not due at once. Only enabled mirrors have any.
#[derive(Debug, Default)]
pub(super) struct Plan {
    not_before: HashMap<Job, Instant>,
    /// Where each mirror is scanned, as it was last seen, and whether that is new since its last scan began.
    addresses: HashMap<MirrorId, Address>,
}

#[derive(Debug)]
struct Address {
    rsync_url: String,
    is_new: bool,
}

impl Plan {
    /// The jobs due at `now`, and how long until the next one. A job that was returned counts as begun: it is due again
    /// after its interval.
    ///
    /// Scans follow the stored time of the last attempt (`wall` is the time of day), so that a restart does not scan all
    /// mirrors again. A mirror whose address for scans changes is due at once, since its result is of another place.
    pub(super) fn take_due(
        &mut self,
        mirrors: &[Mirror],
        intervals: Intervals,
        now: Instant,
        wall: Timestamp,
    ) -> (Vec<Job>, Option<Duration>) {
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        let enabled = || mirrors.iter().filter(|mirror| mirror.state.enabled);
        self.not_before.retain(|job, _| {
            let (Job::Scan(id) | Job::Check(id)) = job;
            enabled().any(|mirror| mirror.id == *id)
        });
        self.addresses.retain(|id, _| mirrors.iter().any(|mirror| mirror.id == *id));
        for mirror in mirrors {
            self.note_address(mirror);
        }
        for mirror in enabled() {
            let scan_interval = intervals.scan.max(SHORTEST_INTERVAL);
            let since_sync = mirror.state.last_sync.elapsed_until(wall);
            let has_moved = self.addresses.get(&mirror.id).is_some_and(|address| address.is_new);
            let scan_in = if mirror.state.last_sync.is_never() || has_moved {
                Duration::ZERO
            } else {
                scan_interval.saturating_sub(since_sync)
            };
            let jobs = [
                (Job::Scan(mirror.id), scan_in, scan_interval),
                (Job::Check(mirror.id), Duration::ZERO, intervals.check),
            ];
            for (job, wait, interval) in jobs {
                let first = || now + if matches!(job, Job::Check(_)) { random_part(FIRST_CHECKS_WITHIN) } else { wait };
                let not_before = *self.not_before.entry(job).or_insert_with(first);
                let wait = wait.max(not_before.saturating_duration_since(now));
                if wait.is_zero() {
                    if let (Job::Scan(id), true) = (job, has_moved)
                        && let Some(address) = self.addresses.get_mut(&id)
                    {
                        address.is_new = false;
                    }
                    self.not_before.insert(job, now + varied(interval.max(SHORTEST_INTERVAL)));
                    due.push(job);
                } else {
                    next = Some(next.map_or(wait, |next| next.min(wait)));
                }
            }
        }
        (due, next)
    }

    fn note_address(&mut self, mirror: &Mirror) {
        let rsync_url = &mirror.settings.rsync_url;
        let address =
            self.addresses.entry(mirror.id).or_insert_with(|| Address { rsync_url: rsync_url.clone(), is_new: false });
        if address.rsync_url != *rsync_url {
            *address = Address { rsync_url: rsync_url.clone(), is_new: true };
            self.not_before.remove(&Job::Scan(mirror.id));
        }
    }

    /// Makes a mirror's jobs due now, except for a scan that is more recent than its interval.
    pub(super) fn make_due(&mut self, id: MirrorId, now: Instant) {
        self.not_before.insert(Job::Scan(id), now);
        self.not_before.insert(Job::Check(id), now);
    }
}

fn random_part(of: Duration) -> Duration {
    of.mul_f64(fastrand::f64())
}

fn varied(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))
}

#[cfg(test)]
mod tests {
    use mb_core::mirror::{MirrorSettings, MirrorState};

    use super::*;

    const INTERVALS: Intervals = Intervals { scan: Duration::from_secs(1800), check: Duration::from_secs(60) };
    const WALL: Timestamp = Timestamp(1_000_000);

    fn mirror(id: u32, enabled: bool, last_sync: i64) -> Mirror {
        let state = MirrorState { enabled, last_sync: Timestamp(last_sync), ..MirrorState::default() };
        Mirror { id: MirrorId(id), settings: MirrorSettings::default(), state }
    }

    #[test]
    fn a_mirror_never_scanned_is_due_at_once_and_then_after_its_interval() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        let mirrors = [mirror(1, true, 0), mirror(2, false, 0), mirror(3, true, WALL.0 - 10)];
        let (due, next) = plan.take_due(&mirrors, INTERVALS, start, WALL);
        assert!(due.contains(&Job::Scan(MirrorId(1))));
        assert!(!due.contains(&Job::Scan(MirrorId(2))) && !due.contains(&Job::Scan(MirrorId(3))), "{due:?}");
        assert!(next.is_some_and(|next| next <= FIRST_CHECKS_WITHIN));
        let (due, _) = plan.take_due(&mirrors, INTERVALS, start + FIRST_CHECKS_WITHIN, WALL);
        assert!(due.iter().all(|job| matches!(job, Job::Check(_))), "{due:?}");
        let later = start + INTERVALS.scan.mul_f64(1.0 + JITTER);
        let (due, _) = plan.take_due(&mirrors, INTERVALS, later, Timestamp(WALL.0 + 1980));
        assert!(due.contains(&Job::Scan(MirrorId(1))) && due.contains(&Job::Scan(MirrorId(3))), "{due:?}");
    }

    #[test]
    fn checks_recur_within_a_tenth_of_their_interval() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        let mirrors = [mirror(1, true, WALL.0)];
        let check = [Job::Check(MirrorId(1))];
        let first = start + FIRST_CHECKS_WITHIN;
        plan.take_due(&mirrors, INTERVALS, start, WALL);
        plan.make_due(MirrorId(1), first);
        assert_eq!(plan.take_due(&mirrors, INTERVALS, first, WALL).0, check);
        assert!(plan.take_due(&mirrors, INTERVALS, first + Duration::from_secs(53), WALL).0.is_empty());
        assert_eq!(plan.take_due(&mirrors, INTERVALS, first + Duration::from_secs(67), WALL).0, check);
    }

    #[test]
    fn a_mirror_with_another_rsync_url_is_scanned_at_once_and_then_after_its_interval() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        let mut mirrors = [mirror(1, true, WALL.0 - 10)];
        let scan = Job::Scan(MirrorId(1));
        let is_due =
            |plan: &mut Plan, mirrors: &[Mirror]| plan.take_due(mirrors, INTERVALS, start, WALL).0.contains(&scan);
        assert!(!is_due(&mut plan, &mirrors));
        mirrors[0].settings.rsync_url = "rsync://other.example/".to_owned();
        assert!(is_due(&mut plan, &mirrors));
        assert!(!is_due(&mut plan, &mirrors));
        mirrors[0].state.enabled = false;
        mirrors[0].settings.rsync_url = "rsync://third.example/".to_owned();
        assert!(!is_due(&mut plan, &mirrors));
        mirrors[0].state.enabled = true;
        assert!(is_due(&mut plan, &mirrors), "what changed while it was disabled counts, too");
    }

    #[test]
    fn a_disabled_mirror_is_forgotten() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        plan.take_due(&[mirror(1, true, 0)], INTERVALS, start, WALL);
        let (due, next) = plan.take_due(&[mirror(1, false, 0)], INTERVALS, start + Duration::from_secs(90), WALL);
        assert!(due.is_empty() && next.is_none() && plan.not_before.is_empty());
    }
}
