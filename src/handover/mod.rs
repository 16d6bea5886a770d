//! One process takes over from another: the sockets that clients arrive at go from hand to hand, so that nobody who connects
//! is refused, and the one that has served keeps its connections until they end.
//!
//! A process that serves listens at a path ([`path`]). A new one finds it there, is given everything ([`take`]), makes itself
//! ready and says so; then the old one stops reading and accepting, says `go`, and drains ([`give`]). Until then nothing has
//! changed for it, and whatever goes wrong on the other side leaves it as it was. Both know each other by their user.
//!
//! Sockets are shared, not copied: a connection or datagram that waits in one waits there for whoever is left. Packets of
//! QUIC arrive at the new process alone, which passes on what is for connections of those before it, over a pair of sockets
//! for each listener and process: so a process in the middle may end before one that is older.

mod give;
mod message;
mod path;
mod succession;
mod take;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use proxy::QuicKeys;
use rustix::event::{PollFd, PollFlags, Timespec};

pub(crate) use self::give::Event;
use self::give::Giver;
pub(crate) use self::message::Kind;
use self::path::Claim;
pub(crate) use self::succession::{Heir, Succession};
pub(crate) use self::take::{Taken, Wanted};

/// Everything that a process can hand over.
pub(crate) struct Inventory {
    pub(crate) sockets: Vec<Socket>,
    pub(crate) keys: QuicKeys,
    /// Processes before this one that have not ended.
    pub(crate) past: Vec<Past>,
}

/// A listening socket.
pub(crate) struct Socket {
    pub(crate) kind: Kind,
    /// Of its listener.
    pub(crate) name: String,
    /// Where the configuration says it listens.
    pub(crate) address: SocketAddr,
    /// And in which tunnel.
    pub(crate) tunnel: Option<String>,
    pub(crate) descriptor: OwnedFd,
}

/// A process that has handed over.
pub(crate) struct Past {
    /// What stands in its connection IDs.
    pub(crate) process: [u8; 4],
    /// Open for as long as that process is there; it sees by this whether anybody serves after it.
    pub(crate) life: OwnedFd,
    /// Where packets for it go, by the name of the listener they arrive at.
    pub(crate) ways: Vec<(String, UnixDatagram)>,
}

impl Past {
    /// Whether it has not ended.
    fn is_there(&self) -> bool {
        let mut ready = [PollFd::new(&self.life, PollFlags::empty())];
        let polled = rustix::event::poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && !ready[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }
}
