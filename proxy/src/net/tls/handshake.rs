//! The handshake, which rustls makes: with nothing of it on the way any more, the session goes on without it.

use std::io;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{AcceptedAlert, Acceptor, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ExtractedSecrets, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::record::{HEAD, Head};
use super::sealed::Sealed;
use super::session::{Keeper, Session};
use super::{Facts, TlsStream};

/// Room for one read.
const READ: usize = 4 << 10;

/// One side of a handshake.
trait Side {
    type Data;

    fn state(&self) -> &CommonState;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn finish(self) -> Result<(ExtractedSecrets, Keeper), Error>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn state(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn finish(self) -> Result<(ExtractedSecrets, Keeper), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keeper::Server(kernel)))
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn state(&self) -> &CommonState {
        self
    }

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn finish(self) -> Result<(ExtractedSecrets, Keeper), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keeper::Client(kernel)))
    }
}

/// Makes a handshake with a client as the name that it asks for (SNI) wants.
///
/// # Errors
/// Where the client leaves or the two cannot agree; it has been told why then.
pub(super) async fn accept(
    tcp: TcpStream,
    choose: impl FnOnce(Option<&str>) -> Arc<ServerConfig>,
) -> io::Result<TlsStream> {
    let mut handshake = Handshake::new(tcp);
    let name = handshake.read_name().await?;
    let config = choose(name.as_deref());
    let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
    handshake.run(connection, name).await
}

/// Makes a handshake with a server, whose certificate is to be for `name`.
///
/// # Errors
/// Where the server leaves or the two cannot agree: what rustls has to say is inside then.
pub(super) async fn connect(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<TlsStream> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
    Handshake::new(tcp).run(connection, None).await
}

struct Handshake {
    tcp: TcpStream,
    input: BytesMut,
    /// Bytes of the input that rustls has been shown: whole records, so that it takes none that is behind the handshake.
    shown: usize,
    out: Sealed,
}

/// What rustls wants next.
enum Step {
    More,
    Again,
    Failed(Error),
}

impl Handshake {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, input: BytesMut::new(), shown: 0, out: Sealed::default() }
    }

    /// The name that the client asks for.
    async fn read_name(&mut self) -> io::Result<Option<Box<str>>> {
        let mut acceptor = Acceptor::default();
        let mut seen = 0;
        loop {
            self.read().await?;
            while let Some(mut unseen) = self.input.get(seen..).filter(|unseen| !unseen.is_empty()) {
                seen += acceptor.read_tls(&mut unseen)?;
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => return Ok(accepted.client_hello().server_name().map(Box::from)),
                    Err((error, alert)) => return Err(self.refuse(error, alert).await),
                }
            }
        }
    }

    async fn run<S: Side>(mut self, mut side: S, server_name: Option<Box<str>>) -> io::Result<TlsStream> {
        loop {
            match self.step(&mut side)? {
                Step::Again => {}
                Step::Failed(error) => {
                    // The alert says why; whether it arrives makes no difference any more.
                    while side.state().wants_write() && matches!(self.step(&mut side), Ok(Step::Again)) {}
                    let _ = self.flush().await;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                Step::More if side.state().is_handshaking() => {
                    self.flush().await?;
                    self.show_more().await?;
                }
                Step::More => break,
            }
        }
        let state = side.state();
        let facts = Facts {
            server_name,
            peer_certificates: state.peer_certificates().map(<[_]>::to_vec),
            protocol: state.alpn_protocol().map(Box::from),
            is_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        let (secrets, keeper) = side.finish().map_err(io::Error::other)?;
        let session = Session::new(secrets, keeper, self.out).map_err(io::Error::other)?;
        Ok(TlsStream::new(self.tcp, session, self.input, Some(Box::new(facts))))
    }

    fn step<S: Side>(&mut self, side: &mut S) -> io::Result<Step> {
        let shown = self.input.get_mut(..self.shown).unwrap_or_default();
        let UnbufferedStatus { discard, state } = side.process(shown);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                // It says how much room it needs where it has none.
                if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                    data.encode(self.out.append(size.required_size)).map_err(io::Error::other)?;
                }
                Step::Again
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Step::Again
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Step::More,
            Ok(_) => Step::Failed(Error::General("the other side ends, or is early".into())),
            Err(error) => Step::Failed(error),
        };
        self.input.advance(discard);
        self.shown -= discard;
        Ok(step)
    }

    /// Shows rustls another record; whatever can be none at once.
    async fn show_more(&mut self) -> io::Result<()> {
        loop {
            let hidden = self.input.get(self.shown..).unwrap_or_default();
            match Head::parse(hidden) {
                Ok(Some(head)) if head.is_known() => {
                    let end = HEAD + head.fragment;
                    if hidden.len() >= end {
                        self.shown += end;
                        return Ok(());
                    }
                }
                Ok(None) => {}
                _ => {
                    self.shown = self.input.len();
                    return Ok(());
                }
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        self.input.reserve(READ);
        match self.tcp.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let written = self.tcp.write(self.out.waiting()).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.out.advance(written);
        }
        Ok(())
    }

    /// Tells a client why there is no handshake.
    async fn refuse(&mut self, error: Error, mut alert: AcceptedAlert) -> io::Error {
        let mut bytes = Vec::new();
        // Whether it arrives makes no difference any more.
        if alert.write_all(&mut bytes).is_ok() {
            let _ = self.tcp.write_all(&bytes).await;
        }
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}
