//! A cache of a fixed number of places that tells ahead where it will look, so that its memory is there when it is needed.
//!
//! It is set-associative, as a processor's cache is: a key may be in any of the eight places of its set, and which one is
//! replaced goes round. That takes no list and no tombstone, and its memory never moves.

use mb_core::memory::{prefetch_bytes, vec_in_huge_pages};

/// Places of a set: its keys fill a cache line.
const WAYS: usize = 8;
/// Not a key.
const VACANT: u64 = 0;

/// Cache of `V` by numbers other than 0 that nobody outside chooses freely.
#[derive(Debug)]
pub struct AssociativeCache<V> {
    sets: Box<[Set]>,
    /// Of all places that were ever taken; those that were given up lie behind `used`.
    values: Vec<V>,
    used: usize,
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

/// Where a value is, until the next insertion.
#[derive(Clone, Copy, Debug)]
pub struct Found(u32);

impl<V> AssociativeCache<V> {
    /// A cache of `places`, a power of two from 16 to 2³¹. Values take memory only as they come.
    pub fn new(places: usize) -> AssociativeCache<V> {
        let sets = (places / WAYS).next_power_of_two().max(2);
        let vacant = Set { keys: [VACANT; WAYS], values: [0; WAYS] };
        let values = vec_in_huge_pages(sets * WAYS);
        AssociativeCache { sets: vec![vacant; sets].into(), values, used: 0, turn: 0 }
    }

    /// Asks for the memory of the place of `key`.
    #[inline]
    pub fn announce(&self, key: u64) -> Announced {
        debug_assert_ne!(key, VACANT);
        let product = u128::from(key) * 0x9E37_79B9_7F4A_7C15;
        let hash = (product as u64) ^ ((product >> 64) as u64);
        let set = (hash >> 20) as usize & (self.sets.len() - 1);
        prefetch_bytes(&self.sets[set], size_of::<Set>());
        Announced { key, set }
    }

    /// Looks for an announced key.
    #[inline]
    pub fn find(&self, announced: Announced) -> Option<Found> {
        let set = &self.sets[announced.set];
        let way = set.keys.iter().position(|&key| key == announced.key)?;
        Some(Found(set.values[way]))
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
    pub fn value(&self, found: Found) -> &V {
        &self.values[found.0 as usize]
    }

    /// Keeps `value` under an announced key, which is not in the cache.
    pub fn insert(&mut self, announced: Announced, value: V) -> Found {
        let set = &mut self.sets[announced.set];
        let place = match set.keys.iter().position(|&key| key == VACANT) {
            Some(way) => {
                set.keys[way] = announced.key;
                // Below 2³¹, as the number of places.
                set.values[way] = self.used as u32;
                self.used += 1;
                set.values[way]
            }
            None => {
                self.turn = (self.turn + 1) % WAYS;
                set.keys[self.turn] = announced.key;
                set.values[self.turn]
            }
        };
        match self.values.get_mut(place as usize) {
            Some(old) => *old = value,
            None => self.values.push(value),
        }
        Found(place)
    }

    /// Forgets everything. Values that are forgotten go when others take their places, so that this takes microseconds.
    pub fn clear(&mut self) {
        self.sets.fill(Set { keys: [VACANT; WAYS], values: [0; WAYS] });
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
