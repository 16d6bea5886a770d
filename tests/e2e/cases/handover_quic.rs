//! A new process takes over from a running one: connections of QUIC stay where they are, although all packets arrive at the
//! new one.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::digest::{content, sha256};
use crate::harness::h2;
use crate::harness::h3::{H3, Quic, Unanswered};
use crate::harness::origin::response;
use crate::harness::{Case, Need, Origin, Program, Setup, Tls, until};

use super::handover::{Hammer, ends, some, succeed, text};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("handover_quic::downloads_go_on_and_clients_may_move", downloads),
        Case::needing("handover_quic::another_client_moves_too", &[Need::Aioquic], other_client),
        Case::new("handover_quic::no_request_fails", hammer),
        Case::new("handover_quic::a_process_in_the_middle_may_end_first", generations),
        Case::new("handover_quic::who_is_left_alone_is_told", reset),
        Case::new("handover_quic::a_third_takes_over_where_the_second_has_died", third),
        Case::new("handover_quic::http3_may_come_and_go", without),
        Case::new("handover_quic::one_socket_for_all_workers_goes_over", handed_in),
    ]
}

const LOST: &str = "ingre_quic_datagrams_to_predecessors_lost_total";
const PASSED: &str = "ingre_quic_datagrams_to_predecessors_total";

async fn connect(program: &Program) -> Quic {
    try_connect(program.listener("https"), &program.tls()).await.unwrap()
}

async fn try_connect(at: SocketAddr, tls: &Tls) -> Result<Quic, String> {
    let config = tls.clone().offer(&["h3"]).config();
    Quic::connect(at, &config, "localhost").await.map_err(|error| error.to_string())
}

/// An RS with so much to say, in front of it a program.
fn large(workers: usize) -> (Origin, String, Program) {
    let body = content(8_000_000, 12);
    let digest = sha256(&body);
    let origin = Origin::serving(move |_| response("200 OK", &[], &body));
    let program = Setup::new(&text(&origin, workers)).start();
    (origin, digest, program)
}

/// Returns once so many requests have reached the RS; meanwhile clients go on.
async fn arrived(origin: &Origin, count: usize) {
    while origin.received().len() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn get(client: &Quic, digest: &str) {
    let (status, body) = client.get("/").await.unwrap();
    assert_eq!((status, sha256(&body).as_str()), (200, digest));
}

fn downloads() {
    for (before, after) in [(1, 1), (4, 4), (1, 4), (4, 1), (2, 3), (3, 2)] {
        let (origin, digest, old) = large(before);
        h2::run(async {
            let mut clients = Vec::new();
            for _ in 0..6 {
                let client = connect(&old).await;
                let response = client.begin("localhost", "/").await.unwrap();
                clients.push((client, response));
            }
            arrived(&origin, 6).await;
            let new = succeed(&old, &text(&origin, after));
            // They are served where they were, whatever port they have now.
            for (client, response) in clients {
                client.rebind();
                let (status, body) = client.finish(response).await.unwrap();
                assert_eq!((status, sha256(&body)), (200, digest.clone()), "{before} {after}");
                client.close().await;
            }
            assert!(new.metric(PASSED) > Some(0));
            assert_eq!(new.metric(LOST), Some(0));
            assert_eq!(new.metric("ingre_connections_total"), Some(0));
            // New ones are the new one's, on every worker.
            for _ in 0..6 {
                let client = connect(&new).await;
                client.rebind();
                get(&client, &digest).await;
                client.close().await;
            }
            assert_eq!(new.metric("ingre_connections_total"), Some(6));
            if after <= before || before > 1 {
                // The kernel knows whose they are, but for what had arrived before.
                assert!(new.metric("ingre_quic_datagrams_passed_on_total") < Some(50));
            }
            assert_eq!(new.metric("ingre_quic_datagrams_lost_total"), Some(0));
            ends(old);
        });
    }
}

fn other_client() {
    let (origin, digest, old) = large(4);
    let mut clients: Vec<_> = (0..3).map(|_| H3::connect(&old)).collect();
    let begun: Vec<_> =
        clients.iter_mut().map(|client| client.ask(json!({"do": "begin", "until": 500_000}))).collect();
    let new = succeed(&old, &text(&origin, 4));
    for (number, (mut client, begun)) in clients.into_iter().zip(begun).enumerate() {
        for _ in 0..3 {
            client.ask(json!({"do": "move", "new_id": number % 2 == 0}));
            client.ask(json!({"do": "wait", "patience": 0.02}));
        }
        let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
        assert_eq!(
            (&got["length"], &got["sha256"]),
            (&json!(8_000_000), &json!(digest)),
            "{}",
            got["closed"]
        );
        // It has been told to leave.
        let end = client.ask(json!({"do": "wait", "patience": 5}));
        assert_eq!(end["closed"]["code"], 0x100, "{end}");
    }
    assert_eq!(new.metric(LOST), Some(0));
    assert_eq!(H3::connect(&new).request(json!({}))["sha256"], json!(digest));
    ends(old);
}

/// Requests on one connection after another; one that the server says it has not looked at is sent again.
fn over_h3(at: SocketAddr, tls: &Tls, requests: usize, next: &dyn Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        while next() {
            let client = try_connect(at, tls).await.unwrap();
            for _ in 0..requests {
                match client.get("/").await {
                    Ok((status, body)) => assert_eq!((status, &body[..]), (200, &b"rs"[..])),
                    Err(Unanswered::Rejected) => break,
                    Err(Unanswered::Failed(reason)) => panic!("{reason}"),
                }
                if !next() {
                    break;
                }
            }
            client.close().await;
        }
    });
}

fn hammer() {
    let origin = Origin::named("rs");
    // Where clients are counted, everybody is asked for a token first: it is good with the next process, too.
    for limit in ["", ", max_connections_per_client: 1000"] {
        let text = |workers| {
            let tls = "tls: {development: {}}";
            text(&origin, workers).replace(tls, &format!("{tls}{limit}"))
        };
        let mut running = Setup::new(&text(2)).start();
        let (at, tls) = (running.listener("https"), running.tls());
        let mut hammer = Hammer::new();
        for requests in [1, 1, 1, 20, 10_000] {
            let tls = tls.clone();
            hammer = hammer.with(move |next| over_h3(at, &tls, requests, next));
        }
        for workers in [2, 4, 1, 3] {
            some(&hammer, 200);
            let new = succeed(&running, &text(workers));
            some(&hammer, 200);
            ends(std::mem::replace(&mut running, new));
        }
        assert!(hammer.end() > 1600);
        assert_eq!(running.metric("ingre_quic_datagrams_lost_total"), Some(0));
    }
}

fn generations() {
    let (origin, digest, first) = large(2);
    h2::run(async {
        let one = connect(&first).await;
        let of_first = one.begin("localhost", "/").await.unwrap();
        arrived(&origin, 1).await;
        let second = succeed(&first, &text(&origin, 3));
        let two = connect(&second).await;
        let of_second = two.begin("localhost", "/").await.unwrap();
        arrived(&origin, 2).await;
        let third = succeed(&second, &text(&origin, 2));
        let three = connect(&third).await;
        get(&three, &digest).await;
        // The one in the middle is the first to go.
        assert_eq!(sha256(&two.finish(of_second).await.unwrap().1), digest);
        two.close().await;
        ends(second);
        assert!(!first.stderr().contains("has ended"), "{}", first.stderr());
        let fourth = succeed(&third, &text(&origin, 2));
        one.rebind();
        assert_eq!(sha256(&one.finish(of_first).await.unwrap().1), digest);
        assert!(fourth.metric(PASSED) > Some(0));
        one.close().await;
        ends(first);
        three.close().await;
        ends(third);
        get(&connect(&fourth).await, &digest).await;
    });
}

fn reset() {
    let (origin, _, _old) = large(1);
    let short = text(&origin, 2).replace("timeout: 20s", "timeout: 1s");
    let mut old = Setup::new(&short).start();
    h2::run(async {
        let client = connect(&old).await;
        let _response = client.begin("localhost", "/").await.unwrap();
        arrived(&origin, 1).await;
        let _new = succeed(&old, &short);
        old.wait_exit();
        old.said("the drain timeout has passed");
        // Of the process nobody is left; the other one says so at the first packet, long before the client would give up.
        let before = Instant::now();
        let _ = client.begin("localhost", "/").await;
        let end = tokio::time::timeout(Duration::from_secs(10), client.connection.closed()).await.unwrap();
        assert!(matches!(end, quinn::ConnectionError::Reset), "{end:?}");
        assert!(before.elapsed() < Duration::from_secs(10));
    });
}

fn third() {
    let (origin, digest, first) = large(2);
    h2::run(async {
        let client = connect(&first).await;
        let response = client.begin("localhost", "/").await.unwrap();
        arrived(&origin, 1).await;
        let second = succeed(&first, &text(&origin, 4));
        second.signal(Signal::KILL);
        first.said("another one may take over from this one");
        // Its packets reach the first one again.
        assert_eq!(sha256(&client.finish(response).await.unwrap().1), digest);
        until("the first one is found again", || first.path().join("ingre.sock").exists().then_some(()));
        let third = Setup::beside(&first, &text(&origin, 3)).start();
        third.said("took over");
        client.close().await;
        for _ in 0..6 {
            get(&connect(&third).await, &digest).await;
        }
        ends(first);
    });
}

fn without() {
    let (origin, digest, first) = large(2);
    let without = text(&origin, 2).replace("tls: {development: {}}", "tls: {development: {}}, http3: false");
    h2::run(async {
        let client = connect(&first).await;
        let response = client.begin("localhost", "/").await.unwrap();
        arrived(&origin, 1).await;
        let second = succeed(&first, &without);
        // Nobody but the first one has the UDP port.
        client.rebind();
        assert_eq!(sha256(&client.finish(response).await.unwrap().1), digest);
        client.close().await;
        ends(first);
        let at = second.listener("https");
        until("the port is free", || UdpSocket::bind(at).is_ok().then_some(()));
        let third = succeed(&second, &text(&origin, 4));
        assert_eq!(third.listener("https"), at);
        get(&connect(&third).await, &digest).await;
        ends(second);
    });
}

fn handed_in() {
    let body = content(2_000_000, 4);
    let digest = sha256(&body);
    let origin = Origin::serving(move |_| response("200 OK", &[], &body));
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
    let old = Setup::new(&text(&origin, 3)).socket("https", tcp).socket("https-quic", udp).start();
    h2::run(async {
        let client = connect(&old).await;
        let response = client.begin("localhost", "/").await.unwrap();
        arrived(&origin, 1).await;
        let new = succeed(&old, &text(&origin, 2));
        assert_eq!(sha256(&client.finish(response).await.unwrap().1), digest);
        client.close().await;
        for _ in 0..4 {
            get(&connect(&new).await, &digest).await;
        }
        ends(old);
    });
}
