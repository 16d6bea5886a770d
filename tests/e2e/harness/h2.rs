//! A client of HTTP/2, over TLS with ALPN.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::Tls;
use super::wait::PATIENCE;

/// Runs a case that speaks HTTP/2; it must end in time.
pub(crate) fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, case).await.expect("hangs") });
}

/// One connection.
pub(crate) struct H2 {
    sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
    /// Whether an earlier session was taken up again.
    pub(crate) resumed: bool,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// Fields.
    pub(crate) headers: HeaderMap,
    /// Content.
    pub(crate) body: Vec<u8>,
    /// Trailers.
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl H2 {
    /// Connects with large windows.
    pub(crate) async fn connect(address: SocketAddr, tls: &Tls) -> Self {
        let config = tls.clone().offer(&["h2"]).config();
        Self::with_config(address, config, tls.server_name()).await.unwrap()
    }

    /// Connects with a configuration that offers `h2` and remembers sessions; says what went wrong.
    pub(crate) async fn with_config(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, String> {
        let socket = TcpStream::connect(address).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(4 << 20).initial_connection_window_size(8 << 20);
        let (sender, connection) = builder.handshake(stream).await.map_err(|error| error.to_string())?;
        Ok(Self { sender, connection: tokio::spawn(connection), resumed })
    }

    /// The status of a GET, or what went wrong.
    pub(crate) async fn try_get(&mut self, url: &str) -> Result<u16, String> {
        let text = |error: h2::Error| error.to_string();
        std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await.map_err(text)?;
        let request = http::Request::get(url).body(()).unwrap();
        let (response, _) = self.sender.send_request(request, true).map_err(text)?;
        let (head, mut stream) = response.await.map_err(text)?.into_parts();
        read_body(&mut stream).await.map_err(text)?;
        Ok(head.status.as_u16())
    }

    /// Begins a request; more content is to follow unless `end`.
    pub(crate) async fn begin(
        &mut self,
        request: http::Request<()>,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await.unwrap();
        self.sender.send_request(request, end).unwrap()
    }

    /// Asks and reads the whole response.
    pub(crate) async fn ask(&mut self, request: http::Request<()>) -> Answer {
        let (response, _) = self.begin(request, true).await;
        read(response).await
    }

    /// GET.
    pub(crate) async fn get(&mut self, url: &str) -> Answer {
        self.ask(http::Request::get(url).body(()).unwrap()).await
    }

    /// Sends content and trailers and reads the whole response.
    pub(crate) async fn post(&mut self, url: &str, body: &[u8], trailers: Option<HeaderMap>) -> Answer {
        let (response, mut stream) = self.begin(http::Request::post(url).body(()).unwrap(), false).await;
        let sending = async {
            send(&mut stream, body, trailers.is_none()).await;
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers).unwrap();
            }
        };
        tokio::join!(read(response), sending).0
    }
}

/// Sends content as the window allows.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut body: &[u8], end: bool) {
    while !body.is_empty() {
        stream.reserve_capacity(body.len().min(1 << 20));
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let (now, later) = body.split_at(room.min(body.len()));
        body = later;
        if stream.send_data(Bytes::copy_from_slice(now), end && body.is_empty()).is_err() {
            return;
        }
    }
}

/// The whole response.
pub(crate) async fn read(response: ResponseFuture) -> Answer {
    let (head, mut stream) = response.await.unwrap().into_parts();
    let body = read_body(&mut stream).await.unwrap();
    let trailers = stream.trailers().await.unwrap();
    Answer { status: head.status.as_u16(), headers: head.headers, body, trailers }
}

/// The content of a response.
pub(crate) async fn read_body(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        stream.flow_control().release_capacity(data.len())?;
    }
    Ok(body)
}
