//! A network edge as one engine thread has it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::privileged::NetworkEdge;
use crate::socket::{IcmpReceiver, Outlet, PacketReceiver, RawSender, SendSockets, Transmitter};
use crate::wire::ip::Version;

/// The sockets of one edge that belong to one thread, and those that all share.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) interface: String,
    pub(super) link_header_bytes: usize,
    pub(super) receiver: PacketReceiver,
    pub(super) transmitter: Transmitter,
    /// Of the first thread alone, which tells the others what it hears.
    pub(super) icmp: Option<IcmpReceiver>,
    pub(super) version: Version,
    /// Only have to stay open.
    _guards: Arc<[OwnedFd]>,
}

/// Splits an edge into the parts of `threads` threads.
///
/// # Errors
/// When it was opened for another number of threads.
pub(super) fn share(edge: NetworkEdge, threads: usize) -> io::Result<Vec<Network>> {
    if edge.receivers.len() != threads {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it was opened for another number of threads",
        ));
    }
    let senders = Arc::new(SendSockets {
        raw: RawSender::new(edge.routed),
        link: edge.link,
        outlet: edge.outlet.map(|(device, takers)| Outlet::new(device, takers)),
        device: edge.device,
        local: edge.local,
    });
    let guards: Arc<[OwnedFd]> = edge.guards.into();
    let mut icmp = Some(IcmpReceiver::new(edge.icmp));
    let receivers = edge.receivers;
    let part = |receiver| {
        io::Result::Ok(Network {
            interface: edge.interface.clone(),
            link_header_bytes: edge.link_header_bytes,
            receiver: PacketReceiver::new(receiver)?,
            transmitter: Transmitter::new(Arc::clone(&senders)),
            icmp: icmp.take(),
            version: Version::of_address(edge.local),
            _guards: Arc::clone(&guards),
        })
    };
    receivers.into_iter().map(part).collect()
}
