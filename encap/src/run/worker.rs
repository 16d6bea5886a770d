//! One engine thread: waits for its edges, moves what is ready through the engine, to completion.
//!
//! Every turn takes a bounded number of frames per edge, so that no tunnel starves another. Packets of a turn are
//! collected in one batch per network edge and sent before the next wait.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::counters::{EdgeCounters, EdgeDrop};
use crate::batch::Batch;
use crate::device::{MAX_FRAME_BYTES, Tun};
use crate::engine::{Engine, MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT};
use crate::socket::{PacketReceiver, RawSender};

/// Frames taken from one TUN device per turn: at most 1 MiB of inner packets.
const FRAMES_PER_TURN: usize = 16;
/// Batches taken from one receive socket per turn.
const RECEIVES_PER_TURN: usize = 4;
/// A batch is sent when less than the largest frame fits; this much more is collected before.
const COLLECTED_BYTES: usize = 256 << 10;
const COLLECTED_PACKETS: usize = 256;
const EVENTS: usize = 64;
/// How often the kernel is asked what it dropped, while there is traffic.
const DROPS_EVERY: Duration = Duration::from_secs(1);

/// An interface that is being deleted goes down first, and its name is there a moment longer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which descriptor an event is about.
const STOP: u64 = u64::MAX;
const NETWORK: u64 = 1 << 32;

/// What all threads use.
#[derive(Debug)]
pub(super) struct Shared {
    /// Device of each tunnel, and the network edge that carries it.
    pub(super) tunnels: Vec<(Tun, usize)>,
    pub(super) networks: Vec<Network>,
}

/// A network edge without its receive sockets.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) interface: String,
    pub(super) link_header_bytes: usize,
    pub(super) sender: RawSender,
    /// Only has to stay open.
    pub(super) _guard: OwnedFd,
}

/// The state of one thread.
pub(super) struct Worker {
    engine: Engine,
    shared: Arc<Shared>,
    /// Per network edge: this thread's socket, and the packets to be sent there.
    receivers: Vec<PacketReceiver>,
    batches: Vec<Batch>,
    frame: Box<[u8]>,
    counters: Arc<EdgeCounters>,
    epoll: OwnedFd,
    next_drops: Option<Instant>,
    /// When to see whether an interface that went down is still there.
    next_look: Option<Instant>,
}

impl Worker {
    /// A thread's state that serves the devices of the tunnels `own` and receives from `receivers`.
    pub(super) fn new(
        engine: Engine,
        own: Vec<usize>,
        shared: Arc<Shared>,
        receivers: Vec<PacketReceiver>,
        counters: Arc<EdgeCounters>,
        stop: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let input = epoll::EventFlags::IN;
        epoll::add(&epoll, stop, epoll::EventData::new_u64(STOP), input)?;
        for tunnel in own {
            if let Some((tun, _)) = shared.tunnels.get(tunnel) {
                epoll::add(&epoll, tun, epoll::EventData::new_u64(tunnel as u64), input)?;
            }
        }
        for (number, receiver) in receivers.iter().enumerate() {
            epoll::add(&epoll, receiver, epoll::EventData::new_u64(NETWORK | number as u64), input)?;
        }
        let batch =
            || Batch::new(MAX_FRAME_BYTES_OUT + COLLECTED_BYTES, MAX_FRAME_PACKETS_OUT + COLLECTED_PACKETS);
        let batches = shared.networks.iter().map(|_| batch()).collect();
        let frame = vec![0; MAX_FRAME_BYTES].into_boxed_slice();
        Ok(Self {
            engine,
            shared,
            receivers,
            batches,
            frame,
            counters,
            epoll,
            next_drops: None,
            next_look: None,
        })
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// When a device or an interface is gone, or the kernel fails in a way that waiting does not cure.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let next = [self.engine.poll_timeout(), self.next_look].into_iter().flatten().min();
            let timeout = next.map(|then| timespec(then.saturating_duration_since(now())));
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("cannot wait for packets: {error}")),
            }
            let now = now();
            for event in &events {
                match event.data.u64() {
                    STOP => {
                        self.count_kernel_drops(now);
                        return Ok(());
                    }
                    data if data & NETWORK != 0 => self.serve_network(now, (data & !NETWORK) as usize)?,
                    tunnel => self.serve_tun(now, tunnel as usize)?,
                }
            }
            if self.engine.poll_timeout().is_some_and(|then| then <= now) {
                self.engine.handle_timeout(now);
            }
            if self.next_look.is_some_and(|then| then <= now) {
                self.next_look = None;
                self.look_for_interfaces()?;
            }
            self.write_notices()?;
            for network in 0..self.batches.len() {
                self.flush(network);
            }
            if self.next_drops.is_none_or(|then| then <= now) {
                self.count_kernel_drops(now);
            }
        }
    }

    /// TUN -> network.
    fn serve_tun(&mut self, now: Instant, tunnel: usize) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let Some((tun, network)) = shared.tunnels.get(tunnel) else { return Ok(()) };
        for _ in 0..FRAMES_PER_TURN {
            let len = match tun.read(&mut self.frame) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("device {} of a tunnel is gone: {error}", tun.name())),
            };
            if !self
                .batches
                .get(*network)
                .is_some_and(|batch| batch.has_room(MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT))
            {
                self.flush(*network);
            }
            let (Some(frame), Some(batch)) = (self.frame.get_mut(..len), self.batches.get_mut(*network))
            else {
                break;
            };
            self.engine.handle_tun_input(now, tunnel, frame, batch);
            self.write_notices()?;
        }
        Ok(())
    }

    /// Network -> TUN.
    fn serve_network(&mut self, now: Instant, number: usize) -> Result<(), String> {
        let (Some(receiver), Some(network)) =
            (self.receivers.get_mut(number), self.shared.networks.get(number))
        else {
            return Ok(());
        };
        for _ in 0..RECEIVES_PER_TURN {
            match receiver.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // An interface that goes down says so once; when it comes up again the socket goes on.
                Err(_) => {
                    self.next_look = Some(now + LOOK_AGAIN);
                    return self.look_for_interfaces();
                }
            }
            for frame in receiver.frames() {
                if frame.is_empty() {
                    self.counters.add(EdgeDrop::ReceivedTooBig, 1);
                    continue;
                }
                let delivery = self.engine.handle_tunnel_input(now, network.link_header_bytes, frame);
                let Some(delivery) = delivery else { continue };
                if let Some(part) = frame.get(delivery.range) {
                    write(&self.shared, &self.counters, delivery.tunnel, part)?;
                }
            }
        }
        Ok(())
    }

    /// Fails when the interface of a network edge does not exist any more.
    fn look_for_interfaces(&self) -> Result<(), String> {
        for (receiver, network) in self.receivers.iter().zip(&self.shared.networks) {
            rustix::net::netdevice::name_to_index(receiver, &network.interface)
                .map_err(|error| format!("underlay interface {} is gone: {error}", network.interface))?;
        }
        Ok(())
    }

    /// Writes the engine's own packets.
    fn write_notices(&mut self) -> Result<(), String> {
        while let Some((tunnel, frame)) = self.engine.poll_tun() {
            write(&self.shared, &self.counters, tunnel, frame)?;
        }
        Ok(())
    }

    fn flush(&mut self, network: usize) {
        let (Some(batch), Some(edge)) = (self.batches.get_mut(network), self.shared.networks.get(network))
        else {
            return;
        };
        if !batch.is_empty() {
            self.counters.add_report(&edge.sender.send(batch));
            batch.clear();
        }
    }

    fn count_kernel_drops(&mut self, now: Instant) {
        for receiver in &self.receivers {
            self.counters.add(EdgeDrop::ReceiveBufferFull, receiver.take_drops().unwrap_or(0));
        }
        self.next_drops = Some(now + DROPS_EVERY);
    }
}

fn write(shared: &Shared, counters: &EdgeCounters, tunnel: usize, frame: &[u8]) -> Result<(), String> {
    let Some((tun, _)) = shared.tunnels.get(tunnel) else { return Ok(()) };
    match tun.write(frame) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
            Err(format!("device {} of a tunnel is gone: {error}", tun.name()))
        }
        Err(_) => {
            counters.add(EdgeDrop::TunRefused, 1);
            Ok(())
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the I/O loop reads the clock for everything pure")]
fn now() -> Instant {
    Instant::now()
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
