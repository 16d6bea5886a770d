//! The engine threads: ready edges -> engine -> edges.
//!
//! Decides which thread serves which tunnel, and ends everything when one thread fails. A tunnel belongs to thread
//! (key modulo number of threads), and the receive sockets are steered the same way, so both directions of a tunnel
//! meet in one engine and nothing is passed between threads. Never looks into a packet.

mod counters;
mod worker;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::thread::CpuSet;

use crate::config::Tunnel;
use crate::engine::Engine;
use crate::metrics::Counters;
use crate::privileged::{Edges, Opened};
use crate::socket::{PacketReceiver, RawSender};

pub use counters::{EdgeCounters, EdgeDrop};
use worker::{Network, Shared, Worker};

/// Longest wait for the threads to end; each ends within one turn.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Engine threads that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The edges were opened for another number of threads or tunnels.
    #[error("the edges were opened for {opened} {what}, not for {wanted}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What the edges have.
        opened: usize,
        /// What was asked for.
        wanted: usize,
    },
    /// The kernel refused something.
    #[error("cannot {attempt}: {source}")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel returned.
        source: io::Error,
    },
}

/// The engine threads did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("{0} engine threads did not end within {STOP_PATIENCE:?}")]
pub struct StopError(usize);

/// The running engine threads. Dropping it tells them to end but does not wait; see [`Engines::stop`].
#[derive(Debug)]
pub struct Engines {
    threads: Vec<JoinHandle<()>>,
    signals: Arc<Signals>,
    edge_counters: Arc<EdgeCounters>,
    /// Closed after the threads have ended, not by the last of them: it takes the kernel some 20 ms per device.
    _shared: Arc<Shared>,
}

/// How the threads and the rest of the process tell each other that it is over.
#[derive(Debug)]
struct Signals {
    stop: OwnedFd,
    failed: OwnedFd,
    failure: Mutex<Option<String>>,
}

impl Engines {
    /// Starts `threads` threads that serve `tunnels` over `edges`. `counters` has one entry per tunnel in the same
    /// order. Thread number i runs on CPU `cpus[i % cpus.len()]`, or anywhere without a list.
    ///
    /// # Errors
    /// When the edges were opened for something else, or the kernel refuses a thread or a descriptor. A CPU that
    /// this process may not use shows in [`Engines::failed`].
    pub fn start(
        tunnels: &[Tunnel],
        edges: Edges,
        counters: Arc<Counters>,
        threads: usize,
        cpus: Option<&[usize]>,
    ) -> Result<Self, StartError> {
        let mismatch = |what, opened, wanted| StartError::Mismatch { what, opened, wanted };
        if edges.tunnels.len() != tunnels.len() {
            return Err(mismatch("tunnels", edges.tunnels.len(), tunnels.len()));
        }
        if let Some(other) = edges.networks.iter().find(|network| network.receivers.len() != threads) {
            return Err(mismatch("threads", other.receivers.len(), threads));
        }
        let signals = Arc::new(Signals::new().map_err(refused("make an event descriptor"))?);
        let edge_counters = Arc::new(EdgeCounters::default());
        let mtus: Vec<_> = edges.tunnels.iter().map(|opened| opened.mtu).collect();
        let (shared, receivers) = share(edges, threads);
        let mut engines = Self { threads: Vec::new(), signals, edge_counters, _shared: Arc::clone(&shared) };
        for (number, receivers) in receivers.into_iter().enumerate() {
            let served = |tunnel: &Tunnel| tunnel.key.unwrap_or(0) as usize % threads == number;
            let own = tunnels.iter().enumerate().filter(|(_, tunnel)| served(tunnel)).map(|(index, _)| index);
            // Every engine knows all tunnels, so that indices are the same everywhere; memory grows with use only.
            let engine = Engine::new(
                tunnels,
                &mtus,
                Arc::clone(&counters),
                RandomState::new().build_hasher().finish(),
            );
            let stop = engines.signals.stop.as_fd();
            let worker = Worker::new(
                engine,
                own.collect(),
                Arc::clone(&shared),
                receivers,
                Arc::clone(&engines.edge_counters),
                stop,
            )
            .map_err(refused("watch the descriptors of an engine thread"))?;
            let cpu = cpus.filter(|cpus| !cpus.is_empty()).map(|cpus| cpus[number % cpus.len()]);
            engines.spawn(number, cpu, worker)?;
        }
        Ok(engines)
    }

    /// A descriptor that becomes readable when a thread has failed; then the process should end.
    pub fn failed(&self) -> BorrowedFd<'_> {
        self.signals.failed.as_fd()
    }

    /// Why the first thread failed, if one has.
    pub fn failure(&self) -> Option<String> {
        self.signals.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the edges dropped.
    pub fn edge_counters(&self) -> &Arc<EdgeCounters> {
        &self.edge_counters
    }

    /// Ends all threads and waits for them; then closes the devices, which vanish. Closing takes the kernel some 20 ms
    /// per device, whoever does it.
    ///
    /// # Errors
    /// When a thread does not end within 5 seconds.
    pub fn stop(mut self) -> Result<(), StopError> {
        self.signals.stop();
        let mut patience = STOP_PATIENCE;
        let step = Duration::from_millis(5);
        while patience > Duration::ZERO && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(step);
            patience = patience.saturating_sub(step);
        }
        let (finished, running): (Vec<_>, Vec<_>) = self.threads.drain(..).partition(JoinHandle::is_finished);
        for thread in finished {
            // A panic has been caught inside and is told by `failure`.
            let _ = thread.join();
        }
        if running.is_empty() { Ok(()) } else { Err(StopError(running.len())) }
    }

    fn spawn(&mut self, number: usize, cpu: Option<usize>, mut worker: Worker) -> Result<(), StartError> {
        let signals = Arc::clone(&self.signals);
        let pinned = cpu.map(cpu_set).transpose().map_err(refused("pin an engine thread: no such CPU"))?;
        let run = move || {
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
                if let Some(pinned) = &pinned {
                    rustix::thread::sched_setaffinity(None, pinned)
                        .map_err(|error| format!("cannot run on CPU {cpu:?}: {error}"))?;
                }
                worker.run()
            }));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(text)) => signals.fail(format!("engine thread {number}: {text}")),
                Err(panic) => signals.fail(format!("engine thread {number} panicked: {}", text_of(&*panic))),
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("engine-{number}"))
            .spawn(run)
            .map_err(refused("start an engine thread"))?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.signals.stop();
    }
}

impl Signals {
    fn new() -> io::Result<Self> {
        let event = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self { stop: event()?, failed: event()?, failure: Mutex::new(None) })
    }

    /// Nobody reads it, so it stays readable for every thread.
    fn stop(&self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }

    fn fail(&self, text: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
        let _ = rustix::io::write(&self.failed, &1u64.to_ne_bytes());
    }
}

/// Splits the edges into what all threads use and what each has for itself.
fn share(edges: Edges, threads: usize) -> (Arc<Shared>, Vec<Vec<PacketReceiver>>) {
    let mut receivers: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    let mut networks = Vec::new();
    for edge in edges.networks {
        for (of_thread, socket) in receivers.iter_mut().zip(edge.receivers) {
            of_thread.push(PacketReceiver::new(socket));
        }
        networks.push(Network {
            interface: edge.interface,
            link_header_bytes: edge.link_header_bytes,
            sender: RawSender::new(edge.sender),
            _guard: edge.guard,
        });
    }
    let tunnels = edges.tunnels.into_iter().map(|Opened { tun, network, .. }| (tun, network)).collect();
    (Arc::new(Shared { tunnels, networks }), receivers)
}

fn cpu_set(cpu: usize) -> io::Result<CpuSet> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(set)
}

fn refused(attempt: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Refused { attempt, source }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
