//! What the helper makes and removes: devices, addresses, tables, rules, sockets.
//!
//! Runs in the helper, which has one thread, so it may move between namespaces. Everything that does not vanish with
//! a device is remembered and removed when [`Setup`] is dropped.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use super::check::Underlay;
use super::{PROTOCOL, TABLE_BASE, TABLE_INDEX_MASK};
use crate::config::{ForwardTo, Isolation, Tunnel};
use crate::device::{Tun, TunError};
use crate::linux::namespace::{Namespace, NamespaceError};
use crate::linux::netlink::{self, Address, Ipv4Setting, Netlink, NetlinkError, Route, Rule, RuleAction};
use crate::socket;

/// Before the rules of anybody else that look at all packets; ours look only at packets of our devices.
const PRIORITY: u32 = 1000;
/// The table that a namespace of its own uses.
const MAIN_TABLE: u32 = libc::RT_TABLE_MAIN as u32;

/// Something the kernel refused while setting up.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("open a {what} socket on {interface} for {local}: {source}")]
    Socket { what: &'static str, interface: String, local: Ipv4Addr, source: io::Error },
}

/// The sockets of one network edge.
pub(super) struct NetworkSockets {
    pub(super) interface: String,
    pub(super) local: Ipv4Addr,
    pub(super) link_header_bytes: usize,
    pub(super) receivers: Vec<OwnedFd>,
    pub(super) sender: OwnedFd,
    pub(super) guard: OwnedFd,
}

/// Everything made so far.
pub(super) struct Setup<'a> {
    tunnels: &'a [Tunnel],
    netlink: Netlink,
    home: Namespace,
    /// The namespace of each tunnel that has one of its own.
    namespaces: Vec<Option<Namespace>>,
    rules: Vec<Rule>,
    routes: Vec<Route>,
    /// Devices of others on which forwarding was off, each with the rule that lets only packets of tunnels pass.
    forwarding: Vec<(u32, Rule)>,
}

impl<'a> Setup<'a> {
    /// Starts with nothing but what a dead instance left removed.
    pub(super) fn new(tunnels: &'a [Tunnel]) -> Result<Self, MakeError> {
        let mut netlink = Netlink::open()?;
        sweep(&mut netlink)?;
        let home = Namespace::current()?;
        let (namespaces, rules, routes, forwarding) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { tunnels, netlink, home, namespaces, rules, routes, forwarding })
    }

    /// Opens the sockets of a network edge.
    pub(super) fn network(
        &mut self,
        underlay: &Underlay,
        local: Ipv4Addr,
        threads: usize,
    ) -> Result<NetworkSockets, MakeError> {
        let link = &underlay.link;
        let fail = |what| {
            let interface = link.name.clone();
            move |source| MakeError::Socket { what, interface, local, source }
        };
        Ok(NetworkSockets {
            interface: link.name.clone(),
            local,
            link_header_bytes: socket::link_header_bytes(link.kind),
            // The guard first: the kernel must not answer in between.
            guard: socket::open_guard(&link.name, local).map_err(fail("GRE"))?,
            sender: socket::open_sender(&link.name, local).map_err(fail("raw"))?,
            receivers: socket::open_receivers(link.index, local, threads).map_err(fail("packet"))?,
        })
    }

    /// Makes the device of the next tunnel, with addresses, routes and rules.
    pub(super) fn tunnel(&mut self, mtu: u16) -> Result<Tun, MakeError> {
        let tunnels = self.tunnels;
        // The caller asks once per tunnel.
        let tunnel = &tunnels[self.namespaces.len()];
        match tunnel.isolation {
            Isolation::Device => {
                let tun = self.on_the_host(tunnel, mtu)?;
                self.namespaces.push(None);
                Ok(tun)
            }
            Isolation::Namespace => {
                let namespace = Namespace::new()?;
                namespace.enter()?;
                let tun = in_a_namespace(tunnel, mtu);
                self.home.enter()?;
                self.namespaces.push(Some(namespace));
                tun
            }
        }
    }

    /// Opens a TCP socket that belongs to a tunnel.
    pub(super) fn stream(&self, tunnel: usize) -> io::Result<OwnedFd> {
        self.inside(tunnel, |tunnel| socket::open_stream(&tunnel.device))
    }

    /// Opens a listener on one of a tunnel's VIPs; no other address is allowed.
    pub(super) fn listener(&self, tunnel: usize, address: SocketAddrV4) -> io::Result<OwnedFd> {
        self.inside(tunnel, |tunnel| {
            if !tunnel.vips.contains(&address) {
                return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
            }
            socket::open_listener(&tunnel.device, address)
        })
    }

    fn inside<T>(&self, tunnel: usize, task: impl FnOnce(&Tunnel) -> io::Result<T>) -> io::Result<T> {
        let missing = || io::Error::from_raw_os_error(libc::EINVAL);
        let namespace = self.namespaces.get(tunnel).ok_or_else(missing)?;
        let tunnel = self.tunnels.get(tunnel).ok_or_else(missing)?;
        let Some(namespace) = namespace else { return task(tunnel) };
        namespace.enter().map_err(io::Error::other)?;
        let result = task(tunnel);
        self.home.enter().map_err(io::Error::other)?;
        result
    }

    fn on_the_host(&mut self, tunnel: &Tunnel, mtu: u16) -> Result<Tun, MakeError> {
        let tun = Tun::create(&tunnel.device)?;
        let device = bring_up(&mut self.netlink, tunnel, mtu)?;
        // Unique as long as interface numbers below 2^24 are, and found again by the sweep.
        let table = TABLE_BASE | (device & TABLE_INDEX_MASK);
        for route in routes(tunnel, device, table) {
            self.netlink.add_route(&route)?;
        }
        let rule = Rule {
            priority: PRIORITY,
            input: None,
            output: Some(tunnel.device.clone()),
            action: RuleAction::Lookup(table),
            protocol: PROTOCOL,
        };
        self.add_rule(rule.clone())?;
        if !tunnel.forward.is_empty() {
            let input = Rule { input: Some(tunnel.device.clone()), output: None, ..rule };
            self.add_rule(input.clone())?;
            // What the table does not have must not leave by the host's own routes.
            self.add_rule(Rule { priority: PRIORITY + 1, action: RuleAction::Unreachable, ..input.clone() })?;
            for forward in &tunnel.forward {
                self.add_rule(Rule { input: Some(forward.device.clone()), ..input.clone() })?;
                self.forward(forward, table, &input)?;
            }
        }
        Ok(tun)
    }

    /// Lets a device of the host pass packets to and from a tunnel.
    fn forward(&mut self, forward: &ForwardTo, table: u32, rule: &Rule) -> Result<(), MakeError> {
        let Some(link) = self.netlink.link(&forward.device)? else {
            return Err(TunError::Refused {
                name: forward.device.clone(),
                attempt: "forward to it",
                source: io::Error::from_raw_os_error(libc::ENODEV),
            }
            .into());
        };
        for network in &forward.networks {
            let inside = network.hosts().next().unwrap_or_else(|| network.network());
            // The host may know a gateway behind that device.
            let gateway = self.netlink.route_to(inside, Some(link.index))?.gateway;
            let (destination, device) = (network.trunc(), link.index);
            let route = Route { destination, table, device, gateway, source: None, protocol: PROTOCOL };
            self.netlink.add_route(&route)?;
            self.routes.push(route);
        }
        // Where forwarding is on, what else the host forwards is for its operator to say. Where it is not, nothing else
        // may leave the device because of us; this rule also tells the sweep that forwarding was off.
        if self.netlink.ipv4_setting(link.index, Ipv4Setting::Forwarding)? == 0 {
            let (input, action) = (Some(link.name), RuleAction::Unreachable);
            let rule = Rule { priority: PRIORITY + 1, input, action, ..rule.clone() };
            self.netlink.add_rule(&rule)?;
            self.forwarding.push((link.index, rule));
            self.netlink.set_ipv4(link.index, &[(Ipv4Setting::Forwarding, 1)])?;
        }
        Ok(())
    }

    fn add_rule(&mut self, rule: Rule) -> Result<(), MakeError> {
        self.netlink.add_rule(&rule)?;
        self.rules.push(rule);
        Ok(())
    }
}

impl Drop for Setup<'_> {
    /// Removes what does not vanish with the devices. What is gone already is fine.
    fn drop(&mut self) {
        for rule in &self.rules {
            let _ = self.netlink.delete_rule(rule);
        }
        for route in &self.routes {
            let _ = self.netlink.delete_route(route);
        }
        let others = self.netlink.rules(PROTOCOL).unwrap_or_default();
        for (device, rule) in &self.forwarding {
            // Where another instance forwards meanwhile, a later sweep does this.
            if !forwards_from(&others, rule) {
                let _ = self.netlink.set_ipv4(*device, &[(Ipv4Setting::Forwarding, 0)]);
                let _ = self.netlink.delete_rule(rule);
            }
        }
    }
}

/// Makes the device and its routes in the namespace of the calling thread, which is the tunnel's own.
fn in_a_namespace(tunnel: &Tunnel, mtu: u16) -> Result<Tun, MakeError> {
    let mut netlink = Netlink::open()?;
    if let Some(loopback) = netlink.link("lo")? {
        netlink.set_up(loopback.index)?;
    }
    let tun = Tun::create(&tunnel.device)?;
    let device = bring_up(&mut netlink, tunnel, mtu)?;
    for route in routes(tunnel, device, MAIN_TABLE) {
        netlink.add_route(&route)?;
    }
    Ok(tun)
}

/// MTU, settings, addresses, up. Returns the number of the device.
fn bring_up(netlink: &mut Netlink, tunnel: &Tunnel, mtu: u16) -> netlink::Result<u32> {
    let device = netlink.link(&tunnel.device)?.map_or(0, |link| link.index);
    netlink.set_mtu(device, mtu.into())?;
    let forwarding = u32::from(!tunnel.forward.is_empty());
    netlink.set_ipv4(device, &[(Ipv4Setting::RpFilter, 0), (Ipv4Setting::Forwarding, forwarding)])?;
    match netlink.disable_ipv6_autoconfiguration(device) {
        // Where IPv6 is off there is nothing to keep away.
        Err(error) if error.errno() != Some(libc::EAFNOSUPPORT) => return Err(error),
        _ => {}
    }
    let addresses: BTreeSet<_> =
        tunnel.address.into_iter().chain(tunnel.vips.iter().map(|vip| *vip.ip())).collect();
    for address in addresses {
        netlink.add_address(Address { device, address, prefix_len: 32 })?;
    }
    netlink.set_up(device)?;
    Ok(device)
}

fn routes(tunnel: &Tunnel, device: u32, table: u32) -> impl Iterator<Item = Route> {
    let networks: BTreeSet<_> = tunnel.networks.iter().map(ipnet::Ipv4Net::trunc).collect();
    networks.into_iter().map(move |destination| Route {
        destination,
        table,
        device,
        gateway: None,
        source: tunnel.address,
        protocol: PROTOCOL,
    })
}

/// Whether packets from the device of this rule are sent into a tunnel.
fn forwards_from(rules: &[Rule], rule: &Rule) -> bool {
    rules.iter().any(|other| other.input == rule.input && matches!(other.action, RuleAction::Lookup(_)))
}

/// Removes rules and routes of instances that died together with their helper: those whose device is gone. Forwarding
/// that they switched on is off again.
fn sweep(netlink: &mut Netlink) -> netlink::Result<()> {
    let links = netlink.links()?;
    let is_dead = |table: u32| {
        table & !TABLE_INDEX_MASK == TABLE_BASE
            && !links.iter().any(|link| link.index & TABLE_INDEX_MASK == table & TABLE_INDEX_MASK)
    };
    for rule in netlink.rules(PROTOCOL)? {
        let has_lost_device =
            rule.input.iter().chain(&rule.output).any(|name| !links.iter().any(|link| link.name == *name));
        let is_of_dead_table = matches!(rule.action, RuleAction::Lookup(table) if is_dead(table));
        if has_lost_device || is_of_dead_table {
            ignore_missing(netlink.delete_rule(&rule))?;
        }
    }
    let left = netlink.rules(PROTOCOL)?;
    for rule in
        left.iter().filter(|rule| rule.action == RuleAction::Unreachable && !forwards_from(&left, rule))
    {
        if let Some(link) = links.iter().find(|link| rule.input.as_ref() == Some(&link.name)) {
            netlink.set_ipv4(link.index, &[(Ipv4Setting::Forwarding, 0)])?;
        }
        ignore_missing(netlink.delete_rule(rule))?;
    }
    for route in netlink.routes(PROTOCOL)?.iter().filter(|route| is_dead(route.table)) {
        ignore_missing(netlink.delete_route(route))?;
    }
    Ok(())
}

/// A helper that is just cleaning up may have been faster.
fn ignore_missing(result: netlink::Result<()>) -> netlink::Result<()> {
    match result {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)) => Ok(()),
        result => result,
    }
}
