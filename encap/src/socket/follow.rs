//! Follows what the kernel knows of links, routes and neighbours, for the transmitters of one thread.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::nexthop::{NextHops, Question};
use crate::linux::netlink::{self, Event, Netlink, Watch};

/// Two netlink sockets: one that is told of changes, one to ask. Neither needs privileges.
#[derive(Debug)]
pub struct Follower {
    watch: Watch,
    netlink: Netlink,
}

impl Follower {
    /// Opens the sockets in the network namespace of the calling thread, which is that of the underlay. From now on no
    /// change is missed.
    ///
    /// # Errors
    /// When the kernel refuses a socket.
    pub fn open() -> netlink::Result<Self> {
        Ok(Self { watch: Watch::open()?, netlink: Netlink::open()? })
    }

    /// Hands what has changed to `each`, which gives it to every transmitter of the thread. To be called when the
    /// descriptor is readable; it stays readable while there is more.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn read(&mut self, each: impl FnMut(&Event)) -> netlink::Result<()> {
        self.watch.read(each)
    }

    /// Asks the kernel up to `most` of the questions that wait. A question the kernel does not answer is answered with
    /// "there is none", which leaves the packets to the kernel.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        hops: &mut NextHops,
        local: IpAddr,
        device: u32,
        most: usize,
    ) {
        for _ in 0..most {
            match hops.question() {
                None => break,
                Some(Question::Link) => {
                    hops.answer_link(self.netlink.link_at(device).ok().flatten().as_ref())
                }
                Some(Question::Route(to)) => {
                    let route = self.netlink.route_from(Some(local), to, Some(device));
                    hops.answer_route(now, to, route.ok());
                }
                Some(Question::Neighbour(address)) => {
                    let neighbour = self.netlink.neighbour(device, address);
                    hops.answer_neighbour(address, neighbour.ok().flatten());
                }
            }
        }
    }
}

impl AsFd for Follower {
    /// Readable when something has changed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}
