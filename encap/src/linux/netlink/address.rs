//! Addresses of interfaces.

use std::net::IpAddr;

use super::family::{self, Family};
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
    pub address: IpAddr,
    /// Prefix length, 0 to 32 or 128.
    pub prefix_len: u8,
}

impl Netlink {
    /// Gives an interface an address, without the route to its prefix that the kernel would add. Nobody is
    /// asked whether he has an IPv6 address too (RFC 4862 section 5.4): it can be bound at once, and is reached by others a
    /// moment later.
    ///
    /// # Errors
    /// When the kernel refuses it; `EEXIST` when the interface has the address; `EACCES` or `EOPNOTSUPP` for an IPv6
    /// address where IPv6 is off.
    pub fn add_address(&mut self, address: Address) -> Result<()> {
        let Address { device, address: own, prefix_len } = address;
        let family = Family::of(own);
        let mut header = [family.number(), prefix_len, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&device.to_ne_bytes());
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWADDR, flags, &header);
        let no_detection = if family == Family::Ipv6 { libc::IFA_F_NODAD } else { 0 };
        message
            .attribute_address(libc::IFA_LOCAL, own)
            .attribute_address(libc::IFA_ADDRESS, own)
            .attribute_u32(libc::IFA_FLAGS, libc::IFA_F_NOPREFIXROUTE | no_detection);
        self.request(&format!("add address {own}/{prefix_len} to interface number {device}"), message)
    }

    /// All addresses of the namespace, of both families.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let header = [family.number(), 0, 0, 0, 0, 0, 0, 0];
            let wanted = (libc::RTM_GETADDR, &header[..]);
            addresses.extend(self.list_of("list the addresses", family, wanted, parse)?);
        }
        Ok(addresses)
    }
}

fn parse(payload: &[u8]) -> Option<Address> {
    let find = |wanted| {
        message::attributes_after(payload, HEADER_LEN)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
    };
    // IPv6 has the first only where there is another end.
    let own = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?;
    Some(Address {
        device: message::u32_at(payload, 4)?,
        address: family::address(own)?,
        prefix_len: *payload.get(1)?,
    })
}
