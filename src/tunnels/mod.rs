//! Joins proxy and encap: tunnels that come and go with the configuration, and sockets that belong to them.

mod page;
mod show;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use anyhow::{Context as _, bail};
use encap::config::{Isolation, Tunnel};
use encap::metrics::Counters;
use encap::privileged::{Edges, Privileged};
use encap::run::Engines;
use proxy::TunnelSockets;
use rustix::event::{PollFd, PollFlags, poll};

use crate::notice::say;

pub(crate) use self::show::{Options as ShowOptions, run as show};

/// The running encapsulation of this process, or of another one with the same tunnels.
pub(crate) struct Carrier {
    tunnels: Mutex<Vec<Tunnel>>,
    service: Service,
    started: Instant,
}

enum Service {
    /// Engine and helper are ours. Dropped in this order, the helper takes all devices down before the engine closes them
    /// one by one, which would take long.
    Own { privileged: Box<Privileged>, engines: Engines, counters: Arc<Counters> },
    /// `ingre encap` has the devices.
    External,
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Self::Own { engines, .. } = self {
            // A device that vanishes under a running engine would be a failure.
            let _ = engines.stop();
        }
    }
}

/// Tunnels that are set up and not yet carried: with privileges, and before any thread exists.
pub(crate) struct Prepared {
    tunnels: Vec<Tunnel>,
    own: Option<(Privileged, Edges, usize)>,
}

impl Prepared {
    /// Sets the tunnels up, to be carried by this process. To be called before any thread exists.
    ///
    /// # Errors
    /// Everything that is missing on this host, with its remedy.
    pub(crate) fn new(tunnels: &[Tunnel], threads: usize) -> anyhow::Result<Self> {
        let (privileged, edges) = Privileged::start(tunnels, threads)?;
        edges.warnings.iter().for_each(|warning| say(warning));
        Ok(Self { tunnels: tunnels.to_vec(), own: Some((privileged, edges, threads)) })
    }

    /// Tunnels that `ingre encap` serves.
    ///
    /// # Errors
    /// Where a tunnel cannot be used from another process.
    pub(crate) fn external(tunnels: &[Tunnel]) -> anyhow::Result<Self> {
        if let Some(tunnel) = tunnels.iter().find(|tunnel| tunnel.isolation == Isolation::Namespace) {
            bail!(
                "the tunnel `{}` has `isolation: namespace`: its sockets can only be made by the process that \
                 serves it; use `isolation: device` with --external-encap",
                tunnel.name
            );
        }
        Ok(Self { tunnels: tunnels.to_vec(), own: None })
    }

    /// A listener on a VIP of a tunnel.
    pub(crate) fn listen(&self, tunnel: &str, address: SocketAddr) -> io::Result<TcpListener> {
        match &self.own {
            Some((privileged, ..)) => privileged.listen(tunnel, address).map(TcpListener::from),
            None => crate::sockets::bind(address, Some(&find(&self.tunnels, tunnel)?.device)),
        }
    }

    /// Gives up every privilege and starts to carry. Privileges belong to threads: none that exists may keep any.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(crate) fn start(self) -> anyhow::Result<Carrier> {
        encap::linux::capability::drop_all().context("cannot give up privileges")?;
        let Self { tunnels, own } = self;
        let service = match own {
            None => Service::External,
            Some((privileged, edges, threads)) => {
                let counters = Arc::new(Counters::default());
                let engines = Engines::start(Arc::clone(&counters), threads, None)
                    .context("cannot start the engine")?;
                engines.add(edges).context("cannot start the engine")?;
                Service::Own { privileged: Box::new(privileged), engines, counters }
            }
        };
        Ok(Carrier { tunnels: Mutex::new(tunnels), service, started: now() })
    }
}

#[expect(clippy::disallowed_methods, reason = "what the operator is shown counts from here")]
fn now() -> Instant {
    Instant::now()
}

fn find<'t>(tunnels: &'t [Tunnel], name: &str) -> io::Result<&'t Tunnel> {
    let found = tunnels.iter().find(|tunnel| tunnel.name == name);
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Tunnels of a new configuration that are carried already, beside the old ones.
pub(crate) struct Change {
    tunnels: Vec<Tunnel>,
    removed: Vec<String>,
}

impl Carrier {
    /// What makes sockets for the proxy.
    pub(crate) fn sockets(self: &Arc<Self>) -> Sockets {
        Sockets(Arc::downgrade(self))
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

    /// Whether other tunnels are asked for than there are.
    pub(crate) fn differs(&self, tunnels: &[Tunnel]) -> bool {
        *self.tunnels() != tunnels
    }

    /// Brings the tunnels to what a new configuration says. Those that stay the same notice nothing; one that is
    /// changed is made anew. New and changed ones are carried when this returns, old ones until [`Carrier::finish`].
    ///
    /// # Errors
    /// Everything that is missing on this host; then the old tunnels stay, those to be changed included.
    pub(crate) fn change(&self, tunnels: &[Tunnel]) -> anyhow::Result<Change> {
        let Service::Own { privileged, engines, .. } = &self.service else {
            bail!("the tunnels are those of `ingre encap`: reload that, then restart this process");
        };
        let old = self.tunnels().clone();
        let gone = |tunnel: &&Tunnel| !tunnels.iter().any(|new| new.name == tunnel.name);
        let removed = old.iter().filter(gone).map(|tunnel| tunnel.name.clone()).collect();
        let fresh: Vec<_> = tunnels.iter().filter(|tunnel| !old.contains(tunnel)).cloned().collect();
        let changed: Vec<_> = fresh
            .iter()
            .filter_map(|new| old.iter().find(|tunnel| tunnel.name == new.name))
            .cloned()
            .collect();
        if let Some(tunnel) = old.iter().find(|tunnel| {
            let stays = tunnels.contains(tunnel);
            !stays && !tunnel.vips.is_empty()
        }) {
            bail!("the tunnel `{}` has listeners: it changes only with a restart", tunnel.name);
        }
        // A device's name and a relation exist once: the old tunnel has to go first.
        self.remove(changed.iter().map(|tunnel| &*tunnel.name))?;
        let added = privileged.add(&fresh).map_err(anyhow::Error::from).and_then(|edges| {
            edges.warnings.iter().for_each(|warning| say(warning));
            Ok(engines.add(edges)?)
        });
        if let Err(error) = added {
            let restored = privileged.add(&changed).map_err(anyhow::Error::from);
            restored
                .and_then(|edges| Ok(engines.add(edges)?))
                .context("the old tunnels cannot be restored")?;
            return Err(error);
        }
        let mut all = self.tunnels();
        all.retain(|tunnel| !fresh.iter().any(|new| new.name == tunnel.name));
        all.extend(fresh);
        drop(all);
        Ok(Change { tunnels: tunnels.to_vec(), removed })
    }

    /// Ends the tunnels that the new configuration does not have.
    ///
    /// # Errors
    /// When the engine or the helper does not answer.
    pub(crate) fn finish(&self, change: Change) -> anyhow::Result<()> {
        self.remove(change.removed.iter().map(|name| &**name))?;
        *self.tunnels() = change.tunnels;
        Ok(())
    }

    fn remove<'n>(&self, names: impl Iterator<Item = &'n str>) -> anyhow::Result<()> {
        let Service::Own { privileged, engines, .. } = &self.service else { return Ok(()) };
        let ids: Vec<_> = names.filter_map(|name| engines.find(name)).collect();
        let devices = ids.iter().map(|id| engines.remove(*id)).collect::<Result<Vec<_>, _>>()?;
        let silent = "the privileged helper does not answer";
        privileged.unplug(&ids).context(silent)?;
        drop(devices);
        ids.iter().try_for_each(|id| privileged.remove(*id)).context(silent)
    }

    fn tunnels(&self) -> MutexGuard<'_, Vec<Tunnel>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the tunnels' sockets for as long as the tunnels are there; does not keep them.
pub(crate) struct Sockets(Weak<Carrier>);

impl TunnelSockets for Sockets {
    fn tcp_socket(&self, tunnel: &str, is_v6: bool) -> io::Result<OwnedFd> {
        let carrier = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        match &carrier.service {
            Service::Own { privileged, .. } => privileged.connect_socket(tunnel, is_v6),
            Service::External => {
                let device = find(&carrier.tunnels(), tunnel)?.device.clone();
                encap::socket::open_stream(&device, is_v6)
            }
        }
    }
}

/// For a configuration without tunnels.
pub(crate) struct NoTunnels;

impl TunnelSockets for NoTunnels {
    fn tcp_socket(&self, _: &str, _: bool) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::NotFound.into())
    }
}
