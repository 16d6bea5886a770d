//! What keeps tunnels apart from each other and from this host: names, relations, addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use yaml::{Position, Reader};

use super::file::TunnelFile;
use super::{Isolation, Kind, Tunnel};

/// Everything that tells tunnels apart but the peer.
type Relation = (Kind, IpAddr, Option<u32>);

/// What must not come twice, with the place where it came first.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) names: HashMap<String, Position>,
    pub(super) devices: HashMap<String, Position>,
    /// The peers of each relation and the tunnels they belong to.
    relations: HashMap<Relation, Vec<(IpNet, String)>>,
}

impl Seen {
    /// Notes one peer or network of peers; refuses what another tunnel would receive as well.
    pub(super) fn relation(&mut self, tunnel: &Tunnel, peer: IpNet, at: Position, reader: &mut Reader<'_>) {
        let known = self.relations.entry((tunnel.kind, tunnel.local, tunnel.key)).or_default();
        let twice = |(other, owner): &&(IpNet, String)| {
            *other == peer || *owner != tunnel.name && (other.contains(&peer) || peer.contains(other))
        };
        if let Some((other, owner)) = known.iter().find(twice) {
            let key = tunnel.key.map_or("no key".to_owned(), |key| format!("key {key}"));
            let help = Some("give one of them another key: nothing else tells their packets apart".into());
            let message =
                format!("the tunnel `{owner}` has {}, {} and {key} already", tunnel.local, text(*other));
            reader.problem(at, message, help);
        }
        known.push((peer, tunnel.name.clone()));
    }
}

fn text(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

pub(super) fn once(
    seen: &mut HashMap<String, Position>,
    name: &str,
    what: &str,
    at: Position,
    reader: &mut Reader<'_>,
) {
    if name.is_empty() {
        reader.problem(at, format!("a {what} needs a name"), None);
    } else if let Some(first) = seen.insert(name.to_owned(), at) {
        let help = format!("the first stands in line {}; give one of them another name", first.line);
        reader.problem(at, format!("a second {what} named `{name}`"), Some(help));
    }
}

/// Programs of the host answer from a service's address without naming the tunnel: where two tunnels have the address and
/// lead to the same networks, answers to one would leave by the other.
pub(super) fn refuse_shared_services(tunnels: &[(Tunnel, &TunnelFile)], reader: &mut Reader<'_>) {
    let mut serving: HashMap<IpAddr, Vec<&Tunnel>> = HashMap::new();
    for (tunnel, file) in tunnels.iter().filter(|(tunnel, _)| tunnel.isolation == Isolation::Device) {
        for (service, setting) in tunnel.services.iter().zip(&file.services) {
            let others = serving.entry(service.address).or_default();
            if others.iter().any(|other| other.name == tunnel.name) {
                continue;
            }
            if let Some((other, network)) =
                others.iter().find_map(|other| Some((other, shared(other, tunnel, service.address)?)))
            {
                let help =
                    "give one of them another address or other networks, or write `isolation: namespace`";
                reader.problem(
                    setting.at(),
                    format!("the tunnel `{}` serves {} to {network} already", other.name, service.address),
                    Some(help.into()),
                );
            }
            others.push(tunnel);
        }
    }
}

/// A network of `first` that has something in common with one of `second`, of the family of `like`.
fn shared(first: &Tunnel, second: &Tunnel, like: IpAddr) -> Option<IpNet> {
    let mut networks = first.networks.iter().filter(|network| network.addr().is_ipv4() == like.is_ipv4());
    let meets = |network: &&IpNet| {
        second.networks.iter().any(|other| other.contains(*network) || network.contains(other))
    };
    networks.find(meets).copied()
}

/// Outer and own addresses must not be routed into a tunnel: packets would chase their own tail, and a tenant
/// could pose as a peer.
pub(super) fn refuse_captured_addresses(tunnels: &[(Tunnel, &TunnelFile)], reader: &mut Reader<'_>) {
    let outer: Vec<(IpAddr, &str)> = tunnels
        .iter()
        .flat_map(|(tunnel, _)| {
            tunnel.remotes().chain([tunnel.local]).map(|address| (address, tunnel.name.as_str()))
        })
        .collect();
    for (tunnel, file) in tunnels.iter().filter(|(tunnel, _)| tunnel.isolation == Isolation::Device) {
        for (network, setting) in tunnel.networks.iter().zip(&file.networks) {
            if let Some((address, owner)) = outer.iter().find(|(address, _)| network.contains(address)) {
                let help = "name smaller networks, or write `isolation: namespace`";
                reader.problem(
                    setting.at(),
                    format!("{network} covers {address}, an outer address of the tunnel `{owner}`"),
                    Some(help.into()),
                );
            } else if let Some(address) = tunnel.hosted().find(|address| network.contains(address)) {
                let help = "name smaller networks, another address, or write `isolation: namespace`";
                reader.problem(
                    setting.at(),
                    format!("{network} covers {address}, this node's own address in the tunnel"),
                    Some(help.into()),
                );
            }
        }
    }
}
