//! VIP and port to requests: accept, TLS by SNI, HTTP/1.1, HTTP/2 or HTTP/3.

mod date;
mod departure;
mod h1;
mod h2;
mod h3;
mod handler;
mod interim;
mod outgoing;
mod tunnel;
mod websocket;
mod websocket_key;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::h1::serve as serve_h1;
pub(crate) use self::h3::{Endpoint, Socket as QuicSocket};
pub(crate) use self::handler::{Handler, Refused, Request, Response, Switched};
pub(crate) use self::interim::Interim;
use crate::acme::ALPN;
use crate::apart::apart;
use crate::drain::Draining;
use crate::error::Error;
use crate::limit::{Permit, client_network};
use crate::message::ClientFields;
use crate::net::{Io, Stream};
use crate::spread::{Accepted, Seat, Spread};
use crate::state::{ListenerState, View};
use crate::tls::{self, Proof};

/// How long to wait when the process has no descriptor left for another connection.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Facts about a connection that the answers depend on.
pub(crate) struct Connection {
    pub(crate) listener: usize,
    pub(crate) peer: SocketAddr,
    /// What RS are told about the peer.
    pub(crate) told: ClientFields,
    pub(crate) https: bool,
    /// The name the client asked for, in lower case.
    pub(crate) sni: Option<Rc<str>>,
    /// What the client has proven, where it was asked for a certificate.
    pub(crate) proof: Option<Rc<Proof>>,
}

/// A listening socket as one worker sees it.
pub(crate) struct Listening {
    pub(crate) socket: TcpListener,
    pub(crate) index: usize,
    /// Connections that may still be accepted, over all workers.
    pub(crate) permits: Arc<Semaphore>,
}

/// How one worker serves connections, whoever has accepted them.
pub(crate) struct Listener<H> {
    /// What a new connection starts with.
    pub(crate) view: Box<dyn Fn() -> Rc<View>>,
    pub(crate) handler: Rc<H>,
    pub(crate) draining: Draining,
}

impl<H> Listener<H>
where
    H: Handler<Connection = Connection> + 'static,
{
    /// Accepts until the drain closes the listener.
    pub(crate) async fn accept(self: Rc<Self>, listening: Listening, spread: Spread) {
        let Listening { socket, index, permits } = listening;
        let mut until = self.draining.clone();
        let next = async || {
            // The permit first: a connection that is not allowed stays in the kernel's queue.
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((socket.accept().await, permit))
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = until.started() => {
                    if self.draining.has_successor(index) {
                        // What the kernel has accepted is the other process's.
                        return;
                    }
                    // What the kernel has accepted for us is served, not reset.
                    tokio::time::timeout(Duration::ZERO, next()).await.ok().flatten()
                }
                accepted = next() => accepted,
            };
            let Some((accepted, permit)) = accepted else { return };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            };
            let Some(worker) = spread.elsewhere() else {
                self.begin(stream, peer, index, permit, spread.own_seat());
                continue;
            };
            let Ok(stream) = stream.into_std() else { continue };
            let accepted = Accepted { stream, peer, listener: index, permit };
            if let Some(ours) = spread.pass_on(worker, accepted) {
                self.serve(ours, spread.own_seat());
            }
        }
    }

    /// Serves a connection that another worker has accepted.
    pub(crate) fn serve(&self, accepted: Accepted, seat: Seat) {
        let Accepted { stream, peer, listener, permit } = accepted;
        if let Ok(stream) = TcpStream::from_std(stream) {
            self.begin(stream, peer, listener, permit, seat);
        }
    }

    /// Serves a connection in a task of its own.
    fn begin(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        listener: usize,
        permit: OwnedSemaphorePermit,
        seat: Seat,
    ) {
        let (view, handler, draining) = ((self.view)(), Rc::clone(&self.handler), self.draining.clone());
        let counted = match admit(view.listener(listener), peer) {
            Ok(counted) => counted,
            Err(error) => return view.refused(&error),
        };
        tokio::task::spawn_local(async move {
            let open = view.connection();
            serve(stream, peer, listener, &view, handler, draining).await;
            drop((open, permit, seat, counted));
        });
    }
}

/// Whether this client may connect; the permit counts it for as long as it is connected.
fn admit(listener: &ListenerState, peer: SocketAddr) -> Result<Option<Permit>, Error> {
    if !listener.access.allows(peer.ip()) {
        return Err(Error::AccessDenied);
    }
    let Some(limiter) = &listener.per_client else { return Ok(None) };
    limiter.admit(&client_network(peer.ip()), Duration::ZERO).map_err(|_| Error::TooManyConnections)
}

async fn serve<H>(
    stream: TcpStream,
    peer: SocketAddr,
    listener: usize,
    view: &View,
    handler: Rc<H>,
    draining: Draining,
) where
    H: Handler<Connection = Connection> + 'static,
{
    let state = view.listener(listener);
    let limits = state.limits.clone();
    let Some(spoken) = &state.tls else {
        let told = ClientFields::of(peer.ip(), false);
        let connection = Connection { listener, peer, told, https: false, sni: None, proof: None };
        return h1::serve(Io::new(Stream::Plain(stream)), &limits, &*handler, &connection, draining).await;
    };
    let handshake = apart(|| spoken.accept(stream));
    let (stream, proof) = match tokio::time::timeout(limits.header_timeout, handshake).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return view.handshake_failed(tls::failure(&error)),
        Err(_) => return view.handshake_failed(tls::TIMEOUT),
    };
    view.handshake(stream.is_resumed());
    let sni = stream.server_name().map(|name| Rc::from(name.to_ascii_lowercase()));
    if stream.protocol() == Some(ALPN) {
        // The handshake was all that the authority wants (RFC 8737 3).
        let _ = tokio::time::timeout(limits.send_timeout, Stream::Tls(stream).shutdown()).await;
        return;
    }
    let is_h2 = stream.protocol() == Some(b"h2");
    let told = ClientFields::of(peer.ip(), true);
    let connection = Connection { listener, peer, told, https: true, sni, proof };
    let stream = Stream::Tls(stream);
    if is_h2 {
        h2::serve(stream, &limits, handler, Rc::new(connection), draining).await;
    } else {
        h1::serve(Io::new(stream), &limits, &*handler, &connection, draining).await;
    }
}
