//! What has to be there before anything is set up, checked all at once.
//!
//! Only looks; changes nothing. Runs in the parent, before the fork, and needs no privilege.

use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::Plan;
use crate::config::{Isolation, Tunnel};
use crate::device::{self, TunError};
use crate::linux::capability::{self, Capability, CapabilityError};
use crate::linux::netlink::{self, Netlink, NetlinkError};
use crate::linux::sysctl::{self, Ipv6Setting};
use crate::socket;

/// One thing that is missing on this host, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// Capabilities.
    #[error(transparent)]
    Capabilities(#[from] CapabilityError),
    /// The TUN driver or its device node.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The strict reverse path filter, which refuses what comes out of a tunnel.
    #[error(
        "net.ipv4.conf.all.rp_filter is 1 (strict): the kernel would drop what arrives through a tunnel; \
         `sysctl -w net.ipv4.conf.all.rp_filter=0` (in a container `docker run --sysctl net.ipv4.conf.all.rp_filter=0`), \
         or `isolation: namespace`"
    )]
    StrictReversePath,
    /// The outer source is not an address of this host.
    #[error("tunnel {tunnel}: local {local} is no address of this host (`ip address` lists them)")]
    NotLocal {
        /// Name of the tunnel.
        tunnel: String,
        /// Its outer source.
        local: IpAddr,
    },
    /// An interface does not exist.
    #[error("tunnel {tunnel}: there is no interface {name} (`ip link` lists them)")]
    NoInterface {
        /// Name of the tunnel.
        tunnel: String,
        /// Name of the interface.
        name: String,
    },
    /// The interface's frames are of an unknown kind.
    #[error(
        "tunnel {tunnel}: packets of interface {name} cannot be received (hardware type {kind}); name another with `interface:`"
    )]
    UnknownLink {
        /// Name of the tunnel.
        tunnel: String,
        /// Name of the interface.
        name: String,
        /// `ARPHRD_*`.
        kind: u16,
    },
    /// No route to the first peer.
    #[error("tunnel {tunnel}: no way to its first peer; name an `interface:` or add a route: {source}")]
    NoRoute {
        /// Name of the tunnel.
        tunnel: String,
        /// What the kernel said.
        source: NetlinkError,
    },
    /// The tunnel names no peer.
    #[error("tunnel {tunnel}: no peers")]
    NoPeer {
        /// Name of the tunnel.
        tunnel: String,
    },
    /// Inner packets would not fit.
    #[error("tunnel {tunnel}: an MTU of {mtu} bytes is too small for IPv4 (at least 68)")]
    TinyMtu {
        /// Name of the tunnel.
        tunnel: String,
        /// Inner MTU.
        mtu: u32,
    },
    /// Forwarding out of a namespace of its own leads nowhere.
    #[error(
        "tunnel {tunnel}: `forward:` works only with `isolation: device`, for its devices are the host's"
    )]
    ForwardInNamespace {
        /// Name of the tunnel.
        tunnel: String,
    },
    /// The kernel did not answer a question.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The capabilities that set-up needs.
pub(super) fn capabilities(tunnels: &[Tunnel]) -> Vec<Capability> {
    let mut needed = vec![Capability::NetAdmin, Capability::NetRaw];
    if tunnels.iter().any(|tunnel| tunnel.isolation == Isolation::Namespace) {
        needed.push(Capability::SysAdmin);
    }
    needed
}

/// Checks that this process may start the helper.
pub(super) fn privileges(tunnels: &[Tunnel]) -> Option<Unmet> {
    let needed = capabilities(tunnels).into_iter();
    let missing: Vec<_> = needed.filter(|capability| !capability::is_permitted(*capability)).collect();
    (!missing.is_empty()).then(|| CapabilityError::Missing(missing).into())
}

/// Checks everything but privileges; returns the plan of each tunnel, or all that is missing.
pub(super) fn check(tunnels: &[Tunnel]) -> Result<Vec<Plan>, Vec<Unmet>> {
    let mut unmet = Vec::new();
    unmet.extend(device::is_available().err().map(Unmet::from));
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => {
            unmet.push(error.into());
            return Err(unmet);
        }
    };
    if tunnels.iter().any(|tunnel| tunnel.isolation == Isolation::Device) {
        match netlink.rp_filter_of_all() {
            Ok(1) => unmet.push(Unmet::StrictReversePath),
            Ok(_) => {}
            Err(error) => unmet.push(error.into()),
        }
    }
    let mut plans = Vec::with_capacity(tunnels.len());
    for tunnel in tunnels {
        match plan(&mut netlink, tunnel) {
            Ok(plan) => plans.push(plan),
            Err(error) => unmet.push(error),
        }
        unmet.extend(others(&mut netlink, tunnel));
    }
    if unmet.is_empty() { Ok(plans) } else { Err(unmet) }
}

/// Things that work for now but that an operator should know.
pub(super) fn warnings(tunnels: &[Tunnel]) -> Vec<String> {
    let mut warnings: Vec<_> = tunnels.iter().filter_map(note_on_forwarding).collect();
    let Ok(mut netlink) = Netlink::open() else { return warnings };
    if netlink.rp_filter_of_all().is_ok_and(|value| value == 2) {
        for tunnel in tunnels.iter().filter(|tunnel| tunnel.isolation == Isolation::Device) {
            for network in &tunnel.networks {
                let inside = network.hosts().next().unwrap_or_else(|| network.network());
                if netlink.route_to(inside, None).is_err() {
                    warnings.push(format!(
                        "tunnel {}: net.ipv4.conf.all.rp_filter is 2 (loose) and the host has no route at all to {network}: \
                         the kernel drops what comes from there; `sysctl -w net.ipv4.conf.all.rp_filter=0`",
                        tunnel.name
                    ));
                }
            }
        }
    }
    warnings
}

/// Over IPv4 forwarding is switched on for the devices concerned; over IPv6 there is one switch for the whole host.
fn note_on_forwarding(tunnel: &Tunnel) -> Option<String> {
    let is_v6 = |network: &IpNet| network.addr().is_ipv6();
    let to = tunnel.forward.iter().find(|to| to.networks.iter().any(is_v6))?;
    let is_off =
        sysctl::ipv6_setting(sysctl::ALL, Ipv6Setting::Forwarding).is_ok_and(|value| value == Some(0));
    (is_off && tunnel.networks.iter().any(is_v6)).then(|| {
        format!(
            "tunnel {}: net.ipv6.conf.all.forwarding is 0: the kernel hands on no IPv6 between the tunnel and {}; \
             `sysctl -w net.ipv6.conf.all.forwarding=1`",
            tunnel.name, to.device
        )
    })
}

/// What an operator should know about received packets: whether the kernel works on them too.
pub(super) fn note_on_routing(not_routed: bool) -> Option<String> {
    let module = std::path::Path::new("/sys/module/ip_gre").exists();
    match (module, not_routed) {
        (true, true) => Some(
            "the kernel module ip_gre is loaded: packets to the tunnels' local addresses are dropped before it sees them"
                .to_owned(),
        ),
        (true, false) => Some(
            "the kernel module ip_gre is loaded: it sees the tunnels' packets too and answers those of keys it does not \
             know with ICMP; `rmmod ip_gre`, or drop protocol 47 in the firewall's prerouting chain"
                .to_owned(),
        ),
        (false, false) => Some(
            "the kernel has no nf_tables (or is older than 5.12): it looks up a route for every packet that a tunnel receives, \
             which costs time; docs/encapsulation-performance.md says how much"
                .to_owned(),
        ),
        (false, true) => None,
    }
}

fn plan(netlink: &mut Netlink, tunnel: &Tunnel) -> Result<Plan, Unmet> {
    let name = || tunnel.name.clone();
    let peer = tunnel.remotes().next().ok_or_else(|| Unmet::NoPeer { tunnel: name() })?;
    let no_interface = |interface: &str| Unmet::NoInterface { tunnel: name(), name: interface.to_owned() };
    let named = match &tunnel.interface {
        Some(interface) => Some(netlink.link(interface)?.ok_or_else(|| no_interface(interface))?),
        None => None,
    };
    let way = netlink.route_to(peer, named.as_ref().map(|link| link.index));
    let way = way.map_err(|source| Unmet::NoRoute { tunnel: name(), source })?;
    let link = match named {
        Some(link) => link,
        None => netlink.link_at(way.device)?.ok_or_else(|| no_interface(&way.device.to_string()))?,
    };
    if !socket::is_supported(link.kind) {
        return Err(Unmet::UnknownLink { tunnel: name(), name: link.name, kind: link.kind });
    }
    // The loopback interface has an MTU beyond what an IPv4 packet can hold.
    let outer = way.mtu.unwrap_or(link.mtu).min(link.mtu).min(u32::from(u16::MAX));
    let mtu = tunnel.mtu.map_or_else(|| outer.saturating_sub(tunnel.overhead().into()), u32::from);
    match u16::try_from(mtu) {
        Ok(mtu) if mtu >= 68 => Ok(Plan {
            tunnel: tunnel.clone(),
            interface: link.name,
            index: link.index,
            hardware: link.kind,
            link_mtu: link.mtu,
            mtu,
        }),
        _ => Err(Unmet::TinyMtu { tunnel: name(), mtu }),
    }
}

fn others(netlink: &mut Netlink, tunnel: &Tunnel) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    let is_local =
        |netlink: &mut Netlink| netlink::Result::Ok(netlink.route_to(tunnel.local, None)?.is_local());
    if !is_local(netlink).unwrap_or(false) {
        unmet.push(Unmet::NotLocal { tunnel: tunnel.name.clone(), local: tunnel.local });
    }
    if tunnel.isolation == Isolation::Namespace && !tunnel.forward.is_empty() {
        unmet.push(Unmet::ForwardInNamespace { tunnel: tunnel.name.clone() });
    }
    for forward in &tunnel.forward {
        match netlink.link(&forward.device) {
            Ok(Some(_)) => {}
            Ok(None) => {
                unmet.push(Unmet::NoInterface { tunnel: tunnel.name.clone(), name: forward.device.clone() });
            }
            Err(error) => unmet.push(error.into()),
        }
    }
    unmet
}
