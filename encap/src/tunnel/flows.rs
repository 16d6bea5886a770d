//! The flows of one tunnel, IPv4 and IPv6, and the peer each was last heard from.
//!
//! Decides what counts as a known flow and for how long. Bounded: a full table forgets its oldest entry of the least
//! valuable class, so that a flood of connection attempts costs only other attempts. Every operation takes constant
//! time. One table belongs to one engine; time comes from the caller.
//!
//! Of a million flows hardly any is in a cache of the processor, and what a packet costs is how often it waits for memory. So
//! the index has no keys, all that is known of a flow lies in one cache line, and both are in large pages.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Seeded;
use super::index::Index;
use crate::linux::memory;

/// Number of a peer within its tunnel.
pub type PeerIndex = u16;

/// Both ends of a flow, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    /// IP protocol: TCP, UDP, or ICMP and ICMPv6 for echo.
    pub protocol: u8,
    /// Address on this side.
    pub local: IpAddr,
    /// Port on this side; the identifier of an echo.
    pub local_port: u16,
    /// Address behind the tunnel.
    pub remote: IpAddr,
    /// Port behind the tunnel; 0 of an echo.
    pub remote_port: u16,
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match (self.local, self.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                state.write_u64(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits()));
            }
            (local, remote) => {
                for address in [local, remote] {
                    let address = match address {
                        IpAddr::V4(address) => address.to_ipv6_mapped(),
                        IpAddr::V6(address) => address,
                    };
                    state.write_u128(address.to_bits());
                }
            }
        }
        let ports = u64::from(self.local_port) << 16 | u64::from(self.remote_port);
        state.write_u64(u64::from(self.protocol) << 32 | ports);
    }
}

/// What a TCP segment says about its connection; of a UDP datagram, nothing is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// It opens.
    pub syn: bool,
    /// Its sender is done.
    pub fin: bool,
    /// It aborts.
    pub rst: bool,
}

/// Where a packet that leaves by the tunnel was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By the kernel of this host, which answers only what is really open.
    Host,
    /// Elsewhere: it is forwarded and may be forged.
    Forwarded,
}

/// Classes of flows, the least valuable first. The number is the index of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Somebody outside wants something; nobody has answered.
    Unanswered = 0,
    /// A connection this host is opening.
    Opening = 1,
    /// UDP, and TCP that is over.
    Brief = 2,
    /// TCP that works in both directions.
    Established = 3,
}

/// Idle time in nanoseconds after which a flow of each class is forgotten. An idle pooled connection must survive.
const IDLE: [u64; 4] = [30 * SECOND, 30 * SECOND, 60 * SECOND, 3600 * SECOND];
/// A flow seen again this soon keeps its place in its list: most packets then touch one entry only.
const REFRESH: u64 = SECOND;
const SECOND: u64 = Duration::from_secs(1).as_nanos() as u64;
const NONE: u32 = u32::MAX;
/// Entries that memory is taken for at first.
const MIN_ROOM: usize = 16;
/// Far more than a tunnel can have.
const NO_PEER: PeerIndex = PeerIndex::MAX;
const TCP: u8 = 6;

/// The flows of one tunnel.
#[derive(Debug)]
pub struct FlowTable {
    hasher: Seeded,
    index: Index,
    entries: Vec<Entry>,
    /// What times are counted from.
    started: Instant,
    /// First unused entry; unused ones are chained by `next`.
    unused: u32,
    /// One list per class, the longest idle first.
    lists: [List; 4],
    capacity: usize,
    /// The entry found last, or none: packets come in bursts.
    latest: u32,
}

#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

/// A key that has no entry, or an idle one.
struct Absent {
    hash: u32,
    idle: Option<u32>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    key: FlowKey,
    /// In nanoseconds.
    last_seen: u64,
    previous: u32,
    next: u32,
    /// Or [`NO_PEER`].
    peer: PeerIndex,
    class: Class,
    ended: Directions,
    /// Directions in which something other than SYN and RST was seen.
    spoken: Directions,
}

const _: () = assert!(size_of::<Entry>() == 64);

#[derive(Debug, Clone, Copy, Default)]
struct Directions {
    outward: bool,
    inward: bool,
}

impl FlowTable {
    /// An empty table for at most `capacity` flows (at least 1, below 2^32 - 1); memory is taken as it fills. No time
    /// before `now` is told apart from it.
    pub fn new(now: Instant, capacity: usize, seed: u64) -> Self {
        Self {
            hasher: Seeded(seed),
            index: Index::default(),
            entries: Vec::new(),
            started: now,
            unused: NONE,
            lists: [List { head: NONE, tail: NONE }; 4],
            capacity,
            latest: NONE,
        }
    }

    /// Notes a packet that leaves by the tunnel; returns the peer its flow was last heard from.
    pub fn leaving(
        &mut self,
        now: Instant,
        key: FlowKey,
        signals: Signals,
        origin: Origin,
    ) -> Option<PeerIndex> {
        let now = self.time(now);
        let at = match self.find_again(now, &key) {
            Ok(at) => at,
            Err(absent) => self.insert(now, key, absent, NO_PEER, first_class(key, origin)),
        };
        let entry = self.entries.get_mut(at as usize)?;
        let speaks = !signals.syn && !signals.rst;
        entry.spoken.outward |= speaks;
        entry.ended.outward |= signals.fin;
        let mut class = entry.class;
        if signals.syn && origin == Origin::Host && class == Class::Brief {
            // The port is used again.
            entry.ended = Directions::default();
            entry.spoken = Directions::default();
            class = Class::Opening;
        }
        if speaks && (origin == Origin::Host || entry.spoken.inward) {
            // A host that goes on after an RST did not believe it.
            class = entry.working_class();
        }
        let (class, peer) = (entry.class_after(class, signals), entry.peer());
        self.touch(now, at, class);
        peer
    }

    /// Notes a packet from the tunnel and the peer it came by. `opens` says whether it may be the first of its flow.
    /// Returns whether the flow is known now.
    pub fn arriving(
        &mut self,
        now: Instant,
        key: FlowKey,
        signals: Signals,
        peer: PeerIndex,
        opens: bool,
    ) -> bool {
        let now = self.time(now);
        let at = match self.find_again(now, &key) {
            Ok(at) => at,
            Err(absent) if opens => self.insert(now, key, absent, peer, Class::Unanswered),
            Err(_) => return false,
        };
        let Some(entry) = self.entries.get_mut(at as usize) else { return false };
        entry.peer = peer;
        let speaks = !signals.syn && !signals.rst;
        entry.spoken.inward |= speaks;
        entry.ended.inward |= signals.fin;
        let mut class = entry.class;
        if speaks && entry.spoken.outward && class < Class::Brief {
            class = entry.working_class();
        }
        if signals.syn && opens && class == Class::Brief {
            // The client uses its port again.
            entry.ended = Directions::default();
            entry.spoken = Directions::default();
            class = Class::Unanswered;
        }
        let class = entry.class_after(class, signals);
        self.touch(now, at, class);
        true
    }

    /// Whether the flow is known, and the peer it was last heard from. Changes nothing.
    pub fn look_up(&self, now: Instant, key: &FlowKey) -> Option<Option<PeerIndex>> {
        let at = self.find(self.time(now), key).ok()?;
        Some(self.entries.get(at as usize)?.peer())
    }

    /// Forgets at most `budget` idle flows; returns how many.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let (mut forgotten, now) = (0, self.time(now));
        for class in [Class::Unanswered, Class::Opening, Class::Brief, Class::Established] {
            while forgotten < budget {
                let head = self.lists[class as usize].head;
                if !self.entries.get(head as usize).is_some_and(|entry| entry.is_idle(now)) {
                    break;
                }
                self.remove(head);
                forgotten += 1;
            }
        }
        forgotten
    }

    /// Number of flows, idle ones that were not yet forgotten included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Nanoseconds since the table was made; they last for 584 years.
    fn time(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64
    }

    /// As `find`, and without looking for what was found last.
    fn find_again(&mut self, now: u64, key: &FlowKey) -> Result<u32, Absent> {
        let latest = self.entries.get(self.latest as usize);
        if latest.is_some_and(|entry| entry.key == *key && !entry.is_idle(now)) {
            return Ok(self.latest);
        }
        self.latest = self.find(now, key)?;
        Ok(self.latest)
    }

    fn find(&self, now: u64, key: &FlowKey) -> Result<u32, Absent> {
        let hash = self.hash(key);
        let entry = |at: u32| self.entries.get(at as usize);
        let found = self.index.find(hash, |at| entry(at).is_some_and(|entry| entry.key == *key));
        match found {
            Some(at) if entry(at).is_some_and(|entry| !entry.is_idle(now)) => Ok(at),
            idle => Err(Absent { hash, idle }),
        }
    }

    fn hash(&self, key: &FlowKey) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn insert(&mut self, now: u64, key: FlowKey, absent: Absent, peer: PeerIndex, class: Class) -> u32 {
        if let Some(idle) = absent.idle {
            self.remove(idle);
        }
        if self.index.len() >= self.capacity {
            let oldest = self.lists.iter().map(|list| list.head).find(|head| *head != NONE);
            self.remove(oldest.unwrap_or(NONE));
        }
        let (ended, spoken) = Default::default();
        let entry = Entry { key, peer, last_seen: now, class, ended, spoken, previous: NONE, next: NONE };
        let at = self.unused;
        let at = if let Some(place) = self.entries.get_mut(at as usize) {
            self.unused = place.next;
            *place = entry;
            at
        } else {
            self.make_room();
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        };
        self.index.insert(absent.hash, at);
        self.append(at, class);
        at
    }

    /// For one more entry.
    fn make_room(&mut self) {
        let room = self.entries.capacity();
        if self.entries.len() == room {
            let mut bigger = memory::room_for((room * 2).max(MIN_ROOM));
            bigger.append(&mut self.entries);
            self.entries = bigger;
        }
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        entry.next = self.unused;
        self.unused = at;
        let hash = self.hasher.hash_one(entry.key) as u32;
        self.index.remove(hash, at);
        if self.latest == at {
            self.latest = NONE;
        }
    }

    /// Marks a flow as seen and moves it to the end of the list of its class.
    fn touch(&mut self, now: u64, at: u32, class: Class) {
        let Some(entry) = self.entries.get(at as usize) else { return };
        if entry.class == class && now.saturating_sub(entry.last_seen) < REFRESH {
            return;
        }
        self.unlink(at);
        if let Some(entry) = self.entries.get_mut(at as usize) {
            entry.last_seen = now;
            entry.class = class;
        }
        self.append(at, class);
    }

    fn unlink(&mut self, at: u32) {
        let Some(entry) = self.entries.get(at as usize) else { return };
        let (previous, next, list) = (entry.previous, entry.next, &mut self.lists[entry.class as usize]);
        if list.head == at {
            list.head = next;
        }
        if list.tail == at {
            list.tail = previous;
        }
        if let Some(entry) = self.entries.get_mut(previous as usize) {
            entry.next = next;
        }
        if let Some(entry) = self.entries.get_mut(next as usize) {
            entry.previous = previous;
        }
    }

    fn append(&mut self, at: u32, class: Class) {
        let list = &mut self.lists[class as usize];
        let tail = std::mem::replace(&mut list.tail, at);
        if list.head == NONE {
            list.head = at;
        }
        if let Some(entry) = self.entries.get_mut(tail as usize) {
            entry.next = at;
        }
        if let Some(entry) = self.entries.get_mut(at as usize) {
            (entry.previous, entry.next) = (tail, NONE);
        }
    }
}

impl Entry {
    fn peer(&self) -> Option<PeerIndex> {
        Some(self.peer).filter(|peer| *peer != NO_PEER)
    }

    fn is_idle(&self, now: u64) -> bool {
        now.saturating_sub(self.last_seen) >= IDLE[self.class as usize]
    }

    /// The class of a flow that was answered.
    fn working_class(&self) -> Class {
        if self.key.protocol == TCP { Class::Established } else { Class::Brief }
    }

    /// The class once the end of the connection is taken into account. Only what was established can end: the
    /// refusal of an attempt does not make it more valuable.
    fn class_after(&self, class: Class, signals: Signals) -> Class {
        let over = signals.rst || self.ended.outward && self.ended.inward;
        if class == Class::Established && over { Class::Brief } else { class }
    }
}

/// The class of a flow whose first packet leaves by the tunnel.
fn first_class(key: FlowKey, origin: Origin) -> Class {
    match origin {
        Origin::Forwarded => Class::Unanswered,
        Origin::Host if key.protocol == TCP => Class::Opening,
        Origin::Host => Class::Brief,
    }
}

#[cfg(test)]
#[path = "flows_tests.rs"]
mod tests;
