//! One worker's endpoint of one listener: takes connections in, or tells them why not.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    Connecting, ConnectionError, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime,
    TransportConfig, ZeroRttAccepted,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;

use super::super::handler::Handler;
use super::super::{Connection, Listener, admit};
use super::connection::Link;
use super::driver::Driver;
use super::{CONNECTION_WINDOW, SEND_WINDOW, STREAM_WINDOW, STREAMS, UNIDIRECTIONAL, code};
use crate::h3::Code;
use crate::message::ClientFields;
use crate::quic::{self, ByName, Handshake, Ids, Origin, Post, Secrets};
use crate::spread::Spread;
use crate::state::View;
use crate::tls::TlsState;

/// The version of QUIC (RFC 9000 15): drafts are not spoken.
const QUIC_V1: u32 = 1;
/// Handshakes of one worker that may be under way before a client has to show that its address is its own (RFC 9000
/// 8.1.2).
const HALF_OPEN: usize = 100;
/// Connections that wait to be taken in, and what is kept of what they send meanwhile.
const MOST_INCOMING: usize = 1024;
const INCOMING_BUFFER: u64 = 32 << 10;
const INCOMING_BUFFERS: u64 = 8 << 20;
/// Shortest time after which a connection on which nothing comes is forgotten, whatever the listener says.
const SHORTEST_IDLE: Duration = Duration::from_secs(30);
/// What our connections have to say in the end.
const GOODBYE: Duration = Duration::from_millis(200);

/// What an endpoint is made of.
pub(crate) struct Socket {
    pub(crate) sockets: Vec<std::net::UdpSocket>,
    /// Index of the listener.
    pub(crate) index: usize,
    /// Connections that may still be accepted, over all workers.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) post: Post,
    pub(crate) secrets: Secrets,
}

/// An endpoint.
#[derive(Clone)]
pub(crate) struct Endpoint {
    endpoint: quinn::Endpoint,
    socket: Arc<quic::Socket>,
    index: usize,
    permits: Arc<Semaphore>,
    secrets: Secrets,
    half_open: Rc<Cell<usize>>,
}

impl Endpoint {
    /// Takes no packets yet.
    ///
    /// # Errors
    /// Where the socket cannot be used.
    pub(crate) fn new(socket: Socket, view: &Rc<View>) -> io::Result<Self> {
        let Socket { sockets, index, permits, post, secrets } = socket;
        let ids = Ids::new(post.own, post.boxes.len(), secrets.process, Arc::clone(&secrets.earlier));
        let mut config = EndpointConfig::new(Arc::clone(&secrets.reset) as _);
        config.cid_generator(move || Box::new(ids.clone())).supported_versions(vec![QUIC_V1]);
        let socket = Arc::new(quic::Socket::new(sockets, post)?);
        let (server, runtime) = (server_config(view, index, &secrets), Arc::new(TokioRuntime));
        let theirs = Arc::clone(&socket) as _;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, server, theirs, runtime)?;
        Ok(Self { endpoint, socket, index, permits, secrets, half_open: Rc::default() })
    }

    /// Index of the listener.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// From now on packets come from here.
    pub(crate) fn read_from(&self, origin: Origin) {
        self.socket.read_from(origin);
    }

    /// New connections start with this.
    pub(crate) fn follow(&self, view: &Rc<View>) {
        self.endpoint.set_server_config(server_config(view, self.index, &self.secrets));
    }

    /// Takes connections in; ends only when the socket has failed.
    pub(crate) async fn accept<H>(self, listener: Rc<Listener<H>>, spread: Spread)
    where
        H: Handler<Connection = Connection> + 'static,
    {
        while let Some(incoming) = self.endpoint.accept().await {
            self.begin(incoming, &listener, &spread);
        }
    }

    fn begin<H>(&self, incoming: Incoming, listener: &Rc<Listener<H>>, spread: &Spread)
    where
        H: Handler<Connection = Connection> + 'static,
    {
        // Who comes back with a token that was given here before another process took over is known there by nobody.
        let returns = listener.draining.has_successor(self.index) && incoming.remote_address_validated();
        if listener.draining.has_started() && !returns {
            return incoming.refuse();
        }
        let view = (listener.view)();
        let state = view.listener(self.index);
        // Who counts clients must not be made to count those whose address somebody else has written.
        let crowded = self.half_open.get() >= HALF_OPEN || state.per_client.is_some();
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            // It has just been asked whether it may be.
            let _ = incoming.retry();
            return;
        }
        let counted = match admit(state, incoming.remote_address()) {
            Ok(counted) => counted,
            Err(error) => {
                view.refused(&error);
                return incoming.refuse();
            }
        };
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return incoming.refuse() };
        let Ok(connecting) = incoming.accept() else { return };
        let half_open = HalfOpen::new(&self.half_open);
        let (index, seat, listener) = (self.index, spread.own_seat(), Rc::clone(listener));
        tokio::task::spawn_local(async move {
            let open = view.connection();
            serve(connecting, index, &view, &listener, half_open).await;
            drop((open, permit, seat, counted));
        });
    }

    /// Waits, for a moment, until everybody was told that their connection has ended.
    pub(crate) async fn finish(self) {
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
    }
}

async fn serve<H>(
    connecting: Connecting,
    listener: usize,
    view: &View,
    serving: &Listener<H>,
    half_open: HalfOpen,
) where
    H: Handler<Connection = Connection> + 'static,
{
    let limits = view.listener(listener).limits.clone();
    let Some(tls) = &view.listener(listener).tls else { return };
    let (quic, confirmed) = match tokio::time::timeout(limits.header_timeout, arrive(connecting, tls)).await {
        Ok(Ok(arrived)) => arrived,
        Ok(Err(error)) => return view.handshake_failed(quic::failure(&error)),
        Err(_) => return view.handshake_failed(crate::tls::TIMEOUT),
    };
    let Handshake { server_name: name, resumed } = handshake(quic.handshake_data());
    let chain = quic.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let proof = match tls.prove(name.as_deref(), chain.as_deref().map(Vec::as_slice), resumed) {
        Ok(proof) => proof,
        Err(error) => {
            view.handshake_failed(crate::tls::failure_of(&error));
            return quic.close(code(Code::GeneralProtocol), b"the certificate is not good");
        }
    };
    let sni = name.map(|name| Rc::from(name.to_ascii_lowercase()));
    let peer = quic.remote_address();
    let told = ClientFields::of(peer.ip(), true);
    let connection = Connection { listener, peer, told, https: true, sni, proof };
    let link = Link::new(quic.clone(), limits.clone());
    let driver =
        Driver::begin(link, Rc::clone(&serving.handler), Rc::new(connection), serving.draining.clone());
    let served = async {
        if let Some(driver) = driver.await {
            driver.run().await;
        }
    };
    let complete = async {
        if let Some(confirmed) = confirmed {
            match tokio::time::timeout(limits.header_timeout, confirmed).await {
                Ok(true) => {}
                Ok(false) => {
                    let error = quic.close_reason().unwrap_or(ConnectionError::LocallyClosed);
                    return view.handshake_failed(quic::failure(&error));
                }
                Err(_) => {
                    quic.close(code(Code::NoError), b"no handshake");
                    return view.handshake_failed(crate::tls::TIMEOUT);
                }
            }
        }
        drop(half_open);
        view.handshake(handshake(quic.handshake_data()).resumed);
    };
    tokio::join!(complete, served);
}

/// A connection whose handshake is complete; or, where requests may come early, one whose ClientHello is there, and what
/// says whether the rest comes about.
async fn arrive(
    mut connecting: Connecting,
    tls: &TlsState,
) -> Result<(quinn::Connection, Option<ZeroRttAccepted>), ConnectionError> {
    // Where no name may do so, nobody needs to know the name.
    if tls.takes_early_data(None) {
        let data = handshake(Some(connecting.handshake_data().await?));
        if tls.takes_early_data(data.server_name.as_deref()) {
            return match connecting.into_0rtt() {
                Ok((quic, confirmed)) => Ok((quic, Some(confirmed))),
                Err(connecting) => Ok((connecting.await?, None)),
            };
        }
    }
    Ok((connecting.await?, None))
}

/// What is known of a handshake.
fn handshake(data: Option<Box<dyn Any>>) -> Handshake {
    let data = data.and_then(|data| data.downcast::<Handshake>().ok());
    data.map_or(Handshake { server_name: None, resumed: false }, |data| *data)
}

/// What new connections of a listener start with. None where it has no TLS, which a reload cannot bring about.
fn server_config(view: &Rc<View>, index: usize, secrets: &Secrets) -> Option<ServerConfig> {
    let limits = &view.listener(index).limits;
    let snapshot = view.snapshot();
    let choose = move |name: Option<&str>| {
        snapshot
            .listeners
            .get(index)
            .and_then(|listener| listener.tls.as_ref())
            .map(|tls| Arc::clone(tls.quic_config_for(name)))
    };
    let crypto = ByName::new(choose)?;
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::clone(&secrets.token) as _);
    config
        .transport_config(Arc::new(transport(limits.keepalive_timeout)))
        .max_incoming(MOST_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    Some(config)
}

fn transport(keepalive: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(UNIDIRECTIONAL.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(keepalive.max(SHORTEST_IDLE)).ok());
    transport
}

/// Counts a handshake that is under way.
struct HalfOpen(Rc<Cell<usize>>);

impl HalfOpen {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
