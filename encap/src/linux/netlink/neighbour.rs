//! Neighbours: what the kernel knows of the hosts on a link (ARP, RFC 826; neighbour discovery, RFC 4861).

use std::net::IpAddr;

use super::family::{self, Family};
use super::message::{self, Message};
use super::{Netlink, Result};

/// Length of `ndmsg`: family, three bytes of padding, index, state, flags, type.
const HEADER_LEN: usize = 12;
/// `NDA_DST` (linux/neighbour.h).
const NDA_DST: u16 = 1;

/// A host on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface it is reached by.
    pub device: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address, when that is known.
    pub mac: Option<[u8; 6]>,
    /// One of `NUD_*` (linux/neighbour.h); `NUD_NONE` when the kernel knows nothing.
    pub state: u16,
}

impl Netlink {
    /// What the kernel knows of a host, or `None`. Does not make it ask.
    ///
    /// # Errors
    /// When the kernel refuses the request; `EOPNOTSUPP` before Linux 5.0.
    pub fn neighbour(&mut self, device: u32, address: IpAddr) -> Result<Option<Neighbour>> {
        let mut header = [0; HEADER_LEN];
        header[0] = Family::of(address).number();
        header[4..8].copy_from_slice(&device.to_ne_bytes());
        let mut message = Message::new(libc::RTM_GETNEIGH, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &header);
        message.attribute_address(NDA_DST, address);
        let mut found = None;
        let attempt = format!("look for neighbour {address} of interface number {device}");
        match self.exchange(&attempt, message, |answer| found = parse(answer.payload)) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            result => result.map(|()| found),
        }
    }

    /// Tells the kernel of a host, in place of what it knew.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let message = encode(libc::RTM_NEWNEIGH, flags, neighbour);
        self.request(&format!("set {neighbour:?}"), message)
    }

    /// Makes the kernel forget a host.
    ///
    /// # Errors
    /// When the kernel refuses it; `ENOENT` when it knows nothing of it.
    pub fn delete_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        let message = encode(libc::RTM_DELNEIGH, libc::NLM_F_REQUEST | libc::NLM_F_ACK, neighbour);
        self.request(&format!("delete {neighbour:?}"), message)
    }
}

fn encode(kind: u16, flags: i32, neighbour: &Neighbour) -> Message {
    let mut header = [0; HEADER_LEN];
    header[0] = Family::of(neighbour.address).number();
    header[4..8].copy_from_slice(&neighbour.device.to_ne_bytes());
    header[8..10].copy_from_slice(&neighbour.state.to_ne_bytes());
    let mut message = Message::new(kind, flags, &header);
    message.attribute_address(NDA_DST, neighbour.address);
    if let Some(mac) = neighbour.mac {
        message.attribute(libc::NDA_LLADDR, &mac);
    }
    message
}

/// Reads an entry that answers for a host itself; others answer for somebody else, or belong to a bridge.
pub(super) fn parse(payload: &[u8]) -> Option<Neighbour> {
    Family::from_number(*payload.first()?)?;
    if *payload.get(10)? & libc::NTF_PROXY != 0 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for (kind, value) in message::attributes_after(payload, HEADER_LEN) {
        match kind {
            NDA_DST => address = family::address(value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour {
        device: message::u32_at(payload, 4)?,
        address: address?,
        mac,
        state: message::u16_at(payload, 8)?,
    })
}
