//! The sockets of every listener, and the boxes between the workers, on their way to those workers.

use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::relay::{Predecessor, Way};
use super::socket::{Count, Datagram, Post};

/// Datagrams that may wait for one worker: a few milliseconds of a busy one.
const WAITING: usize = 1024;

/// The sockets of every listener.
pub(crate) struct Quic(Vec<Group>);

struct Group {
    sockets: Vec<UdpSocket>,
    ways: Arc<[Way]>,
    senders: Arc<[mpsc::Sender<Datagram>]>,
    receivers: Vec<Option<mpsc::Receiver<Datagram>>>,
}

impl Quic {
    /// The sockets of each listener, of which there may be more or fewer than workers, or none; and where packets for those
    /// go that served before.
    pub(crate) fn new(
        sockets: Vec<Vec<UdpSocket>>,
        workers: usize,
        mut predecessors: Vec<Predecessor>,
    ) -> Self {
        let group = |(index, sockets)| {
            let way = |before: &mut Predecessor| {
                let socket = before.ways.get_mut(index).and_then(Option::take)?;
                Some(Way::new(before.process, socket))
            };
            let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(WAITING)).unzip();
            Group {
                sockets,
                ways: predecessors.iter_mut().filter_map(way).collect(),
                senders: senders.into(),
                receivers: receivers.into_iter().map(Some).collect(),
            }
        };
        Self(sockets.into_iter().enumerate().map(group).collect())
    }

    /// What the worker with this number uses: of each listener that has HTTP/3, its index, at least one socket, and the ways
    /// to others.
    ///
    /// # Errors
    /// Where descriptors have run out.
    pub(crate) fn of(
        &mut self,
        worker: usize,
        count: &Count,
    ) -> io::Result<Vec<(usize, Vec<UdpSocket>, Post)>> {
        let mut of = Vec::new();
        for (index, group) in self.0.iter_mut().enumerate() {
            let (all, workers) = (group.sockets.len(), group.senders.len());
            let Some(incoming) = group.receivers.get_mut(worker).and_then(Option::take) else { continue };
            // Nobody is left out on either side: sockets without a worker would lose what comes to them, workers without
            // a socket of their own share one.
            let own: Vec<_> = if worker < all {
                group.sockets.iter().skip(worker).step_by(workers.max(1)).collect()
            } else {
                group.sockets.get(worker % all.max(1)).into_iter().collect()
            };
            if own.is_empty() {
                continue;
            }
            let mut sockets = Vec::new();
            for socket in own {
                socket.set_nonblocking(true)?;
                sockets.push(socket.try_clone()?);
            }
            let post = Post {
                own: worker,
                boxes: Arc::clone(&group.senders),
                incoming: Mutex::new(incoming),
                ways: Arc::clone(&group.ways),
                count: Arc::clone(count),
            };
            of.push((index, sockets, post));
        }
        Ok(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        for (all, workers) in [(1, 1), (1, 4), (4, 4), (2, 5), (5, 2), (7, 3)] {
            let sockets: Vec<_> = (0..all).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
            let mut quic = Quic::new(vec![Vec::new(), sockets], workers, Vec::new());
            let count: Count = Arc::new(|_, _| {});
            let mut served = Vec::new();
            for worker in 0..workers {
                let mut of = quic.of(worker, &count).unwrap();
                let (index, sockets, _) = of.pop().unwrap();
                assert!(index == 1 && of.is_empty() && !sockets.is_empty());
                served.extend(sockets.iter().map(|socket| socket.local_addr().unwrap().port()));
            }
            assert!(ports.iter().all(|port| served.contains(port)), "{all} {workers}");
            assert_eq!(served.len(), usize::max(all, workers));
        }
    }
}
