//! The cases, by what they are about.

mod access_log;
mod bodies;
mod cli;
mod config_errors;
mod docker;
mod drain;
mod failures;
mod fields;
mod health;
mod http2;
mod lab;
mod malformed;
mod pools;
mod reload;
mod routing;
mod sockets;
mod tls;
mod tunnel_apart;
mod tunnel_change;
mod tunnel_failure;
mod tunnel_hostile;
mod tunnel_kernel;
mod tunnel_options;
mod tunnel_privilege;
mod tunnel_services;
mod tunnel_switch;
mod tunnel_vip;
mod tunnel_wire;
mod websocket;
mod workers;

use crate::harness::{Case, Origin, Setup};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [
        access_log::cases(),
        bodies::cases(),
        cli::cases(),
        config_errors::cases(),
        docker::cases(),
        drain::cases(),
        failures::cases(),
        fields::cases(),
        health::cases(),
        http2::cases(),
        lab::cases(),
        malformed::cases(),
        pools::cases(),
        reload::cases(),
        routing::cases(),
        sockets::cases(),
        tls::cases(),
        tunnel_apart::cases(),
        tunnel_change::cases(),
        tunnel_failure::cases(),
        tunnel_hostile::cases(),
        tunnel_kernel::cases(),
        tunnel_options::cases(),
        tunnel_privilege::cases(),
        tunnel_services::cases(),
        tunnel_switch::cases(),
        tunnel_vip::cases(),
        tunnel_wire::cases(),
        websocket::cases(),
        workers::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One worker, a plain and a TLS listener, and every request to one RS that is not checked. `<listener>` and
/// `<pool>` stand for further options, `<more>` for further sections.
const SITE: &str = "\
workers: 1
admin: {address: \"127.0.0.1:0\"}
listeners:
  - {name: http, address: \"127.0.0.1:0\"<listener>}
  - {name: https, address: \"127.0.0.1:0\", tls: {development: {}}<listener>}
pools:
  - {name: rs, servers: [{address: \"<rs>\"}], health_check: {type: off}<pool>}
routes:
  - domains: [\"*\"]
    rules: [{url: /, pool: rs}]
<more>";

/// [`SITE`] in front of this RS, without further options.
fn site(origin: &Origin) -> Setup {
    site_with(origin, "", "")
}

/// [`SITE`] in front of this RS, with options of the listeners and of the pool.
fn site_with(origin: &Origin, listener: &str, pool: &str) -> Setup {
    let option = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
    Setup::new(SITE)
        .put("rs", origin.address())
        .put("listener", option(listener))
        .put("pool", option(pool))
        .put("more", "")
}
