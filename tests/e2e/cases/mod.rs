//! The cases, by what they are about.

mod access_log;
mod acme;
mod acme_shared;
mod admission;
mod balancing;
mod bodies;
mod capacity;
mod certificates;
mod cli;
mod client_certificates;
mod compression;
mod config_errors;
mod docker;
mod drain;
mod ejection;
mod endings;
mod examples;
mod explain;
mod failures;
mod fields;
mod handover;
mod handover_failures;
mod handover_quic;
mod health;
mod http2;
mod http2_floods;
mod http3;
mod http3_browser;
mod http3_early;
mod http3_errors;
mod http3_life;
mod interim;
mod lab;
mod malformed;
mod methods;
mod names;
mod pools;
mod reload;
mod retries;
mod routing;
mod rules;
mod sockets;
mod staples;
mod sticky;
mod tls;
mod tls_settings;
mod tunnel_apart;
mod tunnel_change;
mod tunnel_failure;
mod tunnel_hostile;
mod tunnel_kernel;
mod tunnel_lost;
mod tunnel_options;
mod tunnel_privilege;
mod tunnel_services;
mod tunnel_switch;
mod tunnel_vip;
mod tunnel_wire;
mod upstream_grpc;
mod upstream_h2;
mod upstream_tls;
mod websocket;
mod websocket_h2;
mod workers;

use crate::harness::{Case, Origin, Setup};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [
        access_log::cases(),
        acme::cases(),
        acme_shared::cases(),
        admission::cases(),
        balancing::cases(),
        bodies::cases(),
        capacity::cases(),
        certificates::cases(),
        cli::cases(),
        client_certificates::cases(),
        compression::cases(),
        config_errors::cases(),
        docker::cases(),
        drain::cases(),
        ejection::cases(),
        endings::cases(),
        examples::cases(),
        explain::cases(),
        failures::cases(),
        fields::cases(),
        handover::cases(),
        handover_failures::cases(),
        handover_quic::cases(),
        health::cases(),
        http2::cases(),
        http2_floods::cases(),
        http3::cases(),
        http3_browser::cases(),
        http3_early::cases(),
        http3_errors::cases(),
        http3_life::cases(),
        interim::cases(),
        lab::cases(),
        malformed::cases(),
        names::cases(),
        methods::cases(),
        pools::cases(),
        reload::cases(),
        retries::cases(),
        routing::cases(),
        rules::cases(),
        sockets::cases(),
        staples::cases(),
        sticky::cases(),
        tls::cases(),
        tls_settings::cases(),
        tunnel_apart::cases(),
        tunnel_change::cases(),
        tunnel_failure::cases(),
        tunnel_hostile::cases(),
        tunnel_kernel::cases(),
        tunnel_lost::cases(),
        tunnel_options::cases(),
        tunnel_privilege::cases(),
        tunnel_services::cases(),
        tunnel_switch::cases(),
        tunnel_vip::cases(),
        tunnel_wire::cases(),
        upstream_grpc::cases(),
        upstream_h2::cases(),
        upstream_tls::cases(),
        websocket::cases(),
        websocket_h2::cases(),
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
