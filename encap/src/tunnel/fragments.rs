//! Datagrams that arrive in pieces: only the first piece has ports, so what it was judged by holds for the others.
//!
//! Bounded, and of short memory: a piece whose first piece was not seen within the last seconds is not known. One table
//! belongs to one tunnel; time comes from the caller.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Seeded;
use super::flows::PeerIndex;

/// Most datagrams remembered.
const CAPACITY: usize = 1024;
/// As long as Linux waits for the pieces of a datagram (`net.ipv4.ipfrag_time`).
const REMEMBERED: Duration = Duration::from_secs(30);

/// What the pieces of one datagram have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Protocol of the datagram; 0 over IPv6, where the identification alone counts.
    pub protocol: u8,
    /// Identification, 16 bits over IPv4.
    pub identification: u32,
}

/// Datagrams of which the first piece was let through, and the peer by which.
#[derive(Debug)]
pub struct Fragments {
    known: HashMap<FragmentKey, (Instant, PeerIndex), Seeded>,
    order: VecDeque<(FragmentKey, Instant)>,
}

impl Fragments {
    /// An empty table.
    pub fn new(seed: u64) -> Self {
        Self { known: HashMap::with_hasher(Seeded(seed)), order: VecDeque::new() }
    }

    /// Notes that the first piece was let through by a peer.
    pub fn admit(&mut self, now: Instant, key: FragmentKey, peer: PeerIndex) {
        while self.order.len() >= CAPACITY
            || self.order.front().is_some_and(|(_, then)| now.saturating_duration_since(*then) >= REMEMBERED)
        {
            let Some((oldest, then)) = self.order.pop_front() else { break };
            // A datagram that came again stands in the queue twice: the later entry counts.
            if self.known.get(&oldest).is_some_and(|(newest, _)| *newest == then) {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(key, (now, peer));
        self.order.push_back((key, now));
    }

    /// The peer by which the first piece went, if the datagram of a later piece is known.
    pub fn peer_of(&self, now: Instant, key: &FragmentKey) -> Option<PeerIndex> {
        let (then, peer) = self.known.get(key)?;
        (now.saturating_duration_since(*then) < REMEMBERED).then_some(*peer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn key(identification: u32) -> FragmentKey {
        let (source, destination) = (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into());
        FragmentKey { source, destination, protocol: 17, identification }
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn later_pieces_follow_the_first_for_a_while() {
        let (mut fragments, now) = (Fragments::new(1), start());
        assert_eq!(fragments.peer_of(now, &key(1)), None);
        fragments.admit(now, key(1), 3);
        assert_eq!(fragments.peer_of(now + Duration::from_secs(29), &key(1)), Some(3));
        assert_eq!(fragments.peer_of(now + Duration::from_secs(30), &key(1)), None);
        assert_eq!(fragments.peer_of(now, &FragmentKey { protocol: 6, ..key(1) }), None);
    }

    #[test]
    fn a_datagram_that_comes_again_is_remembered_anew() {
        let (mut fragments, now) = (Fragments::new(1), start());
        fragments.admit(now, key(1), 0);
        fragments.admit(now + Duration::from_secs(20), key(1), 1);
        fragments.admit(now + Duration::from_secs(40), key(2), 0);
        assert_eq!(fragments.peer_of(now + Duration::from_secs(45), &key(1)), Some(1));
    }

    #[test]
    fn a_flood_of_first_pieces_is_bounded() {
        let (mut fragments, now) = (Fragments::new(1), start());
        for identification in 0..5000 {
            fragments.admit(now, key(identification), 0);
        }
        assert_eq!((fragments.known.len(), fragments.order.len()), (CAPACITY, CAPACITY));
        assert_eq!([4999, 0].map(|number| fragments.peer_of(now, &key(number))), [Some(0), None]);
    }
}
