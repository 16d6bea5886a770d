//! TLS of a QUIC connection, spoken as the name demands that the client asks for: the library takes one configuration per
//! endpoint, so the session begins when the ClientHello is there (RFC 9001 4).

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn_proto::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::quic::Version;
use rustls::server::Acceptor;

/// What is spoken on QUIC (RFC 9114 3.1).
const ALPN: &[u8] = b"h3";
/// Bytes of a ClientHello; those of browsers have two thousand.
const LONGEST_HELLO: usize = 16 << 10;
/// Type and version of a TLS record, as which the rest of rustls takes a ClientHello, and the most that is put into one
/// (RFC 8446 5.1).
const RECORD: [u8; 3] = [22, 3, 1];
const LONGEST_RECORD: usize = 16 << 10;
/// Type of the message with a certificate (RFC 8446 4).
const CERTIFICATE: u8 = 11;
/// Alerts (RFC 8446 6).
const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;

/// How TLS is spoken with a client that asks for this name, in lower case, or for none.
type Choose = Box<dyn Fn(Option<&str>) -> Option<Arc<rustls::ServerConfig>> + Send + Sync>;

/// A way to speak TLS, and the same as QUIC needs it; none where TLS 1.3 is not spoken.
type Adapted = (Arc<rustls::ServerConfig>, Option<Arc<QuicServerConfig>>);

/// TLS by name.
pub(crate) struct ByName {
    choose: Choose,
    /// What was chosen so far, each once: there are as many as the configuration has, however many names there are.
    adapted: Mutex<Vec<Adapted>>,
    /// Has the keys of the first packets, which are the same for everybody.
    initial: Arc<QuicServerConfig>,
}

impl ByName {
    /// TLS that `choose` knows by name. None where there is none, or its crypto provider lacks what QUIC begins with.
    pub(crate) fn new(
        choose: impl Fn(Option<&str>) -> Option<Arc<rustls::ServerConfig>> + Send + Sync + 'static,
    ) -> Option<Self> {
        let initial = Arc::new(QuicServerConfig::try_from(choose(None)?).ok()?);
        Some(Self { choose: Box::new(choose), adapted: Mutex::default(), initial })
    }

    /// TLS for a name as QUIC needs it. None where TLS 1.3 is not spoken for it.
    fn config(&self, name: Option<&str>) -> Option<Arc<QuicServerConfig>> {
        let chosen = (self.choose)(name)?;
        let mut adapted = self.adapted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = adapted.iter().find(|(of, _)| Arc::ptr_eq(of, &chosen)) {
            return config.clone();
        }
        let config = adapt(&chosen);
        adapted.push((chosen, config.clone()));
        config
    }
}

/// The same as QUIC needs it. None where TLS 1.3 is not spoken.
fn adapt(config: &rustls::ServerConfig) -> Option<Arc<QuicServerConfig>> {
    let mut config = config.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = Arc::new(config);
    // The library takes for granted what is found out here.
    rustls::quic::ServerConnection::new(Arc::clone(&config), Version::V1, Vec::new()).ok()?;
    QuicServerConfig::try_from(config).ok().map(Arc::new)
}

impl ServerConfig for ByName {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        ServerConfig::initial_keys(&*self.initial, version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.initial.retry_tag(version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let idle = Arc::clone(&self.initial).start_session(version, params);
        let hello = Hello { by_name: self, version, params: *params, bytes: Vec::new() };
        Box::new(Named { session: idle, hello: Some(hello), resumed: true })
    }
}

/// A ClientHello that is not complete.
struct Hello {
    by_name: Arc<ByName>,
    version: u32,
    params: TransportParameters,
    bytes: Vec<u8>,
}

/// A session that waits for its ClientHello first.
struct Named {
    /// The session; until then one that is given nothing.
    session: Box<dyn Session>,
    hello: Option<Hello>,
    /// No certificate was sent: an earlier session is taken up again (RFC 8446 2.2).
    resumed: bool,
}

/// What is known of a handshake that has come to its end.
pub(crate) struct Handshake {
    /// The name the client asked for, as it wrote it.
    pub(crate) server_name: Option<String>,
    /// Whether the session is an earlier one.
    pub(crate) resumed: bool,
}

impl Hello {
    /// The session, once the ClientHello is complete.
    fn session(&self) -> Result<Option<Box<dyn Session>>, TransportError> {
        let mut acceptor = Acceptor::default();
        let undecodable = || alert(DECODE_ERROR, "not a ClientHello");
        for part in self.bytes.chunks(LONGEST_RECORD) {
            let length = (part.len() as u16).to_be_bytes();
            let record = [&RECORD[..], &length, part].concat();
            let mut rest = &record[..];
            while !rest.is_empty() {
                acceptor.read_tls(&mut rest).map_err(|_| undecodable())?;
            }
        }
        match acceptor.accept() {
            Ok(None) => Ok(None),
            Err(_) => Err(undecodable()),
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                let config = self.by_name.config(name.as_deref());
                let config = config.ok_or_else(|| alert(HANDSHAKE_FAILURE, "no TLS 1.3 for this name"))?;
                Ok(Some(config.start_session(self.version, &self.params)))
            }
        }
    }
}

/// Whether one of these messages is a certificate (RFC 8446 4): the type, three bytes of length, and so on.
fn has_certificate(mut messages: &[u8]) -> bool {
    while let [kind, a, b, c, rest @ ..] = messages {
        if *kind == CERTIFICATE {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        messages = rest.get(length..).unwrap_or_default();
    }
    false
}

fn alert(code: u8, reason: &str) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(code), frame: None, reason: reason.into() }
}

impl Session for Named {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Some(hello) = &mut self.hello else { return self.session.read_handshake(buf) };
        hello.bytes.extend_from_slice(buf);
        if hello.bytes.len() > LONGEST_HELLO {
            return Err(alert(DECODE_ERROR, "ClientHello is too long"));
        }
        let Some(session) = hello.session()? else { return Ok(false) };
        self.session = session;
        let bytes = self.hello.take().map(|hello| hello.bytes).unwrap_or_default();
        self.session.read_handshake(&bytes)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match self.hello {
            Some(_) => None,
            None => {
                let before = buf.len();
                let keys = self.session.write_handshake(buf);
                self.resumed &= !has_certificate(buf.get(before..).unwrap_or_default());
                keys
            }
        }
    }

    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let data = self.session.handshake_data()?.downcast::<HandshakeData>().ok()?;
        Some(Box::new(Handshake { server_name: data.server_name, resumed: self.resumed }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_found_among_messages() {
        let message = |kind: u8, length: usize| {
            [&[kind, 0, (length >> 8) as u8, length as u8][..], &vec![11; length]].concat()
        };
        let (extensions, certificate, finished) =
            (message(8, 40), message(CERTIFICATE, 900), message(20, 32));
        assert!(has_certificate(&[&extensions[..], &certificate, &finished].concat()));
        assert!(!has_certificate(&[&extensions[..], &finished].concat()));
        for length in [0, 3, 4, 5] {
            assert!(!has_certificate(extensions.get(..length).unwrap()));
        }
    }
}
