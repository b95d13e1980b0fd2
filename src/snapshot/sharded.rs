//! A map whose copies share what they have in common.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;

/// Shards of a map; a power of two. At 100,000 entries a shard holds about a hundred, so that a
/// patch copies about 1,000 pointers and one small table.
const SHARDS: usize = 1024;

/// A map whose copies share what they have in common.
#[derive(Debug)]
pub(super) struct ShardedMap<K, V: ?Sized> {
    hasher: RandomState,
    shards: Box<[Arc<Shard<K, V>>]>,
}

impl<K, V: ?Sized> Clone for ShardedMap<K, V> {
    fn clone(&self) -> Self {
        Self { hasher: self.hasher.clone(), shards: self.shards.clone() }
    }
}

type Shard<K, V> = HashMap<K, Arc<V>, RandomState>;

impl<K: Hash + Eq + Clone, V: ?Sized> ShardedMap<K, V> {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let empty = Arc::new(HashMap::with_hasher(hasher.clone()));
        Self { hasher, shards: vec![empty; SHARDS].into() }
    }

    fn index(&self, key: &K) -> usize {
        // Middle bits: the table inside a shard uses the low and the top ones.
        usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default() % SHARDS
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.shards.get(self.index(key))?.get(key).map(Arc::as_ref)
    }

    pub(super) fn insert(&mut self, key: K, value: impl Into<Arc<V>>) {
        let index = self.index(&key);
        if let Some(shard) = self.shards.get_mut(index) {
            Arc::make_mut(shard).insert(key, value.into());
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        let index = self.index(key);
        if let Some(shard) = self.shards.get_mut(index).filter(|s| s.contains_key(key)) {
            Arc::make_mut(shard).remove(key);
        }
    }

    /// Keeps the values for which `keep` holds; shards that lose none stay shared.
    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        for shard in &mut self.shards {
            if !shard.values().all(|v| keep(v)) {
                Arc::make_mut(shard).retain(|_, v| keep(v));
            }
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values().map(Arc::as_ref))
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_shards_that_did_not_change() {
        let mut map = ShardedMap::new();
        for i in 0u32..5000 {
            map.insert(i, i);
        }
        let mut copy = map.clone();
        copy.insert(0, 5001);
        copy.remove(&1);
        copy.remove(&9999);
        assert_eq!((map.get(&0), map.get(&1)), (Some(&0), Some(&1)));
        assert_eq!((copy.get(&0), copy.get(&1)), (Some(&5001), None));
        assert_eq!((map.len(), copy.len()), (5000, 4999));
        let changed =
            map.shards.iter().zip(&copy.shards).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert!((1..=2).contains(&changed), "{changed}");
        copy.retain(|v| *v != 5001);
        assert_eq!(copy.get(&0), None);
        assert_eq!(copy.values().count(), 4998);
    }
}
