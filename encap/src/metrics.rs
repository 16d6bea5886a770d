//! What is counted: packets and bytes of each tunnel and direction, and one counter per reason for a drop.
//!
//! The engine and the edges count; whoever serves `/metrics` takes a [`Counters::snapshot`]. Counting never blocks.
//! Values only grow; relaxed order is enough because none of them guards other memory.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was not forwarded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const fn all() -> &'static [Self] {
                &[$(Self::$variant,)*]
            }

            /// The label of the metric, in snake case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// The bytes are not a packet: a header is missing, contradicts itself, or promises more than there is.
    Malformed = "malformed",
    /// The virtio header does not fit the packet, or asks for what is not done here.
    BadOffload = "bad_offload",
    /// Out: a frame for a tunnel that does not exist.
    NoTunnel = "no_tunnel",
    /// Out: not IPv4 (router solicitations of the kernel, for one).
    NotIpv4 = "not_ipv4",
    /// The inner protocol is not TCP, UDP or ICMP.
    UnsupportedProtocol = "unsupported_protocol",
    /// Out: the destination is not behind the tunnel.
    NoRoute = "no_route",
    /// Out: the source is neither an address of this host on the tunnel nor in a network forwarded to it.
    ForeignSource = "foreign_source",
    /// Out: longer than the tunnel's MTU, with DF set; the sender is told.
    TooBig = "too_big",
    /// Out: longer than the tunnel's MTU, with DF clear.
    FragmentationNeeded = "fragmentation_needed",
    /// Out: one super-packet would become more packets than one frame may.
    TooManySegments = "too_many_segments",
    /// Out: the batch has no room for all packets of the frame.
    BatchFull = "batch_full",
    /// In: the outer packet is a fragment.
    OuterFragment = "outer_fragment",
    /// In: the outer packet does not carry GRE.
    NotGre = "not_gre",
    /// In: the GRE header is cut off, of another version, or has reserved bits set.
    BadGre = "bad_gre",
    /// In: no tunnel has this peer, local address and key.
    UnknownPeer = "unknown_peer",
    /// In: the GRE checksum is wrong.
    BadGreChecksum = "bad_gre_checksum",
    /// In: the GRE packet carries something other than IPv4.
    UnknownProtocol = "unknown_protocol",
    /// In: the inner packet is a tunnel packet itself.
    Nested = "nested",
    /// In: the inner packet is a fragment.
    InnerFragment = "inner_fragment",
    /// In: the inner source is not behind the tunnel, or is an address of this host.
    SpoofedInner = "spoofed_inner",
    /// In: the inner packet belongs to no flow, listener or forwarded network of the tunnel.
    NotOurs = "not_ours",
    /// In: marked as congested on the way, and the inner packet cannot carry the mark (RFC 6040 section 4.2).
    EcnCongested = "ecn_congested",
}

/// Number of drop reasons.
const REASONS: usize = DropReason::all().len();

/// Counters of one tunnel, or of the packets that belong to none.
#[derive(Debug, Default)]
// Two engine threads never write to the same cache line for two tunnels.
#[repr(align(64))]
pub struct TunnelCounters {
    packets_out: AtomicU64,
    bytes_out: AtomicU64,
    packets_in: AtomicU64,
    bytes_in: AtomicU64,
    drops: [AtomicU64; REASONS],
}

impl TunnelCounters {
    /// Counts outer packets handed to the network, and their bytes from the outer IPv4 header on.
    pub fn count_out(&self, packets: u64, bytes: u64) {
        self.packets_out.fetch_add(packets, Relaxed);
        self.bytes_out.fetch_add(bytes, Relaxed);
    }

    /// Counts outer packets that were delivered, and their bytes from the outer IPv4 header on.
    pub fn count_in(&self, packets: u64, bytes: u64) {
        self.packets_in.fetch_add(packets, Relaxed);
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// Counts one frame that was dropped; a super-packet counts as one.
    pub fn count_drop(&self, reason: DropReason) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Outer packets handed to the network.
    pub fn packets_out(&self) -> u64 {
        self.packets_out.load(Relaxed)
    }

    /// Their bytes, from the outer IPv4 header on.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// Outer packets delivered. What the kernel merged counts as the packets it was merged from.
    pub fn packets_in(&self) -> u64 {
        self.packets_in.load(Relaxed)
    }

    /// Their bytes, from the outer IPv4 header on.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Frames dropped for one reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).map_or(0, |counter| counter.load(Relaxed))
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            packets_out: self.packets_out(),
            bytes_out: self.bytes_out(),
            packets_in: self.packets_in(),
            bytes_in: self.bytes_in(),
            drops: DropReason::all().iter().map(|reason| (*reason, self.drops(*reason))).collect(),
        }
    }
}

/// All counters of the encapsulation; shared by the engines and whoever reads them.
#[derive(Debug)]
pub struct Counters {
    tunnels: Vec<(String, TunnelCounters)>,
    unmatched: TunnelCounters,
}

impl Counters {
    /// Counters for the tunnels of these names, in the order of the configuration.
    pub fn new(names: Vec<String>) -> Self {
        let tunnels = names.into_iter().map(|name| (name, TunnelCounters::default())).collect();
        Self { tunnels, unmatched: TunnelCounters::default() }
    }

    /// The counters of a tunnel; of packets without a tunnel when there is none with this index.
    pub fn tunnel(&self, index: usize) -> &TunnelCounters {
        self.tunnels.get(index).map_or(&self.unmatched, |(_, counters)| counters)
    }

    /// The counters of packets that belong to no tunnel.
    pub fn unmatched(&self) -> &TunnelCounters {
        &self.unmatched
    }

    /// All values: each tunnel with its name, then, without a name, what belongs to no tunnel. Values of one tunnel
    /// are not of exactly the same moment.
    pub fn snapshot(&self) -> Vec<(Option<&str>, Snapshot)> {
        let tunnels = self.tunnels.iter().map(|(name, counters)| (Some(name.as_str()), counters.snapshot()));
        tunnels.chain([(None, self.unmatched.snapshot())]).collect()
    }
}

/// The values of one [`TunnelCounters`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// See [`TunnelCounters::packets_out`].
    pub packets_out: u64,
    /// See [`TunnelCounters::bytes_out`].
    pub bytes_out: u64,
    /// See [`TunnelCounters::packets_in`].
    pub packets_in: u64,
    /// See [`TunnelCounters::bytes_in`].
    pub bytes_in: u64,
    /// Frames dropped, for every reason.
    pub drops: Vec<(DropReason, u64)>,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_snake_case() {
        let names: HashSet<_> = DropReason::all().iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), REASONS);
        for (index, reason) in DropReason::all().iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let mut snake = String::new();
            for letter in format!("{reason:?}").chars() {
                if letter.is_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.extend(letter.to_lowercase());
            }
            assert_eq!(reason.name(), snake);
        }
    }

    #[test]
    fn counters_add_up() {
        let counters = Counters::new(vec!["a".into(), "b".into()]);
        counters.tunnel(1).count_out(3, 300);
        counters.tunnel(1).count_in(1, 10);
        counters.tunnel(9).count_drop(DropReason::UnknownPeer);
        counters.unmatched().count_drop(DropReason::UnknownPeer);
        let snapshot = counters.snapshot();
        let names: Vec<_> = snapshot.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [Some("a"), Some("b"), None]);
        let b = &snapshot[1].1;
        assert_eq!((b.packets_out, b.bytes_out, b.packets_in, b.bytes_in), (3, 300, 1, 10));
        assert!(snapshot[2].1.drops.contains(&(DropReason::UnknownPeer, 2)));
    }
}
