//! What both directions need to know about an inner packet: addresses, ports, lengths, and what the kernel has left
//! undone in it.
//!
//! [`Inner`] holds no reference to the packet, so that the packet can be changed afterwards.

use std::net::IpAddr;

use crate::metrics::DropReason;
use crate::tunnel::flows::{FlowKey, Signals};
use crate::tunnel::fragments::FragmentKey;
use crate::wire::ip::Version;
use crate::wire::{WireError, icmp, icmpv6, ipv4, ipv6, read, tcp, udp, virtio};

/// An inner IPv4 or IPv6 packet.
pub(super) struct Inner {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// DSCP and ECN.
    pub(super) tos: u8,
    /// Protocol of what follows all IP headers.
    pub(super) protocol: u8,
    /// Routers never fragment IPv6.
    pub(super) dont_fragment: bool,
    pub(super) fragment: Option<Piece>,
    /// Bytes of the IP header, extension headers included.
    pub(super) ip_len: usize,
    /// Bytes of the whole packet.
    pub(super) total: usize,
    pub(super) transport: Transport,
}

/// One piece of a datagram.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) is_first: bool,
    identification: u32,
}

/// What the packet carries.
pub(super) enum Transport {
    Tcp {
        ports: Ports,
        flags: u16,
        header_len: usize,
    },
    Udp {
        ports: Ports,
    },
    Echo {
        identifier: u16,
        is_reply: bool,
    },
    /// Any other message of ICMP.
    Icmp {
        is_error: bool,
        quoted: Option<Quoted>,
    },
    /// The first piece of a TCP or UDP datagram, of which only the ports are looked at.
    First {
        ports: Ports,
    },
    /// A later piece, or another protocol.
    Other,
}

#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) source: u16,
    pub(super) destination: u16,
}

/// The packet that an ICMP error is about, as its flow seen by its sender.
#[derive(Clone, Copy)]
pub(super) struct Quoted(FlowKey);

impl Inner {
    /// Reads the packet at the start of `bytes`; what follows its total length is ignored.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            _ => Err(WireError::Version),
        }
        .map_err(|_| DropReason::Malformed)
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, WireError> {
        let (ip, payload) = ipv4::Header::parse(bytes)?;
        let piece = Piece { is_first: ip.fragment_offset == 0, identification: u32::from(ip.identification) };
        let fragment = ip.is_fragment().then_some(piece);
        Ok(Self {
            source: ip.source.into(),
            destination: ip.destination.into(),
            tos: ip.tos,
            protocol: ip.protocol,
            dont_fragment: ip.dont_fragment,
            fragment,
            ip_len: ip.len(),
            total: usize::from(ip.total_length),
            transport: Transport::parse(Version::V4, ip.protocol, fragment, payload)?,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, WireError> {
        let (ip, payload) = ipv6::Header::parse(bytes)?;
        let upper = ipv6::upper(ip.next_header, payload)?;
        let piece = |f: ipv6::Fragment| Piece { is_first: f.offset == 0, identification: f.identification };
        let fragment = upper.fragment.filter(|fragment| fragment.offset != 0 || fragment.more).map(piece);
        let body = payload.get(upper.offset..).ok_or(WireError::Truncated)?;
        Ok(Self {
            source: ip.source.into(),
            destination: ip.destination.into(),
            tos: ip.traffic_class,
            protocol: upper.protocol,
            dont_fragment: true,
            fragment,
            ip_len: ipv6::LEN + upper.offset,
            total: ipv6::LEN + payload.len(),
            transport: Transport::parse(Version::V6, upper.protocol, fragment, body)?,
        })
    }

    pub(super) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    pub(super) fn version(&self) -> Version {
        Version::of_address(self.source)
    }

    /// Bytes of all headers.
    pub(super) fn headers(&self) -> usize {
        let transport = match self.transport {
            Transport::Tcp { header_len, .. } => header_len,
            Transport::Udp { .. } => udp::LEN,
            _ => 0,
        };
        self.ip_len + transport
    }

    /// Offset of the checksum in the TCP or UDP header.
    pub(super) fn checksum_at(&self) -> usize {
        if self.protocol == ipv4::TCP { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT }
    }

    /// What it says about its connection.
    pub(super) fn signals(&self) -> Signals {
        let Transport::Tcp { flags, .. } = self.transport else { return Signals::default() };
        Signals { syn: flags & tcp::SYN != 0, fin: flags & tcp::FIN != 0, rst: flags & tcp::RST != 0 }
    }

    /// Whether it is a SYN or SYN-ACK, which announces an MSS.
    pub(super) fn opens(&self) -> bool {
        self.signals().syn
    }

    /// Whether it is one of these by any name: GRE, an IP packet, or GRE-in-UDP.
    pub(super) fn is_tunnelled(&self) -> bool {
        let to_tunnel = |ports: Ports| matches!(ports.destination, udp::GRE_IN_UDP | udp::GRE_IN_UDP_DTLS);
        match self.transport {
            Transport::Udp { ports } => to_tunnel(ports),
            Transport::First { ports } => self.protocol == ipv4::UDP && to_tunnel(ports),
            _ => matches!(self.protocol, ipv4::GRE | ipv4::IPIP | ipv4::IPV6),
        }
    }

    /// Whether it is a piece of a datagram without its transport header.
    pub(super) fn is_later_piece(&self) -> bool {
        self.fragment.is_some_and(|piece| !piece.is_first)
    }

    /// Whether nobody looks into what it carries: no TCP, UDP or ICMP, nor a later piece of something.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.transport, Transport::Other) && !self.is_later_piece()
    }

    /// The flow of a packet that leaves by the tunnel.
    pub(super) fn flow_out(&self) -> Option<FlowKey> {
        let (local_port, remote_port) = self.ports(false)?;
        let (local, remote) = (self.source, self.destination);
        Some(FlowKey { protocol: self.protocol, local, local_port, remote, remote_port })
    }

    /// The flow of a packet that arrives by the tunnel.
    pub(super) fn flow_in(&self) -> Option<FlowKey> {
        let (local_port, remote_port) = self.ports(true)?;
        let (local, remote) = (self.destination, self.source);
        Some(FlowKey { protocol: self.protocol, local, local_port, remote, remote_port })
    }

    /// Ports on this side and behind the tunnel.
    fn ports(&self, arriving: bool) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { ports, .. } | Transport::Udp { ports } | Transport::First { ports } => {
                Some(if arriving {
                    (ports.destination, ports.source)
                } else {
                    (ports.source, ports.destination)
                })
            }
            Transport::Echo { identifier, .. } => Some((identifier, 0)),
            Transport::Icmp { .. } | Transport::Other => None,
        }
    }

    /// What its pieces have in common, of a piece.
    pub(super) fn fragment_key(&self) -> Option<FragmentKey> {
        let piece = self.fragment?;
        // Over IPv6 a later piece does not know the protocol of the datagram.
        let protocol = if self.is_v4() { self.protocol } else { 0 };
        let (source, destination) = (self.source, self.destination);
        Some(FragmentKey { source, destination, protocol, identification: piece.identification })
    }
}

impl Transport {
    fn parse(
        version: Version,
        protocol: u8,
        fragment: Option<Piece>,
        payload: &[u8],
    ) -> Result<Self, WireError> {
        let has_ports = matches!(protocol, ipv4::TCP | ipv4::UDP);
        match fragment {
            Some(piece) if !piece.is_first => return Ok(Self::Other),
            Some(_) if has_ports => return Ok(Self::First { ports: Ports::parse(payload)? }),
            _ => {}
        }
        Ok(match protocol {
            ipv4::TCP => {
                let (header, _) = tcp::Header::parse(payload)?;
                let ports = Ports { source: header.source_port, destination: header.destination_port };
                Self::Tcp { ports, flags: header.flags, header_len: header.len() }
            }
            ipv4::UDP => {
                let (header, _) = udp::Header::parse(payload)?;
                let ports = Ports { source: header.source_port, destination: header.destination_port };
                Self::Udp { ports }
            }
            ipv4::ICMP if version == Version::V4 => {
                let (header, rest) = icmp::Header::parse(payload)?;
                match header.kind {
                    icmp::ECHO_REQUEST | icmp::ECHO_REPLY => {
                        echo(header.rest, header.kind == icmp::ECHO_REPLY)
                    }
                    _ => Self::Icmp {
                        is_error: icmp::is_error(header.kind),
                        quoted: quoted_v4(header.kind, rest),
                    },
                }
            }
            ipv6::ICMPV6 if version == Version::V6 => {
                let (header, rest) = icmpv6::Header::parse(payload)?;
                match header.kind {
                    icmpv6::ECHO_REQUEST | icmpv6::ECHO_REPLY => {
                        echo(header.rest, header.kind == icmpv6::ECHO_REPLY)
                    }
                    _ => Self::Icmp {
                        is_error: icmpv6::is_error(header.kind),
                        quoted: quoted_v6(header.kind, rest),
                    },
                }
            }
            _ => Self::Other,
        })
    }
}

fn echo(rest: [u8; 4], is_reply: bool) -> Transport {
    let [i0, i1, ..] = rest;
    Transport::Echo { identifier: u16::from_be_bytes([i0, i1]), is_reply }
}

impl Quoted {
    /// Who sent the quoted packet.
    pub(super) fn source(&self) -> IpAddr {
        self.0.local
    }

    /// The flow, when the quoted packet left by the tunnel.
    pub(super) fn flow_out(&self) -> FlowKey {
        self.0
    }

    /// The flow, when the quoted packet arrived by the tunnel.
    pub(super) fn flow_in(&self) -> FlowKey {
        let key = self.0;
        // The identifier of an echo is on this side whichever way it went.
        let is_echo = matches!(key.protocol, ipv4::ICMP | ipv6::ICMPV6);
        let (local_port, remote_port) =
            if is_echo { (key.local_port, 0) } else { (key.remote_port, key.local_port) };
        FlowKey { local: key.remote, local_port, remote: key.local, remote_port, ..key }
    }
}

impl Ports {
    fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let [source, destination] = [read(bytes, 0)?, read(bytes, 2)?].map(u16::from_be_bytes);
        Ok(Self { source, destination })
    }
}

/// The packet quoted by an error that a host acts on. Redirects and source quench are not among these: nobody behind a
/// tunnel changes our routes.
fn quoted_v4(kind: u8, rest: &[u8]) -> Option<Quoted> {
    if !matches!(kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM) {
        return None;
    }
    let (ip, payload) = ipv4::Header::parse_quoted(rest).ok()?;
    if ip.fragment_offset != 0 {
        return None;
    }
    quoted(ip.protocol, ip.source.into(), ip.destination.into(), payload)
}

fn quoted_v6(kind: u8, rest: &[u8]) -> Option<Quoted> {
    if !icmpv6::is_error(kind) {
        return None;
    }
    let (ip, payload) = ipv6::Header::parse_quoted(rest).ok()?;
    let upper = ipv6::upper(ip.next_header, payload).ok()?;
    if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    quoted(upper.protocol, ip.source.into(), ip.destination.into(), payload.get(upper.offset..)?)
}

fn quoted(protocol: u8, local: IpAddr, remote: IpAddr, payload: &[u8]) -> Option<Quoted> {
    let (local_port, remote_port) = match protocol {
        ipv4::TCP | ipv4::UDP => {
            let ports = Ports::parse(payload).ok()?;
            (ports.source, ports.destination)
        }
        ipv4::ICMP => (u16::from_be_bytes(read(payload, 4).ok()?), 0),
        ipv6::ICMPV6 => (u16::from_be_bytes(read(payload, 4).ok()?), 0),
        _ => return None,
    };
    Some(Quoted(FlowKey { protocol, local, local_port, remote, remote_port }))
}

/// What a virtio header says about a packet, once it is known to fit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offload {
    /// The checksum is not complete.
    pub(super) partial: bool,
    /// Bytes of payload per segment, when the packet stands for several.
    pub(super) segment: Option<u16>,
    /// What the virtio header calls it then.
    pub(super) gso_type: u8,
}

impl Offload {
    /// Checks a virtio header against its inner packet, which begins `base` bytes after the place that the header
    /// counts from. The checksum must be that of the inner transport, and merged packets must be TCP or UDP.
    pub(super) fn check(header: &virtio::Header, base: usize, inner: &Inner) -> Result<Self, DropReason> {
        let partial = header.flags & virtio::NEEDS_CSUM != 0;
        let gso_type = header.gso_type;
        let (expected, checksum_at) = match inner.transport {
            Transport::Tcp { .. } if inner.is_v4() => (Some(virtio::GSO_TCPV4), tcp::CHECKSUM_AT),
            Transport::Tcp { .. } => (Some(virtio::GSO_TCPV6), tcp::CHECKSUM_AT),
            Transport::Udp { .. } => (Some(virtio::GSO_UDP_L4), udp::CHECKSUM_AT),
            _ => (None, 0),
        };
        let starts = usize::from(header.csum_start) == base + inner.ip_len;
        let stored = usize::from(header.csum_offset) == checksum_at;
        if partial && !(expected.is_some() && starts && stored) {
            return Err(DropReason::BadOffload);
        }
        match gso_type & !virtio::GSO_ECN {
            virtio::GSO_NONE => Ok(Self { partial, segment: None, gso_type }),
            merged if expected == Some(merged) && partial && header.gso_size > 0 => {
                Ok(Self { partial, segment: Some(header.gso_size), gso_type })
            }
            _ => Err(DropReason::BadOffload),
        }
    }
}
