//! The section to tunnels, all problems noted.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use yaml::{Position, Reader, Setting};

use super::file::{ForwardToFile, IsolationFile, TunnelFile};
use super::{ForwardTo, Isolation, Tunnel};

/// Longest name of a device (IFNAMSIZ less the end).
const DEVICE_NAME: usize = 15;

/// The tunnels of the section; what is wrong with them is noted in `reader`, and then the result is not to
/// be used.
pub fn read(files: &[TunnelFile], reader: &mut Reader<'_>) -> Vec<Tunnel> {
    let mut seen = Seen::default();
    let tunnels: Vec<(Tunnel, &TunnelFile)> =
        files.iter().filter_map(|file| Some((read_tunnel(file, &mut seen, reader)?, file))).collect();
    refuse_captured_addresses(&tunnels, reader);
    tunnels.into_iter().map(|(tunnel, _)| tunnel).collect()
}

/// What must not come twice, with the place where it came first.
#[derive(Default)]
struct Seen {
    names: HashMap<String, Position>,
    devices: HashMap<String, Position>,
    relations: HashMap<(Ipv4Addr, Ipv4Addr, Option<u32>), String>,
}

fn read_tunnel(file: &TunnelFile, seen: &mut Seen, reader: &mut Reader<'_>) -> Option<Tunnel> {
    let name = reader.read_or(Some(&file.name), String::new());
    once(&mut seen.names, &name, "tunnel", file.name.at(), reader);
    let device = device(file, &name, seen, reader);
    let key = file.key.as_ref().and_then(|key| reader.read(key));
    let local = reader.read(&file.local);
    let peers = peers(file, local, key, &name, seen, reader);
    let networks = networks(&file.networks, &file.name, reader);
    let forwards = reader.read_or(file.forward.as_ref(), false);
    let forward = forward(&file.forward_to, &networks, reader);
    match (&file.forward, forward.is_empty()) {
        (Some(setting), true) if forwards => reader.problem(
            setting.at(),
            "`forward: true` needs to know where to",
            Some("list devices and their networks under `forward_to:`".into()),
        ),
        (_, false) if !forwards => reader.problem(
            file.forward_to.first().map(|to| to.device.at()).unwrap_or_default(),
            "`forward_to` without `forward: true`",
            Some("write `forward: true` if this is an L4 node".into()),
        ),
        _ => {}
    }
    Some(Tunnel {
        name,
        local: local?,
        peers,
        key,
        interface: file.interface.as_ref().and_then(|interface| reader.read(interface)),
        device,
        address: file.address.as_ref().and_then(|address| reader.read(address)),
        networks,
        vips: Vec::new(),
        isolation: match file.isolation {
            Some(IsolationFile::Namespace) => Isolation::Namespace,
            Some(IsolationFile::Device) | None => Isolation::Device,
        },
        mtu: file
            .mtu
            .is_some()
            .then(|| reader.read_within(file.mtu.as_ref(), 576..=9216, u16::to_string, 1400)),
        ttl: reader.read_within(file.ttl.as_ref(), 1..=255, u8::to_string, 64),
        forward,
    })
}

fn once(seen: &mut HashMap<String, Position>, name: &str, what: &str, at: Position, reader: &mut Reader<'_>) {
    if name.is_empty() {
        reader.problem(at, format!("a {what} needs a name"), None);
    } else if let Some(first) = seen.insert(name.to_owned(), at) {
        let help = format!("the first stands in line {}; give one of them another name", first.line);
        reader.problem(at, format!("a second {what} named `{name}`"), Some(help));
    }
}

fn device(file: &TunnelFile, name: &str, seen: &mut Seen, reader: &mut Reader<'_>) -> String {
    let at = file.device.as_ref().unwrap_or(&file.name).at();
    let device = match &file.device {
        Some(device) => reader.read_or(Some(device), String::new()),
        None => {
            let mut device = format!("ig-{name}");
            device.retain(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
            device.truncate(DEVICE_NAME);
            device
        }
    };
    let sound = !matches!(device.as_str(), "" | "." | "..")
        && device.len() <= DEVICE_NAME
        && device.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%');
    if !sound {
        let help = format!("1 to {DEVICE_NAME} letters, digits, `-`, `_` or `.`");
        reader.problem(at, format!("`{device}` is no name for a device"), Some(help));
    }
    if let Some(first) = seen.devices.insert(device.clone(), at)
        && seen.names.len() > 1
    {
        let help = format!("the other stands in line {}; set `device:` for one of them", first.line);
        reader.problem(at, format!("a second tunnel with the device `{device}`"), Some(help));
    }
    device
}

fn peers(
    file: &TunnelFile,
    local: Option<Ipv4Addr>,
    key: Option<u32>,
    name: &str,
    seen: &mut Seen,
    reader: &mut Reader<'_>,
) -> Vec<Ipv4Addr> {
    if file.peers.is_empty() || file.peers.len() > 64 {
        reader.problem(file.name.at(), "a tunnel has 1 to 64 peers", Some("list them under `peers:`".into()));
    }
    if let Some(local) = local
        && (local.is_unspecified() || local.is_multicast() || local.is_broadcast())
    {
        let help = Some("write the address of this host that the L4 tier sends to".into());
        reader.problem(file.local.at(), format!("{local} is no address of a host"), help);
    }
    let mut peers = Vec::new();
    for setting in &file.peers {
        let Some(peer) = reader.read(setting) else { continue };
        if peer.is_unspecified() || peer.is_multicast() || peer.is_broadcast() {
            reader.problem(setting.at(), format!("{peer} is no address of a host"), None);
        }
        let Some(local) = local else { continue };
        if peer == local {
            let help = Some("a tunnel to itself is a loop; name the L4 node".into());
            reader.problem(setting.at(), format!("the peer {peer} is the tunnel's own local address"), help);
        }
        if let Some(other) = seen.relations.insert((local, peer, key), name.to_owned()) {
            let key = key.map_or("no key".to_owned(), |key| format!("key {key}"));
            let help = Some("give one of them another key: nothing else tells their packets apart".into());
            reader.problem(
                setting.at(),
                format!("the tunnel `{other}` has {local}, {peer} and {key} already"),
                help,
            );
        }
        peers.push(peer);
    }
    peers
}

fn networks(settings: &[Setting<Ipv4Net>], name: &Setting<String>, reader: &mut Reader<'_>) -> Vec<Ipv4Net> {
    if settings.is_empty() || settings.len() > 1024 {
        let help = Some("list what is behind the tunnel under `networks:`, such as 10.0.0.0/8".into());
        reader.problem(name.at(), "a tunnel has 1 to 1024 networks", help);
    }
    let mut networks = Vec::new();
    for setting in settings {
        let Some(network) = reader.read(setting) else { continue };
        if network.trunc() != network {
            let help = Some(format!("write {}", network.trunc()));
            reader.problem(setting.at(), format!("{network} has bits behind its prefix"), help);
        }
        networks.push(network.trunc());
    }
    networks
}

fn forward(files: &[ForwardToFile], behind: &[Ipv4Net], reader: &mut Reader<'_>) -> Vec<ForwardTo> {
    let mut forward = Vec::new();
    for file in files {
        let device = reader.read_or(Some(&file.device), String::new());
        let networks = networks(&file.networks, &file.device, reader);
        for (network, setting) in networks.iter().zip(&file.networks) {
            if let Some(other) =
                behind.iter().find(|other| other.contains(network) || network.contains(*other))
            {
                let help = Some("each network is on one side only".into());
                reader.problem(setting.at(), format!("{network} overlaps {other} behind the tunnel"), help);
            }
        }
        forward.push(ForwardTo { device, networks });
    }
    forward
}

/// Outer and own addresses must not be routed into a tunnel: packets would chase their own tail, and a tenant
/// could pose as a peer.
fn refuse_captured_addresses(tunnels: &[(Tunnel, &TunnelFile)], reader: &mut Reader<'_>) {
    let outer: Vec<(Ipv4Addr, &str)> = tunnels
        .iter()
        .flat_map(|(tunnel, _)| {
            tunnel.peers.iter().chain([&tunnel.local]).map(|&a| (a, tunnel.name.as_str()))
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
            } else if let Some(address) = tunnel.address.filter(|address| network.contains(address)) {
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
