//! What the helper and its parent say to each other: small typed messages over a SOCK_SEQPACKET pair, some with
//! descriptors.
//!
//! One byte for the kind, then the fields in order, numbers in host byte order, a text as its length (2 bytes) and
//! its bytes, the description of a tunnel as JSON. Neither side trusts the other's bytes: what does not decode whole is an error.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::plan::Plan;
use crate::batch::Takers;
use crate::linux::channel::{MAX_BYTES, MAX_DESCRIPTORS};

/// Most engine threads, and so most sockets of each sort in one message.
pub(super) const MAX_THREADS: usize = 64;
// A receiver per thread, the three senders, the ICMP socket and the guards.
const _: () = assert!(MAX_THREADS + 8 <= MAX_DESCRIPTORS);
const MAX_TEXT_BYTES: usize = 3072;

/// From the parent to the helper; the number comes back in the last answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Open a TCP socket that belongs to the tunnel.
    Connect { number: u32, tunnel: u32, is_v6: bool },
    /// Open a listener on one of the tunnel's VIPs.
    Listen { number: u32, tunnel: u32, address: SocketAddr },
    /// Make a tunnel.
    Add { number: u32, tunnel: u32, plan: Box<Plan> },
    /// Take down what does not vanish with the tunnel's device.
    Remove { number: u32, tunnel: u32 },
    /// Tell how much the devices have dropped.
    Unsent { number: u32 },
    /// Take away the devices of tunnels that end.
    Unplug { number: u32, tunnels: Vec<u32> },
}

/// From the helper to the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The sockets of a network edge that was not there before: a receiver per thread, the raw sender, the ICMP socket,
    /// the packet sender and the outlet if there are (`on_link`, `takers`), the guards.
    Network {
        interface: String,
        device: u32,
        local: IpAddr,
        link_header_bytes: u32,
        on_link: bool,
        takers: Option<Takers>,
        not_routed: bool,
    },
    /// The TUN device of the tunnel, and the number of its network edge.
    Tunnel { number: u32, network: u32 },
    /// The helper is ready for requests.
    Ready,
    /// The helper cannot work and ends.
    Failed { text: String },
    /// The socket that was asked for.
    Socket { number: u32 },
    /// It could not be opened.
    Refused { number: u32, errno: i32 },
    /// How many packets the device of the tunnel has dropped before anybody read them.
    Unsent { number: u32, tunnel: u32, packets: u64 },
    /// What was asked for is done.
    Done { number: u32 },
    /// It could not be done; nothing of it is left.
    Impossible { number: u32, text: String },
}

impl Request {
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut writer = Writer::default();
        match self {
            Self::Connect { number, tunnel, is_v6 } => {
                writer.byte(1).u32(*number).u32(*tunnel).byte(u8::from(*is_v6))
            }
            Self::Listen { number, tunnel, address } => {
                writer.byte(2).u32(*number).u32(*tunnel).text(&address.to_string())
            }
            Self::Add { number, tunnel, plan } => {
                let plan = serde_json::to_vec(plan)?;
                writer.byte(3).u32(*number).u32(*tunnel).rest(&plan)
            }
            Self::Remove { number, tunnel } => writer.byte(4).u32(*number).u32(*tunnel),
            Self::Unsent { number } => writer.byte(5).u32(*number),
            Self::Unplug { number, tunnels } => {
                let writer = writer.byte(6).u32(*number).u32(tunnels.len() as u32);
                tunnels.iter().fold(writer, |writer, tunnel| writer.u32(*tunnel))
            }
        };
        if writer.bytes.len() > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the tunnel has too many networks and services",
            ));
        }
        Ok(writer.bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let message = match reader.byte()? {
            1 => Self::Connect { number: reader.u32()?, tunnel: reader.u32()?, is_v6: reader.byte()? != 0 },
            2 => Self::Listen {
                number: reader.u32()?,
                tunnel: reader.u32()?,
                address: reader.text()?.parse().ok()?,
            },
            3 => Self::Add {
                number: reader.u32()?,
                tunnel: reader.u32()?,
                plan: serde_json::from_slice(std::mem::take(&mut reader.rest)).ok()?,
            },
            4 => Self::Remove { number: reader.u32()?, tunnel: reader.u32()? },
            5 => Self::Unsent { number: reader.u32()? },
            6 => {
                let (number, count) = (reader.u32()?, reader.u32()?);
                Self::Unplug { number, tunnels: (0..count).map(|_| reader.u32()).collect::<Option<_>>()? }
            }
            _ => return None,
        };
        reader.rest.is_empty().then_some(message)
    }
}

impl Reply {
    /// The number of the request that it answers, if it is the answer to one.
    pub(super) fn number(&self) -> Option<u32> {
        match self {
            Self::Tunnel { number, .. }
            | Self::Socket { number }
            | Self::Refused { number, .. }
            | Self::Unsent { number, .. }
            | Self::Done { number }
            | Self::Impossible { number, .. } => Some(*number),
            Self::Network { .. } | Self::Ready | Self::Failed { .. } => None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match self {
            Self::Network { interface, device, local, link_header_bytes, on_link, takers, not_routed } => {
                let writer = writer.byte(1).text(interface).u32(*device).text(&local.to_string());
                let writer = writer.u32(*link_header_bytes).byte(u8::from(*on_link));
                let takers = match takers {
                    None => 0,
                    Some(Takers::Everybody) => 1,
                    Some(Takers::WhoSaysSo) => 2,
                };
                writer.byte(takers).byte(u8::from(*not_routed))
            }
            Self::Tunnel { number, network } => writer.byte(2).u32(*number).u32(*network),
            Self::Ready => writer.byte(3),
            Self::Failed { text } => writer.byte(4).text(text),
            Self::Socket { number } => writer.byte(5).u32(*number),
            Self::Refused { number, errno } => writer.byte(6).u32(*number).u32(*errno as u32),
            Self::Done { number } => writer.byte(7).u32(*number),
            Self::Impossible { number, text } => writer.byte(8).u32(*number).text(text),
            Self::Unsent { number, tunnel, packets } => {
                writer.byte(9).u32(*number).u32(*tunnel).u64(*packets)
            }
        };
        writer.bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes };
        let message = match reader.byte()? {
            1 => Self::Network {
                interface: reader.text()?,
                device: reader.u32()?,
                local: reader.text()?.parse().ok()?,
                link_header_bytes: reader.u32()?,
                on_link: reader.byte()? != 0,
                takers: match reader.byte()? {
                    0 => None,
                    1 => Some(Takers::Everybody),
                    2 => Some(Takers::WhoSaysSo),
                    _ => return None,
                },
                not_routed: reader.byte()? != 0,
            },
            2 => Self::Tunnel { number: reader.u32()?, network: reader.u32()? },
            3 => Self::Ready,
            4 => Self::Failed { text: reader.text()? },
            5 => Self::Socket { number: reader.u32()? },
            6 => Self::Refused { number: reader.u32()?, errno: reader.u32()? as i32 },
            7 => Self::Done { number: reader.u32()? },
            8 => Self::Impossible { number: reader.u32()?, text: reader.text()? },
            9 => Self::Unsent { number: reader.u32()?, tunnel: reader.u32()?, packets: reader.u64()? },
            _ => return None,
        };
        reader.rest.is_empty().then_some(message)
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn byte(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn rest(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Cuts what is too long: only messages for people can be.
    fn text(&mut self, value: &str) -> &mut Self {
        let cut = value.floor_char_boundary(MAX_TEXT_BYTES.min(value.len()));
        self.bytes.extend_from_slice(&(cut as u16).to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes().get(..cut).unwrap_or_default());
        self
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_ne_bytes(*value))
    }

    fn u64(&mut self) -> Option<u64> {
        let (value, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_ne_bytes(*value))
    }

    fn text(&mut self) -> Option<String> {
        let (len, rest) = self.rest.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*len)))?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::tunnel;
    use proptest::prelude::*;

    fn replies() -> Vec<Reply> {
        vec![
            Reply::Network {
                interface: "eth0".into(),
                device: 3,
                local: "2001:db8::1".parse().unwrap(),
                link_header_bytes: 14,
                on_link: true,
                takers: Some(Takers::WhoSaysSo),
                not_routed: false,
            },
            Reply::Tunnel { number: 5, network: 3 },
            Reply::Ready,
            Reply::Done { number: 6 },
            Reply::Impossible { number: 6, text: "kein Gerät".into() },
            Reply::Failed { text: String::new() },
            Reply::Socket { number: 7 },
            Reply::Refused { number: u32::MAX, errno: 19 },
            Reply::Unsent { number: 8, tunnel: 1, packets: u64::MAX },
        ]
    }

    fn requests() -> Vec<Request> {
        let address = "203.0.113.9:443".parse().unwrap();
        let tunnel = tunnel();
        let plan =
            Plan { tunnel, interface: "eth0".into(), index: 7, hardware: 1, link_mtu: 1500, mtu: 1472 };
        vec![
            Request::Connect { number: 1, tunnel: 2, is_v6: true },
            Request::Listen { number: 3, tunnel: 4, address },
            Request::Add { number: 5, tunnel: 6, plan: Box::new(plan) },
            Request::Remove { number: 7, tunnel: 8 },
            Request::Unsent { number: 9 },
            Request::Unplug { number: 10, tunnels: vec![1, u32::MAX] },
        ]
    }

    #[test]
    fn every_message_reads_back_and_no_part_of_it_does() {
        for reply in replies() {
            let bytes = reply.encode();
            assert_eq!(Reply::decode(&bytes), Some(reply));
            for cut in 0..bytes.len() {
                assert_eq!(Reply::decode(&bytes[..cut]), None);
            }
            assert_eq!(Reply::decode(&[&bytes[..], &[0]].concat()), None, "bytes left over");
        }
        for request in requests() {
            let bytes = request.encode().unwrap();
            assert_eq!(Request::decode(&bytes), Some(request));
            for cut in 0..bytes.len() {
                assert_eq!(Request::decode(&bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let bytes = Reply::Failed { text: "ä".repeat(4000) }.encode();
        assert!(bytes.len() <= MAX_BYTES);
        assert_eq!(Reply::decode(&bytes), Some(Reply::Failed { text: "ä".repeat(MAX_TEXT_BYTES / 2) }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Reply::decode(&bytes), Request::decode(&bytes));
        }
    }
}
