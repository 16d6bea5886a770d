//! Links: finding them, setting them up, veth pairs, per-device IPv4 settings.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{self, Message};
use super::{Netlink, NetlinkError, Result};

/// Length of `ifinfomsg`: family, pad, type, index, flags, change.
const HEADER_LEN: usize = 16;
/// `VETH_INFO_PEER` (linux/veth.h).
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_INET_CONF` (linux/if_link.h): one attribute per setting when written, an array of u32 when read.
const IFLA_INET_CONF: u16 = 1;
/// `IFLA_INET6_ADDR_GEN_MODE` and `IN6_ADDR_GEN_MODE_NONE` (linux/if_link.h).
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// linux/netconf.h.
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_IFINDEX_ALL: i32 = -1;
const NETCONFA_RP_FILTER: u16 = 3;

/// Where `tx_dropped` is in `rtnl_link_stats64` (linux/if_link.h).
const TX_DROPPED_AT: usize = 7 * 8;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace and not used again soon.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// MTU in bytes, without the link header.
    pub mtu: u32,
    /// Hardware type, `ARPHRD_*`.
    pub kind: u16,
    /// Ethernet address, when it has one.
    pub mac: Option<[u8; 6]>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether packets pass: up, with a carrier that the kernel has taken notice of (RFC 2863 operational state).
    /// That comes a moment after both ends are up; until then packets are dropped.
    pub running: bool,
}

/// A per-device IPv4 setting, `net.ipv4.conf.DEVICE.*` (numbers from linux/ip.h, `IPV4_DEVCONF_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ipv4Setting {
    /// Whether packets that arrive here may be forwarded.
    Forwarding = 1,
    /// Reverse path filter: 0 off, 1 strict, 2 loose. The larger of this and `all` counts.
    RpFilter = 8,
    /// Which local address an ARP request shows.
    ArpAnnounce = 18,
    /// Which ARP requests are answered.
    ArpIgnore = 19,
    /// Whether a packet may come from one of our own addresses.
    AcceptLocal = 23,
}

impl Netlink {
    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.list("list the interfaces", (libc::RTM_GETLINK, &[0; HEADER_LEN]), parse)
    }

    /// The interface called `name`, or `None`.
    ///
    /// # Errors
    /// When the kernel refuses the request for another reason than a missing interface.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message =
            Message::new(libc::RTM_GETLINK, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &[0; HEADER_LEN]);
        message.attribute_string(libc::IFLA_IFNAME, name);
        self.one_link(&format!("look for interface {name}"), message)
    }

    /// The interface with `index`, or `None`.
    ///
    /// # Errors
    /// As [`Netlink::link`].
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>> {
        let message =
            Message::new(libc::RTM_GETLINK, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &header(index, 0, 0));
        self.one_link(&format!("look for interface number {index}"), message)
    }

    /// How many packets each interface of the namespace has dropped instead of sending them, by its name.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn unsent(&mut self) -> Result<HashMap<String, u64>> {
        let wanted = (libc::RTM_GETLINK, &[0; HEADER_LEN][..]);
        let unsent = self.list("list what the interfaces have dropped", wanted, |payload| {
            let attributes = || message::attributes_after(payload, HEADER_LEN);
            let value = |wanted| attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
            let name = value(libc::IFLA_IFNAME).map(message::string)?;
            Some((name, message::u64_at(value(libc::IFLA_STATS64)?, TX_DROPPED_AT)?))
        })?;
        Ok(unsent.into_iter().collect())
    }

    /// Sets the interface up.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let up = libc::IFF_UP as u32;
        self.request(&format!("set interface number {index} up"), change(&header(index, up, up)))
    }

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        let mut message = change(&header(index, 0, 0));
        message.attribute_u32(libc::IFLA_MTU, mtu);
        self.request(&format!("set the MTU of interface number {index} to {mtu}"), message)
    }

    /// Sets how many packets may wait to be sent by the interface.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_queue(&mut self, index: u32, packets: u32) -> Result<()> {
        let mut message = change(&header(index, 0, 0));
        message.attribute_u32(libc::IFLA_TXQLEN, packets);
        self.request(&format!("set the queue of interface number {index} to {packets} packets"), message)
    }

    /// Moves the interface into another network namespace; its addresses and routes are lost.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn move_link(&mut self, index: u32, namespace: BorrowedFd<'_>) -> Result<()> {
        let mut message = change(&header(index, 0, 0));
        message.attribute_u32(libc::IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
        self.request(&format!("move interface number {index} to another network namespace"), message)
    }

    /// Makes a veth pair: `name` here, `peer` in `peer_namespace` or here. Both are down.
    ///
    /// # Errors
    /// When the kernel refuses it, for one when a name is taken.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWLINK, flags, &[0; HEADER_LEN]);
        message.attribute_string(libc::IFLA_IFNAME, name).nest(libc::IFLA_LINKINFO, |info| {
            info.attribute_string(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |other| {
                    other.raw(&[0; HEADER_LEN]).attribute_string(libc::IFLA_IFNAME, peer);
                    if let Some(namespace) = peer_namespace {
                        other.attribute_u32(libc::IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
                    }
                });
            });
        });
        self.request(&format!("make the veth pair {name} and {peer}"), message)
    }

    /// Deletes the interface, and with a veth its other end.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let message = Message::new(libc::RTM_DELLINK, flags, &header(index, 0, 0));
        self.request(&format!("delete interface number {index}"), message)
    }

    /// Puts the interface into a group, a number without a meaning of its own.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_group(&mut self, index: u32, group: u32) -> Result<()> {
        let mut message = change(&header(index, 0, 0));
        message.attribute_u32(libc::IFLA_GROUP, group);
        self.request(&format!("put interface number {index} into group {group}"), message)
    }

    /// Deletes all interfaces of a group at once, which takes hardly longer than deleting one.
    ///
    /// # Errors
    /// When the kernel refuses it; `ENODEV` when there are none.
    pub fn delete_group(&mut self, group: u32) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let mut message = Message::new(libc::RTM_DELLINK, flags, &[0; HEADER_LEN]);
        message.attribute_u32(libc::IFLA_GROUP, group);
        self.request(&format!("delete the interfaces of group {group}"), message)
    }

    /// Changes per-device IPv4 settings. Works where `/proc/sys` is read-only, as in a container.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_ipv4(&mut self, index: u32, settings: &[(Ipv4Setting, u32)]) -> Result<()> {
        let mut message = change(&header(index, 0, 0));
        message.nest(libc::IFLA_AF_SPEC, |families| {
            families.nest(libc::AF_INET as u16, |inet| {
                inet.nest(IFLA_INET_CONF, |conf| {
                    for (setting, value) in settings {
                        conf.attribute_u32(*setting as u16, *value);
                    }
                });
            });
        });
        self.request(&format!("change IPv4 settings {settings:?} of interface number {index}"), message)
    }

    /// Reads one per-device IPv4 setting.
    ///
    /// # Errors
    /// When the interface does not exist or the kernel does not tell.
    pub fn ipv4_setting(&mut self, index: u32, setting: Ipv4Setting) -> Result<u32> {
        let attempt = format!("read IPv4 setting {setting:?} of interface number {index}");
        let message =
            Message::new(libc::RTM_GETLINK, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &header(index, 0, 0));
        let mut value = None;
        self.exchange(&attempt, message, |answer| {
            let families = message::attributes_after(answer.payload, HEADER_LEN)
                .find(|(kind, _)| *kind == libc::IFLA_AF_SPEC)
                .map(|(_, value)| value);
            let table = families
                .and_then(|families| message::find(families, libc::AF_INET as u16))
                .and_then(|inet| message::find(inet, IFLA_INET_CONF));
            // The array starts with setting number 1.
            let at = (usize::from(setting as u16) - 1) * 4;
            value = table.and_then(|table| message::u32_at(table, at));
        })?;
        value.ok_or_else(|| NetlinkError::malformed(&attempt))
    }

    /// The value of `net.ipv4.conf.all.rp_filter` in this namespace.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn rp_filter_of_all(&mut self) -> Result<u32> {
        let attempt = "read net.ipv4.conf.all.rp_filter";
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let mut message = Message::new(libc::RTM_GETNETCONF, flags, &[libc::AF_INET as u8]);
        message.attribute(NETCONFA_IFINDEX, &NETCONFA_IFINDEX_ALL.to_ne_bytes());
        let mut value = None;
        self.exchange(attempt, message, |answer| {
            value = message::attributes_after(answer.payload, 1)
                .find(|(kind, _)| *kind == NETCONFA_RP_FILTER)
                .and_then(|(_, value)| message::u32_at(value, 0));
        })?;
        value.ok_or_else(|| NetlinkError::malformed(attempt))
    }

    /// Keeps the kernel from giving the interface an IPv6 address of its own (and from talking there).
    ///
    /// # Errors
    /// When the kernel refuses it; `EAFNOSUPPORT` where IPv6 is off.
    pub fn disable_ipv6_autoconfiguration(&mut self, index: u32) -> Result<()> {
        let mut message = change(&header(index, 0, 0));
        message.nest(libc::IFLA_AF_SPEC, |families| {
            families.nest(libc::AF_INET6 as u16, |inet6| {
                inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
        self.request(&format!("keep IPv6 off interface number {index}"), message)
    }

    fn one_link(&mut self, attempt: &str, message: Message) -> Result<Option<Link>> {
        let mut link = None;
        match self.exchange(attempt, message, |answer| link = parse(answer.payload)) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            result => result.map(|()| link),
        }
    }
}

fn change(header: &[u8]) -> Message {
    Message::new(libc::RTM_SETLINK, libc::NLM_F_REQUEST | libc::NLM_F_ACK, header)
}

fn header(index: u32, flags: u32, mask: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

pub(super) fn parse(payload: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: message::u32_at(payload, 4)?,
        name: String::new(),
        mtu: 0,
        kind: message::u16_at(payload, 2)?,
        mac: None,
        up: message::u32_at(payload, 8)? & libc::IFF_UP as u32 != 0,
        running: message::u32_at(payload, 8)? & libc::IFF_RUNNING as u32 != 0,
    };
    for (kind, value) in message::attributes_after(payload, HEADER_LEN) {
        match kind {
            libc::IFLA_IFNAME => link.name = message::string(value),
            libc::IFLA_MTU => link.mtu = message::u32_at(value, 0)?,
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(link)
}
