//! The streams of a connection that somebody still works for, by slot and by their number on the wire.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::flow::{ReceiveWindow, SendWindow};

/// A stream, for as long as the caller has not released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    #[cfg(test)]
    pub(super) fn of(number: u32) -> Self {
        Self(number)
    }

    /// A small number that no other stream of the connection has at the same time.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// The other side has ended its part.
    pub(super) remote_ended: bool,
    /// We have ended ours.
    pub(super) local_ended: bool,
    /// One side has reset it.
    pub(super) reset: bool,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// The head of a response is still to come.
    pub(super) awaits_head: bool,
    /// Whatever the response says of it, it has no content: the request was HEAD.
    pub(super) is_head: bool,
    /// Content still to come, where Content-Length says so (RFC 9113 8.1.1).
    pub(super) length_left: Option<u64>,
}

impl Stream {
    /// Whether frames for it are still expected or may still be sent.
    fn is_over(&self) -> bool {
        self.reset || self.remote_ended && self.local_ended
    }
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<Slot>,
    by_id: HashMap<u32, Slot, BuildHasherDefault<IdHasher>>,
}

impl Streams {
    /// Streams that are not released.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, stream: Stream) -> Slot {
        let id = stream.id;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(self.slots.len() as u32 - 1)
        });
        if let Some(place) = self.slots.get_mut(slot.index()) {
            *place = Some(stream);
        }
        self.by_id.insert(id, slot);
        slot
    }

    pub(super) fn find(&self, id: u32) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Stream> {
        self.slots.get(slot.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Stream> {
        self.slots.get_mut(slot.index())?.as_mut()
    }

    /// Forgets the number of a stream that is over: what comes for it is for a closed stream.
    pub(super) fn settle(&mut self, slot: Slot) {
        if let Some(stream) = self.get(slot).filter(|stream| stream.is_over()) {
            let id = stream.id;
            self.by_id.remove(&id);
        }
    }

    pub(super) fn release(&mut self, slot: Slot) -> Option<Stream> {
        let stream = self.slots.get_mut(slot.index())?.take()?;
        self.by_id.remove(&stream.id);
        self.free.push(slot);
        Some(stream)
    }

    /// The streams of larger numbers than this one.
    pub(super) fn above(&self, id: u32) -> impl Iterator<Item = Slot> {
        self.by_id.iter().filter(move |&(&other, _)| other > id).map(|(_, &slot)| slot)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().flatten()
    }
}

/// Stream numbers ascend and few are kept at a time: there is nothing a client could make collide.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32((self.0 as u32) << 8 | u32::from(byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = u64::from(id).wrapping_mul(SPREAD);
    }
}
