//! Links, namespaces and the programs in them.

use std::os::fd::AsFd as _;

use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Ipv4Setting, Netlink};

use super::common::{A, B, Case, case, pair};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("links_can_be_made_found_changed_and_deleted", links_can_be_made_found_changed_and_deleted),
        case(
            "settings_of_a_device_can_be_changed_without_proc",
            settings_of_a_device_can_be_changed_without_proc,
        ),
        case("a_veth_reaches_the_other_namespace", a_veth_reaches_the_other_namespace),
        case("a_link_can_be_moved", a_link_can_be_moved),
        case("a_program_starts_inside_a_namespace", a_program_starts_inside_a_namespace),
    ]
}

fn links_can_be_made_found_changed_and_deleted() {
    let outside = Netlink::open().unwrap().links().unwrap();
    Namespace::new()
        .unwrap()
        .run_in(|| {
            let mut netlink = Netlink::open().unwrap();
            assert_eq!(netlink.links().unwrap().len(), 1, "only lo");
            netlink.create_veth("one", "two", None).unwrap();
            let again = netlink.create_veth("one", "three", None).unwrap_err();
            assert_eq!(again.errno(), Some(libc::EEXIST));
            assert!(
                again.to_string().starts_with("make the veth pair one and three: File exists"),
                "{again}"
            );
            let one = netlink.link("one").unwrap().unwrap();
            assert!(!one.up && one.mtu == 1500 && one.kind == libc::ARPHRD_ETHER);
            assert_eq!(netlink.link("nobody").unwrap(), None);
            netlink.set_up(one.index).unwrap();
            netlink.set_mtu(one.index, 1400).unwrap();
            let one = netlink.link_at(one.index).unwrap().unwrap();
            assert!(one.up && one.mtu == 1400);
            let refused = netlink.set_mtu(one.index, 10).unwrap_err();
            assert_eq!(refused.errno(), Some(libc::EINVAL));
            assert!(refused.to_string().contains("mtu less than device minimum"), "{refused}");
            netlink.delete_link(one.index).unwrap();
            assert_eq!(netlink.link("two").unwrap(), None, "the other end went too");
        })
        .unwrap();
    assert_eq!(Netlink::open().unwrap().links().unwrap(), outside);
}

fn settings_of_a_device_can_be_changed_without_proc() {
    Namespace::new()
        .unwrap()
        .run_in(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.create_veth("one", "two", None).unwrap();
            let one = netlink.link("one").unwrap().unwrap().index;
            let two = netlink.link("two").unwrap().unwrap().index;
            let all = [
                (Ipv4Setting::Forwarding, 1, "forwarding"),
                (Ipv4Setting::RpFilter, 2, "rp_filter"),
                (Ipv4Setting::ArpAnnounce, 2, "arp_announce"),
                (Ipv4Setting::ArpIgnore, 1, "arp_ignore"),
                (Ipv4Setting::AcceptLocal, 1, "accept_local"),
            ];
            for (setting, value, file) in all {
                let other = netlink.ipv4_setting(two, setting).unwrap();
                netlink.set_ipv4(one, &[(setting, value)]).unwrap();
                assert_eq!(netlink.ipv4_setting(one, setting).unwrap(), value, "{setting:?}");
                assert_eq!(netlink.ipv4_setting(two, setting).unwrap(), other, "{setting:?} of the other");
                // The numbers above mean what the kernel calls by these names.
                let path = format!("/proc/sys/net/ipv4/conf/one/{file}");
                assert_eq!(std::fs::read_to_string(path).unwrap().trim(), value.to_string(), "{file}");
            }
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
            assert_eq!(netlink.rp_filter_of_all().unwrap(), 2);
            netlink.disable_ipv6_autoconfiguration(one).unwrap();
        })
        .unwrap();
}

fn a_veth_reaches_the_other_namespace() {
    let (left, right) = pair();
    let listener = right.run_in(|| std::net::TcpListener::bind((B, 7000)).unwrap()).unwrap();
    left.run_in(|| std::net::TcpStream::connect((B, 7000)).unwrap()).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), A);
}

fn a_link_can_be_moved() {
    let (from, to) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    from.run_in(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink.create_veth("stays", "moves", None).unwrap();
        let moves = netlink.link("moves").unwrap().unwrap().index;
        netlink.move_link(moves, to.as_fd()).unwrap();
        assert_eq!(netlink.link("moves").unwrap(), None);
    })
    .unwrap();
    assert!(to.run_in(|| Netlink::open().unwrap().link("moves").unwrap()).unwrap().is_some());
}

fn a_program_starts_inside_a_namespace() {
    let (left, _right) = pair();
    let mut command = std::process::Command::new("cat");
    command.arg("/proc/net/dev").stdout(std::process::Stdio::piped());
    let output = left.spawn(command, rustix::process::Signal::KILL).unwrap().wait_with_output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("left:"));
}
