//! Joins proxy and encap: sockets that belong to a tunnel, and what the engine counts.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use anyhow::Context as _;
use encap::config::{Isolation, Tunnel};
use encap::metrics::Counters;
use encap::privileged::Privileged;
use encap::run::Engines;
use proxy::{Page, TunnelSockets};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;

/// The running encapsulation of this process, or of another one with the same tunnels.
pub(crate) struct Carrier {
    tunnels: Vec<Tunnel>,
    service: Service,
}

enum Service {
    /// Engine and helper are ours; dropped in this order, the engine ends before its devices are taken down.
    Own { engines: Engines, counters: Arc<Counters>, privileged: Privileged },
    /// `ingre encap` has the devices.
    External,
}

impl Carrier {
    /// Sets the tunnels up and starts to carry. To be called before any thread exists.
    ///
    /// # Errors
    /// Everything that is missing on this host, with its remedy.
    pub(crate) fn start(tunnels: &[Tunnel], threads: usize) -> anyhow::Result<Self> {
        let (privileged, edges) = Privileged::start(tunnels, threads)?;
        for warning in &edges.warnings {
            crate::notice::say(warning);
        }
        let counters = Arc::new(Counters::new(tunnels.iter().map(|tunnel| tunnel.name.clone()).collect()));
        let engines = Engines::start(tunnels, edges, Arc::clone(&counters), threads, None)
            .context("cannot start the engine")?;
        Ok(Self { tunnels: tunnels.to_vec(), service: Service::Own { engines, counters, privileged } })
    }

    /// Tunnels that `ingre encap` serves.
    ///
    /// # Errors
    /// Where a tunnel cannot be used from another process.
    pub(crate) fn external(tunnels: &[Tunnel]) -> anyhow::Result<Self> {
        if let Some(tunnel) = tunnels.iter().find(|tunnel| tunnel.isolation == Isolation::Namespace) {
            anyhow::bail!(
                "the tunnel `{}` has `isolation: namespace`: its sockets can only be made by the process that \
                 serves it; use `isolation: device` with --external-encap",
                tunnel.name
            );
        }
        Ok(Self { tunnels: tunnels.to_vec(), service: Service::External })
    }

    /// A listener on a VIP of a tunnel.
    pub(crate) fn listen(&self, tunnel: &str, address: SocketAddr) -> io::Result<TcpListener> {
        let (index, tunnel) = self.find(tunnel)?;
        match (&self.service, address) {
            (Service::Own { privileged, .. }, SocketAddr::V4(address)) => {
                privileged.listen(index, address).map(TcpListener::from)
            }
            (Service::Own { .. }, SocketAddr::V6(_)) => Err(io::ErrorKind::Unsupported.into()),
            (Service::External, _) => crate::sockets::bind(address, Some(&tunnel.device)),
        }
    }

    /// What makes sockets for the proxy.
    pub(crate) fn sockets(self: &Arc<Self>) -> Sockets {
        Sockets(Arc::downgrade(self))
    }

    fn find(&self, name: &str) -> io::Result<(usize, &Tunnel)> {
        let found = self.tunnels.iter().enumerate().find(|(_, tunnel)| tunnel.name == name);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Why nothing is carried any more, once that is so; waits for it for at most a moment.
    pub(crate) fn failure(&self) -> Option<String> {
        let Service::Own { privileged, engines, .. } = &self.service else { return None };
        let (ended, failed) = (privileged.ended(), engines.failed());
        let mut watched = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&failed, PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut watched, Some(&now)).ok()?;
        if !watched[1].revents().is_empty() {
            return Some(engines.failure().unwrap_or_else(|| "an engine thread has ended".into()));
        }
        (!watched[0].revents().is_empty()).then(|| "the privileged helper has ended".into())
    }

    /// The page /tunnels: what each tunnel is and has counted, as JSON.
    pub(crate) fn page(self: &Arc<Self>) -> Page {
        let carrier = Arc::downgrade(self);
        Page {
            path: "/tunnels",
            kind: "application/json",
            text: Arc::new(move || {
                let Some(carrier) = carrier.upgrade() else { return String::new() };
                let tunnels: Vec<_> = carrier
                    .tunnels
                    .iter()
                    .enumerate()
                    .map(|(index, tunnel)| carrier.describe(index, tunnel))
                    .collect();
                let mut page = json!({ "tunnels": tunnels });
                if let Service::Own { counters, engines, .. } = &carrier.service {
                    page["unmatched"] = drops(counters.unmatched());
                    let edge = engines.edge_counters();
                    let lost = encap::run::EdgeDrop::ALL.map(|reason| (reason.name(), edge.get(reason)));
                    page["edges"] = lost.into_iter().filter(|&(_, count)| count > 0).collect();
                }
                format!("{page:#}\n")
            }),
        }
    }

    fn describe(&self, index: usize, tunnel: &Tunnel) -> serde_json::Value {
        let mut entry = json!({
            "name": tunnel.name,
            "device": tunnel.device,
            "local": tunnel.local,
            "peers": tunnel.peers,
            "key": tunnel.key,
        });
        if let Service::Own { counters, .. } = &self.service {
            let counted = counters.tunnel(index);
            entry["packets_out"] = counted.packets_out().into();
            entry["bytes_out"] = counted.bytes_out().into();
            entry["packets_in"] = counted.packets_in().into();
            entry["bytes_in"] = counted.bytes_in().into();
            entry["drops"] = drops(counted);
        }
        entry
    }

    /// The tunnels' part of /metrics.
    pub(crate) fn metrics(&self) -> String {
        let Service::Own { counters, engines, .. } = &self.service else { return String::new() };
        let mut out = String::new();
        for (name, help) in [
            ("packets", "Outer packets by tunnel and direction."),
            ("bytes", "Bytes of outer packets by tunnel and direction."),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "# HELP ingre_tunnel_{name}_total {help}\n# TYPE ingre_tunnel_{name}_total counter"
            );
            for (index, tunnel) in self.tunnels.iter().enumerate() {
                let counted = counters.tunnel(index);
                let (outward, inward) = match name {
                    "packets" => (counted.packets_out(), counted.packets_in()),
                    _ => (counted.bytes_out(), counted.bytes_in()),
                };
                for (direction, value) in [("out", outward), ("in", inward)] {
                    let _ = writeln!(
                        out,
                        "ingre_tunnel_{name}_total{{tunnel=\"{}\",direction=\"{direction}\"}} {value}",
                        tunnel.name
                    );
                }
            }
        }
        let name = "ingre_tunnel_drops_total";
        let _ =
            writeln!(out, "# HELP {name} Packets that were not forwarded, by reason.\n# TYPE {name} counter");
        for (tunnel, snapshot) in counters.snapshot() {
            for (reason, count) in snapshot.drops.iter().filter(|&&(_, count)| count > 0) {
                let (tunnel, reason) = (tunnel.unwrap_or(""), reason.name());
                let _ = writeln!(out, "{name}{{tunnel=\"{tunnel}\",reason=\"{reason}\"}} {count}");
            }
        }
        for reason in encap::run::EdgeDrop::ALL {
            let count = engines.edge_counters().get(reason);
            if count > 0 {
                let _ = writeln!(out, "{name}{{tunnel=\"\",reason=\"{}\"}} {count}", reason.name());
            }
        }
        out
    }
}

/// Makes the tunnels' sockets for as long as the tunnels are there; does not keep them.
pub(crate) struct Sockets(Weak<Carrier>);

impl TunnelSockets for Sockets {
    fn tcp_socket(&self, tunnel: &str) -> io::Result<OwnedFd> {
        let carrier = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let (index, tunnel) = carrier.find(tunnel)?;
        match &carrier.service {
            Service::Own { privileged, .. } => privileged.connect_socket(index),
            Service::External => encap::socket::open_stream(&tunnel.device),
        }
    }
}

/// For a configuration without tunnels.
pub(crate) struct NoTunnels;

impl TunnelSockets for NoTunnels {
    fn tcp_socket(&self, _: &str) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn drops(counted: &encap::metrics::TunnelCounters) -> serde_json::Value {
    encap::metrics::DropReason::all()
        .iter()
        .map(|&reason| (reason.name().to_owned(), counted.drops(reason)))
        .filter(|&(_, count)| count > 0)
        .map(|(reason, count)| (reason, serde_json::Value::from(count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
