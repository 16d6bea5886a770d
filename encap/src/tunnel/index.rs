//! From the hash of a key to the number of its entry: a table without the keys, so that it is small.
//!
//! A search begins at the place that the hash says and goes on to the next ones, which mostly lie in the same cache line.

use crate::linux::memory;

/// No entry.
const VACANT: Place = Place { hash: 0, at: u32::MAX };
const MIN_PLACES: usize = 16;

/// Numbers below `u32::MAX` by hash. The hashes must be unpredictable, or whoever chooses the keys makes every search long.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two of them, or none.
    places: Vec<Place>,
    used: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    hash: u32,
    at: u32,
}

impl Index {
    /// How many numbers it holds.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The number with this hash for which `is_it`.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.slot_of(hash, is_it).map(|slot| self.places[slot].at)
    }

    /// Adds a number that is not there.
    pub(super) fn insert(&mut self, hash: u32, at: u32) {
        // Searches stay short as long as three places of eight are free.
        if (self.used + 1) * 8 > self.places.len() * 5 {
            self.grow();
        }
        self.put(Place { hash, at });
        self.used += 1;
    }

    /// Takes a number out.
    pub(super) fn remove(&mut self, hash: u32, at: u32) {
        let Some(mut hole) = self.slot_of(hash, |other| other == at) else { return };
        let mask = self.places.len() - 1;
        let mut slot = hole;
        // What follows moves up, unless that would put it before the place where its search begins.
        loop {
            slot = (slot + 1) & mask;
            let place = self.places[slot];
            if place == VACANT {
                break;
            }
            let begin = place.hash as usize & mask;
            if slot.wrapping_sub(begin) & mask >= slot.wrapping_sub(hole) & mask {
                self.places[hole] = place;
                hole = slot;
            }
        }
        self.places[hole] = VACANT;
        self.used -= 1;
    }

    fn slot_of(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut slot = hash as usize & mask;
        // Ends, for some places are always free.
        loop {
            let place = self.places[slot];
            if place == VACANT {
                return None;
            }
            if place.hash == hash && is_it(place.at) {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn put(&mut self, place: Place) {
        let mask = self.places.len() - 1;
        let mut slot = place.hash as usize & mask;
        while self.places[slot] != VACANT {
            slot = (slot + 1) & mask;
        }
        self.places[slot] = place;
    }

    fn grow(&mut self) {
        let count = (self.places.len() * 2).max(MIN_PLACES);
        let mut bigger = memory::room_for(count);
        bigger.resize(count, VACANT);
        let before = std::mem::replace(&mut self.places, bigger);
        before.into_iter().filter(|place| *place != VACANT).for_each(|place| self.put(place));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With few hashes, so that searches meet.
        #[test]
        fn as_a_map(steps in prop::collection::vec((0_u32..60, 0_u32..12, any::<bool>()), 0..600)) {
            let (mut index, mut model) = (Index::default(), HashMap::new());
            for (at, hash, adds) in steps {
                match (model.get(&at).copied(), adds) {
                    (None, true) => {
                        index.insert(hash, at);
                        model.insert(at, hash);
                    }
                    (Some(hash), false) => {
                        index.remove(hash, at);
                        model.remove(&at);
                    }
                    (None, false) => index.remove(hash, at),
                    (Some(_), true) => {}
                }
                prop_assert_eq!(index.len(), model.len());
                for at in 0..60 {
                    let found = (0..12).find(|hash| index.find(*hash, |other| other == at).is_some());
                    prop_assert_eq!(found, model.get(&at).copied());
                }
            }
        }
    }

    #[test]
    fn grows() {
        let mut index = Index::default();
        let hash = |at: u32| at.wrapping_mul(0x9e37_79b9);
        (0..100_000).for_each(|at| index.insert(hash(at), at));
        assert_eq!(index.len(), 100_000);
        assert!((0..100_000).all(|at| index.find(hash(at), |other| other == at) == Some(at)));
        assert_eq!(index.find(1, |_| true), None);
    }
}
