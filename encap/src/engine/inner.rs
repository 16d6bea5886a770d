//! What both directions need to know about an inner packet: addresses, ports, lengths, and what the kernel has left
//! undone in it.
//!
//! [`Inner`] holds no reference to the packet, so that the packet can be changed afterwards.

use std::net::Ipv4Addr;

use crate::metrics::DropReason;
use crate::tunnel::flows::{FlowKey, Signals};
use crate::wire::{WireError, icmp, ipv4, read, tcp, udp, virtio};

/// An inner IPv4 packet.
pub(super) struct Inner {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) tos: u8,
    pub(super) protocol: u8,
    pub(super) dont_fragment: bool,
    pub(super) is_fragment: bool,
    /// Bytes of the IP header.
    pub(super) ip_len: usize,
    /// Bytes of the whole packet.
    pub(super) total: usize,
    pub(super) transport: Transport,
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
    Icmp {
        is_error: bool,
        quoted: Option<Quoted>,
    },
    /// The first fragment with its ports, or a later one without.
    Fragment {
        ports: Option<Ports>,
    },
    Other,
}

#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) source: u16,
    pub(super) destination: u16,
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy)]
pub(super) struct Quoted {
    protocol: u8,
    pub(super) source: Ipv4Addr,
    destination: Ipv4Addr,
    ports: Ports,
}

impl Inner {
    /// Reads the packet at the start of `bytes`; what follows its total length is ignored.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        Self::read(bytes).map_err(|_| DropReason::Malformed)
    }

    fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let (ip, payload) = ipv4::Header::parse(bytes)?;
        let transport = match ip.protocol {
            ipv4::TCP | ipv4::UDP if ip.is_fragment() => {
                let first = ip.fragment_offset == 0;
                Transport::Fragment { ports: first.then(|| Ports::parse(payload)).transpose()? }
            }
            _ if ip.is_fragment() => Transport::Fragment { ports: None },
            ipv4::TCP => {
                let (header, _) = tcp::Header::parse(payload)?;
                let ports = Ports { source: header.source_port, destination: header.destination_port };
                Transport::Tcp { ports, flags: header.flags, header_len: header.len() }
            }
            ipv4::UDP => {
                let (header, _) = udp::Header::parse(payload)?;
                let ports = Ports { source: header.source_port, destination: header.destination_port };
                Transport::Udp { ports }
            }
            ipv4::ICMP => {
                let (header, rest) = icmp::Header::parse(payload)?;
                Transport::Icmp { is_error: header.is_error(), quoted: quoted(&header, rest) }
            }
            _ => Transport::Other,
        };
        Ok(Self {
            source: ip.source,
            destination: ip.destination,
            tos: ip.tos,
            protocol: ip.protocol,
            dont_fragment: ip.dont_fragment,
            is_fragment: ip.is_fragment(),
            ip_len: ip.len(),
            total: usize::from(ip.total_length),
            transport,
        })
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

    /// Ports, when it has some.
    pub(super) fn ports(&self) -> Option<Ports> {
        match self.transport {
            Transport::Tcp { ports, .. } | Transport::Udp { ports } => Some(ports),
            Transport::Fragment { ports } => ports,
            Transport::Icmp { .. } | Transport::Other => None,
        }
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

    /// The flow of a packet that leaves by the tunnel.
    pub(super) fn flow_out(&self) -> Option<FlowKey> {
        let ports = self.ports()?;
        Some(FlowKey {
            protocol: self.protocol,
            local: self.source,
            local_port: ports.source,
            remote: self.destination,
            remote_port: ports.destination,
        })
    }

    /// The flow of a packet that arrives by the tunnel.
    pub(super) fn flow_in(&self) -> Option<FlowKey> {
        self.flow_out().map(reversed)
    }
}

impl Quoted {
    /// The flow, when the quoted packet left by the tunnel.
    pub(super) fn flow_out(&self) -> FlowKey {
        FlowKey {
            protocol: self.protocol,
            local: self.source,
            local_port: self.ports.source,
            remote: self.destination,
            remote_port: self.ports.destination,
        }
    }

    /// The flow, when the quoted packet arrived by the tunnel.
    pub(super) fn flow_in(&self) -> FlowKey {
        reversed(self.flow_out())
    }
}

impl Ports {
    fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let [source, destination] = [read(bytes, 0)?, read(bytes, 2)?].map(u16::from_be_bytes);
        Ok(Self { source, destination })
    }
}

fn reversed(key: FlowKey) -> FlowKey {
    FlowKey {
        protocol: key.protocol,
        local: key.remote,
        local_port: key.remote_port,
        remote: key.local,
        remote_port: key.local_port,
    }
}

/// The TCP or UDP packet quoted by an error that a host acts on. Redirects and source quench are not among these:
/// nobody behind a tunnel changes our routes.
fn quoted(header: &icmp::Header, rest: &[u8]) -> Option<Quoted> {
    if !matches!(header.kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM) {
        return None;
    }
    let (ip, payload) = ipv4::Header::parse_quoted(rest).ok()?;
    let has_ports = matches!(ip.protocol, ipv4::TCP | ipv4::UDP) && ip.fragment_offset == 0;
    let ports = Ports::parse(payload).ok().filter(|_| has_ports)?;
    Some(Quoted { protocol: ip.protocol, source: ip.source, destination: ip.destination, ports })
}

/// What a virtio header says about a packet, once it is known to fit it.
#[derive(Clone, Copy)]
pub(super) struct Offload {
    /// The checksum is not complete.
    pub(super) partial: bool,
    /// Bytes of payload per segment, when the packet stands for several.
    pub(super) segment: Option<u16>,
}

impl Offload {
    /// Checks a virtio header against its inner packet, which begins `base` bytes after the place that the header
    /// counts from. The checksum must be that of the inner transport, and merged packets must be TCP or UDP.
    pub(super) fn check(header: &virtio::Header, base: usize, inner: &Inner) -> Result<Self, DropReason> {
        let partial = header.flags & virtio::NEEDS_CSUM != 0;
        let (gso_type, checksum_at) = match inner.transport {
            Transport::Tcp { .. } => (Some(virtio::GSO_TCPV4), tcp::CHECKSUM_AT),
            Transport::Udp { .. } => (Some(virtio::GSO_UDP_L4), udp::CHECKSUM_AT),
            _ => (None, 0),
        };
        let starts = usize::from(header.csum_start) == base + inner.ip_len;
        let stored = usize::from(header.csum_offset) == checksum_at;
        if partial && !(gso_type.is_some() && starts && stored) {
            return Err(DropReason::BadOffload);
        }
        match header.gso_type & !virtio::GSO_ECN {
            virtio::GSO_NONE => Ok(Self { partial, segment: None }),
            merged if gso_type == Some(merged) && partial && header.gso_size > 0 => {
                Ok(Self { partial, segment: Some(header.gso_size) })
            }
            _ => Err(DropReason::BadOffload),
        }
    }
}
