//! What the helper makes and removes: devices, addresses, tables, rules, sockets.
//!
//! Runs in the helper, which has one thread, so it may move between namespaces. Everything that does not vanish with
//! a device is remembered and removed when [`Setup`] is dropped.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use ipnet::IpNet;

use super::outlets::Outlets;
use super::plan::Plan;
use super::{PROTOCOL, TABLE_BASE, TABLE_INDEX_MASK};
use crate::batch::Takers;
use crate::config::{ForwardTo, Isolation, Kind, Transmit, Tunnel};
use crate::device::{Tun, TunError};
use crate::linux::namespace::{Namespace, NamespaceError};
use crate::linux::netlink::{
    self, Address, Family, Ipv4Setting, Netlink, NetlinkError, Route, Rule, RuleAction,
};
use crate::linux::sysctl::{self, Ipv6Setting};
use crate::socket::{self, Carrier};

/// Before the rules of anybody else that look at all packets; ours look only at packets of our devices. Packets of other
/// programs' services come first: their lookups are to pass by as few rules as possible, for the kernel goes through them
/// one by one.
const SERVICE_PRIORITY: u32 = 1000;
/// Packets that arrive by a device or leave by one.
const DEVICE_PRIORITY: u32 = 1001;
/// What the tables above do not have must not leave by the host's own routes.
const NOWHERE_PRIORITY: u32 = 1002;
/// The table that a namespace of its own uses.
const MAIN_TABLE: u32 = libc::RT_TABLE_MAIN as u32;

/// Memory for all receive rings.
const MAX_RING_BYTES: usize = 128 << 20;
/// Packets that wait in a device for the engine: as many as on an Ethernet interface. The kernel would take 500, which are too few
/// when many small packets come while the engine's thread has to wait for a processor.
const QUEUED_PACKETS: u32 = 1000;
/// Tells the group of devices that are to vanish from that of all devices.
const LEAVING: u32 = 1 << 31;

/// Something the kernel refused while setting up.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Tun(#[from] TunError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("switch IPv6 on: {0}; the host may have none (`sysctl net.ipv6.conf.default.disable_ipv6`)")]
    Ipv6(io::Error),
    #[error("open a {what} socket on {interface} for {local}: {source}")]
    Socket { what: &'static str, interface: String, local: IpAddr, source: io::Error },
}

/// What other edges of the same interface and local address hear already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// Packets of the same kind.
    pub(super) packets: bool,
    /// Messages of the underlay.
    pub(super) messages: bool,
}

/// The sockets of one network edge.
pub(super) struct NetworkSockets {
    pub(super) interface: String,
    pub(super) local: IpAddr,
    pub(super) link_header_bytes: usize,
    /// One per engine thread.
    pub(super) receivers: Vec<OwnedFd>,
    /// Received packets do not go on to the kernel's IP layer.
    pub(super) not_routed: bool,
    pub(super) device: u32,
    pub(super) link: Option<OwnedFd>,
    pub(super) outlet: Option<(OwnedFd, Takers)>,
    pub(super) routed: OwnedFd,
    pub(super) icmp: OwnedFd,
    pub(super) guards: Vec<OwnedFd>,
}

/// What tells network edges apart.
pub(super) type EdgeKey = (u32, IpAddr, Kind, Transmit);

/// Everything made so far.
pub(super) struct Setup {
    netlink: Netlink,
    home: Namespace,
    tunnels: HashMap<u32, Made>,
    /// Group of all devices in the host's namespace, once there is one.
    group: Option<Group>,
    /// Netfilter tables, one per network edge; they go with their sockets.
    tables: Vec<OwnedFd>,
    outlets: Outlets,
    /// Bytes of all receive rings.
    ring_bytes: usize,
}

/// What the devices in the host's namespace have in common.
struct Group {
    /// Unique, for it is made from the number of the first device.
    number: u32,
    /// The netfilter table that drops what claims to come from an address of this host. Without, the kernel has to see to it.
    own_sources: Option<OwnedFd>,
}

/// What was made for one tunnel and does not vanish with its device.
struct Made {
    tunnel: Tunnel,
    /// Of a tunnel that has one of its own.
    namespace: Option<Namespace>,
    /// Number of the device, where that is in the host's namespace.
    device: Option<u32>,
    rules: Vec<Rule>,
    routes: Vec<Route>,
    /// Devices of others on which forwarding was off, each with the rule that lets only packets of tunnels pass.
    forwarding: Vec<(u32, Rule)>,
}

impl Setup {
    /// Starts with nothing but what a dead instance left removed.
    pub(super) fn new() -> Result<Self, MakeError> {
        let mut netlink = Netlink::open()?;
        sweep(&mut netlink)?;
        Ok(Self {
            netlink,
            home: Namespace::current()?,
            tunnels: HashMap::new(),
            group: None,
            tables: Vec::new(),
            outlets: Outlets::default(),
            ring_bytes: 0,
        })
    }

    /// Opens the sockets of the network edge that a tunnel needs. What another edge hears already this one does not: every
    /// packet is to be received once.
    pub(super) fn network(
        &mut self,
        plan: &Plan,
        threads: usize,
        heard: Heard,
    ) -> Result<NetworkSockets, MakeError> {
        let (interface, local, kind) = (&plan.interface, plan.tunnel.local, plan.tunnel.kind);
        let fail = |what| {
            let interface = interface.clone();
            move |source| MakeError::Socket { what, interface, local, source }
        };
        // Only where frames have the header that the engine writes.
        let on_link = plan.tunnel.transmit == Transmit::Direct && plan.hardware == libc::ARPHRD_ETHER;
        let carriers: &[Carrier] = match kind {
            Kind::Gre => &[Carrier::Gre],
            Kind::Ipip => &[Carrier::Ipv4, Carrier::Ipv6],
            Kind::GreInUdp => &[Carrier::GreInUdp],
        };
        let received = if heard.packets { &[] } else { carriers };
        // A node with many local addresses does without, rather than holding so much memory.
        let ring_bytes = threads * socket::ring_bytes(plan.link_mtu);
        let rings = !heard.packets && self.ring_bytes + ring_bytes <= MAX_RING_BYTES;
        self.ring_bytes += usize::from(rings) * ring_bytes;
        let ring = rings.then_some(plan.link_mtu);
        let link_header = socket::link_header_bytes(plan.hardware);
        let not_routed = heard.packets || self.drop_before_routing(plan, carriers);
        let has_outlet = on_link && kind != Kind::Ipip;
        let outlet = has_outlet.then(|| self.outlets.get(&mut self.netlink, plan)).flatten();
        let guards = carriers.iter().map(|carrier| socket::open_guard(interface, local, *carrier));
        let guards = guards.collect::<io::Result<Vec<_>>>();
        Ok(NetworkSockets {
            interface: interface.clone(),
            local,
            link_header_bytes: link_header,
            // The guards first: the kernel must not answer in between.
            guards: guards.map_err(fail("guard"))?,
            not_routed,
            device: plan.index,
            link: on_link
                .then(|| socket::open_link_sender(plan.index, kind == Kind::GreInUdp))
                .transpose()
                .map_err(fail("packet"))?,
            outlet,
            routed: socket::open_sender(interface, local).map_err(fail("raw"))?,
            icmp: socket::open_icmp(interface, local, !heard.messages).map_err(fail("ICMP"))?,
            receivers: socket::open_receivers(plan.index, link_header, local, received, threads, ring)
                .map_err(fail("packet"))?,
        })
    }

    /// Spares the kernel its work on packets that only the packet socket wants. GRE-in-UDP stays as it is: its guard
    /// makes the kernel merge datagrams, so that little is left to spare.
    fn drop_before_routing(&mut self, plan: &Plan, carriers: &[Carrier]) -> bool {
        if plan.tunnel.kind == Kind::GreInUdp {
            return true;
        }
        let protocols: Vec<_> = carriers.iter().map(|carrier| carrier.protocol()).collect();
        let name = format!("ingre-{}-{}", std::process::id(), self.tables.len());
        let table = netlink::drop_before_routing(&name, plan.index, plan.tunnel.local, &protocols);
        // Without nf_tables everything works as well, only slower.
        let made = table.is_ok();
        self.tables.extend(table);
        made
    }

    /// Makes the device of a tunnel, with addresses, routes and rules. Nothing is left when it fails.
    pub(super) fn add(&mut self, id: u32, plan: Plan) -> Result<Tun, MakeError> {
        let Plan { tunnel, mtu, .. } = plan;
        let (rules, routes, forwarding) = (Vec::new(), Vec::new(), Vec::new());
        let mut made = Made { tunnel, namespace: None, device: None, rules, routes, forwarding };
        let result = match made.tunnel.isolation {
            Isolation::Device => self.on_the_host(&mut made, mtu),
            Isolation::Namespace => self.in_its_own(&mut made, mtu),
        };
        if result.is_err() {
            self.undo(&made);
        } else if let Some(old) = self.tunnels.insert(id, made) {
            self.undo(&old);
        }
        result
    }

    /// Takes away the devices of tunnels, all at once; where that fails they vanish when they are closed.
    pub(super) fn unplug(&mut self, ids: &[u32]) {
        let Some(leaving) = self.group.as_ref().map(|group| group.number ^ LEAVING) else { return };
        for made in ids.iter().filter_map(|id| self.tunnels.get(id)) {
            let Some(device) = made.device else { continue };
            // Another interface has the number where somebody else has removed ours.
            let link = self.netlink.link_at(device).ok().flatten();
            if link.is_some_and(|link| link.name == made.tunnel.device) {
                let _ = self.netlink.set_group(device, leaving);
            }
        }
        let _ = self.netlink.delete_group(leaving);
    }

    /// Removes what was made for a tunnel and does not vanish with its device.
    pub(super) fn remove(&mut self, id: u32) {
        if let Some(made) = self.tunnels.remove(&id) {
            self.undo(&made);
        }
    }

    /// Opens a TCP socket that belongs to a tunnel.
    pub(super) fn stream(&self, id: u32, is_v6: bool) -> io::Result<OwnedFd> {
        self.inside(id, |tunnel| socket::open_stream(&tunnel.device, is_v6))
    }

    /// Opens a listener on one of a tunnel's VIPs; no other address is allowed.
    pub(super) fn listener(&self, id: u32, address: SocketAddr) -> io::Result<OwnedFd> {
        self.inside(id, |tunnel| {
            if !tunnel.vips.contains(&address) {
                return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
            }
            socket::open_listener(&tunnel.device, address)
        })
    }

    /// How much the devices of tunnels have dropped because nobody had read it in time, where they have.
    pub(super) fn unsent(&mut self) -> Vec<(u32, u64)> {
        let here = self.netlink.unsent().unwrap_or_default();
        let of = |(id, made): (&u32, &Made)| {
            let there = made.namespace.is_some().then(|| {
                self.inside(*id, |_| {
                    Netlink::open().and_then(|mut netlink| netlink.unsent()).map_err(io::Error::other)
                })
            });
            let unsent = there.map(Result::unwrap_or_default);
            let packets = *unsent.as_ref().unwrap_or(&here).get(&made.tunnel.device)?;
            (packets > 0).then_some((*id, packets))
        };
        self.tunnels.iter().filter_map(of).collect()
    }

    fn inside<T>(&self, id: u32, task: impl FnOnce(&Tunnel) -> io::Result<T>) -> io::Result<T> {
        let made = self.tunnels.get(&id).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let Some(namespace) = &made.namespace else { return task(&made.tunnel) };
        namespace.enter().map_err(io::Error::other)?;
        let result = task(&made.tunnel);
        self.home.enter().map_err(io::Error::other)?;
        result
    }

    fn in_its_own(&mut self, made: &mut Made, mtu: u16) -> Result<Tun, MakeError> {
        let namespace = Namespace::new()?;
        namespace.enter()?;
        let tun = in_a_namespace(&made.tunnel, mtu);
        self.home.enter()?;
        made.namespace = Some(namespace);
        tun
    }

    fn on_the_host(&mut self, made: &mut Made, mtu: u16) -> Result<Tun, MakeError> {
        let tunnel = made.tunnel.clone();
        let tun = Tun::create(&tunnel.device)?;
        let device = bring_up(&mut self.netlink, &tunnel, mtu)?;
        // Unique as long as interface numbers below 2^24 are, and found again by the sweep.
        let table = TABLE_BASE | (device & TABLE_INDEX_MASK);
        self.join_group(device)?;
        made.device = Some(device);
        for route in routes(&tunnel, device, table) {
            self.netlink.add_route(&route)?;
        }
        for family in families(&tunnel) {
            let rule = Rule {
                family,
                priority: DEVICE_PRIORITY,
                input: None,
                output: Some(tunnel.device.clone()),
                source: None,
                action: RuleAction::Lookup(table),
                protocol: PROTOCOL,
            };
            self.add_rule(made, rule.clone())?;
            self.answer_from_services(made, &rule)?;
            if tunnel.forward.is_empty() {
                continue;
            }
            let input = Rule { input: Some(tunnel.device.clone()), output: None, ..rule };
            self.add_rule(made, input.clone())?;
            let action = RuleAction::Unreachable;
            self.add_rule(made, Rule { priority: NOWHERE_PRIORITY, action, ..input.clone() })?;
            for forward in &tunnel.forward {
                self.add_rule(made, Rule { input: Some(forward.device.clone()), ..input.clone() })?;
                self.forward(made, forward, table, &input)?;
            }
        }
        Ok(tun)
    }

    /// Spares the kernel a walk through all rules for every packet that leaves a tunnel: to see where its source would be
    /// routed, which the engine has checked already.
    fn join_group(&mut self, device: u32) -> Result<(), MakeError> {
        let group = self.group.get_or_insert_with(|| {
            let number = TABLE_BASE | (device & TABLE_INDEX_MASK);
            let table = format!("ingre-{}-sources", std::process::id());
            Group { number, own_sources: netlink::drop_own_sources(&table, number).ok() }
        });
        self.netlink.set_group(device, group.number)?;
        if group.own_sources.is_some() {
            self.netlink.set_ipv4(device, &[(Ipv4Setting::AcceptLocal, 1)])?;
        }
        Ok(())
    }

    /// The sockets of other programs are bound to no device, nor are the kernel's own answers to echo requests: they leave
    /// by the tunnel because of their address.
    fn answer_from_services(&mut self, made: &mut Made, rule: &Rule) -> Result<(), MakeError> {
        let addresses: BTreeSet<_> = made.tunnel.services.iter().map(|service| service.address).collect();
        for address in addresses.into_iter().filter(|address| Family::of(*address) == rule.family) {
            let (priority, source) = (SERVICE_PRIORITY, Some(address));
            self.add_rule(made, Rule { priority, output: None, source, ..rule.clone() })?;
        }
        Ok(())
    }

    /// Lets a device of the host pass packets of one family to and from a tunnel.
    fn forward(
        &mut self,
        made: &mut Made,
        forward: &ForwardTo,
        table: u32,
        rule: &Rule,
    ) -> Result<(), MakeError> {
        let Some(link) = self.netlink.link(&forward.device)? else {
            return Err(TunError::Refused {
                name: forward.device.clone(),
                attempt: "forward to it",
                source: io::Error::from_raw_os_error(libc::ENODEV),
            }
            .into());
        };
        for network in forward.networks.iter().filter(|network| Family::of(network.addr()) == rule.family) {
            let inside = network.hosts().next().unwrap_or_else(|| network.network());
            // The host may know a gateway behind that device.
            let gateway = self.netlink.route_to(inside, Some(link.index))?.gateway;
            let (destination, device) = (network.trunc(), link.index);
            let route = Route { destination, table, device, gateway, source: None, protocol: PROTOCOL };
            self.netlink.add_route(&route)?;
            made.routes.push(route);
        }
        // Where forwarding is on, what else the host forwards is for its operator to say. Where it is not, nothing else
        // may leave the device because of us; this rule also tells the sweep that forwarding was off. Over IPv6 it is
        // on or off for the whole host, and then the operator's decision.
        if rule.family == Family::Ipv4 && self.netlink.ipv4_setting(link.index, Ipv4Setting::Forwarding)? == 0
        {
            let (input, action) = (Some(link.name), RuleAction::Unreachable);
            let rule = Rule { priority: NOWHERE_PRIORITY, input, action, ..rule.clone() };
            self.netlink.add_rule(&rule)?;
            made.forwarding.push((link.index, rule));
            self.netlink.set_ipv4(link.index, &[(Ipv4Setting::Forwarding, 1)])?;
        }
        Ok(())
    }

    fn add_rule(&mut self, made: &mut Made, rule: Rule) -> Result<(), MakeError> {
        self.netlink.add_rule(&rule)?;
        made.rules.push(rule);
        Ok(())
    }

    /// What is gone already is fine.
    fn undo(&mut self, made: &Made) {
        for rule in &made.rules {
            let _ = self.netlink.delete_rule(rule);
        }
        for route in &made.routes {
            let _ = self.netlink.delete_route(route);
        }
        if made.forwarding.is_empty() {
            return;
        }
        let others = self.netlink.rules(PROTOCOL).unwrap_or_default();
        for (device, rule) in &made.forwarding {
            // Where another tunnel or instance forwards meanwhile, a later sweep does this.
            if !forwards_from(&others, rule) {
                let _ = self.netlink.set_ipv4(*device, &[(Ipv4Setting::Forwarding, 0)]);
                let _ = self.netlink.delete_rule(rule);
            }
        }
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // One by one they would vanish when their descriptors are closed, each in some 20 ms.
        if let Some(group) = &self.group {
            let _ = self.netlink.delete_group(group.number);
        }
        for made in std::mem::take(&mut self.tunnels).values() {
            self.undo(made);
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
fn bring_up(netlink: &mut Netlink, tunnel: &Tunnel, mtu: u16) -> Result<u32, MakeError> {
    let device = netlink.link(&tunnel.device)?.map_or(0, |link| link.index);
    netlink.set_mtu(device, mtu.into())?;
    netlink.set_queue(device, QUEUED_PACKETS)?;
    let forwarding = u32::from(!tunnel.forward.is_empty());
    netlink.set_ipv4(device, &[(Ipv4Setting::RpFilter, 0), (Ipv4Setting::Forwarding, forwarding)])?;
    match netlink.disable_ipv6_autoconfiguration(device) {
        // Where IPv6 is off there is nothing to keep away.
        Err(error) if error.errno() != Some(libc::EAFNOSUPPORT) => return Err(error.into()),
        _ => {}
    }
    if families(tunnel).any(|family| family == Family::Ipv6) {
        sysctl::set_ipv6(&tunnel.device, Ipv6Setting::DisableIpv6, 0).map_err(MakeError::Ipv6)?;
    }
    for address in tunnel.hosted().collect::<BTreeSet<_>>() {
        let prefix_len = if address.is_ipv4() { 32 } else { 128 };
        netlink.add_address(Address { device, address, prefix_len })?;
    }
    netlink.set_up(device)?;
    Ok(device)
}

/// The families of inner packets that a tunnel carries.
fn families(tunnel: &Tunnel) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| {
        let mut inside = tunnel.networks.iter().map(IpNet::addr).chain(tunnel.hosted());
        inside.any(|address| Family::of(address) == *family)
    })
}

fn routes(tunnel: &Tunnel, device: u32, table: u32) -> impl Iterator<Item = Route> {
    let networks: BTreeSet<_> = tunnel.networks.iter().map(IpNet::trunc).collect();
    networks.into_iter().map(move |destination| Route {
        destination,
        table,
        device,
        gateway: None,
        source: tunnel.address_like(destination.addr()),
        protocol: PROTOCOL,
    })
}

/// Whether packets from the device of this rule are sent into a tunnel.
fn forwards_from(rules: &[Rule], rule: &Rule) -> bool {
    rules.iter().any(|other| {
        other.family == rule.family
            && other.input == rule.input
            && matches!(other.action, RuleAction::Lookup(_))
    })
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
