//! The life of connections of HTTP/3: workers, other addresses of a client, reload, drain, and when it ends.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::digest::{content, sha256};
use crate::harness::h2;
use crate::harness::h3::{H3, Quic};
use crate::harness::origin::{ok, response};
use crate::harness::{Case, Need, Origin, Setup, until};

use super::{SITE, site, site_with};

const NEEDS: &[Need] = &[Need::Aioquic];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("http3_life::a_client_that_moves_keeps_its_connection", NEEDS, moves),
        Case::needing("http3_life::one_socket_is_enough_for_all_workers", NEEDS, handed_in),
        Case::new("http3_life::two_programs_never_share_a_port", not_shared),
        Case::needing("http3_life::a_drain_serves_what_is_under_way", NEEDS, drain),
        Case::needing("http3_life::a_reload_disturbs_nobody", NEEDS, reload),
        Case::needing("http3_life::connections_are_limited", NEEDS, limits),
        Case::needing("http3_life::an_idle_connection_is_left_with_goaway", NEEDS, idle),
        Case::needing("http3_life::a_connection_ends_after_its_requests", NEEDS, requests),
        Case::needing("http3_life::a_client_that_takes_nothing_is_cut_off", NEEDS, takes_nothing),
        Case::needing("http3_life::an_rs_that_does_not_read_stops_the_client", NEEDS, stuck),
        Case::needing("http3_life::packets_that_are_none", NEEDS, noise),
        Case::new("http3_life::a_crowd_of_half_open_handshakes_is_asked_for_its_addresses", crowd),
        Case::new("http3_life::a_session_is_taken_up_again", resumption),
    ]
}

/// [`SITE`] with four workers, in front of an RS.
fn four(origin: &Origin) -> Setup {
    Setup::new(&SITE.replace("workers: 1", "workers: 4"))
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", "")
}

fn moves() {
    let body = content(8_000_000, 3);
    let digest = sha256(&body);
    let origin = Origin::serving(move |_| response("200 OK", &[], &body));
    let program = four(&origin).start();
    // Several, as a worker may be right by chance; with another ID of the connection or the same.
    for new_id in [true, false, true, false] {
        let mut client = H3::connect(&program);
        let begun = client.ask(json!({"do": "begin", "until": 500_000}));
        for _ in 0..3 {
            client.ask(json!({"do": "move", "new_id": new_id}));
            client.ask(json!({"do": "wait", "patience": 0.02}));
        }
        let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
        assert_eq!(
            (&got["length"], &got["sha256"]),
            (&json!(8_000_000), &json!(digest)),
            "{}",
            got["closed"]
        );
        client.ask(json!({"do": "close"}));
    }
    assert_eq!(program.metric("ingre_connections_total"), Some(4));
    assert_eq!(program.metric("ingre_quic_datagrams_lost_total"), Some(0));
    // The kernel knows whose they are.
    assert_eq!(program.metric("ingre_quic_datagrams_passed_on_total"), Some(0));
}

fn handed_in() {
    let body = content(2_000_000, 4);
    let digest = sha256(&body);
    let origin = Origin::serving(move |_| response("200 OK", &[], &body));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
    let program = four(&origin).socket("https", tcp).socket("https-quic", udp).start();
    for _ in 0..4 {
        let mut client = H3::connect(&program);
        assert_eq!(client.request(json!({}))["sha256"], json!(digest));
    }
    assert!(program.metric("ingre_quic_datagrams_passed_on_total") > Some(0));
    // Where TCP was handed in and UDP can be bound, it is.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let program = four(&origin).socket("https", tcp).start();
    assert_eq!(H3::connect(&program).request(json!({}))["sha256"], json!(digest));
}

fn not_shared() {
    let origin = Origin::named("rs");
    let first = four(&origin).start();
    let at = first.listener("https");
    let config =
        SITE.replace("name: https, address: \"127.0.0.1:0\"", &format!("name: https, address: \"{at}\""));
    let tcp = |config: &str| {
        let setup = Setup::new(config).put("rs", origin.address()).put("listener", "");
        setup.put("pool", "").put("more", "")
    };
    // The TCP port is handed in, so that only the UDP port is in question.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = UdpSocket::bind(other.local_addr().unwrap()).unwrap();
    let port = other.local_addr().unwrap().port();
    let ran = tcp(SITE).socket("https", other).fail();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("another program has this UDP port"), "{ran:?}");
    drop(held);
    assert_ne!(port, at.port());
    // Another one that would share the port cannot have it either.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    assert!(socket.bind(&at.into()).is_err());
    assert_eq!(tcp(&config).fail().code, 1);
}

fn drain() {
    let (origin, go) = held();
    let mut program = site(&origin).start();
    let mut client = H3::connect(&program);
    let begun = client.ask(json!({"do": "begin", "path": "/slow"}));
    until("the request at the RS", || (origin.received().len() == 1).then_some(()));
    program.signal(Signal::TERM);
    let told = client.ask(json!({"do": "goaway", "count": 2}));
    // No further stream at first, and then none behind the one that is served.
    assert_eq!(told["goaways"], json!([(1u64 << 62) - 4, 4]), "{told}");
    assert!(told["closed"].is_null());
    let late = client.ask(json!({"do": "begin", "path": "/late"}));
    let late = client.ask(json!({"do": "finish", "stream": late["stream"]}));
    assert_eq!(late["reset"], 0x10b, "{late}");
    // Nobody new comes in.
    let mut other = H3::trusting(program.listener("https"), None);
    assert!(!other.open(json!({}))["closed"].is_null());
    go.send(()).unwrap();
    let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
    assert_eq!((&got["status"], &got["body"]), (&json!(200), &json!("at last")), "{got}");
    let end = client.ask(json!({"do": "wait", "patience": 5}));
    assert_eq!(end["closed"]["code"], 0x100, "{end}");
    assert!(program.wait_exit().success());
}

/// An RS that answers when it is told to.
fn held() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (go, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let origin = Origin::serving(move |_| {
        let _ = held.lock().unwrap().recv();
        ok("at last")
    });
    (origin, go)
}

fn reload() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let config = |origin: &Origin, names: &str| {
        format!(
            "workers: 2\nadmin: {{address: \"127.0.0.1:0\"}}\nlisteners: [{{name: https, address: \"127.0.0.1:0\", tls: \
             {{development: {{names: [{names}]}}}}}}]\npools: [{{name: rs, servers: [{{address: \"{}\"}}], \
             health_check: {{type: off}}}}]\nroutes: [{{domains: [\"*\"], rules: [{{url: /, pool: rs}}]}}]\n",
            origin.address()
        )
    };
    let program = Setup::new(&config(&one, "localhost")).start();
    let mut client = H3::connect(&program);
    assert_eq!(client.get("/"), (200, "one".into()));
    for round in 0..6 {
        let wanted = if round % 2 == 0 { (&two, "two") } else { (&one, "one") };
        assert_eq!(program.reload(&config(wanted.0, "localhost, other.test")), "ingre: reloaded");
        until("the other RS", || (client.get("/") == (200, wanted.1.into())).then_some(()));
        // Requests in between, none of which fails.
        for got in client.requests((0..50).map(|_| json!({})).collect()) {
            assert_eq!(got["status"], 200, "{got}");
        }
    }
    // New connections are shown the new certificate.
    let mut other = H3::trusting(program.listener("https"), Some(&program.path().join("certs/dev-ca.pem")));
    assert!(other.open(json!({"name": "other.test"}))["closed"].is_null());
    // What needs another socket needs a restart.
    let without = config(&one, "localhost").replace("name: https,", "name: https, http3: false,");
    assert!(program.reload(&without).contains("change only with a restart"), "{}", program.stderr());
}

fn limits() {
    let origin = Origin::named("rs");
    // One is kept for who comes by TCP.
    let program = site_with(&origin, "max_connections: 3", "").start();
    let mut kept = [H3::connect(&program), H3::connect(&program)];
    let closed = |client: &mut H3| client.open(json!({}))["closed"].clone();
    let mut third = H3::trusting(program.listener("https"), None);
    // CONNECTION_REFUSED.
    assert_eq!(closed(&mut third)["code"], 2);
    kept[0].ask(json!({"do": "close"}));
    until("room", || closed(&mut H3::trusting(program.listener("https"), None)).is_null().then_some(()));
    assert_eq!(kept[1].get("/").0, 200);

    let program = site_with(&origin, "max_connections_per_client: 1", "").start();
    let mut first = H3::connect(&program);
    let mut second = H3::trusting(program.listener("https"), None);
    assert_eq!(closed(&mut second)["code"], 2);
    assert_eq!(first.get("/").0, 200);

    let program = site_with(&origin, "access: [{deny: [127.0.0.0/8]}]", "").start();
    let mut client = H3::trusting(program.listener("https"), None);
    assert_eq!(closed(&mut client)["code"], 2);
    program.wait_metric("ingre_failures_total{reason=\"access_denied\"}", 1);
}

fn idle() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "keepalive_timeout: 1s", "").start();
    let mut client = H3::connect(&program);
    assert_eq!(client.get("/").0, 200);
    let started = Instant::now();
    let end = client.ask(json!({"do": "wait", "patience": 10}));
    assert_eq!(
        (&end["closed"]["code"], &end["goaways"][0]),
        (&json!(0x100), &json!((1u64 << 62) - 4)),
        "{end}"
    );
    assert!((Duration::from_millis(800)..Duration::from_secs(6)).contains(&started.elapsed()));
}

fn requests() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "keepalive_requests: 3", "").start();
    let mut client = H3::connect(&program);
    for _ in 0..3 {
        assert_eq!(client.get("/").0, 200);
    }
    let end = client.ask(json!({"do": "wait", "patience": 10}));
    assert_eq!(end["closed"]["code"], 0x100, "{end}");
    assert_eq!(end["goaways"][0], json!((1u64 << 62) - 4), "{end}");
}

fn takes_nothing() {
    let body = content(12_000_000, 5);
    let origin = Origin::serving(move |_| response("200 OK", &[], &body));
    let program = site_with(&origin, "send_timeout: 1s", "").start();
    // It opens a window and never another one.
    let mut client = H3::with(&program, json!({"max_data": 100_000, "max_stream_data": 100_000}));
    client.ask(json!({"do": "begin", "path": "/a", "until": 50_000}));
    std::thread::sleep(Duration::from_millis(1500));
    let line = program.logged("/a");
    assert_eq!((&line["reason"], &line["protocol"]), (&json!("client_timeout"), &json!("HTTP/3")), "{line}");
}

fn stuck() {
    let (origin, over) = Origin::stuck();
    let program = site_with(&origin, "client_max_body_size: 0", "").start();
    let before = program.resident();
    let mut client = H3::connect(&program);
    let begun = client.ask(json!({"do": "begin", "method": "POST", "size": 40_000_000, "end": false}));
    client.ask(json!({"do": "wait", "patience": 2}));
    // A window, what is on its way to the RS, and no more.
    assert!(program.resident() < before + (16 << 20), "{} -> {}", before, program.resident());
    // Another request passes meanwhile as far as the RS.
    assert_eq!(begun["status"], Value::Null);
    drop(over);
}

/// First byte of a Retry packet, without what is random in it (RFC 9000 17.2.5).
const RETRY: u8 = 0xf0;

fn crowd() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let at = program.listener("https");
    let tls = program.tls().offer(&["h3"]).config();
    // What clients say reaches the program; what it says does not reach them.
    let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
    relay.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let to = relay.local_addr().unwrap();
    let relayed = std::thread::spawn(move || {
        let mut retries = 0;
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = relay.recv_from(&mut buffer) {
            if from == at {
                retries += usize::from(buffer[0] & RETRY == RETRY);
            } else {
                relay.send_to(&buffer[..length], at).unwrap();
            }
        }
        retries
    });
    h2::run(async {
        let quic = Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from((*tls).clone()).unwrap());
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connect = || {
            let config = quinn::ClientConfig::new(Arc::clone(&quic) as _);
            endpoint.connect_with(config, to, "localhost").unwrap()
        };
        let mut connecting: Vec<_> = (0..100).map(|_| connect()).collect();
        // Their handshakes are known to the program.
        while program.metric("ingre_connections_open") != Some(100) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connecting.extend((0..10).map(|_| connect()));
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Who has the address that it says is served, crowd or not.
        let client = Quic::connect(at, &tls, "localhost").await.unwrap();
        assert_eq!(client.get("/").await.unwrap(), (200, b"rs".to_vec()));
        client.close().await;
        // None of those that came too many has become a connection.
        assert_eq!(program.metric("ingre_connections_total"), Some(101));
        drop((connecting, endpoint));
    });
    drop(program);
    let retries = relayed.join().unwrap();
    assert!(retries >= 10, "{retries}");
}

fn resumption() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let tls = program.tls().offer(&["h3"]).config();
    h2::run(async {
        for _ in 0..4 {
            let client = Quic::connect(program.listener("https"), &tls, "localhost").await.unwrap();
            assert_eq!(client.get("/").await.unwrap(), (200, b"rs".to_vec()));
            // The session comes behind the handshake.
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.close().await;
        }
    });
    program.wait_metric("ingre_tls_handshakes_total{kind=\"resumed\"}", 3);
    assert_eq!(program.metric("ingre_tls_handshakes_total{kind=\"full\"}"), Some(1));
}

fn noise() {
    let origin = Origin::named("rs");
    let program = four(&origin).start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = program.listener("https");
    for length in (0..1400).step_by(7) {
        for first in [0x00, 0x40, 0x80, 0xc0, 0xff] {
            let mut datagram = content(length, length as u64);
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            socket.send_to(&datagram, at).unwrap();
        }
    }
    assert_eq!(H3::connect(&program).get("/"), (200, "rs".into()));
}
