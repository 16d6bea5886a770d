//! IPv4 routes, in any table, and the question which way a packet would go.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::message::{self, Message};
use super::{Netlink, NetlinkError, Result};

/// Length of `rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
const HEADER_LEN: usize = 12;
/// `RTAX_MTU` (linux/rtnetlink.h).
const RTAX_MTU: u16 = 2;

/// A unicast route to a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Net,
    /// Routing table.
    pub table: u32,
    /// Interface it leaves by.
    pub device: u32,
    /// Next hop; on the link itself when absent.
    pub gateway: Option<Ipv4Addr>,
    /// Source address of packets that have none yet.
    pub source: Option<Ipv4Addr>,
    /// Who made the route (`rtm_protocol`); the kernel only keeps the number.
    pub protocol: u8,
}

/// Which way a packet would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTo {
    /// Whether it would be delivered to this host itself.
    pub local: bool,
    /// Interface it leaves by; the loopback interface for an own address.
    pub device: u32,
    /// Source address it would get.
    pub source: Option<Ipv4Addr>,
    /// Next hop, when there is one.
    pub gateway: Option<Ipv4Addr>,
    /// MTU of the route or of the path as far as it is known, when it differs from the interface's.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// Adds a route.
    ///
    /// # Errors
    /// When the kernel refuses it; `EEXIST` when the table has a route to the prefix.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.request(&format!("add {}", describe(route)), encode(libc::RTM_NEWROUTE, flags, route))
    }

    /// Deletes a route.
    ///
    /// # Errors
    /// When the kernel refuses it; `ESRCH` when there is none.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.request(&format!("delete {}", describe(route)), encode(libc::RTM_DELROUTE, flags, route))
    }

    /// All IPv4 routes that carry `protocol`, from all tables.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn routes(&mut self, protocol: u8) -> Result<Vec<Route>> {
        let mut header = [0; HEADER_LEN];
        header[0] = libc::AF_INET as u8;
        header[5] = protocol;
        let message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, &header);
        let mut routes = Vec::new();
        self.exchange("list the routes", message, |answer| {
            routes.extend(parse(answer.payload).filter(|route| route.protocol == protocol));
        })?;
        Ok(routes)
    }

    /// Which way a packet to `destination` would go, when it must leave by `device` or anyhow.
    ///
    /// # Errors
    /// When there is no route (`ENETUNREACH`, `EHOSTUNREACH`) or the kernel refuses the request.
    pub fn route_to(&mut self, destination: Ipv4Addr, device: Option<u32>) -> Result<RouteTo> {
        let attempt = format!("look up the route to {destination}");
        let mut header = [0; HEADER_LEN];
        header[0] = libc::AF_INET as u8;
        header[1] = 32;
        let mut message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &header);
        message.attribute(libc::RTA_DST, &destination.octets());
        if let Some(device) = device {
            message.attribute_u32(libc::RTA_OIF, device);
        }
        let mut found = None;
        self.exchange(&attempt, message, |answer| found = parse_answer(answer.payload))?;
        found.ok_or_else(|| NetlinkError::malformed(&attempt))
    }
}

fn describe(route: &Route) -> String {
    format!(
        "the route to {} by interface number {} in table {}",
        route.destination, route.device, route.table
    )
}

fn encode(kind: u16, flags: i32, route: &Route) -> Message {
    let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let header = [
        libc::AF_INET as u8,
        route.destination.prefix_len(),
        0,
        0,
        // Tables beyond 255 are named by the attribute alone.
        libc::RT_TABLE_UNSPEC,
        route.protocol,
        scope,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(kind, flags, &header);
    message
        .attribute_u32(libc::RTA_TABLE, route.table)
        .attribute(libc::RTA_DST, &route.destination.network().octets())
        .attribute_u32(libc::RTA_OIF, route.device);
    if let Some(gateway) = route.gateway {
        message.attribute(libc::RTA_GATEWAY, &gateway.octets());
    }
    if let Some(source) = route.source {
        message.attribute(libc::RTA_PREFSRC, &source.octets());
    }
    message
}

fn parse(payload: &[u8]) -> Option<Route> {
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut table = u32::from(*payload.get(4)?);
    for (kind, value) in message::attributes_after(payload, HEADER_LEN) {
        match kind {
            libc::RTA_DST => destination = message::ipv4(value)?,
            libc::RTA_TABLE => table = message::u32_at(value, 0)?,
            _ => {}
        }
    }
    let way = parse_answer(payload)?;
    Some(Route {
        destination: Ipv4Net::new(destination, *payload.get(1)?).ok()?,
        table,
        device: way.device,
        gateway: way.gateway,
        source: way.source,
        protocol: *payload.get(5)?,
    })
}

fn parse_answer(payload: &[u8]) -> Option<RouteTo> {
    let mut device = None;
    let mut answer = RouteTo {
        local: *payload.get(7)? == libc::RTN_LOCAL,
        device: 0,
        source: None,
        gateway: None,
        mtu: None,
    };
    for (kind, value) in message::attributes_after(payload, HEADER_LEN) {
        match kind {
            libc::RTA_OIF => device = message::u32_at(value, 0),
            libc::RTA_PREFSRC => answer.source = message::ipv4(value),
            libc::RTA_GATEWAY => answer.gateway = message::ipv4(value),
            libc::RTA_METRICS => {
                answer.mtu = message::find(value, RTAX_MTU).and_then(|value| message::u32_at(value, 0));
            }
            _ => {}
        }
    }
    answer.device = device?;
    Some(answer)
}
