//! A bounded cache that costs one hash per hit and nothing per eviction.
//!
//! Entries live in two generations. A hit in the old one moves the entry to the young one; when the young one is full, it
//! becomes the old one and what was left in the old one is dropped. What is used stays, as in an LRU list, without a
//! list.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Cache of values that are cheap to clone, bounded by their cost.
#[derive(Debug)]
pub struct Cache<K, V> {
    young: HashMap<K, V, BuildHasherDefault<MixHasher>>,
    old: HashMap<K, V, BuildHasherDefault<MixHasher>>,
    young_cost: usize,
    budget: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> Cache<K, V> {
    /// A cache that holds values of a total cost of about `budget`, in whatever unit [`Cache::insert`] is told.
    pub fn new(budget: usize) -> Cache<K, V> {
        Cache { young: HashMap::default(), old: HashMap::default(), young_cost: 0, budget }
    }

    /// The value under `key`, whose `cost` is told again should it move.
    pub fn get(&mut self, key: &K, cost: impl FnOnce(&V) -> usize) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(*key, value.clone(), cost(&value));
        Some(value)
    }

    /// Keeps `value` under `key`.
    pub fn insert(&mut self, key: K, value: V, cost: usize) {
        if self.young_cost.saturating_add(cost) > self.budget / 2 {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.young_cost = 0;
        }
        self.young_cost = self.young_cost.saturating_add(cost);
        self.young.insert(key, value);
    }

    /// Drops everything and keeps the memory of the tables.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.young_cost = 0;
    }
}

/// Hasher for keys of a few integers from our own tables: one multiplication each. Nobody outside chooses these keys
/// freely, so it needs no secret.
#[derive(Default)]
pub struct MixHasher(u64);

impl MixHasher {
    fn mix(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (own, &byte) in word.iter_mut().zip(chunk) {
                *own = byte;
            }
            self.mix(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value) + 1);
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value) + 1);
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value.wrapping_add(1));
    }

    fn write_isize(&mut self, value: isize) {
        self.mix((value as u64).wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_cost_is_bounded() {
        let mut cache = Cache::new(100);
        cache.insert(0u32, "used", 1);
        for key in 1..1000u32 {
            cache.insert(key, "once", 1);
            assert_eq!(cache.get(&0, |_| 1), Some("used"));
            assert!(cache.young.len() + cache.old.len() <= 100);
        }
        assert_eq!(cache.get(&1, |_| 1), None);
    }

    #[test]
    fn neighbouring_keys_spread() {
        let mut low_bits = std::collections::HashSet::new();
        for set in 0..64u32 {
            for record in 0..64u32 {
                let mut hasher = MixHasher::default();
                (set, record).hash(&mut hasher);
                low_bits.insert(hasher.finish() & 0xFFFF);
            }
        }
        assert!(low_bits.len() > 3800, "{}", low_bits.len());
    }
}
