//! What tunnels are carried in, as far as the sockets have to know.

/// Destination port of GRE-in-UDP (RFC 8086 section 8).
pub const GRE_IN_UDP_PORT: u16 = 4754;

/// What follows the outer IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// GRE (RFC 2784), protocol 47.
    Gre,
    /// An IPv4 packet (RFC 2003), protocol 4.
    Ipv4,
    /// An IPv6 packet (RFC 2473, RFC 4213), protocol 41.
    Ipv6,
    /// GRE in UDP to port 4754 (RFC 8086).
    GreInUdp,
}

impl Carrier {
    /// Protocol number of the outer IP header.
    pub fn protocol(self) -> u8 {
        let number = match self {
            Self::Gre => libc::IPPROTO_GRE,
            Self::Ipv4 => libc::IPPROTO_IPIP,
            Self::Ipv6 => libc::IPPROTO_IPV6,
            Self::GreInUdp => libc::IPPROTO_UDP,
        };
        number as u8
    }
}
