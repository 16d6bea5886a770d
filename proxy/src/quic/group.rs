//! The sockets of every listener, and the boxes between the workers, on their way to those workers.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Datagram;

/// Datagrams that may wait for one worker: a few milliseconds of a busy one.
const WAITING: usize = 1024;

/// What passes datagrams on: the boxes of all workers, and what comes out of the worker's own.
type Boxes = (Arc<[mpsc::Sender<Datagram>]>, mpsc::Receiver<Datagram>);

/// The sockets of every listener.
pub(crate) struct Quic(Vec<Group>);

struct Group {
    sockets: Vec<UdpSocket>,
    senders: Arc<[mpsc::Sender<Datagram>]>,
    receivers: Vec<Option<mpsc::Receiver<Datagram>>>,
}

impl Quic {
    /// One socket per worker, or one for all of them, or none; for each listener.
    pub(crate) fn new(sockets: Vec<Vec<UdpSocket>>, workers: usize) -> Self {
        let group = |sockets| {
            let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(WAITING)).unzip();
            Group { sockets, senders: senders.into(), receivers: receivers.into_iter().map(Some).collect() }
        };
        Self(sockets.into_iter().map(group).collect())
    }

    /// What the worker with this number uses: of each listener that has HTTP/3, its index, a socket and the boxes.
    ///
    /// # Errors
    /// Where descriptors have run out.
    pub(crate) fn of(&mut self, worker: usize) -> io::Result<Vec<(usize, UdpSocket, Boxes)>> {
        let mut of = Vec::new();
        for (index, group) in self.0.iter_mut().enumerate() {
            let socket = group.sockets.get(worker).or(group.sockets.first());
            let receiver = group.receivers.get_mut(worker).and_then(Option::take);
            if let (Some(socket), Some(receiver)) = (socket, receiver) {
                socket.set_nonblocking(true)?;
                of.push((index, socket.try_clone()?, (Arc::clone(&group.senders), receiver)));
            }
        }
        Ok(of)
    }
}
