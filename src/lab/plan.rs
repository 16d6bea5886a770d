//! What the lab consists of: its addresses, the two configurations, and the requests worth trying.
//!
//! Pure: only texts and numbers. What they become is made in `topology` and `nodes`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

/// The ingre node's end of the GRE tunnels.
pub(super) const INGRE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The L4 node's end of the GRE tunnels.
pub(super) const L4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Where connections to the RS come from: the ingre node's address inside both tenants' tunnels.
pub(super) const INNER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// The address the client leg connects to.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The client, and the L4 node's address toward it.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(super) const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The L4 node's address toward each tenant.
pub(super) const TENANT_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The real servers of *each* tenant.
pub(super) const RS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 11)];
pub(super) const RS_PORT: u16 = 8080;

/// A GRE tunnel between the two nodes.
pub(super) struct Tunnel {
    pub(super) name: &'static str,
    pub(super) key: u32,
}

pub(super) const TENANT_A: Tunnel = Tunnel { name: "tenant-a", key: 1001 };
pub(super) const TENANT_B: Tunnel = Tunnel { name: "tenant-b", key: 1002 };
/// Carries the clients of the VIP.
pub(super) const FRONT: Tunnel = Tunnel { name: "front", key: 7 };

/// The tunnel with this name.
pub(super) fn tunnel(name: &str) -> Option<&'static Tunnel> {
    [&TENANT_A, &TENANT_B, &FRONT].into_iter().find(|tunnel| tunnel.name == name)
}

/// Name of the listener on the host, and of the socket handed in for it.
pub(super) const HTTPS: &str = "https";
/// Name of the listener on the VIP.
pub(super) const ON_VIP: &str = "vip";

/// Names on the certificate: those a plain `ingre run` puts there, and those of the domains below. Each domain is
/// named, because curl takes no wildcard right below a top-level domain.
const NAMES: &str =
    r#"[localhost, 127.0.0.1, "::1", a.localhost, b.localhost, shop.localhost, 198.51.100.10]"#;
/// Variable of the ingre node that says where certificates are kept; a path may hold characters that YAML reads
/// differently.
pub(super) const CERTIFICATES: &str = "INGRE_LAB_CERTIFICATES";

/// A request worth trying, and what comes of it.
pub(super) struct Try {
    pub(super) domain: &'static str,
    pub(super) path: &'static str,
    pub(super) status: u16,
    pub(super) why: &'static str,
}

/// From the host, in the order to try them.
pub(super) const TRIES: [Try; 8] = [
    Try { domain: "a.localhost", path: "/", status: 200, why: "tenant A: weights 20 and 10" },
    Try { domain: "b.localhost", path: "/", status: 200, why: "tenant B, the same RS addresses" },
    Try { domain: "a.localhost", path: "/api/logo.png", status: 200, why: "^~ /api/ keeps the regex out" },
    Try { domain: "a.localhost", path: "/logo.png", status: 200, why: r"~ \.(png|css)$ leads to tenant B" },
    Try { domain: "shop.localhost", path: "/", status: 200, why: "= / is tenant A" },
    Try { domain: "shop.localhost", path: "/pay/card", status: 200, why: "/pay/ is tenant B" },
    Try { domain: "shop.localhost", path: "/nothing", status: 404, why: "no rule: 404" },
    Try { domain: "localhost", path: "/", status: 200, why: "the default domain" },
];

/// The configuration of the ingre node.
pub(super) fn ingre(https: SocketAddr, admin: SocketAddr) -> String {
    let mut text = format!(
        r#"
listeners:
  - name: {HTTPS}
    address: "{https}"
    tls: {{development: {{directory: "${{{CERTIFICATES}}}", names: {NAMES}}}}}
  - name: {ON_VIP}
    address: {VIP}:443
    tunnel: {front}
    tls: {{development: {{directory: "${{{CERTIFICATES}}}", names: {NAMES}}}}}
admin: {{address: "{admin}"}}
drain: {{timeout: 1s}}
routes:
  - domains: [a.localhost]
    rules:
      - {{url: /, pool: a-web}}
      - {{url: "^~ /api/", pool: a-api}}
      - {{url: '~ \.(png|css)$', pool: b-files}}
  - domains: [b.localhost]
    rules: [{{url: /, pool: b-web}}]
  - domains: [shop.localhost]
    rules:
      - {{url: "= /", pool: a-web}}
      - {{url: /pay/, pool: b-web}}
  - domains: ["*"]
    rules: [{{url: /, pool: b-web}}]
tunnels:
  - {{name: {front}, local: {INGRE}, peers: [{L4}], key: {front_key}, networks: [203.0.113.0/24]}}
"#,
        front = FRONT.name,
        front_key = FRONT.key,
    );
    for Tunnel { name, key } in [TENANT_A, TENANT_B] {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  - {{name: {name}, local: {INGRE}, peers: [{L4}], key: {key}, address: {INNER}, networks: [10.0.0.0/24]}}",
        );
    }
    text.push_str("pools:\n");
    for (name, tunnel, weights) in [
        ("a-web", TENANT_A, [20, 10]),
        ("a-api", TENANT_A, [0, 10]),
        ("b-web", TENANT_B, [10, 10]),
        ("b-files", TENANT_B, [0, 10]),
    ] {
        let _ = writeln!(
            text,
            "  - name: {name}\n    tunnel: {}\n    connect_timeout: 1s\n    read_timeout: 3s\n    health_check: {{interval: 2s, timeout: 1s, \
             unhealthy_threshold: 2}}\n    servers:",
            tunnel.name
        );
        for (address, weight) in RS.into_iter().zip(weights) {
            let _ = writeln!(text, "      - {{address: \"{address}:{RS_PORT}\", weight: {weight}}}");
        }
    }
    text
}

/// The configuration of the L4 node: the other ends of the same tunnels, each forwarded to a wire of its own.
pub(super) fn l4() -> String {
    let mut text = "tunnels:\n".to_owned();
    for (tunnel, inner, device, networks) in [
        (TENANT_A, INNER, "tenant-a", "10.0.0.0/24"),
        (TENANT_B, INNER, "tenant-b", "10.0.0.0/24"),
        (FRONT, VIP, "client", "203.0.113.0/24"),
    ] {
        let Tunnel { name, key } = tunnel;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  - name: {name}\n    local: {L4}\n    peers: [{INGRE}]\n    key: {key}\n    networks: [{inner}/32]\n    \
             forward: true\n    forward_to: [{{device: {device}, networks: [{networks}]}}]",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn both_configurations_are_accepted() {
        let address = "127.0.0.1:8443".parse().unwrap();
        let text = ingre(address, address).replace(&format!("${{{CERTIFICATES}}}"), "certs");
        let config =
            crate::config::parse("ingre", &text, Path::new("")).map_err(|error| error.to_string()).unwrap();
        let keys: Vec<_> = config.tunnels.iter().map(|tunnel| tunnel.key).collect();
        assert_eq!(keys, [Some(7), Some(1001), Some(1002)]);
        assert_eq!(config.tunnels[0].vips.len(), 1);
        let config =
            crate::config::parse("l4", &l4(), Path::new("")).map_err(|error| error.to_string()).unwrap();
        assert!(config.tunnels.iter().all(|tunnel| tunnel.forward.len() == 1));
    }
}
