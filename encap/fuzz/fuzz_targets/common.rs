//! An engine with one tunnel that has everything: a key, an own address, a listener, a forwarded network.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use encap::config::{ForwardTo, Isolation, Tunnel};
use encap::engine::Engine;
use encap::metrics::Counters;

pub const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
pub const KEY: u32 = 7;
pub const MTU: u16 = 1472;

pub fn engine() -> Engine {
    let own = Ipv4Addr::new(100, 64, 0, 1);
    let tunnel = Tunnel {
        name: "t".into(),
        local: LOCAL,
        peers: vec![PEER],
        key: Some(KEY),
        interface: None,
        device: "t0".into(),
        address: Some(own),
        networks: vec!["0.0.0.0/0".parse().expect("a prefix")],
        vips: vec![SocketAddrV4::new(own, 443)],
        isolation: Isolation::Device,
        mtu: None,
        ttl: 64,
        forward: vec![ForwardTo {
            device: "rs0".into(),
            networks: vec!["10.0.0.0/8".parse().expect("a prefix")],
        }],
    };
    Engine::new(&[tunnel], &[MTU], Arc::new(Counters::new(vec!["t".into()])), 1)
}
