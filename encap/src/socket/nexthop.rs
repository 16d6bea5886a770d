//! Next hops: whether a packet may be put on the link by ourselves, and with which link header.
//!
//! Pure: it is told what the kernel knows and asks for what it lacks. The rule is caution: as soon as anything is
//! unknown, outdated or out of the ordinary, the packet is routed by the kernel, which is slower and always right, and
//! which then also finds out what was unknown.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::linux::netlink::{Event, Link, Neighbour, RouteKind, RouteTo};

/// Length of an Ethernet header in bytes.
pub(super) const LINK_HEADER_LEN: usize = 14;
/// Destinations that are remembered: more than the peers of any node.
const MAX_DESTINATIONS: usize = 4096;
/// A destination not used for so long is forgotten when there is no room.
const IDLE: Duration = Duration::from_secs(60);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Questions that wait; what does not fit is asked for by the next packet.
const MAX_QUESTIONS: usize = 64;
/// While routes keep changing, an answer may be so old.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Some changes are not announced: a path MTU that was learned or has expired, a redirect.
const REFRESH: Duration = Duration::from_secs(30);
/// A neighbour that may have gone is given to the kernel so often, for it to make sure.
const PROBE: Duration = Duration::from_secs(1);

/// How a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// On the link, behind this header.
    Link([u8; LINK_HEADER_LEN]),
    /// As the kernel routes it; the next packet may go otherwise.
    Routed,
}

/// What is to be asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// The link itself.
    Link,
    /// The route of a packet from the local address to this destination by the interface.
    Route(IpAddr),
    /// The neighbour with this address.
    Neighbour(IpAddr),
}

/// The next hops of one local address on one interface.
#[derive(Debug)]
pub(super) struct NextHops {
    device: u32,
    link: LinkState,
    destinations: HashMap<IpAddr, Destination>,
    neighbours: HashMap<IpAddr, Known>,
    questions: VecDeque<Question>,
    /// Counts changes of routes.
    version: u64,
    next_sweep: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    /// To be asked, and whether that waits.
    Unknown {
        asked: bool,
    },
    /// Down, gone, or without Ethernet header.
    Unusable,
    Usable {
        mac: [u8; 6],
        mtu: u32,
    },
}

/// What is known of the route to a destination.
#[derive(Debug)]
struct Destination {
    /// The neighbour it is given to; none when the kernel has to route it.
    hop: Option<IpAddr>,
    mtu: Option<u32>,
    /// The version of the routes it is from.
    version: u64,
    /// When it was learned.
    learned: Option<Instant>,
    /// Whether the question waits.
    asked: bool,
    used: Instant,
}

#[derive(Debug)]
struct Known {
    mac: Option<[u8; 6]>,
    state: u16,
    next_probe: Option<Instant>,
}

impl NextHops {
    /// Knows nothing yet of the interface with this index.
    pub(super) fn new(device: u32) -> Self {
        Self {
            device,
            link: LinkState::Unknown { asked: false },
            destinations: HashMap::new(),
            neighbours: HashMap::new(),
            questions: VecDeque::new(),
            version: 0,
            next_sweep: None,
        }
    }

    /// How the next packet to this destination leaves.
    pub(super) fn way(&mut self, now: Instant, destination: IpAddr) -> Way {
        self.link_header(now, destination).map_or(Way::Routed, Way::Link)
    }

    /// The largest packet that the link and the route to this destination take, in bytes, as far as it is known.
    pub(super) fn mtu(&self, destination: IpAddr) -> Option<u32> {
        let mtu = self.link_mtu()?;
        let route = self.destinations.get(&destination).and_then(|known| known.mtu);
        Some(route.map_or(mtu, |route| route.min(mtu)))
    }

    /// The largest packet that the link takes, in bytes.
    pub(super) fn link_mtu(&self) -> Option<u32> {
        match self.link {
            LinkState::Usable { mtu, .. } => Some(mtu),
            _ => None,
        }
    }

    /// The next question; its answer goes to the method of the same name.
    pub(super) fn question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// The link, or that there is none.
    pub(super) fn answer_link(&mut self, link: Option<&Link>) {
        self.link = match link {
            Some(Link { up: true, running: true, kind: libc::ARPHRD_ETHER, mac: Some(mac), mtu, .. }) => {
                LinkState::Usable { mac: *mac, mtu: *mtu }
            }
            _ => LinkState::Unusable,
        };
    }

    /// The route to a destination, or that there is none.
    pub(super) fn answer_route(&mut self, now: Instant, destination: IpAddr, route: Option<RouteTo>) {
        let Some(known) = self.destinations.get_mut(&destination) else { return };
        let route = route.filter(|route| route.kind == RouteKind::Unicast && route.device == self.device);
        known.hop = route.map(|route| route.gateway.unwrap_or(destination));
        known.mtu = route.and_then(|route| route.mtu);
        known.version = self.version;
        known.learned = Some(now);
        known.asked = false;
        if let Some(hop) = known.hop
            && !self.neighbours.contains_key(&hop)
        {
            self.ask_for_neighbour(hop);
        }
    }

    /// A neighbour, or that the kernel knows nothing of it.
    pub(super) fn answer_neighbour(&mut self, address: IpAddr, neighbour: Option<Neighbour>) {
        // One that was not asked for, or that was forgotten meanwhile, is of no interest.
        if let (Some(known), Some(neighbour)) = (self.neighbours.get_mut(&address), neighbour) {
            (known.mac, known.state) = (neighbour.mac, neighbour.state);
        }
    }

    /// Takes notice of a change.
    pub(super) fn handle(&mut self, event: &Event) {
        match event {
            Event::Link(link) => {
                if link.index == self.device {
                    self.answer_link(Some(link));
                }
                // Routes that go with a link go unannounced.
                self.version += 1;
            }
            Event::LinkGone(index) => {
                if *index == self.device {
                    self.link = LinkState::Unusable;
                }
                self.version += 1;
            }
            Event::Neighbour(neighbour) => {
                if neighbour.device == self.device
                    && let Some(known) = self.neighbours.get_mut(&neighbour.address)
                {
                    (known.mac, known.state) = (neighbour.mac, neighbour.state);
                }
            }
            Event::Routes => self.version += 1,
            Event::Missed => {
                self.link = LinkState::Unknown { asked: false };
                self.neighbours.clear();
                self.version += 1;
            }
        }
    }

    fn link_header(&mut self, now: Instant, destination: IpAddr) -> Option<[u8; LINK_HEADER_LEN]> {
        let own = match &mut self.link {
            LinkState::Usable { mac, .. } => *mac,
            LinkState::Unusable => return None,
            LinkState::Unknown { asked } => {
                *asked = *asked || ask(&mut self.questions, Question::Link);
                return None;
            }
        };
        let hop = self.hop(now, destination)?;
        let Some(neighbour) = self.neighbours.get_mut(&hop) else {
            self.ask_for_neighbour(hop);
            return None;
        };
        let other = neighbour.mac(now)?;
        let kind = if destination.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
        let mut header = [0; LINK_HEADER_LEN];
        let parts = other.iter().chain(&own).copied().chain((kind as u16).to_be_bytes());
        header.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
        Some(header)
    }

    /// The neighbour that packets to this destination are given to, when that is certain.
    fn hop(&mut self, now: Instant, destination: IpAddr) -> Option<IpAddr> {
        let Some(known) = self.destinations.get_mut(&destination) else {
            self.remember(now, destination);
            return None;
        };
        known.used = now;
        let is_current = known.version == self.version;
        let age = known.learned.map(|then| now.saturating_duration_since(then));
        let may_ask = age.is_none_or(|age| age >= if is_current { REFRESH } else { ASK_AGAIN });
        if may_ask && !known.asked {
            known.asked = ask(&mut self.questions, Question::Route(destination));
        }
        if is_current || !may_ask { known.hop } else { None }
    }

    /// What changes from now on is noticed, so that a neighbour is asked for once.
    fn ask_for_neighbour(&mut self, address: IpAddr) {
        if self.neighbours.len() >= MAX_DESTINATIONS {
            self.forget_neighbours();
        }
        if ask(&mut self.questions, Question::Neighbour(address)) {
            let unknown = Known { mac: None, state: libc::NUD_NONE, next_probe: None };
            self.neighbours.insert(address, unknown);
        }
    }

    fn remember(&mut self, now: Instant, destination: IpAddr) {
        if self.destinations.len() >= MAX_DESTINATIONS && self.next_sweep.is_none_or(|then| then <= now) {
            self.next_sweep = Some(now + SWEEP_EVERY);
            self.destinations.retain(|_, known| now.saturating_duration_since(known.used) < IDLE);
            self.forget_neighbours();
        }
        if self.destinations.len() < MAX_DESTINATIONS {
            let asked = ask(&mut self.questions, Question::Route(destination));
            // Older than any answer.
            let version = self.version.wrapping_sub(1);
            let known = Destination { hop: None, mtu: None, version, learned: None, asked, used: now };
            self.destinations.insert(destination, known);
        }
    }

    /// Forgets neighbours that no destination needs: what is left is at most one per destination.
    fn forget_neighbours(&mut self) {
        let needed: std::collections::HashSet<_> =
            self.destinations.values().filter_map(|known| known.hop).collect();
        self.neighbours.retain(|address, _| needed.contains(address));
    }
}

impl Known {
    /// The address to send to. Now and then it is withheld for one packet, unless the kernel is sure of it.
    fn mac(&mut self, now: Instant) -> Option<[u8; 6]> {
        match self.state {
            libc::NUD_REACHABLE | libc::NUD_PERMANENT | libc::NUD_NOARP => self.mac,
            libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE => {
                if self.next_probe.is_none_or(|then| then <= now) {
                    self.next_probe = Some(now + PROBE);
                    return None;
                }
                self.mac
            }
            _ => None,
        }
    }
}

/// Puts a question at the end; returns whether there was room.
fn ask(questions: &mut VecDeque<Question>, question: Question) -> bool {
    let has_room = questions.len() < MAX_QUESTIONS;
    if has_room {
        questions.push_back(question);
    }
    has_room
}

#[cfg(test)]
#[path = "nexthop_tests.rs"]
mod tests;
