//! Load over HTTP/3 for comparisons: some connections, each with some GET requests under way, for some seconds.
//!
//!     h3_load ADDRESS NAME CA.pem CONNECTIONS STREAMS SECONDS PATH
//!
//! Prints requests answered with 200, all others, bytes of all answers and connections made. With STREAMS 0 each
//! connection makes one request and is made again: that measures handshakes.

#![allow(missing_docs, clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A stream of type control with empty settings (RFC 9114 6.2.1, 7.2.4).
const CONTROL: [u8; 3] = [0, 4, 0];
/// Largest answer that is read.
const MOST: usize = 64 << 20;

#[derive(Default)]
struct Count {
    done: u64,
    failed: u64,
    bytes: u64,
    connections: u64,
}

struct Load {
    client: ClientConfig,
    address: SocketAddr,
    name: String,
    request: Vec<u8>,
    end: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, name, ca, connections, streams, seconds, path] = arguments.as_slice() else {
        panic!("usage: h3_load ADDRESS NAME CA.pem CONNECTIONS STREAMS SECONDS PATH")
    };
    let [connections, streams, seconds]: [u64; 3] =
        [connections, streams, seconds].map(|number| number.parse().unwrap());
    let load = Arc::new(Load {
        client: client(ca),
        address: address.parse().unwrap(),
        name: name.clone(),
        request: request(name, path),
        end: Instant::now() + Duration::from_secs(seconds),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let load = Arc::clone(&load);
        tasks.spawn(async move {
            match streams {
                0 => load.handshakes().await,
                _ => load.requests(streams).await,
            }
        });
    }
    let mut all = Count::default();
    while let Some(Ok(count)) = tasks.join_next().await {
        all.add(&count);
    }
    println!("{} {} {} {}", all.done, all.failed, all.bytes, all.connections);
}

impl Load {
    async fn connect(&self, endpoint: &Endpoint) -> Option<Connection> {
        let connecting = endpoint.connect_with(self.client.clone(), self.address, &self.name).unwrap();
        let connection = connecting.await.ok()?;
        let mut control = connection.open_uni().await.ok()?;
        control.write_all(&CONTROL).await.ok()?;
        // The stream stays open as long as the connection.
        std::mem::forget(control);
        Some(connection)
    }

    async fn requests(self: Arc<Self>, streams: u64) -> Count {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let Some(connection) = self.connect(&endpoint).await else {
            return Count { failed: 1, ..Count::default() };
        };
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..streams {
            let (load, connection) = (Arc::clone(&self), connection.clone());
            tasks.spawn(async move {
                let mut count = Count::default();
                while Instant::now() < load.end {
                    count.ask(&connection, &load.request).await;
                }
                count
            });
        }
        let mut all = Count { connections: 1, ..Count::default() };
        while let Some(Ok(count)) = tasks.join_next().await {
            all.add(&count);
        }
        connection.close(VarInt::from_u32(0x100), b"");
        endpoint.wait_idle().await;
        all
    }

    async fn handshakes(self: Arc<Self>) -> Count {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut count = Count::default();
        while Instant::now() < self.end {
            let Some(connection) = self.connect(&endpoint).await else {
                count.failed += 1;
                continue;
            };
            count.connections += 1;
            count.ask(&connection, &self.request).await;
            connection.close(VarInt::from_u32(0x100), b"");
        }
        count
    }
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.bytes += other.bytes;
        self.connections += other.connections;
    }

    async fn ask(&mut self, connection: &Connection, request: &[u8]) {
        let answer = async {
            let (mut send, mut receive) = connection.open_bi().await.ok()?;
            send.write_all(request).await.ok()?;
            send.finish().ok()?;
            receive.read_to_end(MOST).await.ok()
        };
        match answer.await {
            Some(answer) if is_ok(&answer) => {
                self.done += 1;
                self.bytes += answer.len() as u64;
            }
            _ => self.failed += 1,
        }
    }
}

/// Whether the first field of the first frame is `:status: 200` as an index of the static table (RFC 9204 A).
fn is_ok(answer: &[u8]) -> bool {
    let length = match answer.get(1) {
        Some(first) => 1 << (first >> 6),
        None => return false,
    };
    answer.first() == Some(&1) && answer.get(1 + length + 2) == Some(&0xd9)
}

/// A HEADERS frame (RFC 9114 7.2.2) with GET, https, and two literals with static names (RFC 9204 4.5).
fn request(name: &str, path: &str) -> Vec<u8> {
    let mut section = vec![0, 0, 0xd1, 0xd7];
    for (index, value) in [(0x51, path), (0x50, name)] {
        section.push(index);
        section.push(u8::try_from(value.len()).ok().filter(|length| *length < 127).unwrap());
        section.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![1];
    let length = u16::try_from(section.len()).unwrap();
    frame.extend_from_slice(&(length | 0x4000).to_be_bytes());
    frame.extend_from_slice(&section);
    frame
}

fn client(ca: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    // As browsers, and as large as a fast path needs.
    transport.receive_window(VarInt::from_u32(16 << 20)).stream_receive_window(VarInt::from_u32(4 << 20));
    config.transport_config(Arc::new(transport));
    config
}
