//! What the tests of the Linux edges share.

#![allow(unreachable_pub, reason = "shared by several test programs")]

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use encap::linux::capability::{self, Capability};
use encap::linux::namespace::Namespace;
use encap::linux::netlink::{Address, Netlink, Route};
use libtest_mimic::{Arguments, Trial};

/// Address of the left end of [`pair`].
pub const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Address of the right end of [`pair`].
pub const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A case: its name and what it does.
pub type Case = (String, Box<dyn FnOnce() + Send>);

/// Makes a case.
pub fn case(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Case {
    (name.into(), Box::new(body))
}

/// Runs the cases one after the other. Without the rights they need they are shown as ignored with the reason, or
/// fail where `INGRE_TESTS=all` says that none may be left out.
pub fn run(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let needed = [Capability::NetAdmin, Capability::NetRaw, Capability::SysAdmin];
    let able = needed.into_iter().all(capability::has);
    let all = std::env::var("INGRE_TESTS").is_ok_and(|wanted| wanted == "all");
    let trials = cases.into_iter().map(|(name, body)| match (able, all) {
        (true, _) => Trial::test(name, || {
            body();
            Ok(())
        }),
        (false, true) => Trial::test(name, || Err(format!("cannot run here: {NEEDS}").into())),
        (false, false) => Trial::test(name, || Ok(())).with_kind(NEEDS).with_ignored_flag(true),
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

const NEEDS: &str = "needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN";

/// Two namespaces joined by a veth pair, `left` with 192.0.2.1 and `right` with 192.0.2.2.
pub fn pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    left.run_in(|| Netlink::open().unwrap().create_veth("left", "right", Some(right.as_fd())).unwrap())
        .unwrap();
    for (namespace, name, address) in [(&left, "left", A), (&right, "right", B)] {
        namespace
            .run_in(|| {
                let mut netlink = Netlink::open().unwrap();
                let device = netlink.link(name).unwrap().unwrap().index;
                netlink.add_address(Address { device, address: address.into(), prefix_len: 24 }).unwrap();
                netlink.set_up(device).unwrap();
                let destination = "192.0.2.0/24".parse().unwrap();
                let route = Route {
                    destination,
                    table: 254,
                    device,
                    gateway: None,
                    source: Some(address.into()),
                    protocol: 4,
                };
                netlink.add_route(&route).unwrap();
                let loopback = netlink.link("lo").unwrap().unwrap().index;
                netlink.set_up(loopback).unwrap();
            })
            .unwrap();
    }
    for (namespace, name) in [(&left, "left"), (&right, "right")] {
        namespace.run_in(|| wait_until_running(name)).unwrap();
    }
    (left, right)
}

fn wait_until_running(name: &str) {
    let mut netlink = Netlink::open().unwrap();
    for _ in 0..500 {
        if netlink.link(name).unwrap().unwrap().running {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{name} has no carrier after 5 s");
}
