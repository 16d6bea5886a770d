//! What changes in a network namespace: links, neighbours, routes and rules, as the kernel tells it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use super::message::{self, Answer};
use super::{BUFFER_BYTES, Link, Neighbour, NetlinkError, Result, link, neighbour};

/// Datagrams read at once; a flood must not keep the reader from its packets.
const AT_ONCE: usize = 32;

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is new or has changed.
    Link(Link),
    /// The link with this index is gone.
    LinkGone(u32),
    /// What the kernel knows of a neighbour; `NUD_NONE` when it has forgotten it.
    Neighbour(Neighbour),
    /// Some route or rule is new, gone or has changed.
    Routes,
    /// There was more than the socket could hold: anything may have changed.
    Missed,
}

/// A socket that is told of changes. Needs no privilege.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Opens a nonblocking socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let attempt = "watch links, neighbours and routes";
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is protocol 0.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
            .map_err(|error| NetlinkError::new(attempt, error))?;
        // SAFETY: a sockaddr_nl is plain numbers, for which zero is valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV6_RULE,
            libc::RTNLGRP_NEXTHOP,
        ]
        .into_iter()
        .map(|group| 1 << (group - 1))
        .sum();
        let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes of `address`, which outlives the call.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } < 0 {
            return Err(NetlinkError::new(attempt, io::Error::last_os_error()));
        }
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() })
    }

    /// Hands what has happened to `each`, a bounded part of it; the socket stays readable while there is more.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn read(&mut self, mut each: impl FnMut(&Event)) -> Result<()> {
        for _ in 0..AT_ONCE {
            // With TRUNC the length is that of the datagram, even where it did not fit.
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, len)) => match self.buffer.get(..len) {
                    Some(datagram) => {
                        message::answers(datagram).filter_map(event).for_each(|event| each(&event))
                    }
                    None => each(&Event::Missed),
                },
                Err(Errno::NOBUFS) => each(&Event::Missed),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(NetlinkError::new("hear what changes", error)),
            }
        }
        Ok(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn event(message: Answer<'_>) -> Option<Event> {
    // Bridges send messages of their own about links.
    let is_of_bridge = || message.payload.first() == Some(&(libc::AF_BRIDGE as u8));
    match message.kind {
        libc::RTM_NEWLINK if !is_of_bridge() => link::parse(message.payload).map(Event::Link),
        libc::RTM_DELLINK if !is_of_bridge() => message::u32_at(message.payload, 4).map(Event::LinkGone),
        libc::RTM_NEWNEIGH => neighbour::parse(message.payload).map(Event::Neighbour),
        libc::RTM_DELNEIGH => {
            let gone = |neighbour| Neighbour { state: libc::NUD_NONE, ..neighbour };
            neighbour::parse(message.payload).map(gone).map(Event::Neighbour)
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE | libc::RTM_NEWRULE | libc::RTM_DELRULE => {
            Some(Event::Routes)
        }
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Event::Routes),
        _ => None,
    }
}

/// linux/rtnetlink.h.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
