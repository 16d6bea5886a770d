//! The helper's side: give up what is not needed, set up, hand over, serve, clean up.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Resource, Signal};

use super::check::{self, Underlay};
use super::message::{Channel, Reply, Request};
use super::setup::{MakeError, NetworkSockets, Setup};
use crate::config::Tunnel;
use crate::linux::capability::{self, Capability};
use crate::linux::signal;

/// Signals that end the parent after it has drained; the helper outlives it by a moment.
const PARENTS_OWN: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
/// Only to wake the helper; never sent by anybody else.
const PARENT_DIED: Signal = Signal::USR2;

/// Runs the helper until the parent is gone; returns the exit code.
pub(super) fn run(
    socket: OwnedFd,
    parent: Pid,
    tunnels: &[Tunnel],
    underlays: &[Underlay],
    threads: usize,
) -> i32 {
    let channel = Channel::new(socket);
    let death = match prepare(parent, tunnels) {
        Ok(death) => death,
        Err(text) => return fail(&channel, &text),
    };
    let mut setup = match Setup::new(tunnels) {
        Ok(setup) => setup,
        Err(error) => return fail(&channel, &error.to_string()),
    };
    if let Err(text) = hand_over(&channel, &mut setup, tunnels, underlays, threads) {
        drop(setup);
        return fail(&channel, &text);
    }
    serve(&channel, &setup, &death);
    0
}

fn fail(channel: &Channel, text: &str) -> i32 {
    // Without a parent there is nobody to tell.
    let _ = channel.send(&Reply::Failed { text: text.to_owned() }.encode(), &[]);
    1
}

/// Returns the descriptor that tells of the parent's death.
fn prepare(parent: Pid, tunnels: &[Tunnel]) -> Result<OwnedFd, String> {
    let text = |error: io::Error| error.to_string();
    // Visible in `ps`; a failure would not matter.
    let _ = rustix::thread::set_name(c"tunnel-helper");
    raise_descriptor_limit();
    signal::block(&PARENTS_OWN).map_err(text)?;
    let death = signal::read_instead(&[PARENT_DIED]).map_err(text)?;
    let mut kept = check::capabilities(tunnels);
    capability::raise(&kept).map_err(|error| error.to_string())?;
    if tunnels.iter().any(|tunnel| !tunnel.vips.is_empty()) {
        kept.push(Capability::NetBindService);
    }
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

/// Makes everything and sends it, each network edge before the first tunnel that uses it.
fn hand_over(
    channel: &Channel,
    setup: &mut Setup<'_>,
    tunnels: &[Tunnel],
    underlays: &[Underlay],
    threads: usize,
) -> Result<(), String> {
    let mut networks = Vec::new();
    for (tunnel, underlay) in tunnels.iter().zip(underlays) {
        let place = |error: MakeError| format!("tunnel {}: {error}", tunnel.name);
        let sent = |error: io::Error| format!("tunnel {}: hand over a descriptor: {error}", tunnel.name);
        let edge = (underlay.link.index, tunnel.local);
        let network = match networks.iter().position(|known| *known == edge) {
            Some(network) => network,
            None => {
                let sockets = setup.network(underlay, tunnel.local, threads).map_err(place)?;
                send_network(channel, &sockets).map_err(sent)?;
                networks.push(edge);
                networks.len() - 1
            }
        };
        let tun = setup.tunnel(underlay.mtu).map_err(place)?;
        let reply =
            Reply::Tunnel { device: tunnel.device.clone(), mtu: underlay.mtu, network: network as u32 };
        channel.send(&reply.encode(), &[tun.as_fd()]).map_err(sent)?;
    }
    for text in check::warnings(tunnels) {
        channel.send(&Reply::Warning { text }.encode(), &[]).map_err(|error| error.to_string())?;
    }
    channel.send(&Reply::Ready.encode(), &[]).map_err(|error| error.to_string())
}

fn send_network(channel: &Channel, sockets: &NetworkSockets) -> io::Result<()> {
    let reply = Reply::Network {
        interface: sockets.interface.clone(),
        local: sockets.local,
        link_header_bytes: sockets.link_header_bytes as u32,
    };
    let mut descriptors: Vec<_> = sockets.receivers.iter().map(|socket| socket.as_fd()).collect();
    descriptors.extend([sockets.sender.as_fd(), sockets.guard.as_fd()]);
    channel.send(&reply.encode(), &descriptors)
}

/// Answers requests until the parent closes its end or dies.
fn serve(channel: &Channel, setup: &Setup<'_>, death: &OwnedFd) {
    loop {
        let mut ready = [PollFd::new(channel, PollFlags::IN), PollFd::new(death, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if ready.last().is_some_and(|death| !death.revents().is_empty()) => return,
            Ok(_) => {}
        }
        let Ok((bytes, _)) = channel.receive(Duration::ZERO) else { return };
        // A parent that talks nonsense is no longer trusted.
        let Some(request) = Request::decode(&bytes) else { return };
        let (number, opened) = match request {
            Request::Connect { number, tunnel } => (number, setup.stream(tunnel as usize)),
            Request::Listen { number, tunnel, address } => (number, setup.listener(tunnel as usize, address)),
        };
        let answered = match opened {
            Ok(socket) => channel.send(&Reply::Socket { number }.encode(), &[socket.as_fd()]),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                channel.send(&Reply::Refused { number, errno }.encode(), &[])
            }
        };
        if answered.is_err() {
            return;
        }
    }
}
