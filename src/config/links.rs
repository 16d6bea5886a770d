//! What refers from the proxy's sections to the tunnels: checked here, since neither library knows the other.

use encap::config::Tunnel;
use proxy::config::Config;
use proxy::config::file::{ListenerFile, PoolFile};
use yaml::{Reader, Setting};

/// Notes every reference to no tunnel and every use a tunnel is not made for, and gives each tunnel the VIPs
/// of the listeners that stand on it.
pub(super) fn check(
    listeners: &[ListenerFile],
    pools: &[PoolFile],
    config: &Config,
    tunnels: &mut [Tunnel],
    reader: &mut Reader<'_>,
) {
    for (file, pool) in pools.iter().zip(&config.pools) {
        let (Some(setting), Some(name)) = (&file.tunnel, &pool.tunnel) else { continue };
        let Some(tunnel) = find(setting, name, tunnels, reader) else { continue };
        if pool.servers.iter().any(|server| tunnel.address_like(server.address.ip()).is_none()) {
            let help = format!("set `address:` of the tunnel `{name}` to one of the same family as its RS");
            reader.problem(setting.at(), "this tunnel has no address to connect from", Some(help));
        }
        for (server, setting) in pool.servers.iter().zip(&file.servers) {
            if !tunnel.networks.iter().any(|network| network.contains(&server.address.ip())) {
                let networks: Vec<_> = tunnel.networks.iter().map(ToString::to_string).collect();
                let help = format!("`networks:` of the tunnel are {}", networks.join(", "));
                let message = format!("{} is not behind the tunnel `{name}`", server.address.ip());
                reader.problem(setting.address.at(), message, Some(help));
            }
        }
    }
    for (file, listener) in listeners.iter().zip(&config.listeners) {
        let Some(setting) = &file.tunnel else { continue };
        let Some(name) = &listener.tunnel else { continue };
        if find(setting, name, tunnels, reader).is_none() {
            continue;
        }
        let vip = listener.address;
        if vip.ip().is_unspecified() {
            let help = Some("write the VIP that clients connect to".into());
            reader.problem(file.address.at(), "a listener in a tunnel needs an address of its own", help);
        }
        if let Some(tunnel) = tunnels.iter_mut().find(|tunnel| tunnel.name == *name) {
            tunnel.vips.push(vip);
        }
    }
}

fn find<'t>(
    setting: &Setting<String>,
    name: &str,
    tunnels: &'t [Tunnel],
    reader: &mut Reader<'_>,
) -> Option<&'t Tunnel> {
    let found = tunnels.iter().find(|tunnel| tunnel.name == name);
    if found.is_none() {
        reader.unknown(setting.at(), "tunnel", name, tunnels.iter().map(|tunnel| tunnel.name.as_str()));
    }
    found
}
