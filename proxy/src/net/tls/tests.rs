use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned, SupportedCipherSuite,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::record::kind;
use super::{Session, TlsStream};

const NAME: &str = "rs.test";
const KEY_UPDATE: u8 = 24;

/// A server and its client, for sessions with one cipher suite or all of them.
fn configs(suites: &[SupportedCipherSuite]) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let suites = if suites.is_empty() { provider::ALL_CIPHER_SUITES } else { suites };
    let provider =
        Arc::new(CryptoProvider { cipher_suites: suites.to_vec(), ..provider::default_provider() });
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.enable_secret_extraction = true;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    client.enable_secret_extraction = true;
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    (Arc::new(server), Arc::new(client))
}

fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

/// Both ends of a TCP connection.
fn connection() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

fn ours(tcp: std::net::TcpStream) -> TcpStream {
    tcp.set_nonblocking(true).unwrap();
    TcpStream::from_std(tcp).unwrap()
}

/// Two sessions of ours on one connection: server and client.
async fn pair(suites: &[SupportedCipherSuite]) -> (TlsStream, TlsStream) {
    let (server, client) = configs(suites);
    let (a, b) = connection();
    // The end of a handshake leaves with what follows it.
    let accepting = async {
        let mut server = TlsStream::accept(ours(a), |_| server).await?;
        server.flush().await.map(|()| server)
    };
    let connecting = async {
        let mut client = TlsStream::connect(ours(b), client, name()).await?;
        client.flush().await.map(|()| client)
    };
    let (server, client) = tokio::join!(accepting, connecting);
    (server.unwrap(), client.unwrap())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Lengths around those of records and buffers.
const LENGTHS: [usize; 7] = [1, 100, 16_383, 16_384, 16_385, 49_152, 300_000];

/// Sends back what comes until the other side ends.
async fn echo(mut stream: TlsStream) -> io::Result<()> {
    let mut buffer = vec![0; 20_000];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..length]).await?;
        stream.flush().await?;
    }
}

fn converse<C, S>(mut stream: StreamOwned<C, std::net::TcpStream>, mut before: impl FnMut(&mut C))
where
    C: std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    S: rustls::SideData,
{
    for length in LENGTHS {
        before(&mut stream.conn);
        let sent = content(length);
        let mut writer = stream.sock.try_clone().unwrap();
        // What is echoed meanwhile has to be read meanwhile: the writer gives the session some at a time.
        let mut received = Vec::new();
        for part in sent.chunks(16 << 10) {
            stream.conn.writer().write_all(part).unwrap();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut writer).unwrap();
            }
            let mut echoed = vec![0; part.len()];
            stream.read_exact(&mut echoed).unwrap();
            received.extend(echoed);
        }
        assert!(received == sent, "{length}");
    }
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "close_notify for close_notify");
}

#[test]
fn every_suite_of_both_versions_speaks_with_rustls() {
    for &suite in provider::ALL_CIPHER_SUITES
        .iter()
        .filter(|suite| format!("{suite:?}").contains("ECDSA") || suite.tls13().is_some())
    {
        let (server, client) = configs(&[suite]);
        let (a, b) = connection();
        let peer = thread::spawn(move || {
            converse(StreamOwned::new(ClientConnection::new(client, name()).unwrap(), b), |_| {});
        });
        block_on(async {
            let stream = TlsStream::accept(ours(a), |asked| {
                assert_eq!(asked, Some(NAME));
                Arc::clone(&server)
            });
            let stream = stream.await.unwrap();
            assert_eq!((stream.server_name(), stream.protocol()), (Some(NAME), Some(b"http/1.1".as_slice())));
            echo(stream).await.unwrap();
        });
        peer.join().unwrap();

        let (server, client) = configs(&[suite]);
        let (a, b) = connection();
        let peer = thread::spawn(move || {
            converse(StreamOwned::new(ServerConnection::new(server).unwrap(), a), |_| {});
        });
        block_on(async {
            let stream = TlsStream::connect(ours(b), client, name()).await.unwrap();
            assert!(stream.peer_certificates().is_some_and(|chain| chain.len() == 1) && !stream.is_resumed());
            echo(stream).await.unwrap();
        });
        peer.join().unwrap();
    }
}

/// RFC 8446 4.6.3: rustls renews its keys and wants us to.
#[test]
fn keys_are_renewed_as_often_as_the_other_side_wants() {
    let (server, client) = configs(&[]);
    let (a, b) = connection();
    let peer = thread::spawn(move || {
        let stream = StreamOwned::new(ClientConnection::new(client, name()).unwrap(), b);
        let mut first = true;
        converse(stream, |connection| {
            if !std::mem::take(&mut first) {
                connection.refresh_traffic_keys().unwrap();
            }
        });
    });
    block_on(async { echo(TlsStream::accept(ours(a), |_| server).await.unwrap()).await.unwrap() });
    peer.join().unwrap();
}

/// RFC 8446 5.5: a key seals no more than its cipher allows.
#[test]
fn keys_that_are_used_up_are_renewed() {
    let (server, client) = configs(&[]);
    let (a, b) = connection();
    let peer = thread::spawn(move || {
        converse(StreamOwned::new(ClientConnection::new(client, name()).unwrap(), b), |_| {});
    });
    block_on(async {
        let mut stream = TlsStream::accept(ours(a), |_| server).await.unwrap();
        stream.session.set_limit(12);
        echo(stream).await.unwrap();
    });
    peer.join().unwrap();
}

/// TLS 1.2 has no way to renew them.
#[test]
fn a_session_of_tls_12_ends_with_its_keys() {
    block_on(async {
        let suite = provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
        let (mut server, _client) = pair(&[suite]).await;
        server.session.set_limit(10);
        let error = server.write_all(&content(100_000)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

/// Whoever asks again and again for new keys, or to begin anew, and takes no answer, fills no memory here.
#[test]
fn questions_without_end_leave_nothing_behind() {
    block_on(async {
        let (mut server, mut client) = pair(&[provider::cipher_suite::TLS13_AES_128_GCM_SHA256]).await;
        let mut content = [0; 10];
        for _ in 0..200 {
            client.session.seal(kind::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1], &[]).unwrap();
            client.session.renewed();
            client.write_all(b"ten bytes.").await.unwrap();
            client.flush().await.unwrap();
            server.read_exact(&mut content).await.unwrap();
            assert!(server.session.out().is_empty());
        }
        server.write_all(b"one answer").await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut content).await.unwrap();
        assert_eq!(&content, b"one answer");

        let (mut server, mut client) =
            pair(&[provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]).await;
        for _ in 0..2 {
            client.session.seal(kind::HANDSHAKE, &[1, 0, 0, 0], &[]).unwrap();
            client.flush().await.unwrap();
            client.write_all(b"ten bytes.").await.unwrap();
            client.flush().await.unwrap();
        }
        server.read_exact(&mut content).await.unwrap();
        server.read_exact(&mut content).await.unwrap_err();
        server.write_all(b"too late").await.unwrap_err();
    });
}

/// What one side says to the other, and what the other makes of it: the alert that it answers with.
async fn answer_to(say: impl FnOnce(&mut Session)) -> Option<AlertDescription> {
    let (mut server, mut client) = pair(&[provider::cipher_suite::TLS13_AES_128_GCM_SHA256]).await;
    say(&mut client.session);
    client.flush().await.unwrap();
    client.session.say_goodbye();
    client.flush().await.unwrap();
    let mut content = Vec::new();
    if let Err(error) = server.read_to_end(&mut content).await {
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    } else {
        server.shutdown().await.unwrap();
    }
    let error = client.read_to_end(&mut Vec::new()).await.err()?;
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Some(*alert),
        _ => panic!("{error:?}"),
    }
}

#[test]
fn what_is_out_of_place_is_answered_with_an_alert() {
    let update = [KEY_UPDATE, 0, 0, 1, 0];
    type Row<'a> = (&'a str, &'a [(u8, &'a [u8])], Option<AlertDescription>);
    let records: [Row<'_>; 12] = [
        ("padding alone", &[(0, b"")], Some(AlertDescription::UnexpectedMessage)),
        ("no such type", &[(99, b"x")], Some(AlertDescription::UnexpectedMessage)),
        ("change_cipher_spec", &[(20, &[1])], Some(AlertDescription::UnexpectedMessage)),
        ("an empty handshake record", &[(kind::HANDSHAKE, b"")], Some(AlertDescription::UnexpectedMessage)),
        ("an alert too short", &[(kind::ALERT, &[1])], Some(AlertDescription::DecodeError)),
        ("user_canceled says nothing", &[(kind::ALERT, &[1, 90])], None),
        (
            "a ticket from a client",
            &[(kind::HANDSHAKE, &[4, 0, 0, 0])],
            Some(AlertDescription::UnexpectedMessage),
        ),
        ("a message too long", &[(kind::HANDSHAKE, &[4, 9, 0, 0])], Some(AlertDescription::DecodeError)),
        (
            "a key update of another kind",
            &[(kind::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2])],
            Some(AlertDescription::DecodeError),
        ),
        (
            "content between two halves of a message",
            &[(kind::HANDSHAKE, &update[..3]), (kind::APPLICATION_DATA, b"x")],
            Some(AlertDescription::UnexpectedMessage),
        ),
        (
            "a message on both sides of a key update",
            &[(kind::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0, KEY_UPDATE])],
            Some(AlertDescription::UnexpectedMessage),
        ),
        ("empty records, some", &[(kind::APPLICATION_DATA, [].as_slice()); 30], None),
    ];
    for (what, records, expected) in records {
        let answer = block_on(answer_to(|session| {
            for (kind, content) in records {
                session.seal(*kind, content, &[]).unwrap();
            }
        }));
        assert_eq!(answer, expected, "{what}");
    }
    let too_many = block_on(answer_to(|session| {
        for _ in 0..40 {
            session.seal(kind::APPLICATION_DATA, b"", &[]).unwrap();
        }
    }));
    assert_eq!(too_many, Some(AlertDescription::UnexpectedMessage));
    let bare = block_on(answer_to(|session| {
        session.out().append(5).copy_from_slice(&[22, 3, 3, 0, 30]);
        session.out().append(30).fill(1);
    }));
    assert_eq!(bare, Some(AlertDescription::UnexpectedMessage), "a record that is not sealed");
    let long = block_on(answer_to(|session| session.out().append(5).copy_from_slice(&[23, 3, 3, 0x41, 1])));
    assert_eq!(long, Some(AlertDescription::RecordOverflow));
    let forged = block_on(answer_to(|session| {
        session.out().append(5).copy_from_slice(&[23, 3, 3, 0, 30]);
        session.out().append(30).fill(1);
    }));
    assert_eq!(forged, Some(AlertDescription::BadRecordMac));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a client seals: its content arrives up to the first thing that is out of place, and nothing else does.
    #[test]
    fn what_arrives_is_what_was_sealed_as_content(
        records in vec((prop_oneof![4 => Just(23), 2 => Just(22), 1 => Just(21), 1 => any::<u8>()], vec(any::<u8>(), 0..40)), 0..12),
        cut in vec(0..3usize, 12),
    ) {
        block_on(async {
            let (mut server, mut client) = pair(&[]).await;
            let mut content = Vec::new();
            for (kind, record) in &records {
                client.session.seal(*kind, record, &[]).unwrap();
                if *kind == kind::APPLICATION_DATA {
                    content.extend_from_slice(record);
                }
                if cut.get(record.len() % 12) == Some(&0) {
                    client.flush().await.unwrap();
                }
            }
            client.session.say_goodbye();
            client.flush().await.unwrap();
            let mut received = Vec::new();
            let ended = server.read_to_end(&mut received).await;
            assert!(content.starts_with(&received));
            let is_plain = records.iter().all(|(kind, _)| *kind == kind::APPLICATION_DATA);
            assert!(!is_plain || (ended.is_ok() && received == content), "{ended:?}");
        });
    }
}

/// RFC 8446 5.1: a message may come in any number of records.
#[test]
fn a_message_in_pieces_is_put_together() {
    let answer = block_on(answer_to(|session| {
        session.seal(kind::HANDSHAKE, &[KEY_UPDATE, 0], &[]).unwrap();
        session.seal(kind::HANDSHAKE, &[0, 1], &[]).unwrap();
        session.seal(kind::HANDSHAKE, &[0], &[]).unwrap();
        session.renewed();
    }));
    assert_eq!(answer, None, "close_notify came with the new key");
}

#[test]
fn an_end_that_nobody_has_announced_is_an_error() {
    block_on(async {
        let (mut server, mut client) = pair(&[]).await;
        client.write_all(b"half a message").await.unwrap();
        client.flush().await.unwrap();
        client.tcp.shutdown().await.unwrap();
        let mut content = Vec::new();
        let error = server.read_to_end(&mut content).await.unwrap_err();
        assert_eq!(
            (error.kind(), content.as_slice()),
            (io::ErrorKind::UnexpectedEof, b"half a message".as_slice())
        );
    });
}

/// Pieces as heads and contents of frames come: all of it arrives, in order, and what is small has no record of its own.
#[test]
fn pieces_are_sealed_where_they_lie() {
    block_on(async {
        let (mut server, mut client) = pair(&[provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256]).await;
        let large = content(16_375);
        let pieces: [&[u8]; 7] =
            [b"headhead9", &large, b"headhead9", &large, b"", b"a longer one, of its own", b"9"];
        let pieces = pieces.map(io::IoSlice::new);
        let expected: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(server.write_vectored(&pieces).await.unwrap(), expected.len());
        let records = 4;
        assert_eq!(server.session.out().waiting().len(), expected.len() + records * (5 + 1 + 16));
        server.shutdown().await.unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert!(received == expected);
    });
}

/// One byte at a time, and more than a record at a time.
#[test]
fn readers_of_any_size_get_everything() {
    block_on(async {
        for size in [1, 7_000, 16_384, 100_000] {
            let (mut server, mut client) = pair(&[]).await;
            let sent = content(if size == 1 { 20_000 } else { 200_000 });
            let expected = sent.clone();
            let writing = async move {
                server.write_all(&sent).await.unwrap();
                server.shutdown().await.unwrap();
            };
            let reading = async move {
                let mut buffer = vec![0; size];
                let mut received = Vec::new();
                loop {
                    let length = client.read(&mut buffer).await.unwrap();
                    if length == 0 {
                        return received;
                    }
                    received.extend_from_slice(&buffer[..length]);
                }
            };
            let ((), received) = tokio::join!(writing, reading);
            assert!(received == expected, "{size}");
        }
    });
}

/// A connection that rests loses nothing of its session, and rests only when nothing is on its way.
#[test]
fn a_session_goes_on_after_a_rest() {
    block_on(async {
        let (mut server, client) = pair(&[]).await;
        let (tcp, session) = client.into_parts().unwrap();
        let mut client = TlsStream::resumed(tcp, session);
        client.write_all(b"after a rest").await.unwrap();
        client.flush().await.unwrap();
        let mut content = [0; 12];
        server.read_exact(&mut content).await.unwrap();
        assert_eq!(&content, b"after a rest");
        client.write_all(b"not flushed").await.unwrap();
        assert!(client.into_parts().is_none());
    });
}
