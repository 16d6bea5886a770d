//! Two namespaces that speak both versions of IP.

use std::net::Ipv6Addr;

use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Address, Netlink, Route};

use super::common::pair;

/// IPv6 address of the left end of [`pair_with_ipv6`].
pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
/// IPv6 address of the right end of [`pair_with_ipv6`].
pub(crate) const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 2);

/// As [`pair`], and both ends have an IPv6 address.
pub(crate) fn pair_with_ipv6() -> (Namespace, Namespace) {
    let (left, right) = pair();
    for (namespace, name, address) in [(&left, "left", A6), (&right, "right", B6)] {
        namespace
            .run_in(|| {
                let mut netlink = Netlink::open().unwrap();
                let device = netlink.link(name).unwrap().unwrap().index;
                netlink.add_address(Address { device, address: address.into(), prefix_len: 64 }).unwrap();
                let destination = "2001:db8:5::/64".parse().unwrap();
                let (gateway, source) = (None, None);
                let route = Route { destination, table: 254, device, gateway, source, protocol: 4 };
                netlink.add_route(&route).unwrap();
                wait_until_asked(name, address);
            })
            .unwrap();
    }
    (left, right)
}

/// The kernel joins the group to which neighbours send their question a moment after the address is there.
fn wait_until_asked(name: &str, address: Ipv6Addr) {
    let [.., a, b, c] = address.octets();
    let group = format!("{name} ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}");
    let words = |line: &str| line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ");
    wait_for_line("igmp6", |line| words(line) == group, &format!("{name} does not listen for {address}"));
}

/// For packets that it forwards the kernel asks from the link-local address of the device, and not before it is sure that
/// nobody else has that.
pub(crate) fn wait_until_asking(name: &str) {
    // Address, device, length of the prefix, scope, flags (linux/if_addr.h), name.
    let is_sure = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, _, "20", flags, of] => of == name && u8::from_str_radix(flags, 16).unwrap() & 0x40 == 0,
        _ => false,
    };
    wait_for_line("if_inet6", is_sure, &format!("{name} has no link-local address"));
}

fn wait_for_line(file: &str, is_it: impl Fn(&str) -> bool, otherwise: &str) {
    for _ in 0..500 {
        let lines = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        if lines.lines().any(&is_it) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{otherwise} after 5 s");
}
