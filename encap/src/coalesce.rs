//! Received packets to super-packets: joins what the network has cut, as the kernel's GRO does.
//!
//! Stands on the way in, between the engine's decisions and the device. Each delivered packet lies in a buffer of the
//! receiver, its slot, and stays there: a [`Frame`] is a list of places to be written one after the other, and only
//! the headers of its first packet are changed. Nothing is kept from one batch to the next.
//!
//! Joined are consecutive TCP segments, and UDP datagrams of one size, whose headers differ only in what a sender
//! counts up, so that cutting the frame gives the same packets again (the identification of packets that nobody may
//! fragment aside, RFC 6864). All but the last have the same amount of payload. Packets of one flow are never
//! reordered: a packet that cannot be joined ends the frame that its flow has open.
//!
//! A joined packet claims that its checksum is right. So the checksums of its parts are verified, unless the kernel
//! has done so or there was no wire in between; whatever is wrong stays as it is, alone, for the kernel to count. A
//! packet that meets no other of its flow is not read beyond its headers.

mod flow;
mod item;
mod packet;

use std::ops::Range;

use flow::Flow;
use item::{Checksum, Item};
use packet::{Key, Seen, Segment};

use crate::wire::virtio;

/// Most places of one frame, so most packets joined to one. Far below what `writev` takes (`IOV_MAX`, 1024), and enough
/// for 64 KiB in packets of 1500 bytes. The kernel joins no more than this many datagrams either.
pub const MAX_PIECES: usize = 64;

/// Most flows that can be open at a time. Beyond, the one that was opened first is closed.
const FLOWS: usize = 64;
/// Flows are looked for by their hash in one of so many sets of so many ways.
const SETS: usize = 32;
const WAYS: usize = 4;
/// No flow.
const VACANT: u8 = u8::MAX;
/// No item.
const NONE: u32 = u32::MAX;

/// Where delivered packets lie until their frames are written: one buffer per packet.
pub trait Slots {
    /// All bytes of a slot; empty when there is none of that number.
    fn slot(&mut self, number: usize) -> &mut [u8];
}

/// A part of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Number of the slot.
    pub slot: usize,
    /// Bytes of it.
    pub range: Range<usize>,
}

/// What is to be written to a TUN device at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Index of the tunnel whose device it is.
    pub tunnel: usize,
    /// What is left undone in the packet.
    pub header: virtio::Header,
    /// One to [`MAX_PIECES`] places whose bytes together are the packet.
    pub pieces: &'a [Piece],
}

/// The packets of one batch, joined where they can be.
///
/// Push every delivered packet, then write every [`Coalescer::next_frame`]; then the next batch may come. What it
/// allocates depends on the largest batch it has seen.
pub struct Coalescer {
    datagrams: bool,
    /// All packets of the batch. Those of one frame are a list, so long as their checksums are right.
    items: Vec<Item>,
    /// The first item of each list, in the order of arrival.
    heads: Vec<u32>,
    flows: Vec<Flow>,
    /// Indices into `flows`, the youngest first. One that is out of date leads to a flow with another key.
    sets: [[u8; WAYS]; SETS],
    /// The flow of the packet before.
    latest: usize,
    /// The flow whose place is taken when there is no other.
    oldest: usize,
    /// Heads whose lists have been begun, and what is left of the last of them.
    begun: usize,
    rest: u32,
    pieces: Vec<Piece>,
}

impl Coalescer {
    /// A coalescer that also joins `datagrams`: the kernel takes them joined since Linux 6.2.
    pub fn new(datagrams: bool) -> Self {
        Self {
            datagrams,
            items: Vec::new(),
            heads: Vec::new(),
            flows: Vec::with_capacity(FLOWS),
            sets: [[VACANT; WAYS]; SETS],
            latest: 0,
            oldest: 0,
            begun: 0,
            rest: NONE,
            pieces: Vec::with_capacity(MAX_PIECES),
        }
    }

    /// Adds a packet for the device of `tunnel`: `packet` is what lies at `place`, a whole IP packet, and `header` says
    /// what is left undone in it.
    pub fn push(&mut self, tunnel: usize, header: virtio::Header, place: Piece, packet: &[u8]) {
        let item = Item {
            tunnel,
            header,
            slot: place.slot,
            range: place.range,
            headers: 0,
            size: 0,
            checksum: Checksum::Unknown,
            next: NONE,
        };
        match packet::read(tunnel, &header, packet) {
            Seen::Flow(key, Some(segment)) if self.datagrams || segment.is_tcp() => {
                self.push_segment(item, &key, &segment);
            }
            Seen::Flow(key, _) => {
                if let Some(flow) = self.find(&key) {
                    self.close(flow);
                }
                self.push_alone(item);
            }
            Seen::Apart => {
                self.push_alone(item);
            }
            Seen::Unclear => {
                self.flows.iter_mut().filter(|flow| flow.key().tunnel() == tunnel).for_each(Flow::close);
                self.push_alone(item);
            }
        }
    }

    /// The next frame to write. When there is none the batch is over, and its slots may be used again. A packet that
    /// is pushed in between comes after all others and is joined to none of them.
    pub fn next_frame(&mut self, slots: &mut (impl Slots + ?Sized)) -> Option<Frame<'_>> {
        self.forget_flows();
        if self.rest == NONE {
            let Some(head) = self.heads.get(self.begun) else {
                self.clear();
                return None;
            };
            self.rest = *head;
            self.begun += 1;
        }
        self.pieces.clear();
        let first = self.items.get(self.rest as usize)?;
        let tunnel = first.tunnel;
        let (first_at, second) = (self.rest, first.next);
        self.pieces.push(Piece { slot: first.slot, range: first.range.clone() });
        self.rest = second;
        if second != NONE && self.is_sound(first_at, slots) {
            self.join(first_at, slots);
        }
        let header = self.items.get(first_at as usize)?.header;
        Some(Frame { tunnel, header, pieces: &self.pieces })
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.forget_flows();
        self.items.clear();
        self.heads.clear();
        self.begun = 0;
        self.rest = NONE;
    }

    fn push_segment(&mut self, item: Item, key: &Key, segment: &Segment<'_>) {
        // At most 100 and 65 535.
        let (headers, size) = (segment.headers as u8, segment.size as u16);
        let item = Item { headers, size, checksum: segment.checksum, ..item };
        let found = self.find(key);
        let index = self.items.len() as u32;
        let before = found.and_then(|flow| self.flows.get_mut(flow)?.append(segment, index));
        if let Some(before) = before.and_then(|before| self.items.get_mut(before as usize)) {
            before.next = index;
            self.items.push(item);
            return;
        }
        let head = self.push_alone(item);
        match (found, segment.ends) {
            (Some(flow), true) => self.close(flow),
            (None, true) => {}
            (found, false) => self.open(found, Flow::new(*key, segment, head)),
        }
    }

    /// Adds an item as the first of a list.
    fn push_alone(&mut self, item: Item) -> u32 {
        let index = self.items.len() as u32;
        self.items.push(item);
        self.heads.push(index);
        index
    }

    /// The flow with this key, whether it is open or not.
    fn find(&mut self, key: &Key) -> Option<usize> {
        let is_it = |flow: usize| self.flows.get(flow).is_some_and(|flow| flow.key() == key);
        if is_it(self.latest) {
            return Some(self.latest);
        }
        let set = self.sets.get(set_of(key))?;
        let found = set.iter().map(|flow| usize::from(*flow)).find(|flow| is_it(*flow))?;
        self.latest = found;
        Some(found)
    }

    /// Opens a flow, in the place it had before or in a new one.
    fn open(&mut self, place: Option<usize>, flow: Flow) {
        let set = set_of(flow.key());
        if let Some(known) = place.and_then(|place| self.flows.get_mut(place)) {
            *known = flow;
            return;
        }
        self.latest = self.flows.len();
        if self.latest < FLOWS {
            self.flows.push(flow);
        } else {
            self.latest = self.oldest;
            self.oldest = (self.oldest + 1) % FLOWS;
            if let Some(place) = self.flows.get_mut(self.latest) {
                *place = flow;
            }
        }
        if let Some(set) = self.sets.get_mut(set) {
            set.rotate_right(1);
            // Below FLOWS.
            set[0] = self.latest as u8;
        }
    }

    fn close(&mut self, flow: usize) {
        if let Some(flow) = self.flows.get_mut(flow) {
            flow.close();
        }
    }

    fn forget_flows(&mut self) {
        if !self.flows.is_empty() {
            self.flows.clear();
            self.sets = [[VACANT; WAYS]; SETS];
            (self.latest, self.oldest) = (0, 0);
        }
    }

    /// Joins to the item `first` what is left of its list, up to an item whose checksums are wrong.
    fn join(&mut self, first: u32, slots: &mut (impl Slots + ?Sized)) {
        let (mut last, mut payload) = (first, 0);
        while self.is_sound(self.rest, slots) {
            let Some(item) = self.items.get(self.rest as usize) else { break };
            payload += item.payload().len();
            self.pieces.push(Piece { slot: item.slot, range: item.payload() });
            (last, self.rest) = (self.rest, item.next);
        }
        if last == first {
            return;
        }
        let header = match [first, last].map(|item| self.items.get(item as usize)) {
            [Some(first), Some(last)] => first.rewrite(first.payload().len() + payload, last, slots),
            _ => None,
        };
        if let (Some(header), Some(first)) = (header, self.items.get_mut(first as usize)) {
            first.header = header;
        }
    }

    /// Whether the checksums of an item are right. What they cover is read once.
    fn is_sound(&mut self, item: u32, slots: &mut (impl Slots + ?Sized)) -> bool {
        let Some(item) = self.items.get_mut(item as usize) else { return false };
        if item.checksum != Checksum::Wrong {
            item.checksum = item.verify(slots);
        }
        item.checksum == Checksum::Trusted
    }
}

/// The set that a flow is looked for in.
fn set_of(key: &Key) -> usize {
    key.hash() as usize % SETS
}

#[cfg(test)]
mod tests;
