//! A client that blocks: TCP, or TLS with exactly the name and protocols a case wants.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, RootCertStore, StreamOwned};

use super::certificates::Issued;
use super::credulous::Credulous;
use super::http1::{Head, Request, Response, Wire};
use super::wait::{PATIENCE, uninterrupted};

/// How a client speaks TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    roots: Option<RootCertStore>,
    name: Option<String>,
    protocols: Vec<Vec<u8>>,
    version: Option<&'static rustls::SupportedProtocolVersion>,
    shown: Option<(CertificateDer<'static>, Arc<PrivateKeyDer<'static>>)>,
}

impl Tls {
    /// Trusts these alone; asks for `localhost`, offers no protocol.
    pub(crate) fn trusting(roots: RootCertStore) -> Self {
        let name = Some("localhost".into());
        Self { roots: Some(roots), name, protocols: Vec::new(), version: None, shown: None }
    }

    /// Trusts any certificate.
    pub(crate) fn credulous() -> Self {
        Self { roots: None, ..Self::trusting(RootCertStore::empty()) }
    }

    /// Asks for this name (SNI), which the certificate must have.
    pub(crate) fn name(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Sends no SNI; the certificate must be for 127.0.0.1.
    pub(crate) fn nameless(self) -> Self {
        Self { name: None, ..self }
    }

    /// Offers these protocols (ALPN).
    pub(crate) fn offer(self, protocols: &[&str]) -> Self {
        Self { protocols: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self }
    }

    /// Speaks this version only.
    pub(crate) fn only(self, version: &'static rustls::SupportedProtocolVersion) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Shows this certificate when asked for one.
    pub(crate) fn show(self, issued: &Issued) -> Self {
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        Self { shown: Some((issued.der.clone(), Arc::new(key))), ..self }
    }

    /// As rustls wants it.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = match self.version {
            Some(version) => builder.with_protocol_versions(&[version]).unwrap(),
            None => builder.with_safe_default_protocol_versions().unwrap(),
        };
        let builder = match &self.roots {
            Some(roots) => builder.with_root_certificates(roots.clone()),
            None => builder.dangerous().with_custom_certificate_verifier(Credulous::new(provider)),
        };
        let mut config = match &self.shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config.enable_sni = self.name.is_some();
        Arc::new(config)
    }

    /// The name that the certificate must have.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.name.clone().unwrap_or_else(|| "127.0.0.1".into())).unwrap()
    }
}

/// Either kind of stream.
pub(crate) enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        })
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// One connection to the program.
pub(crate) struct Client {
    wire: Wire<Stream>,
}

impl Client {
    /// Plain TCP.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self { wire: Wire::new(Stream::Plain(tcp(address))) }
    }

    /// A second hand on a connection without TLS: one sends while the other reads.
    pub(crate) fn sharing(other: &Self) -> Self {
        Self { wire: Wire::new(Stream::Plain(other.socket().try_clone().unwrap())) }
    }

    /// TLS; panics when the handshake fails.
    pub(crate) fn connect_tls(address: SocketAddr, tls: &Tls) -> Self {
        Self::try_tls(address, tls).unwrap()
    }

    /// TLS.
    pub(crate) fn try_tls(address: SocketAddr, tls: &Tls) -> io::Result<Self> {
        Self::with_config(address, tls.config(), tls.server_name())
    }

    /// TLS by a configuration that remembers sessions from one connection to the next.
    pub(crate) fn with_config(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let mut session = ClientConnection::new(config, name).unwrap();
        let mut socket = tcp(address);
        while session.is_handshaking() {
            uninterrupted(|| session.complete_io(&mut socket))?;
        }
        Ok(Self { wire: Wire::new(Stream::Tls(Box::new(StreamOwned::new(session, socket)))) })
    }

    fn session(&self) -> &ClientConnection {
        match &self.wire.stream {
            Stream::Tls(stream) => &stream.conn,
            Stream::Plain(_) => panic!("not TLS"),
        }
    }

    /// The certificate the program showed.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.session().peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// The protocol that was agreed on (ALPN).
    pub(crate) fn protocol(&self) -> Option<String> {
        self.session().alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Whether an earlier session was taken up again.
    pub(crate) fn is_resumed(&self) -> bool {
        self.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The group of the key exchange.
    pub(crate) fn group(&self) -> NamedGroup {
        self.session().negotiated_key_exchange_group().unwrap().name()
    }

    /// The version of TLS.
    pub(crate) fn version(&self) -> ProtocolVersion {
        self.session().protocol_version().unwrap()
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match &self.wire.stream {
            Stream::Tls(stream) => &stream.sock,
            Stream::Plain(socket) => socket,
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).unwrap();
    }

    /// Sends bytes; the program may have closed already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// Ends the sending direction (TCP).
    pub(crate) fn finish(&self) {
        self.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// Exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.wire.exactly(count).unwrap()
    }

    /// Exactly so many bytes, if they come.
    pub(crate) fn try_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.wire.exactly(count)
    }

    /// The next head, also an interim one.
    pub(crate) fn head(&mut self) -> Head {
        self.wire.read_head().unwrap()
    }

    /// Sends a request and reads its response.
    pub(crate) fn ask(&mut self, request: &Request) -> Response {
        self.try_ask(request).unwrap()
    }

    /// Sends a request and reads its response.
    pub(crate) fn try_ask(&mut self, request: &Request) -> io::Result<Response> {
        let mut bytes = request.head();
        bytes.append(&mut request.content());
        self.wire.send(&bytes)?;
        self.wire.read_response(request.is_head())
    }

    /// The next response to a request other than HEAD.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().unwrap()
    }

    /// The next response to a request other than HEAD.
    pub(crate) fn try_response(&mut self) -> io::Result<Response> {
        self.wire.read_response(false)
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.wire.read_to_end().unwrap()
    }

    /// Whether the program closes the connection without another byte; a reset counts as closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.wire.read_to_end() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// A connection with a limit on every wait.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    limit(&socket);
    socket
}

/// Limits every wait on this socket.
pub(crate) fn limit(socket: &TcpStream) {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
}
