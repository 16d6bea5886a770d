//! Why packets are not forwarded.

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
    /// The inner protocol is not TCP, UDP, ICMP or ICMPv6.
    UnsupportedProtocol = "unsupported_protocol",
    /// Out: the destination is not behind the tunnel.
    NoRoute = "no_route",
    /// Out: the source is neither an address of this host on the tunnel nor in a network forwarded to it.
    ForeignSource = "foreign_source",
    /// Out: longer than the tunnel's MTU, with DF set; the sender is told.
    TooBig = "too_big",
    /// Out: longer than the tunnel's MTU, with DF clear, where `fragment` is off or the packet cannot be fragmented.
    FragmentationNeeded = "fragmentation_needed",
    /// The destination is the other end of a tunnel: a loop (RFC 2784 section 2.4).
    Loop = "loop",
    /// Out: IPv6 through a peer that does not carry 1280 bytes (RFC 7676 section 3.2).
    PathTooSmall = "path_too_small",
    /// Out: one super-packet would become more packets than one frame may.
    TooManySegments = "too_many_segments",
    /// Out: the batch has no room for all packets of the frame.
    BatchFull = "batch_full",
    /// In: the outer packet is a fragment.
    OuterFragment = "outer_fragment",
    /// In: the outer packet carries nothing that a tunnel is made of.
    NotATunnel = "not_a_tunnel",
    /// In: the GRE header is cut off, of another version, or has reserved bits set.
    BadGre = "bad_gre",
    /// In: no tunnel has this peer, local address and key.
    UnknownPeer = "unknown_peer",
    /// In: the GRE checksum is wrong.
    BadGreChecksum = "bad_gre_checksum",
    /// In: the UDP checksum of GRE-in-UDP is wrong, or absent over IPv6 where the tunnel asks for one.
    BadUdpChecksum = "bad_udp_checksum",
    /// In: the GRE packet carries something other than IPv4 or IPv6.
    UnknownProtocol = "unknown_protocol",
    /// In: the inner packet is a tunnel packet itself.
    Nested = "nested",
    /// In: a later fragment of an inner datagram whose first fragment was not let through.
    InnerFragment = "inner_fragment",
    /// In: the inner source is not behind the tunnel, or is an address of this host.
    SpoofedInner = "spoofed_inner",
    /// In: the inner packet belongs to no flow, listener or forwarded network of the tunnel.
    NotOurs = "not_ours",
    /// A message of ICMP about an outer packet that is not believed.
    UnderlayIgnored = "underlay_ignored",
    /// In: marked as congested on the way, and the inner packet cannot carry the mark (RFC 6040 section 4.2).
    EcnCongested = "ecn_congested",
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_snake_case() {
        let names: HashSet<_> = DropReason::all().iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::all().len());
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
}
