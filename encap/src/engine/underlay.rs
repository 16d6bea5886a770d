//! What the underlay says about outer packets: messages of ICMP and ICMPv6 that claim a smaller path MTU.
//!
//! Anybody can send them, so one is believed only when it quotes a packet that a live tunnel can have sent to a live
//! peer, with its key where the quotation reaches that far, and that is longer than the size it asks for; and never
//! below the tunnel's floor (RFC 5927 section 7, RFC 8201 section 6).

use std::net::IpAddr;
use std::time::Instant;

use super::{Engine, SWEEP};
use crate::config::Kind;
use crate::metrics::DropReason;
use crate::mtu::{QuotedKey, QuotedOuter, TooBig, parse_too_big};
use crate::tunnel::Relation;
use crate::tunnel::flows::PeerIndex;
use crate::wire::ip::Version;
use crate::wire::{WireError, ipv4, udp};

impl Engine {
    /// A message that the host received from the underlay, from its ICMP or ICMPv6 header on. Whether a path is smaller
    /// now: then every other engine has to be told as well; the caller counts it once.
    ///
    /// # Errors
    /// [`DropReason::UnderlayIgnored`] when it is about a tunnel packet and not believed.
    pub fn handle_underlay_error(
        &mut self,
        now: Instant,
        version: Version,
        message: &[u8],
    ) -> Result<bool, DropReason> {
        let ignored = DropReason::UnderlayIgnored;
        let TooBig { mtu: claimed, quoted } = match parse_too_big(version, message) {
            Ok(report) => report,
            // About something else.
            Err(WireError::Protocol) => return Ok(false),
            Err(_) => return Err(ignored),
        };
        let kind = match quoted.protocol {
            ipv4::GRE => Kind::Gre,
            ipv4::IPIP | ipv4::IPV6 => Kind::Ipip,
            ipv4::UDP if quoted.ports.is_some_and(|(_, to)| to == udp::GRE_IN_UDP) => Kind::GreInUdp,
            // The host's own traffic.
            _ => return Ok(false),
        };
        let (tunnel, peer) = self.find_quoted(kind, &quoted).ok_or(ignored)?;
        let state = self.tunnels.get(tunnel).and_then(Option::as_ref).ok_or(ignored)?;
        let address = *state.remotes.get(usize::from(peer)).ok_or(ignored)?;
        let ceiling = state.mtu.saturating_add(state.overhead);
        if quoted.total > usize::from(ceiling) || quoted.total <= usize::from(claimed) {
            return Err(ignored);
        }
        let believed = claimed.max(state.mtu_floor);
        if believed >= self.paths.limit(address).unwrap_or(ceiling).min(ceiling) {
            return Ok(false);
        }
        let lowered = self.paths.lower(now, address, believed, ceiling).ok_or(ignored)?;
        self.note_path(address, Some(lowered));
        self.next_sweep.get_or_insert(now + SWEEP);
        Ok(true)
    }

    pub(super) fn expire_paths(&mut self, now: Instant) {
        let mut raised = Vec::new();
        self.paths.expire(now, |peer| raised.push(peer));
        for peer in raised {
            self.note_path(peer, None);
        }
    }

    /// The tunnel and the peer of a quoted packet that this host sent.
    fn find_quoted(&self, kind: Kind, quoted: &QuotedOuter) -> Option<(usize, PeerIndex)> {
        match (kind, quoted.key) {
            (Kind::Ipip, _) | (_, QuotedKey::Absent) => self.find(kind, None, quoted),
            (_, QuotedKey::Present(key)) => self.find(kind, Some(key), quoted),
            // The quotation ends before the key: any tunnel to that peer will do, for the path is the same. Every router
            // quotes 8 bytes (RFC 792, RFC 4443 section 3.1), so this is no way around the key where it is among those.
            (_, QuotedKey::Unknown) => {
                let mut states = self.tunnels.iter().enumerate();
                states.find_map(|(index, state)| {
                    let state = state.as_ref().filter(|state| state.local == quoted.source)?;
                    let peer = state.remotes.iter().position(|peer| *peer == quoted.destination)?;
                    let fits = state.style.kind() == kind
                        && state.style.may_hide_key()
                        && state.style.sends_from(quoted.ports);
                    fits.then_some((index, peer as PeerIndex))
                })
            }
        }
    }

    fn find(&self, kind: Kind, key: Option<u32>, quoted: &QuotedOuter) -> Option<(usize, PeerIndex)> {
        let relation = Relation { kind, local: quoted.source, key };
        let (tunnel, peer) = self.peers.find(relation, quoted.destination)?;
        // Nothing is ever sent to an address that is only inside a network of peers.
        let state = self.tunnels.get(tunnel)?.as_ref()?;
        let fits = state.remotes.get(usize::from(peer)) == Some(&quoted.destination);
        (fits && state.style.sends_from(quoted.ports)).then_some((tunnel, peer))
    }

    /// Shows the path MTU to a peer in the counters of every tunnel that has it.
    fn note_path(&self, address: IpAddr, path: Option<u16>) {
        for state in self.tunnels.iter().flatten() {
            for (index, _) in (0..).zip(&state.remotes).filter(|(_, peer)| **peer == address) {
                if let Some(counters) = state.counters.peer(index) {
                    counters.set_path_mtu(state.limit(path).saturating_add(state.overhead));
                }
            }
        }
    }
}
