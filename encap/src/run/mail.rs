//! Messages to an engine thread: rare, and never about a packet that passes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::EventfdFlags;

use super::network::Network;
use crate::config::Tunnel;
use crate::device::Tun;
use crate::metrics::TunnelCounters;
use crate::wire::ip::Version;

/// What a thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// There is one more network edge, after those that are there.
    Network(Box<Network>),
    /// There is a tunnel.
    Add {
        id: usize,
        tunnel: Arc<Tunnel>,
        tun: Arc<Tun>,
        mtu: u16,
        network: usize,
        counters: Arc<TunnelCounters>,
        /// This thread carries it; the others only know it.
        is_served: bool,
    },
    /// A tunnel ends; the device goes to `done`, to be closed by somebody who has time.
    Remove { id: usize, done: Sender<Option<Arc<Tun>>> },
    /// Another thread has heard this from the underlay.
    Underlay { version: Version, message: Box<[u8]> },
}

/// The messages that a thread has not read yet.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    /// Readable while there is a message.
    event: OwnedFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { commands: Mutex::default(), event })
    }

    pub(super) fn post(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        // It fails only when it is readable 2^64 times over.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(super) fn take(&self) -> Vec<Command> {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
