//! What changes, as the kernel tells it.

use std::net::IpAddr;

use encap::linux::netlink::{Event, Link, Neighbour, Netlink, Route, Watch};
use ipnet::IpNet;

use super::PROTOCOL;
use super::common::{Case, case, pair};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("a_watch_tells_what_changes", a_watch_tells_what_changes),
        case("a_watch_tells_that_it_missed_something", a_watch_tells_that_it_missed_something),
    ]
}

fn a_watch_tells_what_changes() {
    let (left, _right) = pair();
    left.run_in(|| {
        let mut netlink = Netlink::open().unwrap();
        let left = netlink.link("left").unwrap().unwrap();
        let device = left.index;
        let mut watch = Watch::open().unwrap();
        assert!(events(&mut watch).is_empty());
        netlink.set_mtu(device, 1400).unwrap();
        assert!(events(&mut watch).contains(&Event::Link(Link { mtu: 1400, ..left.clone() })));
        for address in ["192.0.2.9", "2001:db8::9"] {
            let address = address.parse().unwrap();
            let mac = Some([2, 0, 0, 0, 0, 9]);
            let neighbour = Neighbour { device, address, mac, state: libc::NUD_PERMANENT };
            netlink.set_neighbour(&neighbour).unwrap();
            assert_eq!(netlink.neighbour(device, address).unwrap(), Some(neighbour));
            assert!(events(&mut watch).contains(&Event::Neighbour(neighbour)));
            netlink.delete_neighbour(&neighbour).unwrap();
            assert_eq!(netlink.neighbour(device, address).unwrap(), None);
            let of_it = |event: &Event| match event {
                Event::Neighbour(neighbour) if neighbour.address == address => Some(neighbour.state),
                _ => None,
            };
            assert_eq!(events(&mut watch).iter().filter_map(of_it).next_back(), Some(libc::NUD_NONE));
            let route = Route {
                destination: IpNet::new(address, if address.is_ipv4() { 32 } else { 128 }).unwrap(),
                table: 77,
                device,
                gateway: None,
                source: None,
                protocol: PROTOCOL,
            };
            netlink.add_route(&route).unwrap();
            assert!(events(&mut watch).contains(&Event::Routes));
            netlink.delete_route(&route).unwrap();
            assert!(events(&mut watch).contains(&Event::Routes));
        }
        netlink.delete_link(device).unwrap();
        assert!(events(&mut watch).contains(&Event::LinkGone(device)));
    })
    .unwrap();
}

fn a_watch_tells_that_it_missed_something() {
    let (left, _right) = pair();
    left.run_in(|| {
        let mut netlink = Netlink::open().unwrap();
        let device = netlink.link("left").unwrap().unwrap().index;
        let mut watch = Watch::open().unwrap();
        for number in 0..2000u32 {
            let address = IpAddr::from([192, 0, 2, 9]);
            let mac = Some([2, 0, 0, 0, (number >> 8) as u8, number as u8]);
            netlink.set_neighbour(&Neighbour { device, address, mac, state: libc::NUD_PERMANENT }).unwrap();
        }
        let mut all = Vec::new();
        while !all.contains(&Event::Missed) {
            let some = events(&mut watch);
            assert!(!some.is_empty(), "after {} events", all.len());
            all.extend(some);
        }
    })
    .unwrap();
}

fn events(watch: &mut Watch) -> Vec<Event> {
    let mut events = Vec::new();
    watch.read(|event| events.push(event.clone())).unwrap();
    events
}
