//! Addresses, routes and rules of both families, and a host without IPv6.

use std::net::IpAddr;

use encap::linux::netlink::{Address, Family, Netlink, Route, RouteKind, Rule, RuleAction};
use encap::linux::sysctl::{self, Ipv6Setting};

use super::PROTOCOL;
use super::common::{A, B, Case, case, pair};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("addresses_routes_and_rules_come_and_go", addresses_routes_and_rules_come_and_go),
        case("so_do_those_of_ipv6", so_do_those_of_ipv6),
        case("an_ipv4_route_may_have_an_ipv6_gateway", an_ipv4_route_may_have_an_ipv6_gateway),
        case("ipv6_settings_are_of_one_device", ipv6_settings_are_of_one_device),
        case("where_ipv6_is_off_ipv4_works", where_ipv6_is_off_ipv4_works),
    ]
}

fn addresses_routes_and_rules_come_and_go() {
    let (left, _right) = pair();
    left.run_in(|| {
        let mut netlink = Netlink::open().unwrap();
        let device = netlink.link("left").unwrap().unwrap().index;
        let address = Address { device, address: "172.16.0.1".parse().unwrap(), prefix_len: 32 };
        netlink.add_address(address).unwrap();
        assert_eq!(netlink.add_address(address).unwrap_err().errno(), Some(libc::EEXIST));
        assert!(netlink.addresses().unwrap().contains(&address));

        let table = 0x1A00_0005;
        let route = Route {
            destination: "10.0.0.0/24".parse().unwrap(),
            table,
            device,
            gateway: None,
            source: Some(address.address),
            protocol: PROTOCOL,
        };
        let via =
            Route { destination: "10.1.0.0/16".parse().unwrap(), gateway: Some(B.into()), ..route.clone() };
        netlink.add_route(&route).unwrap();
        netlink.add_route(&via).unwrap();
        assert_eq!(netlink.add_route(&route).unwrap_err().errno(), Some(libc::EEXIST));
        assert_eq!(netlink.routes(PROTOCOL).unwrap(), [route.clone(), via.clone()]);

        let destination = IpAddr::from([10, 0, 0, 9]);
        assert_eq!(netlink.route_to(destination, None).unwrap_err().errno(), Some(libc::ENETUNREACH));
        let rule = Rule {
            family: Family::Ipv4,
            priority: 100,
            input: None,
            output: Some("left".into()),
            source: None,
            action: RuleAction::Lookup(table),
            protocol: PROTOCOL,
        };
        let input = Rule { input: Some("left".into()), output: None, ..rule.clone() };
        let last = Rule { priority: 101, action: RuleAction::Unreachable, ..input.clone() };
        let source = Rule { source: Some([10, 9, 0, 1].into()), output: None, ..rule.clone() };
        for rule in [&rule, &last, &input, &source] {
            netlink.add_rule(rule).unwrap();
        }
        assert!(netlink.rules(PROTOCOL).unwrap().contains(&source));
        netlink.delete_rule(&source).unwrap();
        let mut rules = netlink.rules(PROTOCOL).unwrap();
        rules.sort_by_key(|rule| (rule.priority, rule.input.is_some()));
        assert_eq!(rules, [rule.clone(), input.clone(), last.clone()]);

        // Only a socket bound to the device finds the table.
        assert_eq!(netlink.route_to(destination, None).unwrap_err().errno(), Some(libc::ENETUNREACH));
        let way = netlink.route_to(destination, Some(device)).unwrap();
        assert_eq!((way.device, way.source, way.gateway), (device, Some(address.address), None));
        let way = netlink.route_to("10.1.2.3".parse().unwrap(), Some(device)).unwrap();
        assert_eq!(way.gateway, Some(B.into()));
        // What the table does not have the kernel takes to be on the link itself, whatever the rules say
        // (ip_route_output_key_hash_rcu): the engine has to refuse it.
        let way = netlink.route_to("10.2.0.1".parse().unwrap(), Some(device)).unwrap();
        assert_eq!((way.device, way.gateway), (device, None));

        for rule in [&rule, &last, &input] {
            netlink.delete_rule(rule).unwrap();
        }
        assert_eq!(netlink.delete_rule(&rule).unwrap_err().errno(), Some(libc::ENOENT));
        netlink.delete_route(&route).unwrap();
        netlink.delete_route(&via).unwrap();
        assert!(netlink.routes(PROTOCOL).unwrap().is_empty() && netlink.rules(PROTOCOL).unwrap().is_empty());
    })
    .unwrap();
}

fn so_do_those_of_ipv6() {
    let (left, _right) = pair();
    left.run_in(|| {
        let mut netlink = Netlink::open().unwrap();
        let device = netlink.link("left").unwrap().unwrap().index;
        let own: IpAddr = "2001:db8::1".parse().unwrap();
        let address = Address { device, address: own, prefix_len: 64 };
        netlink.add_address(address).unwrap();
        assert!(netlink.addresses().unwrap().contains(&address));
        // At once: nobody is asked whether he has it.
        std::net::UdpSocket::bind((own, 0)).unwrap();

        let table = 0x1A00_0006;
        let route = Route {
            destination: "2001:db8:1::/48".parse().unwrap(),
            table,
            device,
            gateway: None,
            source: Some(own),
            protocol: PROTOCOL,
        };
        let gateway = Some("fe80::9".parse().unwrap());
        let via = Route { destination: "2001:db8:2::/48".parse().unwrap(), gateway, ..route.clone() };
        let of_ipv4 = Route { destination: "10.0.0.0/8".parse().unwrap(), source: None, ..route.clone() };
        for route in [&route, &via, &of_ipv4] {
            netlink.add_route(route).unwrap();
        }
        assert_eq!(netlink.add_route(&route).unwrap_err().errno(), Some(libc::EEXIST));
        assert_eq!(netlink.routes(PROTOCOL).unwrap(), [of_ipv4.clone(), route.clone(), via.clone()]);
        let to: IpAddr = "2001:db8:2::9".parse().unwrap();
        assert_eq!(netlink.route_to(to, None).unwrap_err().errno(), Some(libc::ENETUNREACH));
        let rule = Rule {
            family: Family::Ipv6,
            priority: 100,
            input: None,
            output: Some("left".into()),
            source: None,
            action: RuleAction::Lookup(table),
            protocol: PROTOCOL,
        };
        netlink.add_rule(&rule).unwrap();
        netlink.add_rule(&Rule { family: Family::Ipv4, ..rule.clone() }).unwrap();
        assert_eq!(netlink.rules(PROTOCOL).unwrap().len(), 2, "one per family");
        let way = netlink.route_from(Some(own), to, Some(device)).unwrap();
        assert_eq!((way.kind, way.device, way.gateway), (RouteKind::Unicast, device, via.gateway));
        assert!(until(|| netlink.route_to(own, None).is_ok_and(|way| way.is_local())));
        netlink.delete_rule(&rule).unwrap();
        assert_eq!(netlink.rules(PROTOCOL).unwrap(), [Rule { family: Family::Ipv4, ..rule }]);
        netlink.delete_route(&via).unwrap();
        assert_eq!(netlink.routes(PROTOCOL).unwrap(), [of_ipv4, route]);
    })
    .unwrap();
}

fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let (left, _right) = pair();
    left.run_in(|| {
        let mut netlink = Netlink::open().unwrap();
        let device = netlink.link("left").unwrap().unwrap().index;
        let gateway = Some("fe80::9".parse().unwrap());
        let destination = "10.0.0.0/8".parse().unwrap();
        let route = Route { destination, table: 254, device, gateway, source: None, protocol: PROTOCOL };
        netlink.add_route(&route).unwrap();
        assert_eq!(netlink.routes(PROTOCOL).unwrap(), std::slice::from_ref(&route));
        let way = netlink.route_to("10.1.2.3".parse().unwrap(), None).unwrap();
        assert_eq!((way.kind, way.gateway), (RouteKind::Unicast, gateway));
        netlink.delete_route(&route).unwrap();
    })
    .unwrap();
}

fn ipv6_settings_are_of_one_device() {
    let (left, _right) = pair();
    left.run_in(|| {
        for (setting, other) in [
            (Ipv6Setting::AcceptRa, 0),
            (Ipv6Setting::Autoconf, 0),
            (Ipv6Setting::Forwarding, 1),
            (Ipv6Setting::DisableIpv6, 1),
        ] {
            let before = sysctl::ipv6_setting("lo", setting).unwrap().unwrap();
            assert_ne!(sysctl::ipv6_setting("left", setting).unwrap(), Some(other), "{setting:?}");
            sysctl::set_ipv6("left", setting, other).unwrap();
            assert_eq!(sysctl::ipv6_setting("left", setting).unwrap(), Some(other), "{setting:?}");
            assert_eq!(sysctl::ipv6_setting("lo", setting).unwrap(), Some(before), "{setting:?} of another");
        }
        let error = sysctl::ipv6_setting("nobody", Ipv6Setting::AcceptRa).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    })
    .unwrap();
}

fn where_ipv6_is_off_ipv4_works() {
    let (left, _right) = pair();
    left.run_in(|| {
        sysctl::set_ipv6(sysctl::ALL, Ipv6Setting::DisableIpv6, 1).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.create_veth("one", "two", None).unwrap();
        let one = netlink.link("one").unwrap().unwrap().index;
        assert_eq!(sysctl::ipv6_setting("one", Ipv6Setting::DisableIpv6).unwrap(), Some(1), "as told to all");
        netlink.disable_ipv6_autoconfiguration(one).unwrap();
        netlink.add_address(Address { device: one, address: A.into(), prefix_len: 24 }).unwrap();
        netlink.set_up(one).unwrap();
        assert!(netlink.addresses().unwrap().iter().all(|address| address.address.is_ipv4()));
        let ipv6 = Address { device: one, address: "2001:db8::1".parse().unwrap(), prefix_len: 64 };
        assert_eq!(netlink.add_address(ipv6).unwrap_err().errno(), Some(libc::EACCES));
        assert!(netlink.routes(PROTOCOL).unwrap().is_empty() && netlink.rules(PROTOCOL).unwrap().is_empty());
    })
    .unwrap();
}

/// Whether it comes true within 5 s.
fn until(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if condition() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}
