//! Numbers by key, shared by all workers, bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Parts, each with a lock of its own.
const SHARDS: usize = 64;
/// Most keys in one part: 262,144 in all.
const MOST: usize = 4096;

/// Chosen anew by every process, so that no client can have its key collide with another's.
static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What stands for a value in a table.
pub(super) fn hash(value: &[u8]) -> u64 {
    KEYED.hash_one(value)
}

/// Numbers by key. 0 is as good as not there.
#[derive(Debug)]
pub(super) struct Table<V>(Box<[Mutex<HashMap<u64, V>>]>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl<V: Copy + Default + Ord + Hash> Table<V> {
    /// Replaces the number of this key by the one that `change` makes of it, and hands on what else it says. Where
    /// there are too many keys the one with the smallest number goes: for a time the one longest ago.
    pub(super) fn change<T>(&self, key: u64, change: impl FnOnce(&V) -> (V, T)) -> T {
        // The lower bits choose the place inside.
        let shard = (key >> 32) as usize % SHARDS;
        let mut numbers = self.0[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let (number, said) = change(&numbers.get(&key).copied().unwrap_or_default());
        if number == V::default() {
            numbers.remove(&key);
            return said;
        }
        if numbers.len() >= MOST && !numbers.contains_key(&key) {
            // A quarter of the room at once, so that this is rare.
            let mut all: Vec<V> = numbers.values().copied().collect();
            let (_, limit, _) = all.select_nth_unstable(MOST / 4);
            let limit = *limit;
            numbers.retain(|_, number| *number > limit);
        }
        numbers.insert(key, number);
        said
    }

    /// Keys with a number.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_forgets_the_smallest() {
        let table = Table::<u64>::default();
        let most = (SHARDS * MOST) as u64;
        for number in 1..=most * 2 {
            table.change(hash(&number.to_ne_bytes()), |_| (number, ()));
        }
        assert!(table.len() <= SHARDS * MOST);
        let newest = table.change(hash(&(most * 2).to_ne_bytes()), |number| (*number, *number));
        assert_eq!(newest, most * 2);
        let oldest = table.change(hash(&1u64.to_ne_bytes()), |number| (*number, *number));
        assert_eq!(oldest, 0);
    }
}
