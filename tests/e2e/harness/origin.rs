//! A real server that does exactly what a case tells it, and remembers what reached it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::client::limit;
use super::http1::{Body, Head, Wire};
use super::wait::until;

/// A request that has reached a real server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    /// Request line and fields.
    pub(crate) head: Head,
    /// Content, without its framing.
    pub(crate) body: Vec<u8>,
    /// Trailers.
    pub(crate) trailers: Vec<(String, String)>,
    /// Number of the connection, from 0.
    pub(crate) connection: usize,
}

impl Received {
    /// Its method.
    pub(crate) fn method(&self) -> &str {
        self.head.part(0)
    }

    /// Its target.
    pub(crate) fn target(&self) -> &str {
        self.head.part(1)
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// Whether it is a health check.
    pub(crate) fn is_probe(&self) -> bool {
        self.field("user-agent").is_some_and(|agent| agent.starts_with("ingre-healthcheck/"))
    }
}

/// A handshake with a real server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The name asked for (SNI).
    pub(crate) name: Option<String>,
    /// The protocol agreed on (ALPN).
    pub(crate) protocol: Option<String>,
    /// Whether the client has shown a certificate.
    pub(crate) certificate: bool,
    /// Whether an earlier session was taken up again.
    pub(crate) resumed: bool,
}

/// A stream of either kind.
trait Duplex: Read + Write + Send {}

impl<S: Read + Write + Send> Duplex for S {}

/// A connection that has reached a real server.
pub(crate) struct Peer {
    wire: Wire<Box<dyn Duplex>>,
    socket: TcpStream,
    number: usize,
    shared: Arc<Shared>,
}

impl Peer {
    /// The next request, content and all; remembered.
    pub(crate) fn request(&mut self) -> io::Result<Received> {
        let head = self.head()?;
        let (body, trailers) = self.body(&head)?;
        let received = Received { head, body, trailers, connection: self.number };
        self.shared.received.lock().unwrap().push(received.clone());
        Ok(received)
    }

    /// The head of the next request; not remembered.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        self.wire.read_head()
    }

    /// The content behind a head.
    pub(crate) fn body(&mut self, head: &Head) -> io::Result<Body> {
        self.wire.read_request_body(head)
    }

    /// Exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.wire.exactly(count)
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.wire.read_to_end()
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// Ends the sending direction.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Number of the connection, from 0.
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

struct Shared {
    received: Mutex<Vec<Received>>,
    handshakes: Mutex<Vec<Handshake>>,
    open: Mutex<Vec<Option<TcpStream>>>,
    gone: AtomicBool,
}

/// The real server; gone, with all its connections, when dropped.
pub(crate) struct Origin {
    address: SocketAddr,
    socket: TcpListener,
    shared: Arc<Shared>,
}

impl Origin {
    /// Answers each request with the bytes that `answer` returns, on connections that stay open.
    pub(crate) fn serving(answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::scripted(move |peer| {
            loop {
                let request = peer.request()?;
                peer.send(answer(&request))?;
            }
        })
    }

    /// Answers every request with 200 and this text.
    pub(crate) fn named(text: &'static str) -> Self {
        Self::serving(move |_| ok(text))
    }

    /// Reads the head of a request and nothing behind it, until what comes with it is dropped.
    pub(crate) fn stuck() -> (Self, Sender<()>) {
        let (over, held) = channel::<()>();
        let held = Mutex::new(held);
        let origin = Self::scripted(move |peer| {
            peer.head()?;
            // An error says that it is over.
            let _ = held.lock().unwrap().recv();
            Ok(())
        });
        (origin, over)
    }

    /// Does with each connection what `script` does, and then closes it.
    pub(crate) fn scripted(script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::on(listener, script)
    }

    /// The same on a socket that is bound already.
    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(listener, None, script)
    }

    /// The same inside TLS.
    pub(crate) fn secure(
        tls: Arc<ServerConfig>,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), Some(tls), script)
    }

    fn serve(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            handshakes: Mutex::default(),
            open: Mutex::default(),
            gone: AtomicBool::new(false),
        });
        let socket = listener.try_clone().unwrap();
        let (theirs, script) = (Arc::clone(&shared), Arc::new(script));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let mut open = theirs.open.lock().unwrap();
                if theirs.gone.load(Ordering::SeqCst) {
                    return;
                }
                open.push(stream.try_clone().ok());
                drop(open);
                limit(&stream);
                let (shared, script, tls) = (Arc::clone(&theirs), Arc::clone(&script), tls.clone());
                std::thread::spawn(move || {
                    // How the connection ends is for the case to look at, on its own side.
                    let _ = accept(stream, tls, number, &shared).and_then(|mut peer| script(&mut peer));
                    shared.open.lock().unwrap()[number] = None;
                });
            }
        });
        Self { address, socket, shared }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, health checks left out.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().iter().filter(|request| !request.is_probe()).cloned().collect()
    }

    /// The health checks so far.
    pub(crate) fn probes(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().iter().filter(|request| request.is_probe()).cloned().collect()
    }

    /// The only request so far; waits for it.
    pub(crate) fn only(&self) -> Received {
        let received = until("a request", || Some(self.received()).filter(|all| !all.is_empty()));
        assert_eq!(received.len(), 1, "{received:#?}");
        received[0].clone()
    }

    /// The handshakes so far that have come to their end.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        self.shared.handshakes.lock().unwrap().clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.lock().unwrap().iter().flatten().count()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap().iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts, whatever network the socket is in.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

fn accept(
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    number: usize,
    shared: &Arc<Shared>,
) -> io::Result<Peer> {
    let mut stream = socket.try_clone()?;
    let stream: Box<dyn Duplex> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let mut session = ServerConnection::new(tls).map_err(io::Error::other)?;
            while session.is_handshaking() {
                session.complete_io(&mut stream)?;
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            shared.handshakes.lock().unwrap().push(Handshake {
                name: session.server_name().map(str::to_owned),
                protocol: session.alpn_protocol().map(text),
                certificate: session.peer_certificates().is_some(),
                resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            });
            Box::new(StreamOwned::new(session, stream))
        }
    };
    Ok(Peer { wire: Wire::new(stream), socket, number, shared: Arc::clone(shared) })
}

/// A response with this text.
pub(crate) fn ok(text: &str) -> Vec<u8> {
    response("200 OK", &[], text)
}

/// A response with this status, these fields and this content.
pub(crate) fn response(status: &str, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in fields {
        out += &format!("{name}: {value}\r\n");
    }
    let mut out = (out + &format!("Content-Length: {}\r\n\r\n", body.as_ref().len())).into_bytes();
    out.extend_from_slice(body.as_ref());
    out
}

/// An address where nobody listens: connections are refused. The port stays ours as long as the guard lives.
pub(crate) fn refusing() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// An address that answers no connection at all: its queue is full. Lives as long as the guards.
pub(crate) fn silent() -> (SocketAddr, Vec<socket2::Socket>) {
    let (address, listener) = refusing();
    listener.listen(0).unwrap();
    let mut guards = vec![listener];
    for _ in 0..4 {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // In progress, or in the queue.
        let _ = socket.connect(&address.into());
        guards.push(socket);
    }
    (address, guards)
}
