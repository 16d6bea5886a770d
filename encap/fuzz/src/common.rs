//! An engine with one tunnel that has everything: a key, an own address, a listener, a forwarded network.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use encap::config::{ForwardTo, Tunnel};
use encap::engine::Engine;
use encap::metrics::Counters;

pub(super) const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
pub(super) const KEY: u32 = 7;
pub(super) const MTU: u16 = 1472;

#[expect(clippy::disallowed_methods, reason = "some instant to start from")]
pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn engine() -> Engine {
    let own = Ipv4Addr::new(100, 64, 0, 1);
    let tunnel = Tunnel {
        key: Some(KEY),
        // An engine is made for every input.
        flows: 1024,
        addresses: vec![own.into()],
        vips: vec![SocketAddr::new(own.into(), 443)],
        forward: vec![ForwardTo {
            device: "rs0".into(),
            networks: vec!["10.0.0.0/8".parse().expect("a prefix")],
        }],
        ..Tunnel::new("t", LOCAL.into(), vec![PEER.into()], vec!["0.0.0.0/0".parse().expect("a prefix")])
    };
    let counters = Counters::default();
    let mut engine = Engine::new(now(), &counters, 1);
    engine.set_tunnel(now(), 0, &tunnel, MTU, counters.add(&tunnel), true);
    engine
}
