//! One worker's sockets of one listener. The kernel gives them what is for this worker; where it cannot, because all workers
//! have the same socket or there are other ones than there were, a datagram is passed on to the worker that has its
//! connection. What is for a process that served before goes to that one, and once another one has taken over, datagrams
//! come from there.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

use super::ids::{process_of, worker_of};
use super::relay::{self, Passed, Way};

/// A datagram on its way to another worker.
pub(crate) struct Datagram {
    bytes: Bytes,
    meta: RecvMeta,
}

/// What is counted of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// To another worker.
    PassedOn,
    /// The same, but it did not fit.
    Lost,
    /// To a process that served before.
    ToPredecessor,
    /// The same, but it did not fit.
    ToPredecessorLost,
}

/// Counts so many datagrams.
pub(crate) type Count = Arc<dyn Fn(Passage, u64) + Send + Sync>;

/// The ways to the other workers, and to other processes.
pub(crate) struct Post {
    /// The number of this worker.
    pub(crate) own: usize,
    /// The boxes of all workers; what does not fit is lost, as on any network.
    pub(crate) boxes: Arc<[mpsc::Sender<Datagram>]>,
    /// What comes for this one.
    pub(crate) incoming: Mutex<mpsc::Receiver<Datagram>>,
    /// To the processes that served before.
    pub(crate) ways: Arc<[Way]>,
    /// Told of datagrams that are not this worker's.
    pub(crate) count: Count,
}

/// Where datagrams come from.
pub(crate) enum Origin {
    /// From nowhere: another process reads them still.
    Nowhere,
    /// From the network.
    Network,
    /// From the process that has taken over.
    Successor(UnixDatagram),
}

/// One worker's sockets.
pub(crate) struct Socket {
    /// At least one. What is sent goes through the first.
    inlets: Vec<Inlet>,
    /// The inlet that is asked first the next time.
    turn: AtomicUsize,
    origin: Mutex<(Origin, Option<Waker>)>,
    post: Post,
}

struct Inlet {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

/// Whose a datagram is.
#[derive(PartialEq, Eq)]
enum Owner {
    Worker(usize),
    /// By the place of its way.
    Predecessor(usize),
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Socket").field("worker", &self.post.own).finish_non_exhaustive()
    }
}

impl Socket {
    /// For use on the runtime of this thread; nothing is read yet.
    ///
    /// # Errors
    /// Where the kernel refuses what QUIC needs of a socket, or there is none.
    pub(crate) fn new(sockets: Vec<std::net::UdpSocket>, post: Post) -> io::Result<Self> {
        let mut inlets = Vec::new();
        for socket in sockets {
            let state = UdpSocketState::new((&socket).into())?;
            inlets.push(Inlet { io: tokio::net::UdpSocket::from_std(socket)?, state });
        }
        if inlets.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { inlets, turn: AtomicUsize::new(0), origin: Mutex::new((Origin::Nowhere, None)), post })
    }

    /// From now on datagrams come from here.
    pub(crate) fn read_from(&self, origin: Origin) {
        let mut place = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        place.0 = origin;
        if let Some(waker) = place.1.take() {
            waker.wake();
        }
    }

    /// The inlet that is sent through.
    fn outlet(&self) -> &Inlet {
        &self.inlets[0]
    }

    /// Takes what other workers have passed on.
    fn poll_incoming(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> usize {
        let mut incoming = self.post.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Poll::Ready(Some(datagram)) = incoming.poll_recv(cx) else { break };
            // Both sides have the same buffers.
            let Some(place) = buf.get_mut(..datagram.bytes.len()) else { break };
            place.copy_from_slice(&datagram.bytes);
            *meta = datagram.meta;
            count += 1;
        }
        count
    }

    /// Takes what is for this worker from the network.
    fn poll_network(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut is_ready = false;
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            for number in 0..self.inlets.len() {
                let Some(inlet) = self.inlets.get((turn + number) % self.inlets.len()) else { break };
                match inlet.io.poll_recv_ready(cx)? {
                    Poll::Ready(()) => is_ready = true,
                    Poll::Pending => continue,
                }
                let receive = || inlet.state.recv((&inlet.io).into(), bufs, meta);
                // An error is that nothing is there; or what an earlier datagram of ours has met, which QUIC finds out
                // by itself.
                let Ok(received) = inlet.io.try_io(Interest::READABLE, receive) else { continue };
                let own = self.keep_own(bufs, meta, received);
                if own > 0 {
                    return Poll::Ready(Ok(own));
                }
            }
            if !is_ready {
                return Poll::Pending;
            }
        }
    }

    /// The same from the process that has taken over.
    fn poll_successor(
        &self,
        from: &UnixDatagram,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_recv_ready(cx))?;
            let mut received = 0;
            for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
                match from.try_io(Interest::READABLE, || relay::take(from, buf)) {
                    Ok(Some(of)) => *meta = of,
                    // Nobody of ours sends that.
                    Ok(None) => continue,
                    Err(_) => break,
                }
                received += 1;
            }
            let own = self.keep_own(bufs, meta, received);
            if own > 0 {
                return Poll::Ready(Ok(own));
            }
        }
    }

    fn owner(&self, datagram: &[u8]) -> Owner {
        if !self.post.ways.is_empty()
            && let Some(process) = process_of(datagram)
            && let Some(way) = self.post.ways.iter().position(|way| way.process == process && way.is_open())
        {
            return Owner::Predecessor(way);
        }
        Owner::Worker(worker_of(datagram, self.post.boxes.len()))
    }

    /// Passes on what is for others; how many of so many buffers, now the first, are for this worker.
    fn keep_own(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta], received: usize) -> usize {
        if self.post.boxes.len() <= 1 && self.post.ways.is_empty() {
            return received;
        }
        let mut own = 0;
        for number in 0..received {
            let (Some(buf), Some(of)) = (bufs.get(number), meta.get(number)) else { break };
            if self.is_own(buf.get(..of.len).unwrap_or_default(), of) {
                bufs.swap(own, number);
                meta.swap(own, number);
                own += 1;
            }
        }
        own
    }

    /// Whether all of this, one datagram or several, is for this worker; if not, it was passed on.
    fn is_own(&self, bytes: &[u8], of: &RecvMeta) -> bool {
        let datagrams = || bytes.chunks(of.stride.max(1));
        let first = self.owner(bytes);
        if datagrams().all(|datagram| self.owner(datagram) == first) {
            match first {
                Owner::Worker(worker) if worker == self.post.own => return true,
                // In one piece.
                Owner::Predecessor(way) => return !self.pass_back(way, bytes, of),
                Owner::Worker(_) => {}
            }
        }
        for datagram in datagrams() {
            let meta = RecvMeta { len: datagram.len(), stride: datagram.len(), ..*of };
            match self.owner(datagram) {
                Owner::Predecessor(way) if self.pass_back(way, datagram, &meta) => {}
                _ => self.pass_on(datagram, meta),
            }
        }
        false
    }

    /// To the worker that has its connection.
    fn pass_on(&self, datagram: &[u8], meta: RecvMeta) {
        let to = self.post.boxes.get(worker_of(datagram, self.post.boxes.len()));
        let passed_on = Datagram { bytes: Bytes::copy_from_slice(datagram), meta };
        let arrives = to.is_some_and(|to| to.try_send(passed_on).is_ok());
        (self.post.count)(if arrives { Passage::PassedOn } else { Passage::Lost }, 1);
    }

    /// To the process that has its connection; false where that is gone, so that the client is told here.
    fn pass_back(&self, way: usize, bytes: &[u8], meta: &RecvMeta) -> bool {
        let Some(way) = self.post.ways.get(way) else { return false };
        let passage = match way.pass(bytes, meta) {
            Passed::On => Passage::ToPredecessor,
            Passed::Lost => Passage::ToPredecessorLost,
            Passed::Gone => return false,
        };
        (self.post.count)(passage, bytes.chunks(meta.stride.max(1)).len() as u64);
        true
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Inlet { io, state } = self.outlet();
        io.try_io(Interest::WRITABLE, || state.send(io.into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let passed_on = self.poll_incoming(cx, bufs, meta);
        if passed_on > 0 {
            return Poll::Ready(Ok(passed_on));
        }
        let mut place = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        let (origin, waker) = &mut *place;
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        match origin {
            Origin::Nowhere => Poll::Pending,
            Origin::Network => self.poll_network(cx, bufs, meta),
            Origin::Successor(from) => self.poll_successor(from, cx, bufs, meta),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.outlet().io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.outlet().state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.outlet().state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.outlet().state.may_fragment()
    }
}

/// Waits until something can be sent.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = Arc::clone(&self.socket);
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(async move { socket.outlet().io.writable().await }));
        let writable = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(writable)
    }
}
