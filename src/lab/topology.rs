//! The network namespaces of the lab and the wires between them. Nothing of it has a name on disk: a namespace lives as
//! long as a process in it or the descriptor here, and its devices vanish with it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, anyhow};
use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Address, Netlink, Route};

use super::plan;

/// `RT_TABLE_MAIN` and `RTPROT_STATIC` (linux/rtnetlink.h).
const MAIN_TABLE: u32 = 254;
const STATIC: u8 = 4;
/// Of this namespace; the larger of it and the device's own counts.
const REVERSE_PATH: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// One network namespace per node.
pub(super) struct Topology {
    pub(super) client: Namespace,
    pub(super) ingre: Namespace,
    pub(super) l4: Namespace,
    pub(super) tenant_a: Namespace,
    pub(super) tenant_b: Namespace,
}

impl Topology {
    /// Makes everything.
    ///
    /// # Errors
    /// What the kernel refused, with the remedy where one is known.
    pub(super) fn build() -> anyhow::Result<Self> {
        let made = Self {
            client: Namespace::new()?,
            ingre: Namespace::new()?,
            l4: Namespace::new()?,
            tenant_a: Namespace::new()?,
            tenant_b: Namespace::new()?,
        };
        for namespace in [&made.client, &made.ingre, &made.l4, &made.tenant_a, &made.tenant_b] {
            namespace.run_in(prepare)??;
        }
        let underlay =
            |address| End { device: "underlay", addresses: vec![address], on_link: Some(24), gateway: None };
        wire((&made.ingre, underlay(plan::INGRE)), (&made.l4, underlay(plan::L4)))?;
        // What lies behind the L4 node's other wires stands only in the tables of its tunnels: two of them lead to
        // 10.0.0.0/24.
        let toward = |device, address| End { device, addresses: vec![address], on_link: None, gateway: None };
        let leaf =
            |addresses, gateway| End { device: "eth0", addresses, on_link: Some(24), gateway: Some(gateway) };
        let client = leaf(vec![plan::CLIENT], plan::CLIENT_GATEWAY);
        wire((&made.client, client), (&made.l4, toward("client", plan::CLIENT_GATEWAY)))?;
        for (tenant, device) in [(&made.tenant_a, "tenant-a"), (&made.tenant_b, "tenant-b")] {
            let servers = leaf(plan::RS.to_vec(), plan::TENANT_GATEWAY);
            wire((tenant, servers), (&made.l4, toward(device, plan::TENANT_GATEWAY)))?;
        }
        Ok(made)
    }
}

/// One end of a wire.
struct End {
    device: &'static str,
    addresses: Vec<Ipv4Addr>,
    /// Length of the prefix of the addresses that is reached over the wire.
    on_link: Option<u8>,
    /// Where everything else goes.
    gateway: Option<Ipv4Addr>,
}

/// Loopback up, and no reverse path filter: packets come out of a tunnel that no route of the main table leads into.
fn prepare() -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    let loopback = netlink.link("lo")?.context("a new network namespace has no loopback interface")?;
    netlink.set_up(loopback.index)?;
    // A namespace starts with the host's value.
    let value = netlink.rp_filter_of_all()?;
    if value != 0 {
        std::fs::write(REVERSE_PATH, "0").map_err(|error| {
            anyhow!(
                "net.ipv4.conf.all.rp_filter of this host is {value}, new namespaces start with it, and {REVERSE_PATH} \
                 cannot be written ({error}): `sysctl -w net.ipv4.conf.all.rp_filter=0` on the host while the lab runs"
            )
        })?;
    }
    Ok(())
}

/// Joins two namespaces by a veth pair.
fn wire((left, end): (&Namespace, End), (right, other): (&Namespace, End)) -> anyhow::Result<()> {
    left.run_in(|| Netlink::open()?.create_veth(end.device, other.device, Some(right.as_fd())))?
        .context("no veth devices (`modprobe veth` as root)")?;
    left.run_in(|| set_up(&end))??;
    right.run_in(|| set_up(&other))??;
    Ok(())
}

fn set_up(end: &End) -> anyhow::Result<()> {
    let mut netlink = Netlink::open()?;
    let device = netlink.link(end.device)?.context("the veth device is gone")?.index;
    // Fails only where IPv6 is off: nothing to keep away then. Otherwise captures would show its chatter.
    let _ = netlink.disable_ipv6_autoconfiguration(device);
    for &address in &end.addresses {
        netlink.add_address(Address { device, address: address.into(), prefix_len: 32 })?;
    }
    netlink.set_up(device)?;
    let mut route = |destination: String, gateway: Option<Ipv4Addr>| -> anyhow::Result<()> {
        let destination = destination.parse()?;
        let source = end.addresses.first().copied();
        Ok(netlink.add_route(&Route {
            destination,
            table: MAIN_TABLE,
            device,
            gateway: gateway.map(IpAddr::V4),
            source: source.map(IpAddr::V4),
            protocol: STATIC,
        })?)
    };
    if let (Some(prefix_len), Some(&address)) = (end.on_link, end.addresses.first()) {
        let mask = u32::MAX << (32 - u32::from(prefix_len));
        route(format!("{}/{prefix_len}", Ipv4Addr::from(u32::from(address) & mask)), None)?;
    }
    if end.gateway.is_some() {
        route("0.0.0.0/0".to_owned(), end.gateway)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use encap::linux::capability::{Capability, has};

    #[test]
    fn a_strict_host_makes_no_difference() {
        if ![Capability::SysAdmin, Capability::NetAdmin].into_iter().all(has) {
            #[expect(clippy::print_stderr, reason = "says why the test is skipped")]
            {
                eprintln!("skipped: needs CAP_SYS_ADMIN and CAP_NET_ADMIN");
            }
            return;
        }
        let prepared = Namespace::new().unwrap().run_in(|| {
            std::fs::write(REVERSE_PATH, "1").unwrap();
            prepare().unwrap();
            let mut netlink = Netlink::open().unwrap();
            (netlink.rp_filter_of_all().unwrap(), netlink.link("lo").unwrap().unwrap().up)
        });
        assert_eq!(prepared.unwrap(), (0, true));
    }
}
