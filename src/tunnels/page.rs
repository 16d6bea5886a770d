//! What operators see of the tunnels: the page /tunnels, which `ingre tunnels` shows, and a part of /metrics.

use std::fmt::Write as _;
use std::sync::Arc;

use encap::config::{Kind, Tunnel};
use encap::metrics::{PeerSnapshot, Snapshot};
use encap::run::EdgeDrop;
use proxy::Page;
use serde_json::{Map, Value, json};

use super::{Carrier, Service, now};

/// One of the values that are counted.
type Counted = fn(&Snapshot) -> u64;

impl Carrier {
    /// The page /tunnels: what each tunnel is and has counted, as JSON.
    pub(crate) fn page(self: &Arc<Self>) -> Page {
        let carrier = Arc::downgrade(self);
        Page {
            path: "/tunnels",
            kind: "application/json",
            text: Arc::new(move || carrier.upgrade().map_or_else(String::new, |carrier| carrier.describe())),
        }
    }

    fn describe(&self) -> String {
        let uptime = now().saturating_duration_since(self.started);
        let counted = self.snapshot();
        let of = |name: Option<&str>| {
            counted.iter().find(|(other, _)| other.as_deref() == name).map(|(_, snapshot)| snapshot)
        };
        let tunnels = self.tunnels();
        let entries = tunnels.iter().map(|tunnel| entry(tunnel, of(Some(&tunnel.name)), uptime.as_secs()));
        let mut page =
            json!({ "uptime_ms": uptime.as_millis() as u64, "tunnels": entries.collect::<Vec<_>>() });
        if let (Service::Own { engines, .. }, Some(unmatched)) = (&self.service, of(None)) {
            page["unmatched"] = drops(unmatched);
            let lost = EdgeDrop::ALL.map(|reason| (reason.name(), engines.edge_counters().get(reason)));
            page["edges"] = lost.into_iter().filter(|&(_, count)| count > 0).collect();
        }
        format!("{page:#}\n")
    }

    fn snapshot(&self) -> Vec<(Option<String>, Snapshot)> {
        match &self.service {
            Service::Own { privileged, engines, counters } => {
                // Without an answer of the helper the last one stays; that it is gone shows elsewhere.
                let _ = privileged.unsent().map(|unsent| engines.note_unsent(&unsent));
                counters.snapshot()
            }
            Service::External => Vec::new(),
        }
    }

    /// The tunnels' part of /metrics.
    pub(crate) fn metrics(&self) -> String {
        let Service::Own { engines, .. } = &self.service else { return String::new() };
        let counted = self.snapshot();
        let named = || counted.iter().filter_map(|(name, snapshot)| Some((name.as_deref()?, snapshot)));
        let mut out = String::new();
        let both: [(&str, &str, [Counted; 2]); 2] = [
            ("packets", "Outer packets", [|counted| counted.packets_out, |counted| counted.packets_in]),
            ("bytes", "Bytes of outer packets", [|counted| counted.bytes_out, |counted| counted.bytes_in]),
        ];
        for (name, what, values) in both {
            let name = format!("ingre_tunnel_{name}_total");
            head(&mut out, &name, &format!("{what} by tunnel and direction."), "counter");
            for (tunnel, counted) in named() {
                for (direction, value) in ["out", "in"].into_iter().zip(values) {
                    let value = value(counted);
                    line(&mut out, &name, &[("tunnel", tunnel), ("direction", direction)], value);
                }
            }
        }
        head(&mut out, "ingre_tunnel_flows", "Flows remembered.", "gauge");
        for (tunnel, counted) in named() {
            line(&mut out, "ingre_tunnel_flows", &[("tunnel", tunnel)], counted.flows);
        }
        let name = "ingre_tunnel_peer_path_mtu_bytes";
        head(&mut out, name, "Outer path MTU to a peer.", "gauge");
        each_peer(&counted, |tunnel, peer, address| {
            line(&mut out, name, &[("tunnel", tunnel), ("peer", address)], peer.path_mtu.into());
        });
        let name = "ingre_tunnel_peer_state";
        head(&mut out, name, "1 for the state that a peer is in.", "gauge");
        each_peer(&counted, |tunnel, peer, address| {
            let labels = [("tunnel", tunnel), ("peer", address), ("state", peer.state.name())];
            line(&mut out, name, &labels, 1);
        });
        let name = "ingre_tunnel_drops_total";
        head(&mut out, name, "Packets that were not forwarded, by reason.", "counter");
        for (tunnel, counted) in &counted {
            let tunnel = tunnel.as_deref().unwrap_or_default();
            for (reason, count) in dropped(counted) {
                line(&mut out, name, &[("tunnel", tunnel), ("reason", reason)], count);
            }
        }
        for reason in EdgeDrop::ALL {
            let count = engines.edge_counters().get(reason);
            if count > 0 {
                line(&mut out, name, &[("tunnel", ""), ("reason", reason.name())], count);
            }
        }
        out
    }
}

fn entry(tunnel: &Tunnel, counted: Option<&Snapshot>, uptime: u64) -> Value {
    let kind = match tunnel.kind {
        Kind::Gre => "gre",
        Kind::Ipip => "ipip",
        Kind::GreInUdp => "gre-in-udp",
    };
    let mut entry = json!({
        "name": tunnel.name,
        "kind": kind,
        "device": tunnel.device,
        "local": tunnel.local,
        "key": tunnel.key,
        "peers": tunnel.remotes().map(|peer| json!({ "address": peer })).collect::<Vec<_>>(),
        "peer_networks": tunnel.peer_networks,
    });
    if let Some(counted) = counted {
        entry["packets_out"] = counted.packets_out.into();
        entry["bytes_out"] = counted.bytes_out.into();
        entry["packets_in"] = counted.packets_in.into();
        entry["bytes_in"] = counted.bytes_in.into();
        entry["flows"] = counted.flows.into();
        entry["drops"] = drops(counted);
        entry["peers"] = counted.peers.iter().map(|peer| peer_entry(peer, uptime)).collect();
    }
    entry
}

fn peer_entry(peer: &PeerSnapshot, uptime: u64) -> Value {
    json!({
        "address": peer.address,
        "state": peer.state.name(),
        "path_mtu": peer.path_mtu,
        "packets_out": peer.packets_out,
        "bytes_out": peer.bytes_out,
        "packets_in": peer.packets_in,
        "bytes_in": peer.bytes_in,
        "heard_seconds_ago": peer.last_heard.map(|second| uptime.saturating_sub(second)),
    })
}

fn drops(counted: &Snapshot) -> Value {
    let entry = |(reason, count): (&str, u64)| (reason.to_owned(), Value::from(count));
    dropped(counted).map(entry).collect::<Map<_, _>>().into()
}

/// Why packets were not forwarded, and how many.
fn dropped(counted: &Snapshot) -> impl Iterator<Item = (&'static str, u64)> {
    let seen = counted.drops.iter().map(|(reason, count)| (reason.name(), *count));
    seen.chain([("device_queue_full", counted.queue_full)]).filter(|&(_, count)| count > 0)
}

fn each_peer(counted: &[(Option<String>, Snapshot)], mut show: impl FnMut(&str, &PeerSnapshot, &str)) {
    for (tunnel, counted) in counted.iter().filter_map(|(name, counted)| Some((name.as_deref()?, counted))) {
        for peer in &counted.peers {
            show(tunnel, peer, &peer.address.to_string());
        }
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Names of tunnels may hold anything that a YAML text can.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
    }
    let _ = writeln!(out, "}} {value}");
}
