//! The side of the process that takes over.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use encap::linux::channel::{Channel, Peer};
use proxy::{Predecessor, QuicKeys};

use super::message::{self, MOST, Reply, Request, VERSION};
use super::path;
use super::{Kind, Past, Socket};

/// How long the other process may take for an answer that it need not think about.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a socket is to be like.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Of its listener.
    pub(crate) name: &'a str,
    /// Where the configuration says it listens.
    pub(crate) address: SocketAddr,
    /// And in which tunnel.
    pub(crate) tunnel: Option<&'a str>,
}

/// What was given by the process that serves.
pub(crate) struct Taken {
    channel: Channel,
    peer: Peer,
    /// By their numbers; what was taken out is in use here.
    sockets: Vec<Option<Socket>>,
    /// What QUIC is spoken with there.
    given: QuicKeys,
    past: Vec<Past>,
    /// The names of listeners there and here, where they have the same UDP sockets.
    names: Vec<(String, String)>,
}

impl Taken {
    /// Asks the process that serves at this path for everything it has. None where nobody does.
    ///
    /// # Errors
    /// Where somebody is there, and nothing comes of it.
    pub(crate) fn from(path: &Path, patience: Duration) -> anyhow::Result<Option<Self>> {
        let Some((channel, peer)) = path::find(path)? else { return Ok(None) };
        let given = Self::ask(channel, peer, patience).with_context(|| {
            format!("cannot take over from {peer}, which goes on (handover: `{}`)", path.display())
        })?;
        Ok(Some(given))
    }

    fn ask(channel: Channel, peer: Peer, patience: Duration) -> anyhow::Result<Self> {
        let sent = channel.send(&message::encode(&Request::Hello { version: VERSION })?, &[]);
        // It may be busy with another one; or have refused us unheard, and says why.
        let mut next = match (next(&channel, patience), sent) {
            (Err(error), Err(unheard)) if is_gone(&error) => return Err(unheard.into()),
            (next, _) => next?,
        };
        let (Reply::Keys { reset, token, process, earlier }, None) = next else {
            return Err(message::out_of_turn().into());
        };
        let given = QuicKeys { reset, token, process, earlier };
        let life = channel.as_fd().try_clone_to_owned()?;
        let mut taken =
            Self { channel, peer, sockets: Vec::new(), given, past: Vec::new(), names: Vec::new() };
        let mut life = Some(life);
        for _ in 0..MOST {
            next = self::next(&taken.channel, PATIENCE)?;
            match next {
                (Reply::Socket { kind, name, address, tunnel }, Some(descriptor)) => {
                    taken.sockets.push(Some(Socket { kind, name, address, tunnel, descriptor }));
                }
                (Reply::Past { process }, other) => {
                    let life = other.or_else(|| life.take()).ok_or_else(message::out_of_turn)?;
                    taken.past.push(Past { process, life, ways: Vec::new() });
                }
                (Reply::Way { listener }, Some(way)) => {
                    let way = UnixDatagram::from(way);
                    let past = taken.past.last_mut().ok_or_else(message::out_of_turn)?;
                    past.ways.push((listener, way));
                }
                (Reply::End, None) => return Ok(taken),
                _ => return Err(message::out_of_turn().into()),
            }
        }
        bail!("it has too many sockets")
    }

    /// The first socket of this kind that listens at the address; any port will do for one that any port will do for, and
    /// then the name counts.
    fn named(&mut self, kind: Kind, wanted: Wanted<'_>) -> Option<Socket> {
        let Wanted { name, address, tunnel } = wanted;
        let fits = |socket: &Socket| {
            socket.kind == kind
                && socket.tunnel.as_deref() == tunnel
                && (socket.address == address && (address.port() != 0 || socket.name == name)
                    || bound_address(&socket.descriptor) == Some(address))
        };
        self.sockets.iter_mut().find(|socket| socket.as_ref().is_some_and(fits))?.take()
    }

    /// A socket that accepts connections there.
    pub(crate) fn tcp(&mut self, kind: Kind, wanted: Wanted<'_>) -> Option<TcpListener> {
        self.named(kind, wanted).map(|socket| TcpListener::from(socket.descriptor))
    }

    /// The UDP sockets there, in the order of their group.
    pub(crate) fn quic(&mut self, wanted: Wanted<'_>) -> Vec<UdpSocket> {
        let mut sockets = Vec::new();
        while let Some(socket) = self.named(Kind::Quic, wanted) {
            self.names.push((socket.name, wanted.name.to_owned()));
            sockets.push(UdpSocket::from(socket.descriptor));
        }
        self.names.dedup();
        sockets
    }

    /// What QUIC is spoken with from now on. None where the system has no random numbers.
    pub(crate) fn keys(&self) -> Option<QuicKeys> {
        self.given.succeed()
    }

    /// The processes before this one, as the proxy knows them: ways to them for each of these listeners.
    pub(crate) fn predecessors(&self, listeners: &[String]) -> std::io::Result<Vec<Predecessor>> {
        let mut predecessors = Vec::new();
        for past in &self.past {
            let mut ways = Vec::new();
            for listener in listeners {
                let way = past.ways.iter().find(|(there, _)| self.here(there) == Some(listener.as_str()));
                ways.push(way.map(|(_, way)| way.try_clone()).transpose()?);
            }
            predecessors.push(Predecessor { process: past.process, ways });
        }
        Ok(predecessors)
    }

    fn here(&self, there: &str) -> Option<&str> {
        self.names.iter().find(|(name, _)| name == there).map(|(_, here)| here.as_str())
    }

    /// Says that everything is ready, and waits until the other process no longer reads. Returns the processes before this
    /// one, with the names of listeners as they are here.
    ///
    /// # Errors
    /// Where the other process does not want that any more.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<Past>> {
        let numbers = self.sockets.iter().enumerate();
        let taken: Vec<_> =
            numbers.filter(|(_, socket)| socket.is_none()).map(|(number, _)| number).collect();
        let (count, peer) = (taken.len(), self.peer);
        let ready = message::encode(&Request::Ready { taken })?;
        // Where it cannot be said, the other process has either ended, or given up and left a word about it.
        let sent = self.channel.send(&ready, &[]).map_err(anyhow::Error::from);
        let answer = match sent {
            Err(error) if !is_gone(&error) => Err(error),
            _ => next(&self.channel, PATIENCE),
        };
        match answer {
            Ok((Reply::Go, None)) => {}
            Ok(_) => return Err(message::out_of_turn().into()),
            // Nobody but this process is left to serve.
            Err(error) if is_gone(&error) => crate::notice::say(&format!("{peer} has ended meanwhile")),
            Err(error) => return Err(error.context(format!("{peer} does not hand over"))),
        }
        crate::notice::say(&format!("took over {count} sockets from {peer}"));
        let mut all = Vec::new();
        for Past { process, life, ways } in self.past {
            let here = |(there, way): (String, UnixDatagram)| {
                let (_, here) = self.names.iter().find(|(name, _)| *name == there)?;
                Some((here.clone(), way))
            };
            all.push(Past { process, life, ways: ways.into_iter().filter_map(here).collect() });
        }
        Ok(all)
    }
}

/// The next message, also of a process that has closed its side meanwhile.
fn next(channel: &Channel, patience: Duration) -> anyhow::Result<(Reply, Option<OwnedFd>)> {
    let (bytes, descriptors) = match channel.receive(patience) {
        // The kernel tells once, before the messages, that something which we have said was not heard.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => channel.receive(patience)?,
        received => received?,
    };
    let reply = message::decode(&bytes)?;
    if let Reply::Refused { reason } = reply {
        bail!("it says: {reason}");
    }
    let mut descriptors = descriptors.into_iter();
    let first = descriptors.next();
    if descriptors.next().is_some() {
        return Err(message::out_of_turn().into());
    }
    Ok((reply, first))
}

fn is_gone(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionReset | UnexpectedEof))
}

fn bound_address(socket: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(socket).local_addr().ok()?.as_socket()
}
