//! The section to tunnels, all problems noted.

use std::net::IpAddr;

use ipnet::IpNet;
use yaml::{Reader, Setting};

use super::apart::{Seen, once, refuse_captured_addresses, refuse_shared_services};
use super::file::{EcnFile, ForwardToFile, FragmentFile, IsolationFile, KindFile, TransmitFile, TunnelFile};
use super::service::Service;
use super::{Ecn, FLOWS, ForwardTo, Fragment, Isolation, Kind, MTU_FLOOR_V4, MTU_FLOOR_V6, Transmit, Tunnel};

/// Longest name of a device (IFNAMSIZ less the end).
const DEVICE_NAME: usize = 15;

/// The tunnels of the section; what is wrong with them is noted in `reader`, and then the result is not to
/// be used.
pub fn read(files: &[TunnelFile], reader: &mut Reader<'_>) -> Vec<Tunnel> {
    let mut seen = Seen::default();
    let tunnels: Vec<(Tunnel, &TunnelFile)> =
        files.iter().filter_map(|file| Some((read_tunnel(file, &mut seen, reader)?, file))).collect();
    refuse_captured_addresses(&tunnels, reader);
    refuse_shared_services(&tunnels, reader);
    tunnels.into_iter().map(|(tunnel, _)| tunnel).collect()
}

fn read_tunnel(file: &TunnelFile, seen: &mut Seen, reader: &mut Reader<'_>) -> Option<Tunnel> {
    let name = reader.read_or(Some(&file.name), String::new());
    once(&mut seen.names, &name, "tunnel", file.name.at(), reader);
    let device = device(file, &name, seen, reader);
    let local = reader.read(&file.local);
    if let Some(local) = local
        && !is_host(local)
    {
        let help = Some("write the address of this host that the L4 tier sends to".into());
        reader.problem(file.local.at(), format!("{local} is no address of a host"), help);
    }
    let mut tunnel = Tunnel {
        name,
        kind: kind(file),
        // What is noted above is enough to refuse the file.
        local: local?,
        peers: Vec::new(),
        peer_networks: Vec::new(),
        reply_to: file.reply_to.as_ref().and_then(|reply_to| reader.read(reply_to)),
        key: file.key.as_ref().and_then(|key| reader.read(key)),
        checksum: reader.read_or(file.checksum.as_ref(), false),
        sequence: reader.read_or(file.sequence.as_ref(), false),
        source_port: file
            .source_port
            .is_some()
            .then(|| reader.read_within(file.source_port.as_ref(), 1..=u16::MAX, u16::to_string, 1)),
        udp_checksum: reader.read_or(file.udp_checksum.as_ref(), true),
        interface: file.interface.as_ref().and_then(|interface| reader.read(interface)),
        transmit: match file.transmit {
            Some(TransmitFile::Routed) => Transmit::Routed,
            Some(TransmitFile::Direct) | None => Transmit::Direct,
        },
        device,
        addresses: addresses(file, reader),
        networks: networks(&file.networks, &file.name, reader),
        services: services(&file.services, reader),
        vips: Vec::new(),
        isolation: match file.isolation {
            Some(IsolationFile::Namespace) => Isolation::Namespace,
            Some(IsolationFile::Device) | None => Isolation::Device,
        },
        mtu: file
            .mtu
            .is_some()
            .then(|| reader.read_within(file.mtu.as_ref(), 576..=9216, u16::to_string, 1400)),
        mtu_floor: mtu_floor(file, local?, reader),
        fragment: match file.fragment {
            Some(FragmentFile::Off) => Fragment::Off,
            Some(FragmentFile::Inner) | None => Fragment::Inner,
        },
        ttl: reader.read_within(file.ttl.as_ref(), 1..=255, u8::to_string, 64),
        dscp: file.dscp.is_some().then(|| reader.read_within(file.dscp.as_ref(), 0..=63, u8::to_string, 0)),
        ecn: match file.ecn {
            Some(EcnFile::Normal) => Ecn::Normal,
            Some(EcnFile::Compatible) | None => Ecn::Compatible,
        },
        nested: reader.read_or(file.nested.as_ref(), false),
        flows: reader.read_within(file.flows.as_ref(), 1024..=1 << 24, u32::to_string, FLOWS),
        probe: file.probe.as_ref().and_then(|probe| reader.read(probe)),
        forward: Vec::new(),
    };
    peers(file, &mut tunnel, seen, reader);
    refuse_what_the_kind_has_not(file, reader);
    check_probe(file, &tunnel, reader);
    let forwards = reader.read_or(file.forward.as_ref(), false);
    tunnel.forward = forward(&file.forward_to, &tunnel.networks, reader);
    match (&file.forward, tunnel.forward.is_empty()) {
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
    Some(tunnel)
}

fn kind(file: &TunnelFile) -> Kind {
    match file.kind {
        Some(KindFile::Ipip) => Kind::Ipip,
        Some(KindFile::GreInUdp) => Kind::GreInUdp,
        Some(KindFile::Gre) | None => Kind::Gre,
    }
}

fn is_host(address: IpAddr) -> bool {
    let odd = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        // An IPv4 address in the clothes of an IPv6 one: never on a wire.
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    !address.is_unspecified() && !address.is_multicast() && !odd
}

fn mtu_floor(file: &TunnelFile, local: IpAddr, reader: &mut Reader<'_>) -> u16 {
    let usual = if local.is_ipv4() { MTU_FLOOR_V4 } else { MTU_FLOOR_V6 };
    let least = if local.is_ipv4() { 68 } else { MTU_FLOOR_V6 };
    reader.read_within(file.mtu_floor.as_ref(), least..=9216, u16::to_string, usual)
}

fn addresses(file: &TunnelFile, reader: &mut Reader<'_>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for setting in file.address.iter().chain(&file.second_address) {
        let Some(address) = reader.read(setting) else { continue };
        if !is_host(address) {
            reader.problem(setting.at(), format!("{address} is no address of a host"), None);
        }
        if addresses.iter().any(|first| first.is_ipv4() == address.is_ipv4()) {
            let help = Some("one address per family: one IPv4 and one IPv6".into());
            reader.problem(setting.at(), "a second address of the same family", help);
        }
        addresses.push(address);
    }
    addresses
}

fn services(settings: &[Setting<String>], reader: &mut Reader<'_>) -> Vec<Service> {
    let mut services = Vec::new();
    for setting in settings {
        let Some(text) = reader.read(setting) else { continue };
        match text.parse::<Service>() {
            Ok(service) if is_host(service.address) => services.push(service),
            Ok(service) => {
                reader.problem(setting.at(), format!("{} is no address of a host", service.address), None);
            }
            Err(error) => reader.problem(setting.at(), format!("`{text}`: {error}"), None),
        }
    }
    services
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

/// Hosts and networks of the other end; both are told apart from those of the other tunnels.
fn peers(file: &TunnelFile, tunnel: &mut Tunnel, seen: &mut Seen, reader: &mut Reader<'_>) {
    if file.peers.is_empty() || file.peers.len() > 64 {
        reader.problem(file.name.at(), "a tunnel has 1 to 64 peers", Some("list them under `peers:`".into()));
    }
    for setting in &file.peers {
        let Some(peer) = reader.read(setting) else { continue };
        let network = peer.trunc();
        if network != peer {
            let help = Some(format!("write {network}"));
            reader.problem(setting.at(), format!("{peer} has bits behind its prefix"), help);
        }
        let is_single = network.prefix_len() == network.max_prefix_len();
        if is_single && !is_host(network.addr()) {
            reader.problem(setting.at(), format!("{} is no address of a host", network.addr()), None);
        }
        if network.addr().is_ipv4() != tunnel.local.is_ipv4() {
            let help = Some(format!("`local` is {}: both ends are of one family", tunnel.local));
            reader.problem(setting.at(), format!("{network} cannot be the other end"), help);
        } else if is_single && network.addr() == tunnel.local {
            let help = Some("a tunnel to itself is a loop; name the L4 node".into());
            let message = format!("the peer {} is the tunnel's own local address", tunnel.local);
            reader.problem(setting.at(), message, help);
        }
        seen.relation(tunnel, network, setting.at(), reader);
        if is_single { tunnel.peers.push(network.addr()) } else { tunnel.peer_networks.push(network) }
    }
    match (&file.reply_to, tunnel.reply_to) {
        (Some(setting), Some(reply_to)) => {
            let known = tunnel.peers.contains(&reply_to)
                || tunnel.peer_networks.iter().any(|network| network.contains(&reply_to));
            if !known {
                let help = Some("add it to `peers:`, or what it answers is refused".into());
                reader.problem(setting.at(), format!("{reply_to} is none of the peers"), help);
            } else if reply_to == tunnel.local {
                let help = Some("a tunnel to itself is a loop; name an address of the L4 tier".into());
                reader.problem(setting.at(), format!("{reply_to} is the tunnel's own local address"), help);
            }
        }
        (None, _) if !tunnel.peer_networks.is_empty() => reader.problem(
            file.peers.first().map(Setting::at).unwrap_or_default(),
            "a network of peers is only received from",
            Some("name the address that answers go to: `reply_to:`".into()),
        ),
        _ => {}
    }
}

/// Settings that mean nothing for the kind would be ignored without a word.
fn refuse_what_the_kind_has_not(file: &TunnelFile, reader: &mut Reader<'_>) {
    let kind = kind(file);
    let gre = [
        ("key", file.key.as_ref().map(Setting::at)),
        ("checksum", file.checksum.as_ref().map(Setting::at)),
        ("sequence", file.sequence.as_ref().map(Setting::at)),
    ];
    let udp = [
        ("source_port", file.source_port.as_ref().map(Setting::at)),
        ("udp_checksum", file.udp_checksum.as_ref().map(Setting::at)),
    ];
    let gre = gre.into_iter().filter(|_| kind == Kind::Ipip);
    let udp = udp.into_iter().filter(|_| kind != Kind::GreInUdp);
    for (setting, at) in gre.chain(udp) {
        if let Some(at) = at {
            let help = Some(if kind == Kind::Ipip {
                "`ipip` has no header of its own; use `kind: gre`".to_owned()
            } else {
                "it belongs to `kind: gre-in-udp`".to_owned()
            });
            reader.problem(at, format!("this kind of tunnel has no `{setting}`"), help);
        }
    }
}

fn check_probe(file: &TunnelFile, tunnel: &Tunnel, reader: &mut Reader<'_>) {
    let (Some(setting), Some(probe)) = (&file.probe, tunnel.probe) else { return };
    if !tunnel.networks.iter().any(|network| network.contains(&probe)) {
        reader.problem(setting.at(), format!("{probe} is not behind the tunnel"), None);
    }
    if tunnel.address_like(probe).is_none() {
        let help = Some("set `address:` to one of the same family".into());
        reader.problem(setting.at(), "a probe needs an address to come from", help);
    }
}

fn networks(settings: &[Setting<IpNet>], name: &Setting<String>, reader: &mut Reader<'_>) -> Vec<IpNet> {
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

fn forward(files: &[ForwardToFile], behind: &[IpNet], reader: &mut Reader<'_>) -> Vec<ForwardTo> {
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

#[cfg(test)]
mod tests {
    use yaml::{Document, Sources};

    use super::*;

    /// What is wrong with a section of one tunnel that has this beside a name and networks.
    fn problems(lines: &[&str]) -> Vec<String> {
        let text = [&["- name: t", "networks: [10.0.0.0/8]"], lines].concat().join("\n  ");
        let files: Vec<TunnelFile> = Document::new("tunnels", &text).parse().unwrap();
        let nothing = |_: &str| None;
        let missing = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let mut reader = Reader::new(Sources { variable: &nothing, file: &missing });
        read(&files, &mut reader);
        reader.into_problems().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn a_tunnel_to_itself_is_refused_in_every_form() {
        let local = "local: 192.0.2.1";
        assert_eq!(problems(&[local, "peers: [192.0.2.2]"]), [""; 0]);
        assert_eq!(problems(&[local, "peers: [192.0.2.0/24]", "reply_to: 192.0.2.9"]), [""; 0]);
        for peers in [&["peers: [192.0.2.1]"][..], &["peers: [192.0.2.0/24]", "reply_to: 192.0.2.1"]] {
            let found = problems(&[&[local], peers].concat());
            assert!(found.iter().all(|problem| problem.ends_with("the tunnel's own local address")));
            assert_eq!(found.len(), 1, "{peers:?}");
        }
    }

    #[test]
    fn mapped_addresses_are_those_of_no_host() {
        let found = problems(&["local: \"::ffff:192.0.2.1\"", "peers: [\"::ffff:192.0.2.2\"]"]);
        let expected =
            ["::ffff:192.0.2.1", "::ffff:192.0.2.2"].map(|odd| format!("{odd} is no address of a host"));
        assert_eq!(found, expected);
    }
}
