//! Wrong passwords by address: who gives too many is not listened to for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Wrong passwords that an address may give within [`WINDOW`].
pub(super) const TRIES: u32 = 10;
/// In this time. With the pause it allows one guess a second and address in the long run.
const WINDOW: Duration = Duration::from_secs(10);
/// How long every password of the address is refused then, also the right one.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// Addresses that are remembered; past it, the one whose first wrong password is the oldest is forgotten.
const ADDRESSES_MAX: usize = 1024;

/// Addresses that gave wrong passwords.
#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<IpAddr, Wrong>);

#[derive(Debug)]
struct Wrong {
    first: Instant,
    count: u32,
    refused_until: Option<Instant>,
}

impl Wrong {
    fn is_over(&self, now: Instant) -> bool {
        match self.refused_until {
            Some(until) => now >= until,
            None => now.duration_since(self.first) >= WINDOW,
        }
    }
}

impl Tries {
    /// How long no password of `address` is looked at.
    pub(super) fn refused_for(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let until = self.0.get(&address)?.refused_until?;
        until.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// Counts a wrong password. Returns whether it was one too many.
    pub(super) fn note_wrong(&mut self, address: IpAddr, now: Instant) -> bool {
        if !self.0.contains_key(&address) && self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, wrong| !wrong.is_over(now));
            if self.0.len() >= ADDRESSES_MAX
                && let Some(oldest) = self.0.iter().min_by_key(|(_, wrong)| wrong.first).map(|(address, _)| *address)
            {
                self.0.remove(&oldest);
            }
        }
        let wrong = self.0.entry(address).or_insert(Wrong { first: now, count: 0, refused_until: None });
        if wrong.is_over(now) {
            *wrong = Wrong { first: now, count: 0, refused_until: None };
        }
        wrong.count += 1;
        let is_too_many = wrong.count >= TRIES;
        if is_too_many {
            wrong.refused_until = Some(now + PAUSE);
        }
        is_too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_too_many_wrong_passwords_is_refused_for_a_while() {
        let (address, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let (mut tries, now) = (Tries::default(), Instant::now());
        for _ in 1..TRIES {
            assert!(!tries.note_wrong(address, now));
        }
        assert_eq!(tries.refused_for(address, now), None);
        assert!(tries.note_wrong(address, now));
        assert_eq!(tries.refused_for(address, now), Some(PAUSE));
        assert_eq!(tries.refused_for(other, now), None);
        assert_eq!(tries.refused_for(address, now + PAUSE), None);
        assert!(!tries.note_wrong(address, now + PAUSE), "counted anew");
    }

    #[test]
    fn wrong_passwords_now_and_then_are_forgotten() {
        let (address, mut tries, now) = (IpAddr::from([192, 0, 2, 1]), Tries::default(), Instant::now());
        for number in 0..TRIES * 3 {
            assert!(!tries.note_wrong(address, now + WINDOW / 5 * number));
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let (mut tries, now) = (Tries::default(), Instant::now());
        for number in 0..3 * u32::try_from(ADDRESSES_MAX).unwrap() {
            tries.note_wrong(IpAddr::from(number.to_be_bytes()), now + Duration::from_nanos(number.into()));
        }
        assert_eq!(tries.0.len(), ADDRESSES_MAX);
    }
}
