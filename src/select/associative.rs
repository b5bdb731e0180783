//! A cache of a fixed number of places that tells ahead where it will look, so that its memory is there when it is needed.
//!
//! It is set-associative, as a processor's cache is: a key may be in any of the eight places of its set, and which one is
//! replaced goes round. That takes no list and no tombstone, and its memory never moves.

use mb_core::memory::{prefetch_bytes, vec_in_huge_pages};

/// Places of a set: its keys fill a cache line.
const WAYS: usize = 8;
/// Not a key.
const VACANT: u64 = 0;

/// Numbers below 2³² by other numbers, which are not 0 and which nobody outside chooses freely.
#[derive(Debug)]
pub struct AssociativeNumbers {
    sets: Box<[Set]>,
    /// The way that is replaced next.
    turn: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Set {
    keys: [u64; WAYS],
    values: [u32; WAYS],
}

/// A look into the cache that is about to come.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    key: u64,
    set: usize,
}

impl AssociativeNumbers {
    /// A cache of `places`, a power of two from 16 to 2³¹.
    pub fn new(places: usize) -> AssociativeNumbers {
        let sets = (places / WAYS).next_power_of_two().max(2);
        AssociativeNumbers { sets: vec![Set { keys: [VACANT; WAYS], values: [0; WAYS] }; sets].into(), turn: 0 }
    }

    /// Asks for the memory of the place of `key`.
    #[inline]
    pub fn announce(&self, key: u64) -> Announced {
        debug_assert_ne!(key, VACANT);
        // A product of two numbers of 64 bits does not wrap.
        let product = u128::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = (product as u64) ^ ((product >> 64) as u64);
        let set = (hash >> 20) as usize & self.sets.len().wrapping_sub(1);
        if let Some(memory) = self.sets.get(set) {
            prefetch_bytes(memory, size_of::<Set>());
        }
        Announced { key, set }
    }

    /// The value of an announced key.
    #[inline]
    pub fn find(&self, announced: Announced) -> Option<u32> {
        let set = self.sets.get(announced.set)?;
        let way = set.keys.iter().position(|&key| key == announced.key)?;
        set.values.get(way).copied()
    }

    /// Keeps `value` under an announced key, which is not in the cache. Tells the value that it takes the place of.
    pub fn insert(&mut self, announced: Announced, value: u32) -> Option<u32> {
        let set = self.sets.get_mut(announced.set)?;
        let vacant = set.keys.iter().position(|&key| key == VACANT);
        let way = vacant.unwrap_or_else(|| {
            self.turn = self.turn.wrapping_add(1) % WAYS;
            self.turn
        });
        let (key, own) = set.keys.iter_mut().zip(&mut set.values).nth(way)?;
        *key = announced.key;
        let before = std::mem::replace(own, value);
        vacant.is_none().then_some(before)
    }

    /// Changes the value of an announced key, if it is in the cache.
    fn set(&mut self, announced: Announced, value: u32) {
        let places = self.sets.get_mut(announced.set).into_iter().flat_map(|set| set.keys.iter().zip(&mut set.values));
        for (_, own) in places.filter(|(key, _)| **key == announced.key) {
            *own = value;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.sets.fill(Set { keys: [VACANT; WAYS], values: [0; WAYS] });
    }

    /// How many places there are.
    fn places(&self) -> usize {
        self.sets.len().saturating_mul(WAYS)
    }
}

/// Larger values by such numbers.
#[derive(Debug)]
pub struct AssociativeCache<V> {
    places: AssociativeNumbers,
    /// Of all places that were ever taken; those that were given up lie behind `used`.
    values: Vec<V>,
    used: u32,
}

/// Where a value is, until the next insertion.
#[derive(Clone, Copy, Debug)]
pub struct Found(u32);

impl<V> AssociativeCache<V> {
    /// A cache of `places`, a power of two from 16 to 2³¹. Values take memory only as they come.
    pub fn new(places: usize) -> AssociativeCache<V> {
        let places = AssociativeNumbers::new(places);
        AssociativeCache { values: vec_in_huge_pages(places.places()), places, used: 0 }
    }

    /// Asks for the memory of the place of `key`.
    #[inline]
    pub fn announce(&self, key: u64) -> Announced {
        self.places.announce(key)
    }

    /// Looks for an announced key.
    #[inline]
    pub fn find(&self, announced: Announced) -> Option<Found> {
        self.places.find(announced).map(Found)
    }

    /// Asks for the first `bytes` of a value.
    #[inline]
    pub fn fetch(&self, found: Found, bytes: usize) {
        if let Some(value) = self.values.get(found.0 as usize) {
            prefetch_bytes(value, bytes);
        }
    }

    /// A value that was found.
    ///
    /// # Panics
    /// When it is from before the cache was cleared.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "a panic is better than the value of another key")]
    pub fn value(&self, found: Found) -> &V {
        &self.values[found.0 as usize]
    }

    /// Keeps `value` under an announced key, which is not in the cache.
    pub fn insert(&mut self, announced: Announced, value: V) -> Found {
        let mut place = self.used;
        match self.places.insert(announced, place) {
            None => self.used = self.used.saturating_add(1),
            // The place of what was replaced is free, and goes with the key.
            Some(replaced) => {
                place = replaced;
                self.places.set(announced, place);
            }
        }
        match self.values.get_mut(place as usize) {
            Some(old) => *old = value,
            None => self.values.push(value),
        }
        Found(place)
    }

    /// Forgets everything. Values that are forgotten go when others take their places, so that this takes microseconds.
    pub fn clear(&mut self) {
        self.places.clear();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is found is what was last kept under that key, and the cache stays as large as it was to be.
        #[test]
        fn nothing_else_is_found(steps in prop::collection::vec((1..60_u64, prop::bool::weighted(0.02)), 0..600)) {
            let mut cache = AssociativeCache::new(16);
            let mut kept = HashMap::new();
            for (number, (key, clears)) in steps.into_iter().enumerate() {
                if clears {
                    cache.clear();
                    kept.clear();
                }
                let announced = cache.announce(key);
                match cache.find(announced) {
                    Some(found) => prop_assert_eq!(Some(cache.value(found)), kept.get(&key)),
                    None => {
                        let found = cache.insert(announced, number);
                        kept.insert(key, number);
                        prop_assert_eq!(*cache.value(found), number);
                    }
                }
                prop_assert!(cache.values.len() <= 16);
            }
        }
    }

    #[test]
    fn half_full_it_holds_nearly_all() {
        let mut cache = AssociativeCache::new(4096);
        // Keys as those of places: offsets in a file, in the upper half.
        let keys: Vec<u64> = (1..=2048).map(|number| (number * 67) << 32 | 1).collect();
        for &key in &keys {
            let announced = cache.announce(key);
            cache.insert(announced, key);
        }
        let held = keys.iter().filter(|&&key| cache.find(cache.announce(key)).is_some()).count();
        assert!(held > 2000, "{held}");
    }
}
