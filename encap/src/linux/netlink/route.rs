//! Routes, in any table, and the question which way a packet would go.

use std::net::IpAddr;

use ipnet::IpNet;

use super::family::{self, Family};
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
    pub destination: IpNet,
    /// Routing table.
    pub table: u32,
    /// Interface it leaves by.
    pub device: u32,
    /// Next hop; on the link itself when absent. To an IPv4 destination it may be an IPv6 address (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// Source address of packets that have none yet.
    pub source: Option<IpAddr>,
    /// Who made the route (`rtm_protocol`); the kernel only keeps the number.
    pub protocol: u8,
}

/// Which way a packet would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTo {
    /// What becomes of it.
    pub kind: RouteKind,
    /// Interface it leaves by; for an own address the loopback interface or the one that has it.
    pub device: u32,
    /// Source address it would get.
    pub source: Option<IpAddr>,
    /// Next hop, when there is one.
    pub gateway: Option<IpAddr>,
    /// MTU of the route or of the path as far as it is known, when it differs from the interface's.
    pub mtu: Option<u32>,
}

impl RouteTo {
    /// Whether it would be delivered to this host itself.
    pub fn is_local(&self) -> bool {
        self.kind == RouteKind::Local
    }
}

/// What becomes of a packet that takes a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// It leaves as it is, to one host.
    Unicast,
    /// It is delivered to this host itself.
    Local,
    /// Anything else: it is wrapped into another packet by the kernel, goes to many hosts, or nowhere.
    Other,
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

    /// All routes of both families that carry `protocol`, from all tables.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn routes(&mut self, protocol: u8) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in Family::ALL {
            let mut header = [0; HEADER_LEN];
            header[0] = family.number();
            header[5] = protocol;
            let wanted = (libc::RTM_GETROUTE, &header[..]);
            let parse = |payload: &_| parse(payload).filter(|route| route.protocol == protocol);
            routes.extend(self.list_of("list the routes", family, wanted, parse)?);
        }
        Ok(routes)
    }

    /// Which way a packet to `destination` would go, when it must leave by `device` or anyhow.
    ///
    /// # Errors
    /// When there is no route (`ENETUNREACH`, `EHOSTUNREACH`) or the kernel refuses the request.
    pub fn route_to(&mut self, destination: IpAddr, device: Option<u32>) -> Result<RouteTo> {
        self.route_from(None, destination, device)
    }

    /// As [`Netlink::route_to`], for a packet from `source`, which rules may look at.
    ///
    /// # Errors
    /// As [`Netlink::route_to`]; `EINVAL` when `source` is no address of this host.
    pub fn route_from(
        &mut self,
        source: Option<IpAddr>,
        destination: IpAddr,
        device: Option<u32>,
    ) -> Result<RouteTo> {
        let attempt = format!("look up the route to {destination}");
        let family = Family::of(destination);
        let mut header = [0; HEADER_LEN];
        header[0] = family.number();
        header[1] = family.bits();
        header[2] = source.map_or(0, |_| family.bits());
        let mut message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_REQUEST | libc::NLM_F_ACK, &header);
        message.attribute_address(libc::RTA_DST, destination);
        if let Some(source) = source {
            message.attribute_address(libc::RTA_SRC, source);
        }
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
    let family = Family::of(route.destination.network());
    let header = [
        family.number(),
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
        .attribute_address(libc::RTA_DST, route.destination.network())
        .attribute_u32(libc::RTA_OIF, route.device);
    match route.gateway {
        Some(gateway) if Family::of(gateway) == family => {
            message.attribute_address(libc::RTA_GATEWAY, gateway);
        }
        Some(gateway) => {
            message.attribute_via(libc::RTA_VIA, gateway);
        }
        None => {}
    }
    if let Some(source) = route.source {
        message.attribute_address(libc::RTA_PREFSRC, source);
    }
    message
}

fn parse(payload: &[u8]) -> Option<Route> {
    let mut destination = match Family::from_number(*payload.first()?)? {
        Family::Ipv4 => IpAddr::from([0; 4]),
        Family::Ipv6 => IpAddr::from([0; 16]),
    };
    let mut table = u32::from(*payload.get(4)?);
    for (kind, value) in message::attributes_after(payload, HEADER_LEN) {
        match kind {
            libc::RTA_DST => destination = family::address(value)?,
            libc::RTA_TABLE => table = message::u32_at(value, 0)?,
            _ => {}
        }
    }
    let way = parse_answer(payload)?;
    Some(Route {
        destination: IpNet::new(destination, *payload.get(1)?).ok()?,
        table,
        device: way.device,
        gateway: way.gateway,
        source: way.source,
        protocol: *payload.get(5)?,
    })
}

fn parse_answer(payload: &[u8]) -> Option<RouteTo> {
    let mut device = None;
    let kind = match *payload.get(7)? {
        libc::RTN_LOCAL => RouteKind::Local,
        libc::RTN_UNICAST => RouteKind::Unicast,
        _ => RouteKind::Other,
    };
    let mut answer = RouteTo { kind, device: 0, source: None, gateway: None, mtu: None };
    for (kind, value) in message::attributes_after(payload, HEADER_LEN) {
        match kind {
            libc::RTA_OIF => device = message::u32_at(value, 0),
            libc::RTA_PREFSRC => answer.source = family::address(value),
            libc::RTA_GATEWAY => answer.gateway = Some(family::address(value)?),
            libc::RTA_VIA => answer.gateway = Some(family::via(value)?),
            libc::RTA_ENCAP_TYPE => answer.kind = RouteKind::Other,
            libc::RTA_METRICS => {
                answer.mtu = message::find(value, RTAX_MTU).and_then(|value| message::u32_at(value, 0));
            }
            _ => {}
        }
    }
    answer.device = device?;
    Some(answer)
}
