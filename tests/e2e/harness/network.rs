//! Hosts out of network namespaces, joined by cables: nothing of them is on disk or in the namespace of the test,
//! and they vanish with it.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;

use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Address, Netlink, Route};
use rustix::process::Signal;

use super::wait::until;

/// Above the descriptors that are handed to a child by number.
const DESCRIPTOR: i32 = 100;
/// `RTPROT_STATIC`: made by an administrator.
const STATIC: u8 = 4;
const MAIN_TABLE: u32 = 254;

/// A host with a network of its own; gone when nothing uses it.
#[derive(Clone)]
pub(crate) struct Host {
    namespace: Arc<Namespace>,
}

impl Host {
    /// A host with nothing but its loopback interface.
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new().unwrap();
        let descriptor: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&namespace, DESCRIPTOR).unwrap();
        let host = Self { namespace: Arc::new(descriptor.into()) };
        host.run(|| {
            let mut netlink = Netlink::open().unwrap();
            let loopback = netlink.link("lo").unwrap().unwrap().index;
            netlink.set_up(loopback).unwrap();
        });
        // A new namespace has what its maker was set to.
        host.sysctl("net/ipv4/conf/all/rp_filter", "0");
        host.sysctl("net/ipv4/conf/default/rp_filter", "0");
        host.sysctl("net/ipv4/conf/all/forwarding", "0");
        host.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        host
    }

    /// The hosts whose networks a process holds open without being there.
    pub(crate) fn held_by(process: u32) -> Vec<Self> {
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let paths = descriptors.map(|entry| entry.unwrap().path());
        let is_network = |path: &PathBuf| {
            std::fs::read_link(path)
                .is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"net:"))
        };
        let open = |path| OwnedFd::from(std::fs::File::open(path).unwrap());
        paths.filter(is_network).map(|path| Self { namespace: Arc::new(open(path).into()) }).collect()
    }

    /// Whether hosts can be made here.
    pub(crate) fn is_possible() -> bool {
        let set = || std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").is_ok();
        Namespace::new().is_ok_and(|namespace| namespace.run_in(set).is_ok_and(|written| written))
    }

    /// Joins a device of this host with one of another by a cable; both get their address and a route to its
    /// prefix.
    pub(crate) fn cable(
        &self,
        (device, address): (&str, &str),
        other: &Self,
        (its, its_address): (&str, &str),
    ) {
        self.wire(device, other, its);
        self.address(device, address);
        other.address(its, its_address);
    }

    /// Joins a device of this host with one of another by a cable, both up and without addresses.
    pub(crate) fn wire(&self, device: &str, other: &Self, its: &str) {
        self.run(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.create_veth(device, its, Some(other.namespace.as_fd())).unwrap();
        });
        for (host, device) in [(self, device), (other, its)] {
            host.with_device(device, |netlink, index| netlink.set_up(index).unwrap());
        }
        // The kernel notices a moment later that the other end is up.
        for (host, device) in [(self, device), (other, its)] {
            until("a link", || {
                host.output("ip", &["link", "show", device]).contains(" state UP ").then_some(())
            });
        }
    }

    /// Gives a device an address, `10.0.0.1/24` or `fd00::1/64`, with a route to its prefix unless there is one, and sets it up.
    pub(crate) fn address(&self, device: &str, address: &str) {
        let network: ipnet::IpNet = address.parse().unwrap();
        self.with_device(device, |netlink, device| {
            let address = network.addr();
            netlink.add_address(Address { device, address, prefix_len: network.prefix_len() }).unwrap();
            netlink.set_up(device).unwrap();
            let (destination, source) = (network.trunc(), Some(address));
            let route =
                Route { destination, table: MAIN_TABLE, device, gateway: None, source, protocol: STATIC };
            // A host may have the same network on several cables; then the first has the route.
            let _ = netlink.add_route(&route);
        });
    }

    /// Sends everything else to a gateway behind a device.
    pub(crate) fn gateway(&self, device: &str, gateway: Ipv4Addr) {
        self.with_device(device, |netlink, device| {
            let destination = "0.0.0.0/0".parse().unwrap();
            let gateway = Some(gateway.into());
            let route =
                Route { destination, table: MAIN_TABLE, device, gateway, source: None, protocol: STATIC };
            netlink.add_route(&route).unwrap();
        });
    }

    /// Sends a network into a device.
    pub(crate) fn route(&self, device: &str, network: &str) {
        self.with_device(device, |netlink, device| {
            let destination = network.parse().unwrap();
            let route = Route {
                destination,
                table: MAIN_TABLE,
                device,
                gateway: None,
                source: None,
                protocol: STATIC,
            };
            netlink.add_route(&route).unwrap();
        });
    }

    /// Sets the MTU of a device, bytes.
    pub(crate) fn mtu(&self, device: &str, mtu: u32) {
        self.with_device(device, |netlink, device| netlink.set_mtu(device, mtu).unwrap());
    }

    /// Removes a device.
    pub(crate) fn unplug(&self, device: &str) {
        self.with_device(device, |netlink, device| netlink.delete_link(device).unwrap());
    }

    /// Sets a setting of the kernel for this host, by its path below `/proc/sys`.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        let written = self.run(|| std::fs::write(format!("/proc/sys/{path}"), value));
        // Without IPv6 there is nothing to switch off.
        assert!(written.is_ok() || path.contains("ipv6"), "{path}: {written:?}");
    }

    /// Runs a task on this host; sockets it makes belong to it for good.
    pub(crate) fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        self.namespace.run_in(task).unwrap()
    }

    /// Starts a program on this host.
    pub(crate) fn spawn(&self, command: Command) -> Child {
        self.namespace.spawn(command, Signal::KILL).unwrap()
    }

    /// What a program of somebody else prints on this host.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(|| Command::new(program).args(arguments).output().unwrap());
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a cable's end a network card that does nothing for the kernel: what leaves is as it would be on a wire.
    pub(crate) fn make_card(&self, device: &str) {
        let offloads = ["tx", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
        for offload in offloads {
            self.output("ethtool", &["-K", device, offload, "off"]);
        }
    }

    /// How many packets have left in one that the kernel was to cut; nothing where it cuts none (before Linux 6.17).
    pub(crate) fn left_uncut(&self) -> Option<u64> {
        let devices: Vec<serde_json::Value> =
            serde_json::from_str(&self.output("ip", &["-j", "-s", "link"])).unwrap();
        let outlet = devices.iter().find(|device| device["ifname"] == "ingre-out0")?;
        outlet["stats64"]["rx"]["packets"].as_u64()
    }

    /// Everything a tunnel can leave behind, as iproute2 shows it.
    pub(crate) fn state(&self) -> String {
        let commands: [&[&str]; 5] = [
            &["-o", "link", "show"],
            &["-o", "address", "show"],
            &["rule", "show"],
            &["route", "show", "table", "all"],
            &["netconf", "show"],
        ];
        commands.map(|arguments| self.output("ip", arguments)).join("--\n")
    }

    fn with_device<T: Send>(&self, device: &str, task: impl FnOnce(&mut Netlink, u32) -> T + Send) -> T {
        self.run(|| {
            let mut netlink = Netlink::open().unwrap();
            let index = netlink.link(device).unwrap().unwrap_or_else(|| panic!("no device {device}")).index;
            task(&mut netlink, index)
        })
    }
}
