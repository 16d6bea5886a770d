//! Real servers that speak HTTP/2: one that sends exactly the frames a case wants, and one of another implementation.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::HeaderMap;
use proxy::h2::hpack::Decoder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::frames::{ACK, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PREFACE, SETTINGS, block, frame};
use super::origin::{Origin, Peer};

/// The far end of a connection, frame by frame.
pub(crate) struct Served<'a> {
    peer: &'a mut Peer,
    decoder: Decoder,
}

/// The head of a request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Its stream.
    pub(crate) stream: u32,
    /// Its fields, pseudo-header fields among them.
    pub(crate) fields: Vec<(String, String)>,
    /// Whether nothing follows.
    pub(crate) ended: bool,
}

impl Asked {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

impl<'a> Served<'a> {
    /// Takes the preface and says these settings, number and value.
    pub(crate) fn greet(peer: &'a mut Peer, settings: &[(u16, u32)]) -> io::Result<Self> {
        assert_eq!(peer.exactly(PREFACE.len())?, PREFACE);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        peer.send([frame(SETTINGS, 0, 0, payload), frame(SETTINGS, ACK, 0, [])].concat())?;
        Ok(Self { peer, decoder: Decoder::new(4096) })
    }

    /// Number of the connection, from 0.
    pub(crate) fn number(&self) -> usize {
        self.peer.number()
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> io::Result<Frame> {
        let head = self.peer.exactly(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = self.peer.exactly(length)?;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this type; others in front of it are dropped, but for their effect on the compression.
    pub(crate) fn wait(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            let frame = self.next()?;
            if frame.kind == kind {
                return Ok(frame);
            }
            if frame.kind == HEADERS {
                self.fields(&frame);
            }
        }
    }

    /// The head of the next request, or the trailers of one.
    pub(crate) fn head(&mut self) -> io::Result<Asked> {
        let frame = self.wait(HEADERS)?;
        Ok(Asked { stream: frame.stream, ended: frame.ends(), fields: self.fields(&frame) })
    }

    /// The content of the only request under way that still sends, up to its end.
    pub(crate) fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let frame = self.wait(DATA)?;
            content.extend_from_slice(&frame.payload);
            if frame.ends() {
                return Ok(content);
            }
        }
    }

    fn fields(&mut self, frame: &Frame) -> Vec<(String, String)> {
        assert_eq!(frame.flags & END_HEADERS, END_HEADERS);
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let field = |name: &[u8], value: &[u8]| fields.push((text(name), text(value)));
        self.decoder.decode(&frame.payload, field).unwrap();
        fields
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.peer.send(bytes)
    }

    /// Sends 200 with this text.
    pub(crate) fn answer(&mut self, stream: u32, text: &str) -> io::Result<()> {
        self.send([headers(stream, &[(":status", "200")], false), data(stream, text, true)].concat())
    }
}

/// A real server that does with each connection what `script` does behind the settings.
pub(crate) fn scripted(
    settings: &'static [(u16, u32)],
    script: impl Fn(&mut Served<'_>) -> io::Result<()> + Send + Sync + 'static,
) -> Origin {
    Origin::scripted(move |peer| script(&mut Served::greet(peer, settings)?))
}

/// HEADERS.
pub(crate) fn headers(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, stream, block(fields))
}

/// DATA.
pub(crate) fn data(stream: u32, content: impl AsRef<[u8]>, end: bool) -> Vec<u8> {
    frame(DATA, u8::from(end), stream, content)
}

/// A server of another implementation. It sends back what it is sent, as that comes, with the fields `content-type` and
/// the trailers of the request, and `grpc-status: 0`.
pub(crate) struct Echo {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<http::request::Parts>>>,
    _over: oneshot::Sender<()>,
}

impl Echo {
    /// In clear, or inside TLS.
    pub(crate) fn new(tls: Option<Arc<ServerConfig>>) -> Self {
        let heads = Arc::<Mutex<Vec<_>>>::default();
        let theirs = Arc::clone(&heads);
        let (over, is_over) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(listener, tls, theirs) => {}
                    _ = is_over => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), heads, _over: over }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<http::request::Parts> {
        self.heads.lock().unwrap().clone()
    }
}

type Heads = Arc<Mutex<Vec<http::request::Parts>>>;

async fn accept(listener: TcpListener, tls: Option<Arc<ServerConfig>>, heads: Heads) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (tls, heads) = (tls.clone(), Arc::clone(&heads));
        tokio::spawn(async move {
            match tls {
                None => serve(socket, heads).await,
                Some(tls) => {
                    let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(socket).await else {
                        return;
                    };
                    serve(stream, heads).await;
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, heads: Heads) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        heads.lock().unwrap().push(head.clone());
        tokio::spawn(async move {
            // How it ends is for the case to look at, on its own side.
            let _ = echo(&head, body, respond).await;
        });
    }
}

async fn echo(
    head: &http::request::Parts,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let mut response = http::Response::builder();
    if let Some(kind) = head.headers.get("content-type") {
        response = response.header("content-type", kind);
    }
    let mut out = respond.send_response(response.body(()).unwrap(), false)?;
    while let Some(data) = body.data().await {
        let data = data?;
        super::h2::send(&mut out, &data, false).await;
        body.flow_control().release_capacity(data.len())?;
    }
    let mut trailers = body.trailers().await?.unwrap_or_else(HeaderMap::new);
    trailers.insert("grpc-status", "0".parse().unwrap());
    out.send_trailers(trailers)
}
