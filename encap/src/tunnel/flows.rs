//! The flows of one tunnel, IPv4 and IPv6, and the peer each was last heard from.
//!
//! Decides what counts as a known flow and for how long. Bounded: a full table forgets its oldest entry of the least
//! valuable class, so that a flood of connection attempts costs only other attempts. Every operation takes constant
//! time. One table belongs to one engine; time comes from the caller.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Seeded;

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

/// Idle time after which a flow of each class is forgotten. An idle pooled connection must survive.
const IDLE: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(30), Duration::from_secs(60), Duration::from_secs(3600)];
/// A flow seen again this soon keeps its place in its list: most packets then touch one entry only.
const REFRESH: Duration = Duration::from_secs(1);
const NONE: u32 = u32::MAX;
const TCP: u8 = 6;

/// The flows of one tunnel.
#[derive(Debug)]
pub struct FlowTable {
    index: HashMap<FlowKey, u32, Seeded>,
    entries: Vec<Entry>,
    /// First unused entry; unused ones are chained by `next`.
    unused: u32,
    /// One list per class, the longest idle first.
    lists: [List; 4],
    capacity: usize,
}

#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

#[derive(Debug)]
struct Entry {
    key: FlowKey,
    peer: Option<PeerIndex>,
    last_seen: Instant,
    class: Class,
    ended: Directions,
    /// Directions in which something other than SYN and RST was seen.
    spoken: Directions,
    previous: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Directions {
    outward: bool,
    inward: bool,
}

impl FlowTable {
    /// An empty table for at most `capacity` flows (at least 1, below 2^32 - 1); memory is taken as it fills.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            index: HashMap::with_hasher(Seeded(seed)),
            entries: Vec::new(),
            unused: NONE,
            lists: [List { head: NONE, tail: NONE }; 4],
            capacity,
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
        let at = match self.find(now, &key) {
            Some(at) => at,
            None => self.insert(now, key, None, first_class(key, origin)),
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
        let (class, peer) = (entry.class_after(class, signals), entry.peer);
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
        let at = match self.find(now, &key) {
            Some(at) => at,
            None if opens => self.insert(now, key, Some(peer), Class::Unanswered),
            None => return false,
        };
        let Some(entry) = self.entries.get_mut(at as usize) else { return false };
        entry.peer = Some(peer);
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
        let entry = self.entries.get(self.find(now, key)? as usize)?;
        Some(entry.peer)
    }

    /// Forgets at most `budget` idle flows; returns how many.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let mut forgotten = 0;
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
        self.index.is_empty()
    }

    fn find(&self, now: Instant, key: &FlowKey) -> Option<u32> {
        let at = *self.index.get(key)?;
        self.entries.get(at as usize).filter(|entry| !entry.is_idle(now)).map(|_| at)
    }

    fn insert(&mut self, now: Instant, key: FlowKey, peer: Option<PeerIndex>, class: Class) -> u32 {
        if let Some(idle) = self.index.get(&key) {
            self.remove(*idle);
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
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        };
        self.index.insert(key, at);
        self.append(at, class);
        at
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        entry.next = self.unused;
        self.unused = at;
        self.index.remove(&entry.key);
    }

    /// Marks a flow as seen and moves it to the end of the list of its class.
    fn touch(&mut self, now: Instant, at: u32, class: Class) {
        let Some(entry) = self.entries.get(at as usize) else { return };
        if entry.class == class && now.saturating_duration_since(entry.last_seen) < REFRESH {
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
    fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_seen) >= IDLE[self.class as usize]
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
