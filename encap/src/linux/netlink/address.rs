//! IPv4 addresses of interfaces.

use std::net::Ipv4Addr;

use super::message::{self, Message};
use super::{Netlink, Result};

/// Length of `ifaddrmsg`: family, prefix length, flags, scope, index.
const HEADER_LEN: usize = 8;

/// An address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Interface that has it.
    pub device: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix_len: u8,
}

impl Netlink {
    /// Gives an interface an address, without the route to its prefix that the kernel would add.
    ///
    /// # Errors
    /// When the kernel refuses it; `EEXIST` when the interface has the address.
    pub fn add_address(&mut self, address: Address) -> Result<()> {
        let Address { device, address: own, prefix_len } = address;
        let mut header = [libc::AF_INET as u8, prefix_len, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&device.to_ne_bytes());
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWADDR, flags, &header);
        message
            .attribute(libc::IFA_LOCAL, &own.octets())
            .attribute(libc::IFA_ADDRESS, &own.octets())
            .attribute_u32(libc::IFA_FLAGS, libc::IFA_F_NOPREFIXROUTE);
        self.request(&format!("add address {own}/{prefix_len} to interface number {device}"), message)
    }

    /// All IPv4 addresses of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let header = [libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0];
        let message = Message::new(libc::RTM_GETADDR, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, &header);
        let mut addresses = Vec::new();
        self.exchange("list the addresses", message, |answer| addresses.extend(parse(answer.payload)))?;
        Ok(addresses)
    }
}

fn parse(payload: &[u8]) -> Option<Address> {
    let own = message::attributes_after(payload, HEADER_LEN).find(|(kind, _)| *kind == libc::IFA_LOCAL)?.1;
    Some(Address {
        device: message::u32_at(payload, 4)?,
        address: message::ipv4(own)?,
        prefix_len: *payload.get(1)?,
    })
}
