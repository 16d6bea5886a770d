//! The engine threads: ready edges -> engine -> edges.
//!
//! Decides which thread serves which tunnel, and ends everything when one thread fails. A tunnel belongs to thread
//! (key modulo number of threads), and the receive sockets are steered the same way, so both directions of a tunnel
//! meet in one engine and nothing is passed between threads. Tunnels come and go by messages to the threads, which
//! stop for none. Never looks into a packet.

mod counters;
mod gather;
mod mail;
mod moderation;
mod network;
mod worker;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::thread::CpuSet;

use crate::device::Tun;
use crate::metrics::Counters;
use crate::privileged::{Edges, Opened};

pub use counters::{EdgeCounters, EdgeDrop};
use mail::{Command, Mailbox};
use worker::Worker;

/// Longest wait for the threads to end; each ends within one turn.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Engine threads that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct StartError {
    attempt: &'static str,
    source: io::Error,
}

/// The engine threads did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("{0} engine threads did not end within {STOP_PATIENCE:?}")]
pub struct StopError(usize);

/// The running engine threads. Dropping it tells them to end but does not wait; see [`Engines::stop`]. Then it closes the
/// devices, which vanish if they are still there: closing takes the kernel some 20 ms for each.
#[derive(Debug)]
pub struct Engines {
    threads: Vec<JoinHandle<()>>,
    mailboxes: Vec<Arc<Mailbox>>,
    signals: Arc<Signals>,
    counters: Arc<Counters>,
    edge_counters: Arc<EdgeCounters>,
    /// Every device once more: the last hold on it, so that no engine thread ever closes one. It takes the kernel some
    /// 20 ms.
    tunnels: Mutex<BTreeMap<usize, (String, Arc<Tun>)>>,
}

/// How the threads and the rest of the process tell each other that it is over.
#[derive(Debug)]
struct Signals {
    stop: OwnedFd,
    failed: OwnedFd,
    failure: Mutex<Option<String>>,
}

impl Engines {
    /// Starts `threads` threads, as many as the edges will be opened for, without tunnels. Thread number i runs on CPU
    /// `cpus[i % cpus.len()]`, or anywhere without a list.
    ///
    /// # Errors
    /// When the kernel refuses a thread or a descriptor. A CPU that this process may not use shows in
    /// [`Engines::failed`].
    pub fn start(
        counters: Arc<Counters>,
        threads: usize,
        cpus: Option<&[usize]>,
    ) -> Result<Self, StartError> {
        let signals = Arc::new(Signals::new().map_err(refused("make an event descriptor"))?);
        let mut engines = Self {
            threads: Vec::new(),
            mailboxes: Vec::new(),
            signals,
            counters,
            edge_counters: Arc::default(),
            tunnels: Mutex::default(),
        };
        for _ in 0..threads {
            let mailbox = Mailbox::new().map_err(refused("make an event descriptor"))?;
            engines.mailboxes.push(Arc::new(mailbox));
        }
        for number in 0..threads {
            let seed = RandomState::new().build_hasher().finish();
            let worker = Worker::new(
                number,
                &engines.counters,
                engines.mailboxes.clone(),
                Arc::clone(&engines.edge_counters),
                engines.signals.stop.as_fd(),
                seed,
            )
            .map_err(refused("watch the descriptors of an engine thread"))?;
            let cpu = cpus.filter(|cpus| !cpus.is_empty()).map(|cpus| cpus[number % cpus.len()]);
            engines.spawn(number, cpu, worker)?;
        }
        Ok(engines)
    }

    /// Begins to carry tunnels that were made for as many threads as there are. A tunnel of a name that is there
    /// already takes the place of its counters; remove the old one first.
    ///
    /// # Errors
    /// When a network edge was opened for another number of threads.
    pub fn add(&self, edges: Edges) -> Result<(), StartError> {
        let threads = self.mailboxes.len();
        for edge in edges.networks {
            let parts = network::share(edge, threads).map_err(refused("use a network edge"))?;
            for (mailbox, part) in self.mailboxes.iter().zip(parts) {
                mailbox.post(Command::Network(Box::new(part)));
            }
        }
        for Opened { id, tunnel, tun, mtu, network } in edges.tunnels {
            let tun = Arc::new(tun);
            let counters = self.counters.add(&tunnel);
            let serving = tunnel.key.unwrap_or(0) as usize % threads;
            lock(&self.tunnels).insert(id, (tunnel.name.clone(), Arc::clone(&tun)));
            let tunnel = Arc::new(tunnel);
            for (number, mailbox) in self.mailboxes.iter().enumerate() {
                mailbox.post(Command::Add {
                    id,
                    tunnel: Arc::clone(&tunnel),
                    tun: Arc::clone(&tun),
                    mtu,
                    network,
                    counters: Arc::clone(&counters),
                    is_served: number == serving,
                });
            }
        }
        Ok(())
    }

    /// Ends a tunnel: its packets are those of an unknown peer from now on. Its device vanishes when it is dropped.
    ///
    /// # Errors
    /// When a thread does not let go of it within 5 seconds.
    pub fn remove(&self, id: usize) -> Result<Option<Arc<Tun>>, StopError> {
        let Some((name, tun)) = lock(&self.tunnels).remove(&id) else { return Ok(None) };
        let (done, released) = std::sync::mpsc::channel();
        for mailbox in &self.mailboxes {
            mailbox.post(Command::Remove { id, done: done.clone() });
        }
        drop(done);
        let mut held = self.mailboxes.len();
        while held > 0 {
            // The devices come back: no thread closes one.
            released.recv_timeout(STOP_PATIENCE).map_err(|_| StopError(held))?;
            held -= 1;
        }
        // Another tunnel of this name has been added meanwhile only if its counters are to stay.
        let again = lock(&self.tunnels).values().any(|(other, _)| *other == name);
        if !again {
            self.counters.remove(&name);
        }
        Ok(Some(tun))
    }

    /// The number of the tunnel of this name, if it is carried.
    pub fn find(&self, name: &str) -> Option<usize> {
        lock(&self.tunnels).iter().find(|(_, (other, _))| other == name).map(|(id, _)| *id)
    }

    /// Notes what the kernel has dropped because a device's queue was full, by the number of the tunnel.
    pub fn note_unsent(&self, unsent: &[(usize, u64)]) {
        let tunnels = lock(&self.tunnels);
        for (id, frames) in unsent {
            if let Some((name, _)) = tunnels.get(id) {
                self.counters.set_queue_full(name, *frames);
            }
        }
    }

    /// A descriptor that becomes readable when a thread has failed; then the process should end.
    pub fn failed(&self) -> BorrowedFd<'_> {
        self.signals.failed.as_fd()
    }

    /// Why the first thread failed, if one has.
    pub fn failure(&self) -> Option<String> {
        lock(&self.signals.failure).clone()
    }

    /// What the edges dropped.
    pub fn edge_counters(&self) -> &Arc<EdgeCounters> {
        &self.edge_counters
    }

    /// Ends all threads and waits for them. The devices are still there.
    ///
    /// # Errors
    /// When a thread does not end within 5 seconds.
    pub fn stop(&mut self) -> Result<(), StopError> {
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
        lock(&self.failure).get_or_insert(text);
        let _ = rustix::io::write(&self.failed, &1u64.to_ne_bytes());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    move |source| StartError { attempt, source }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
