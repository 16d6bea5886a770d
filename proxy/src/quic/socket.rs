//! One worker's socket. The kernel gives it what is for this worker; where it cannot, because all workers have the same
//! socket or there are other ones than there were, a datagram is passed on to the worker that has its connection.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::sync::mpsc;

use super::ids::worker_of;

/// A datagram on its way to another worker.
pub(crate) struct Datagram {
    bytes: Bytes,
    meta: RecvMeta,
}

/// The way to the other workers.
pub(crate) struct Post {
    /// The number of this worker.
    pub(crate) own: usize,
    /// The boxes of all workers; what does not fit is lost, as on any network.
    pub(crate) boxes: Arc<[mpsc::Sender<Datagram>]>,
    /// What comes for this one.
    pub(crate) incoming: Mutex<mpsc::Receiver<Datagram>>,
    /// Datagrams that were passed on, and lost.
    pub(crate) passed_on: Box<dyn Fn(bool) + Send + Sync>,
}

/// One worker's socket.
pub(crate) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    post: Post,
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Socket").field("worker", &self.post.own).finish_non_exhaustive()
    }
}

impl Socket {
    /// For use on the runtime of this thread.
    ///
    /// # Errors
    /// Where the kernel refuses what QUIC needs of a socket.
    pub(crate) fn new(socket: std::net::UdpSocket, post: Post) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { io: tokio::net::UdpSocket::from_std(socket)?, state, post })
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

    /// Passes on what is for others; how many of so many buffers, now the first, are for this worker.
    fn keep_own(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta], received: usize) -> usize {
        let workers = self.post.boxes.len();
        if workers <= 1 {
            return received;
        }
        let mut own = 0;
        for number in 0..received {
            let (Some(buf), Some(of)) = (bufs.get(number), meta.get(number).copied()) else { break };
            let datagrams = || buf.get(..of.len).unwrap_or_default().chunks(of.stride.max(1));
            if datagrams().all(|datagram| worker_of(datagram, workers) == self.post.own) {
                bufs.swap(own, number);
                meta.swap(own, number);
                own += 1;
                continue;
            }
            for datagram in datagrams() {
                let meta = RecvMeta { len: datagram.len(), stride: datagram.len(), ..of };
                let passed_on = Datagram { bytes: Bytes::copy_from_slice(datagram), meta };
                let to = self.post.boxes.get(worker_of(datagram, workers));
                let arrives = to.is_some_and(|to| to.try_send(passed_on).is_ok());
                (self.post.passed_on)(arrives);
            }
        }
        own
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit))
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
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received =
                self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), bufs, meta));
            // An error is that nothing is there; or what an earlier datagram of ours has met, which QUIC finds out by itself.
            if let Ok(received) = received {
                let own = self.keep_own(bufs, meta, received);
                if own > 0 {
                    return Poll::Ready(Ok(own));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
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
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { socket.io.writable().await }));
        let writable = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(writable)
    }
}
