//! The helper's side: give up what is not needed, serve requests, clean up.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Resource, Signal};

use super::message::{Reply, Request};
use super::plan::Plan;
use super::setup::{EdgeKey, Heard, NetworkSockets, Setup};
use crate::linux::capability::{self, Capability};
use crate::linux::channel::Channel;
use crate::linux::signal;

/// Signals that end the parent after it has drained; the helper outlives it by a moment.
const PARENTS_OWN: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
/// Only to wake the helper; never sent by anybody else.
const PARENT_DIED: Signal = Signal::USR2;

/// Runs the helper until the parent is gone; returns the exit code. `kept` are the capabilities it needs; with `binds`
/// it keeps that for low ports too.
pub(super) fn run(socket: OwnedFd, parent: Pid, kept: &[Capability], binds: bool, threads: usize) -> i32 {
    let channel = Channel::new(socket);
    let started = prepare(parent, kept, binds).and_then(|death| {
        let setup = Setup::new().map_err(|error| error.to_string())?;
        Ok((death, Helper { channel: &channel, setup, edges: Vec::new(), threads }))
    });
    match started {
        Ok((death, mut helper)) => {
            if channel.send(&Reply::Ready.encode(), &[]).is_ok() {
                helper.serve(&death);
            }
            0
        }
        Err(text) => {
            // Without a parent there is nobody to tell.
            let _ = channel.send(&Reply::Failed { text }.encode(), &[]);
            1
        }
    }
}

/// Returns the descriptor that tells of the parent's death.
fn prepare(parent: Pid, kept: &[Capability], binds: bool) -> Result<OwnedFd, String> {
    let text = |error: io::Error| error.to_string();
    // Visible in `ps`; a failure would not matter.
    let _ = rustix::thread::set_name(c"tunnel-helper");
    raise_descriptor_limit();
    signal::block(&PARENTS_OWN).map_err(text)?;
    let death = signal::read_instead(&[PARENT_DIED]).map_err(text)?;
    capability::raise(kept).map_err(|error| error.to_string())?;
    let mut kept = kept.to_vec();
    // Where it is missing, ports from 1024 on can still be listened on.
    kept.extend(binds.then_some(Capability::NetBindService));
    capability::keep_only(&kept).map_err(|error| error.to_string())?;
    // Last, because a change of credentials can clear it.
    rustix::process::set_parent_process_death_signal(Some(PARENT_DIED))
        .map_err(|error| text(error.into()))?;
    if rustix::process::getppid() != Some(parent) {
        return Err("the parent has died".into());
    }
    Ok(death)
}

/// One namespace per tunnel can be more than the usual 1024.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

struct Helper<'a> {
    channel: &'a Channel,
    setup: Setup,
    /// Network edges that the parent has, in the order they were sent.
    edges: Vec<EdgeKey>,
    threads: usize,
}

impl Helper<'_> {
    /// Answers requests until the parent closes its end or dies.
    fn serve(&mut self, death: &OwnedFd) {
        loop {
            let mut ready = [PollFd::new(self.channel, PollFlags::IN), PollFd::new(death, PollFlags::IN)];
            match rustix::event::poll(&mut ready, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) if ready.last().is_some_and(|death| !death.revents().is_empty()) => return,
                Ok(_) => {}
            }
            let Ok((bytes, _)) = self.channel.receive(Duration::ZERO) else { return };
            // A parent that talks nonsense is no longer trusted.
            let Some(request) = Request::decode(&bytes) else { return };
            if self.answer(request).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Connect { number, tunnel, is_v6 } => {
                self.hand_over(number, self.setup.stream(tunnel, is_v6))
            }
            Request::Listen { number, tunnel, address } => {
                self.hand_over(number, self.setup.listener(tunnel, address))
            }
            Request::Add { number, tunnel, plan } => match self.add(number, tunnel, *plan) {
                Ok(()) => self.say(&Reply::Done { number }, &[]),
                Err(text) => self.say(&Reply::Impossible { number, text }, &[]),
            },
            Request::Remove { number, tunnel } => {
                self.setup.remove(tunnel);
                self.say(&Reply::Done { number }, &[])
            }
            Request::Unplug { number, tunnels } => {
                self.setup.unplug(&tunnels);
                self.say(&Reply::Done { number }, &[])
            }
            Request::Unsent { number } => {
                for (tunnel, packets) in self.setup.unsent() {
                    self.say(&Reply::Unsent { number, tunnel, packets }, &[])?;
                }
                self.say(&Reply::Done { number }, &[])
            }
        }
    }

    fn say(&self, reply: &Reply, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.channel.send(&reply.encode(), descriptors)
    }

    fn hand_over(&self, number: u32, opened: io::Result<OwnedFd>) -> io::Result<()> {
        match opened {
            Ok(socket) => self.say(&Reply::Socket { number }, &[socket.as_fd()]),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.say(&Reply::Refused { number, errno }, &[])
            }
        }
    }

    /// Makes a tunnel and sends it, its network edge first where the parent does not have that yet.
    fn add(&mut self, number: u32, id: u32, plan: Plan) -> Result<(), String> {
        let name = plan.tunnel.name.clone();
        let failed = |error: &dyn std::fmt::Display| format!("tunnel {name}: {error}");
        let sent = |error: io::Error| format!("tunnel {name}: hand over a descriptor: {error}");
        let edge = (plan.index, plan.tunnel.local, plan.tunnel.kind, plan.tunnel.transmit);
        let network = match self.edges.iter().position(|known| *known == edge) {
            Some(network) => network,
            None => {
                let sockets = self
                    .setup
                    .network(&plan, self.threads, self.heard(&plan))
                    .map_err(|error| failed(&error))?;
                self.send_network(&sockets).map_err(sent)?;
                self.edges.push(edge);
                self.edges.len() - 1
            }
        };
        let tun = self.setup.add(id, plan).map_err(|error| failed(&error))?;
        self.say(&Reply::Tunnel { number, network: network as u32 }, &[tun.as_fd()]).map_err(sent)
    }

    /// What the edges that there are hear already of what is for a tunnel.
    fn heard(&self, plan: &Plan) -> Heard {
        let here = |(index, local, ..): &&EdgeKey| (*index, *local) == (plan.index, plan.tunnel.local);
        let mut edges = self.edges.iter().filter(here).peekable();
        Heard { messages: edges.peek().is_some(), packets: edges.any(|edge| edge.2 == plan.tunnel.kind) }
    }

    fn send_network(&self, sockets: &NetworkSockets) -> io::Result<()> {
        let reply = Reply::Network {
            interface: sockets.interface.clone(),
            device: sockets.device,
            local: sockets.local,
            link_header_bytes: sockets.link_header_bytes as u32,
            on_link: sockets.link.is_some(),
            takers: sockets.outlet.as_ref().map(|(_, takers)| *takers),
            not_routed: sockets.not_routed,
        };
        let outlet = sockets.outlet.as_ref().map(|(device, _)| device);
        let senders = [&sockets.routed, &sockets.icmp].into_iter().chain(&sockets.link).chain(outlet);
        let shared = senders.chain(&sockets.guards);
        let descriptors: Vec<_> =
            sockets.receivers.iter().chain(shared).map(|socket| socket.as_fd()).collect();
        self.say(&reply, &descriptors)
    }
}
