//! Whether packets that stand for several may leave as they are.
//!
//! A network interface cuts them, or the kernel in front of it. A veth hands them on whole, checksums open, as it does with
//! those of the kernel's own tunnels. Another kernel knows what they are, and so do we; a program that expects one packet
//! at a time does not. So on a veth they leave only to a peer that shows to be this program, by the identification of its
//! outer IPv4 packets, which are free to have any where DF is set (RFC 6864 section 4.1). What is shown depends on the TTL, so
//! that behind a router nobody shows anything: there may be a network card that does not know what to cut.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::batch::{InnerCarrier, Takers};
use crate::config::Tunnel;
use crate::tunnel::flows::PeerIndex;

/// So many packets in a row change what is believed of a peer: a counter or a random number is not that long right by
/// chance. More would not help against a constant that is, one of 65,536, and a receiver of a stream sends few.
const IN_A_ROW: u8 = 4;
/// A peer that was not heard for so long may be another now.
const HOLDS: Duration = Duration::from_secs(60);
/// Packets that a kernel has cut have identifications that count up from the one of the whole.
const CUT_MOST: u16 = 256;

/// What is known of the peers of one tunnel.
#[derive(Debug)]
pub(super) struct Uncut {
    /// What packets are cut inside of, where the tunnel's headers allow it.
    carrier: Option<InnerCarrier>,
    takers: Option<Takers>,
    local: IpAddr,
    key: u32,
    /// Of our packets.
    ttl: u8,
    peers: Vec<Signs>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    /// Until when it is believed to take packets that stand for several.
    takes: Option<Instant>,
    /// Packets in a row that speak against what is believed.
    against: u8,
}

impl Uncut {
    /// Nothing leaves uncut yet.
    pub(super) fn new(carrier: Option<InnerCarrier>, tunnel: &Tunnel) -> Self {
        let (local, key, ttl) = (tunnel.local, tunnel.key.unwrap_or(0), tunnel.ttl);
        let peers = vec![Signs::default(); tunnel.remotes().count()];
        Self { carrier, takers: None, local, key, ttl, peers }
    }

    /// From now on packets may leave uncut to these.
    pub(super) fn allow(&mut self, takers: Takers) {
        self.takers = Some(takers);
    }

    /// What packets to a peer are cut inside of by others; nothing, where they have to be cut before they leave.
    pub(super) fn carrier(&self, now: Instant, peer: PeerIndex) -> Option<InnerCarrier> {
        let is_taken = match self.takers? {
            Takers::Everybody => true,
            Takers::WhoSaysSo => {
                let signs = self.peers.get(usize::from(peer))?;
                signs.takes.is_some_and(|until| now < until)
            }
        };
        self.carrier.filter(|_| is_taken)
    }

    /// Whether packets to any peer are.
    pub(super) fn is_taken(&self, now: Instant) -> bool {
        (0..self.peers.len() as PeerIndex).any(|peer| self.carrier(now, peer).is_some())
    }

    /// The identification of outer packets to this address, by which a peer sees that packets to us may stand for several.
    pub(super) fn announcement(&self, to: IpAddr) -> u16 {
        self.carrier.map_or(0, |_| announcement((self.local, to), self.key, self.ttl))
    }

    /// Takes notice of a packet that a peer has sent from this address, with this identification and this TTL left.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        peer: PeerIndex,
        from: IpAddr,
        (identification, ttl): (u16, u8),
    ) {
        if self.takers != Some(Takers::WhoSaysSo) || self.carrier.is_none() {
            return;
        }
        let Some(signs) = self.peers.get_mut(usize::from(peer)) else { return };
        let ahead = identification.wrapping_sub(announcement((from, self.local), self.key, ttl));
        let believed = signs.takes.is_some_and(|until| now < until);
        let says_so = ahead == 0 || believed && ahead < CUT_MOST;
        signs.against = if says_so == believed { 0 } else { signs.against + 1 };
        let changes = signs.against == IN_A_ROW;
        if changes {
            signs.against = 0;
        }
        signs.takes = match (believed, changes) {
            (true, false) if !says_so => signs.takes,
            (true, false) | (false, true) => Some(now + HOLDS),
            (true, true) | (false, false) => None,
        };
    }
}

/// Differs by direction, so that a peer that sends our headers back says nothing; never 0 or some other small number, which is
/// what others send.
fn announcement((from, to): (IpAddr, IpAddr), key: u32, ttl: u8) -> u16 {
    // FNV-1a, 32 bits.
    let octets = |address| match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let bytes = [octets(from).octets(), octets(to).octets(), key.to_be_bytes()];
    let hash = [ttl]
        .iter()
        .chain(bytes.as_flattened())
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    0x1000 | (hash >> 16 ^ hash) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn tunnel(local: IpAddr, peer: IpAddr) -> Tunnel {
        let peers = vec![peer, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3))];
        Tunnel { key: Some(7), ttl: 61, ..Tunnel::new("t", local, peers, vec![]) }
    }

    struct Bench {
        uncut: Uncut,
        now: Instant,
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
        fn new(takers: Takers) -> Self {
            let mut uncut = Uncut::new(Some(InnerCarrier::Gre), &tunnel(US, PEER));
            assert_eq!(uncut.carrier(Instant::now(), 0), None, "not allowed yet");
            uncut.allow(takers);
            Self { uncut, now: Instant::now() }
        }

        fn hear(&mut self, identifications: impl IntoIterator<Item = u16>) -> bool {
            for identification in identifications {
                self.uncut.hear(self.now, 0, PEER, (identification, 61));
            }
            self.uncut.carrier(self.now, 0).is_some()
        }

        fn of_peer() -> u16 {
            Uncut::new(Some(InnerCarrier::Gre), &tunnel(PEER, US)).announcement(US)
        }
    }

    #[test]
    fn a_peer_that_says_so_is_believed_as_long_as_it_does() {
        let (mut bench, sign) = (Bench::new(Takers::WhoSaysSo), Bench::of_peer());
        assert!(!bench.hear([sign; 3]) && !bench.hear([5]) && !bench.hear([sign; 3]), "not in a row");
        assert!(bench.hear([sign]));
        assert_eq!(bench.uncut.carrier(bench.now, 1), None, "another peer");
        // Cut by a kernel, and now and then something else.
        assert!(bench.hear((0..200).map(|ahead| sign.wrapping_add(ahead))) && bench.hear([0; 3]));
        bench.now += HOLDS - Duration::from_millis(1);
        assert!(bench.hear([sign]));
        bench.now += HOLDS - Duration::from_millis(1);
        assert!(bench.hear([0; 3]), "it was heard in between");
        assert!(!bench.hear([0]), "another program");
        assert!(bench.hear([sign; 4]));
        bench.now += HOLDS;
        assert!(!bench.hear([]) && !bench.hear([sign; 3]) && bench.hear([sign]), "after silence");
    }

    #[test]
    fn nobody_else_says_so() {
        let mut bench = Bench::new(Takers::WhoSaysSo);
        let ours = bench.uncut.announcement(PEER);
        assert_ne!(ours, Bench::of_peer());
        assert!(!bench.hear([ours; 99]), "our own, sent back");
        assert!(!bench.hear([0; 99]) && !bench.hear([1; 99]), "a constant");
        assert!(!bench.hear(0..=u16::MAX), "a counter");
        assert!((0x1000..).contains(&ours));
        for _ in 0..99 {
            bench.uncut.hear(bench.now, 0, PEER, (Bench::of_peer(), 60));
        }
        assert!(!bench.hear([]), "behind a router");
    }

    #[test]
    fn where_everybody_takes_them_nobody_is_asked() {
        let mut bench = Bench::new(Takers::Everybody);
        assert!(bench.hear([0; 99]));
        // Headers of which the kernel cannot cut anything.
        let mut uncut = Uncut::new(None, &tunnel(US, PEER));
        uncut.allow(Takers::Everybody);
        assert_eq!((uncut.carrier(bench.now, 0), uncut.announcement(PEER)), (None, 0));
    }
}
