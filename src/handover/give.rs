//! The side of the process that hands over: for as long as it serves, and, where the one that has taken over is gone, for as
//! long as it lives.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use encap::linux::channel::{Channel, Peer};
use proxy::Successor;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::message::{self, Reply, Request, VERSION};
use super::{Claim, Inventory, Kind, Past, Socket, path};
use crate::notice::say;

/// How long the other process may take for an answer that it need not think about.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take until this one has stopped reading, which is given longer than that takes.
const STOPPING: Duration = Duration::from_secs(5);
/// Bytes that may wait for this process after it has handed over, where the system allows as much.
const WAY_BUFFER: usize = 4 << 20;
/// How often it is tried to be found again, where somebody else is in the place.
const AGAIN: Duration = Duration::from_secs(1);

/// What the program is told.
pub(crate) enum Event {
    /// A process is ready to take over; it is told to go on when `done` is dropped.
    Ready {
        /// Who.
        peer: Peer,
        /// What it takes.
        successor: Box<Successor>,
        /// Whether it takes the built-in real server as well.
        demo: bool,
        /// Held until nothing is read here any more.
        done: oneshot::Sender<()>,
    },
    /// The process that has taken over has ended, and nobody has taken over from it.
    Gone(Peer),
}

/// Hands over to who asks for it; stops when it is dropped.
pub(crate) struct Giver {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Giver {
    /// Waits for others at this place, to be called on a runtime. `listeners` are the names of the listeners, in their order;
    /// a process has so long to become ready.
    pub(crate) fn start(
        claim: Claim,
        inventory: Inventory,
        listeners: Vec<String>,
        patience: Duration,
    ) -> Self {
        let (events, told) = mpsc::channel(1);
        let giving = Giving { inventory, listeners, patience, events };
        let task = tokio::spawn(async move {
            if let Err(error) = giving.run(claim).await {
                say(&format!("no process can take over from this one: {}", crate::notice::chain(&error)));
            }
        });
        Self { events: told, task }
    }

    /// What happens next; nothing, once nobody can take over.
    pub(crate) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Giving {
    inventory: Inventory,
    listeners: Vec<String>,
    patience: Duration,
    events: mpsc::Sender<Event>,
}

/// One way for each listener that has UDP sockets: the name, and the end that stays here.
type Ways = Vec<(String, UnixDatagram)>;

impl Giving {
    async fn run(mut self, mut claim: Claim) -> anyhow::Result<()> {
        let mut listener = claim.open()?;
        loop {
            let (channel, peer) = path::accept(&listener).await?;
            let result = match peer {
                Ok(peer) => self.hand_over(&channel, peer).await.map_err(|error| (peer.to_string(), error)),
                Err(error) => Err(("a process".into(), error)),
            };
            match result {
                Ok(peer) => {
                    let path = claim.path().to_owned();
                    claim.leave();
                    // Whoever waits there is refused, and finds the other one.
                    drop(listener);
                    claim = self.outlive(&channel, peer, &path).await?;
                    listener = claim.open()?;
                }
                Err((who, error)) => {
                    let error = crate::notice::chain(&error);
                    let refused = Reply::Refused { reason: error.clone() };
                    // It may be gone.
                    let _ = tokio::time::timeout(PATIENCE, send(&channel, &refused, &[])).await;
                    say(&format!("{who} has not taken over, this one goes on: {error}"));
                }
            }
        }
    }

    /// Hands over to one process.
    async fn hand_over(&mut self, channel: &Channel<UnixStream>, peer: Peer) -> anyhow::Result<Peer> {
        let begin = async {
            match receive(channel).await? {
                Request::Hello { version: VERSION } => {}
                Request::Hello { version } => bail!(
                    "it speaks version {version} of the hand-over, this one {VERSION}: upgrade by a restart this time"
                ),
                Request::Ready { .. } => return Err(message::out_of_turn().into()),
            }
            Ok(self.give(channel).await?)
        };
        let ways = tokio::time::timeout(PATIENCE, begin).await.context("it does not speak")??;
        let Ok(ready) = tokio::time::timeout(self.patience, receive(channel)).await else {
            bail!("it was not ready within {:?} (handover.timeout)", self.patience);
        };
        let Request::Ready { taken } = ready? else { return Err(message::out_of_turn().into()) };
        let count = taken.len();
        let taken: HashSet<usize> = taken.into_iter().collect();
        if taken.len() != count || taken.iter().any(|&number| number >= self.inventory.sockets.len()) {
            bail!("it takes what it was not given");
        }
        self.stop(taken, ways, peer).await?;
        // From here on there is no way back. If it is gone, that is found out next.
        let _ = tokio::time::timeout(PATIENCE, send(channel, &Reply::Go, &[])).await;
        Ok(peer)
    }

    /// Gives copies of everything away.
    async fn give(&mut self, channel: &Channel<UnixStream>) -> io::Result<Ways> {
        let Inventory { sockets, keys, past } = &mut self.inventory;
        let proxy::QuicKeys { reset, token, process, earlier } = keys.clone();
        send(channel, &Reply::Keys { reset, token, process, earlier }, &[]).await?;
        for socket in &*sockets {
            let Socket { kind, name, address, tunnel, descriptor } = socket;
            let (kind, address, tunnel) = (*kind, *address, tunnel.clone());
            let reply = Reply::Socket { kind, name: name.clone(), address, tunnel };
            send(channel, &reply, &[descriptor.as_fd()]).await?;
        }
        past.retain(Past::is_there);
        for Past { process, life, ways } in &*past {
            send(channel, &Reply::Past { process: *process }, &[life.as_fd()]).await?;
            for (listener, way) in ways {
                send(channel, &Reply::Way { listener: listener.clone() }, &[way.as_fd()]).await?;
            }
        }
        send(channel, &Reply::Past { process }, &[]).await?;
        let mut ways = Ways::new();
        for listener in &self.listeners {
            if sockets.iter().any(|socket| socket.kind == Kind::Quic && socket.name == *listener) {
                let (ours, theirs) = UnixDatagram::pair()?;
                ours.set_nonblocking(true)?;
                // As large as the system permits.
                let _ = socket2::SockRef::from(&theirs).set_send_buffer_size(WAY_BUFFER);
                send(channel, &Reply::Way { listener: listener.clone() }, &[theirs.as_fd()]).await?;
                ways.push((listener.clone(), ours));
            }
        }
        send(channel, &Reply::End, &[]).await?;
        Ok(ways)
    }

    /// Makes the program stop reading and accepting what was taken.
    async fn stop(&mut self, taken: HashSet<usize>, mut ways: Ways, peer: Peer) -> anyhow::Result<()> {
        // What nobody takes is closed when the program has drained.
        let mut number = 0..;
        self.inventory.sockets.retain(|_| number.next().is_some_and(|number| taken.contains(&number)));
        let sockets = &self.inventory.sockets;
        let has = |kind, name: &str| sockets.iter().any(|socket| socket.kind == kind && socket.name == name);
        ways.retain(|(name, _)| has(Kind::Quic, name));
        let way = |name: &String| {
            let at = ways.iter().position(|(listener, _)| listener == name)?;
            Some(ways.swap_remove(at).1)
        };
        let successor = Successor {
            listeners: self.listeners.iter().map(|name| has(Kind::Tcp, name)).collect(),
            admin: sockets.iter().any(|socket| socket.kind == Kind::Admin),
            ways: self.listeners.iter().map(way).collect(),
        };
        let demo = sockets.iter().any(|socket| socket.kind == Kind::Demo);
        let (done, is_done) = oneshot::channel();
        let ready = Event::Ready { peer, successor: Box::new(successor), demo, done };
        self.events.send(ready).await.context("the program ends")?;
        let _ = tokio::time::timeout(STOPPING, is_done).await;
        Ok(())
    }

    /// Waits until the process that has taken over is gone, and nobody has taken over from it; then somebody else may.
    async fn outlive(&self, channel: &Channel<UnixStream>, peer: Peer, path: &Path) -> anyhow::Result<Claim> {
        // Nothing is said any more, and the end is an error.
        while channel.socket().async_io(Interest::READABLE, || channel.try_receive()).await.is_ok() {}
        self.events.send(Event::Gone(peer)).await.context("the program ends")?;
        while path::find(path)?.is_some() {
            tokio::time::sleep(AGAIN).await;
        }
        Claim::of(path)
    }
}

async fn send(
    channel: &Channel<UnixStream>,
    reply: &Reply,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = message::encode(reply)?;
    channel.socket().async_io(Interest::WRITABLE, || channel.send(&bytes, descriptors)).await
}

/// The next message; descriptors that come with it are closed.
async fn receive(channel: &Channel<UnixStream>) -> anyhow::Result<Request> {
    let received = channel.socket().async_io(Interest::READABLE, || channel.try_receive()).await;
    match received {
        Ok((bytes, _)) => Ok(message::decode(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            bail!("it has ended, or given up; it says itself why")
        }
        Err(error) => Err(error.into()),
    }
}
