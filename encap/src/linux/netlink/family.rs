//! The two address families, as netlink writes them.

use std::net::IpAddr;

use super::message::{self, Message};

/// Internet protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Version 4.
    Ipv4,
    /// Version 6.
    Ipv6,
}

impl Family {
    /// Both, for what is asked of each.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// `AF_INET` or `AF_INET6`, as the first byte of a family header.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Ipv4 => libc::AF_INET as u8,
            Self::Ipv6 => libc::AF_INET6 as u8,
        }
    }

    /// The inverse of [`Family::number`].
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.number() == number)
    }

    /// Bits of an address.
    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl Message {
    /// Appends an address.
    pub(super) fn attribute_address(&mut self, kind: u16, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// Appends an `rtvia`: a family and an address of it (linux/rtnetlink.h).
    pub(super) fn attribute_via(&mut self, kind: u16, address: IpAddr) -> &mut Self {
        let mut bytes = u16::from(Family::of(address).number()).to_ne_bytes().to_vec();
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
        self.attribute(kind, &bytes)
    }
}

/// An address attribute: its length tells the family.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(<[u8; 4]>::try_from(value).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(value).ok()?.into()),
        _ => None,
    }
}

/// An `rtvia` attribute.
pub(super) fn via(value: &[u8]) -> Option<IpAddr> {
    let family = Family::from_number(message::u16_at(value, 0)?.try_into().ok()?)?;
    address(value.get(2..)?).filter(|address| Family::of(*address) == family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let own: IpAddr = text.parse().unwrap();
            let mut message = Message::new(0, 0, &[]);
            let bytes = message.attribute_address(1, own).attribute_via(2, own).finish(0).to_vec();
            let attributes = &bytes[16..];
            assert_eq!(message::find(attributes, 1).and_then(address), Some(own));
            assert_eq!(message::find(attributes, 2).and_then(via), Some(own));
        }
        for bytes in [&[][..], &[2, 0], &[2, 0, 1, 2, 3], &[10, 0, 1, 2, 3, 4], &[0; 16]] {
            assert_eq!(via(bytes), None, "{bytes:?}");
        }
        assert_eq!(address(&[0; 5]), None);
    }
}
