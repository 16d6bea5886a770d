//! One engine thread: waits for its edges, moves what is ready through the engine, to completion.
//!
//! Every turn takes a bounded number of frames per edge, so that no tunnel starves another. Packets of a turn are
//! collected in one batch per network edge and sent before the next wait.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::counters::{EdgeCounters, EdgeDrop};
use super::gather::Gather;
use super::mail::{Command, Mailbox};
use super::moderation::Turn;
use super::network::Network;
use crate::batch::Batch;
use crate::coalesce::{Coalescer, Frame, MAX_PIECES, Piece};
use crate::device::{MAX_FRAME_BYTES, Tun};
use crate::engine::{Delivery, Engine, MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT};
use crate::metrics::{Counters, TunnelCounters};
use crate::socket::{Follower, PacketReceiver, Transmitter};
use crate::wire::virtio;

/// Frames taken from one TUN device per turn, at most 1 MiB of inner packets; or so many times as many that are gathered.
const FRAMES_PER_TURN: usize = 16;
const GATHERED_FOR_ONE: usize = 4;
/// Batches taken from one receive socket per turn.
const RECEIVES_PER_TURN: usize = 4;
/// Messages of the underlay taken per turn.
const MESSAGES_PER_TURN: usize = 16;
/// A batch is sent when less than the largest frame fits; this much more is collected before.
const COLLECTED_BYTES: usize = 256 << 10;
const COLLECTED_PACKETS: usize = 256;
const EVENTS: usize = 64;
/// What the probes of one tunnel take: two for each of 65 peers, the larger of 1280 bytes.
const PROBES: usize = 130;
const PROBES_BYTES: usize = 65 * 1500;
/// How often the kernel is asked what it dropped, while there is traffic.
const DROPS_EVERY: Duration = Duration::from_secs(1);
/// An interface that is being deleted goes down first, and its name is there a moment longer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which descriptor an event is about: one of these bits and a number, or the number of a tunnel.
const STOP: u64 = 1 << 32;
const MAIL: u64 = 1 << 33;
const NETWORK: u64 = 1 << 34;
const NEXT_HOPS: u64 = 1 << 35;
const UNDERLAY: u64 = 1 << 36;

/// The state of one thread.
pub(super) struct Worker {
    number: usize,
    engine: Engine,
    unmatched: Arc<TunnelCounters>,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Device of each tunnel, and the network edge that carries it.
    tunnels: Vec<Option<(Arc<Tun>, usize)>>,
    networks: Vec<Network>,
    follower: Follower,
    /// Per network edge: the packets to be sent there.
    batches: Vec<Batch>,
    frame: Vec<u8>,
    /// Small packets that are sent as one, and that one.
    gather: Gather,
    whole: Vec<u8>,
    deliveries: Vec<Delivery>,
    coalescer: Coalescer,
    turn: Turn,
    counters: Arc<EdgeCounters>,
    epoll: OwnedFd,
    next_drops: Option<Instant>,
    /// When to see whether an interface that went down is still there.
    next_look: Option<Instant>,
}

impl Worker {
    /// Thread number `number`, without tunnels; its mailbox is the one of this number.
    pub(super) fn new(
        number: usize,
        counters: &Counters,
        mailboxes: Vec<Arc<Mailbox>>,
        edge_counters: Arc<EdgeCounters>,
        stop: BorrowedFd<'_>,
        seed: u64,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&epoll, stop, STOP)?;
        let follower = Follower::open().map_err(io::Error::other)?;
        watch(&epoll, follower.as_fd(), NEXT_HOPS)?;
        if let Some(mailbox) = mailboxes.get(number) {
            watch(&epoll, mailbox.as_fd(), MAIL)?;
        }
        Ok(Self {
            number,
            engine: Engine::new(now(), counters, seed),
            unmatched: Arc::clone(counters.unmatched()),
            mailboxes,
            tunnels: Vec::new(),
            networks: Vec::new(),
            follower,
            batches: Vec::new(),
            frame: Vec::with_capacity(MAX_FRAME_BYTES),
            gather: Gather::new(),
            whole: Vec::with_capacity(MAX_FRAME_BYTES),
            deliveries: Vec::new(),
            coalescer: Coalescer::new(crate::device::takes_datagrams()),
            turn: Turn::default(),
            counters: edge_counters,
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
                let data = event.data.u64();
                let number = data as u32 as usize;
                match data & !u64::from(u32::MAX) {
                    STOP => {
                        self.count_kernel_drops(now);
                        return Ok(());
                    }
                    MAIL => self.read_mail(now)?,
                    NETWORK => self.serve_network(now, number)?,
                    NEXT_HOPS => self.follow_next_hops()?,
                    UNDERLAY => self.hear_underlay(now, number),
                    _ => self.serve_tun(now, number)?,
                }
            }
            self.serve_timeouts(now)?;
            self.write_notices()?;
            for network in 0..self.batches.len() {
                self.flush(now, network);
            }
            if self.next_drops.is_none_or(|then| then <= now) {
                self.count_kernel_drops(now);
            }
            if let Some(wait) = std::mem::take(&mut self.turn).wait() {
                std::thread::sleep(wait);
            }
        }
    }

    fn serve_timeouts(&mut self, now: Instant) -> Result<(), String> {
        if self.engine.poll_timeout().is_some_and(|then| then <= now) {
            self.engine.handle_timeout(now);
            while let Some(tunnel) = self.engine.poll_probe(now) {
                let network = self.tunnels.get(tunnel).and_then(Option::as_ref).map(|(_, network)| *network);
                let network = network.unwrap_or(usize::MAX);
                if self.batches.get(network).is_some_and(|batch| !batch.has_room(PROBES_BYTES, PROBES)) {
                    self.flush(now, network);
                }
                let mut nowhere = Batch::new(0, 0);
                let batch = self.batches.get_mut(network).unwrap_or(&mut nowhere);
                self.engine.write_probes(now, tunnel, batch);
            }
        }
        if self.next_look.is_some_and(|then| then <= now) {
            self.next_look = None;
            self.look_for_interfaces()?;
        }
        Ok(())
    }

    /// TUN -> network.
    fn serve_tun(&mut self, now: Instant, tunnel: usize) -> Result<(), String> {
        let Some(Some((tun, network))) = self.tunnels.get(tunnel) else { return Ok(()) };
        let (tun, at) = (Arc::clone(tun), (tunnel, *network));
        let mut frame = std::mem::take(&mut self.frame);
        let result = self.read_tun(now, &tun, at, &mut frame);
        self.frame = frame;
        result
    }

    fn read_tun(
        &mut self,
        now: Instant,
        tun: &Tun,
        at: (usize, usize),
        frame: &mut Vec<u8>,
    ) -> Result<(), String> {
        let gathers = self.engine.leaves_uncut(now, at.0);
        let mut left = FRAMES_PER_TURN * GATHERED_FOR_ONE;
        while left > 0 {
            match tun.read(frame) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.send_gathered(now, at);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("device {} of a tunnel is gone: {error}", tun.name())),
            }
            if gathers && self.gather.take(frame) {
                left -= 1;
                continue;
            }
            left = left.saturating_sub(GATHERED_FOR_ONE);
            self.send_gathered(now, at)?;
            self.send_frame(now, at, frame)?;
        }
        self.turn.left();
        self.send_gathered(now, at)
    }

    fn send_gathered(&mut self, now: Instant, at: (usize, usize)) -> Result<(), String> {
        let mut whole = std::mem::take(&mut self.whole);
        let mut result = Ok(());
        while result.is_ok()
            && let Some(packets) = self.gather.next_frame(&mut whole)
        {
            self.turn.gathered(packets);
            result = self.send_frame(now, at, &mut whole);
        }
        self.whole = whole;
        result
    }

    /// Makes packets for the network of one frame of a TUN device: that of a tunnel, for the network edge that carries it.
    fn send_frame(
        &mut self,
        now: Instant,
        (tunnel, network): (usize, usize),
        frame: &mut Vec<u8>,
    ) -> Result<(), String> {
        let has_room = |batch: &Batch| batch.has_room(MAX_FRAME_BYTES_OUT, MAX_FRAME_PACKETS_OUT);
        if !self.batches.get(network).is_some_and(has_room) {
            self.flush(now, network);
        }
        if let Some(batch) = self.batches.get_mut(network) {
            self.engine.handle_tun_input(now, tunnel, frame, batch);
        }
        self.write_notices()
    }

    /// Network -> TUN.
    fn serve_network(&mut self, now: Instant, number: usize) -> Result<(), String> {
        let Self { networks, engine, deliveries, coalescer, turn, tunnels, counters, .. } = self;
        let Some(network) = networks.get_mut(number) else { return Ok(()) };
        for _ in 0..RECEIVES_PER_TURN {
            match network.receiver.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // An interface that goes down says so once; when it comes up again the socket goes on.
                Err(_) => {
                    self.next_look = Some(now + LOOK_AGAIN);
                    return self.look_for_interfaces();
                }
            }
            for (slot, frame) in network.receiver.frames().enumerate() {
                if frame.is_empty() {
                    counters.add(EdgeDrop::ReceivedTooBig, 1);
                    continue;
                }
                engine.handle_tunnel_input(now, network.link_header_bytes, frame, deliveries);
                for Delivery { tunnel, header, range } in deliveries.drain(..) {
                    let Some(packet) = frame.get(range.clone()) else { continue };
                    coalescer.push(tunnel, header, Piece { slot, range }, packet);
                }
            }
            while let Some(frame) = coalescer.next_frame(&mut network.receiver) {
                let joined = frame.pieces.get(1..).unwrap_or_default();
                turn.joined(joined.iter().map(|piece| piece.range.len()).sum());
                deliver(tunnels, counters, &frame, &network.receiver)?;
            }
        }
        if network.receiver.is_full() {
            turn.left();
        }
        Ok(())
    }

    fn follow_next_hops(&mut self) -> Result<(), String> {
        let Self { follower, networks, .. } = self;
        let told = follower.read(|event| {
            networks.iter_mut().for_each(|network| network.transmitter.handle(event));
        });
        told.map_err(|error| format!("cannot follow routes and neighbours: {error}"))
    }

    /// Messages of ICMP concern all threads: the path to a peer is that of every tunnel to it.
    fn hear_underlay(&mut self, now: Instant, number: usize) {
        let Self { networks, engine, unmatched, mailboxes, .. } = self;
        let Some(network) = networks.get_mut(number) else { return };
        let (version, Some(icmp)) = (network.version, &mut network.icmp) else { return };
        for _ in 0..MESSAGES_PER_TURN {
            let Ok((_, message)) = icmp.receive() else { return };
            match engine.handle_underlay_error(now, version, message) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(reason) => {
                    unmatched.count_drop(reason);
                    continue;
                }
            }
            for (other, mailbox) in mailboxes.iter().enumerate() {
                if other != self.number {
                    mailbox.post(Command::Underlay { version, message: message.into() });
                }
            }
        }
    }

    fn read_mail(&mut self, now: Instant) -> Result<(), String> {
        let Some(mailbox) = self.mailboxes.get(self.number) else { return Ok(()) };
        for command in mailbox.take() {
            match command {
                Command::Network(network) => self.add_network(*network).map_err(|error| error.to_string())?,
                Command::Add { id, tunnel, tun, mtu, network, counters, is_served } => {
                    self.engine.set_tunnel(now, id, &tunnel, mtu, counters, is_served);
                    let sender = self.networks.get(network).map(|network| &network.transmitter);
                    if let Some(takers) = sender.and_then(Transmitter::takers) {
                        self.engine.leave_uncut(id, takers);
                    }
                    if is_served {
                        let number = u32::try_from(id).unwrap_or(u32::MAX);
                        watch(&self.epoll, tun.as_fd(), u64::from(number))
                            .map_err(|error| error.to_string())?;
                    }
                    if self.tunnels.len() <= id {
                        self.tunnels.resize_with(id + 1, || None);
                    }
                    if let Some(place) = self.tunnels.get_mut(id) {
                        *place = Some((tun, network));
                    }
                }
                Command::Remove { id, done } => {
                    self.engine.remove_tunnel(id);
                    let tun = self.tunnels.get_mut(id).and_then(Option::take).map(|(tun, _)| tun);
                    if let Some(tun) = &tun {
                        // Only the thread that serves the tunnel watches its device.
                        let _ = epoll::delete(&self.epoll, tun);
                    }
                    let _ = done.send(tun);
                }
                Command::Underlay { version, message } => {
                    // The thread that heard it has counted it.
                    let _ = self.engine.handle_underlay_error(now, version, &message);
                }
            }
        }
        Ok(())
    }

    fn add_network(&mut self, network: Network) -> io::Result<()> {
        let number = self.networks.len() as u64;
        watch(&self.epoll, network.receiver.as_fd(), NETWORK | number)?;
        if let Some(icmp) = &network.icmp {
            watch(&self.epoll, icmp.as_fd(), UNDERLAY | number)?;
        }
        self.networks.push(network);
        self.batches.push(Batch::new(
            MAX_FRAME_BYTES_OUT + COLLECTED_BYTES,
            MAX_FRAME_PACKETS_OUT + COLLECTED_PACKETS,
        ));
        Ok(())
    }

    /// Fails when the interface of a network edge does not exist any more.
    fn look_for_interfaces(&self) -> Result<(), String> {
        for network in &self.networks {
            rustix::net::netdevice::name_to_index(&network.receiver, &network.interface)
                .map_err(|error| format!("underlay interface {} is gone: {error}", network.interface))?;
        }
        Ok(())
    }

    /// Writes the engine's own packets.
    fn write_notices(&mut self) -> Result<(), String> {
        while let Some((tunnel, frame)) = self.engine.poll_tun() {
            write(&self.tunnels, &self.counters, tunnel, &[IoSlice::new(frame)])?;
        }
        Ok(())
    }

    fn flush(&mut self, now: Instant, network: usize) {
        let (Some(batch), Some(edge)) = (self.batches.get_mut(network), self.networks.get_mut(network))
        else {
            return;
        };
        if !batch.is_empty() {
            self.counters.add_report(&edge.transmitter.send(now, batch, &mut self.follower));
            batch.clear();
        }
    }

    fn count_kernel_drops(&mut self, now: Instant) {
        for network in &self.networks {
            self.counters.add(EdgeDrop::ReceiveBufferFull, network.receiver.take_drops().unwrap_or(0));
        }
        self.next_drops = Some(now + DROPS_EVERY);
    }
}

/// Writes one frame of the coalescer.
fn deliver(
    tunnels: &[Option<(Arc<Tun>, usize)>],
    counters: &EdgeCounters,
    frame: &Frame<'_>,
    receiver: &PacketReceiver,
) -> Result<(), String> {
    let mut header = [0; virtio::LEN];
    // A virtio header always fits its own length.
    let _ = frame.header.emit(&mut header);
    let mut parts = [IoSlice::new(&[]); 1 + MAX_PIECES];
    let [first, rest @ ..] = &mut parts;
    *first = IoSlice::new(&header);
    for (part, piece) in rest.iter_mut().zip(frame.pieces) {
        *part = IoSlice::new(receiver.part(piece.slot, piece.range.clone()));
    }
    let count = 1 + frame.pieces.len();
    write(tunnels, counters, frame.tunnel, parts.get(..count).unwrap_or_default())
}

/// Writes one frame, given in parts.
fn write(
    tunnels: &[Option<(Arc<Tun>, usize)>],
    counters: &EdgeCounters,
    tunnel: usize,
    parts: &[IoSlice<'_>],
) -> Result<(), String> {
    let Some(Some((tun, _))) = tunnels.get(tunnel) else { return Ok(()) };
    match tun.write(parts) {
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

fn watch(epoll: &OwnedFd, descriptor: BorrowedFd<'_>, data: u64) -> io::Result<()> {
    Ok(epoll::add(epoll, descriptor, epoll::EventData::new_u64(data), epoll::EventFlags::IN)?)
}

#[expect(clippy::disallowed_methods, reason = "the I/O loop reads the clock for everything pure")]
fn now() -> Instant {
    Instant::now()
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
