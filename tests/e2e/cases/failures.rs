//! What clients and the log are told when an RS fails, and when a request is sent once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::h2::{self, H2};
use crate::harness::origin::{ok, refusing, response, silent};
use crate::harness::{Case, Origin, Program, Request, Setup, until};

use super::{site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("failures::each_has_its_status_and_reason", statuses),
        Case::new("failures::refused_connections_go_to_another_rs", refused),
        Case::new("failures::unanswered_connections_go_to_another_rs", unanswered),
        Case::new("failures::a_stale_connection_is_no_failure_for_get", stale_get),
        Case::new("failures::a_stale_connection_is_a_failure_for_post", stale_post),
        Case::new("failures::read_timeout", read_timeout),
        Case::new("failures::send_timeout", send_timeout),
        Case::new("failures::connect_timeout", connect_timeout),
        Case::new("failures::interim_responses_end_somewhere", interim),
        Case::new("failures::a_slow_client_gets_408", slow_client),
        Case::new("failures::a_client_that_takes_nothing_is_cut", stuck_client),
        Case::new("failures::nothing_hangs_without_any_rs", no_server),
    ]
}

/// Asks over both protocols and looks at status, page and log.
fn expect(program: &Program, target: &str, status: u16, reason: &str) {
    let got = program.ask("http", &Request::get("localhost", target));
    assert_eq!(got.status, status, "{target}: {}", got.text());
    assert!(got.text().ends_with(&format!("({reason})\n")), "{target}: {}", got.text());
    assert_eq!(got.field("content-type"), Some("text/plain; charset=utf-8"));
    let line = program.logged(target);
    assert_eq!(
        (line["status"].as_u64(), line["reason"].as_str()),
        (Some(status.into()), Some(reason)),
        "{line}"
    );
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let got = client.get(&format!("https://localhost{target}")).await;
        assert_eq!(got.status, status, "{target} over HTTP/2: {}", got.text());
        assert!(got.text().ends_with(&format!("({reason})\n")), "{target}: {}", got.text());
    });
}

fn statuses() {
    let origin = Origin::scripted(|peer| {
        let request = peer.request()?;
        peer.send(match request.target() {
            "/no-http" => "SSH-2.0-OpenSSH_9.2\r\n",
            "/both" => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "/lengths" => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "/folded" => "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n",
            "/switch" => "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "/half" => "HTTP/1.1 200 OK\r\nContent-Le",
            "/coding" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            _ => "",
        })
    });
    let program = site(&origin).start();
    for (target, reason) in [
        ("/closed", "upstream_closed"),
        ("/half", "upstream_closed"),
        ("/no-http", "bad_version"),
        ("/both", "conflicting_length"),
        ("/lengths", "repeated_length"),
        ("/folded", "bad_field_name"),
        ("/coding", "unknown_transfer_encoding"),
        ("/switch", "unasked_upgrade"),
    ] {
        expect(&program, target, 502, reason);
    }
    let (address, _guard) = refusing();
    let program = Setup::new(super::SITE)
        .put("rs", address)
        .put("listener", "")
        .put("pool", "")
        .put("more", "")
        .start();
    expect(&program, "/refused", 502, "connect_failed");
    program.wait_metric("ingre_failures_total{reason=\"connect_failed\"}", 2);
}

const TWO: &str = r#"
workers: 1
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<first>"}, {address: "<second>"}]
    health_check: {type: off}
    connect_timeout: <timeout>
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;

fn retried(first: std::net::SocketAddr) {
    let origin = Origin::serving(|request| response("200 OK", &[], &request.body));
    let program =
        Setup::new(TWO).put("first", first).put("second", origin.address()).put("timeout", "300ms").start();
    for number in 0..4 {
        let target = format!("/get{number}");
        assert_eq!(program.ask("http", &Request::get("a.test", &target)).status, 200);
        // Also with content: nothing of it was sent yet.
        let got = program.ask("http", &Request::post("a.test", "/post", "hello"));
        assert_eq!((got.status, got.text().as_str()), (200, "hello"));
    }
    until("all log lines", || (program.log_lines().len() == 8).then_some(()));
    let lines = program.log_lines();
    let retries: u64 = lines.iter().map(|line| line["retries"].as_u64().unwrap()).sum();
    assert_eq!(retries, 4, "every second request met the RS that is gone first: {lines:#?}");
    assert!(lines.iter().all(|line| line["rs"] == origin.address().to_string()));
    assert_eq!(origin.received().len(), 8);
}

fn refused() {
    let (address, _guard) = refusing();
    retried(address);
}

fn unanswered() {
    let (address, _guards) = silent();
    retried(address);
}

/// Answers the first request of each connection and closes on the second, once it has come.
fn closing() -> (Origin, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let origin = Origin::scripted(move |peer| {
        peer.request()?;
        peer.send(ok("rs"))?;
        peer.request()?;
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    (origin, seen)
}

fn stale_get() {
    let (origin, closed) = closing();
    let program = site(&origin).start();
    let mut client = program.connect("http");
    for number in 0..3 {
        let got = client.ask(&Request::get("a.test", &format!("/{number}")));
        assert_eq!((got.status, got.text().as_str()), (200, "rs"));
    }
    // The second and the third request met a connection that closed as they came.
    assert_eq!(closed.load(Ordering::SeqCst), 2);
    assert_eq!(program.logged("/1")["retries"], 1);
    program.wait_metric("ingre_retries_total", 2);
}

fn stale_post() {
    let (origin, closed) = closing();
    let program = site(&origin).start();
    let mut client = program.connect("http");
    assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
    let got = client.ask(&Request::post("a.test", "/post", ""));
    assert_eq!((got.status, got.text().contains("(upstream_closed)")), (502, true));
    assert_eq!(closed.load(Ordering::SeqCst), 1);
    assert_eq!(origin.received().len(), 2, "a POST was sent twice");
    assert_eq!(program.logged("/post")["retries"], 0);
}

fn read_timeout() {
    let origin = Origin::scripted(|peer| {
        if peer.request()?.target() == "/begun" {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        }
        peer.rest().map(drop)
    });
    let program = site_with(&origin, "", "read_timeout: 1s").start();
    expect(&program, "/never", 504, "upstream_timeout");
    // A response that has begun is broken off.
    assert!(program.connect("http").try_ask(&Request::get("a.test", "/begun")).is_err());
    let line = program.logged("/begun");
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(200), Some("upstream_timeout")));
}

fn send_timeout() {
    let (origin, over) = Origin::stuck();
    let program = site_with(&origin, "client_max_body_size: 0", "send_timeout: 1s").start();
    let mut client = program.connect("http");
    client.send(format!("POST /stuck HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", 1_u64 << 30));
    let piece = vec![b'x'; 64 << 10];
    while client.try_send(&piece).is_ok() {}
    let line = program.logged("/stuck");
    assert_eq!(
        (line["status"].as_u64(), line["reason"].as_str()),
        (Some(504), Some("upstream_send_timeout"))
    );
    drop(over);
}

fn connect_timeout() {
    let (address, _guards) = silent();
    let setup = Setup::new(super::SITE).put("rs", address).put("listener", "").put("more", "");
    let program = setup.put("pool", ", connect_timeout: 200ms").start();
    expect(&program, "/", 504, "connect_timeout");
    assert!(program.logged("/")["connect_ms"].as_f64().unwrap() >= 200.0);
}

fn interim() {
    let origin = Origin::scripted(|peer| {
        loop {
            let count: usize = peer.request()?.target()[1..].parse().unwrap();
            for _ in 0..count {
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            }
            peer.send(ok("rs"))?;
        }
    });
    let program = site(&origin).start();
    assert_eq!(program.ask("http", &Request::get("a.test", "/3")).text(), "rs");
    expect(&program, "/100", 502, "too_many_interim");
}

fn slow_client() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "client_header_timeout: 1s, client_body_timeout: 1s", "").start();
    let mut client = program.connect("http");
    client.send("GET / HTTP/1.1\r\nHost: a.t");
    let got = client.response();
    assert_eq!((got.status, got.text().contains("(client_timeout)")), (408, true));
    assert!(client.is_closed());
    // Nothing at all: no answer either, for there is no request.
    let mut client = program.connect("http");
    assert!(client.is_closed());
    // Content that does not come.
    let mut client = program.connect("http");
    client.send("POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nab");
    let got = client.response();
    assert_eq!((got.status, got.text().contains("(client_timeout)")), (408, true));
    assert!(client.is_closed());
    assert_eq!(program.logged("/slow")["reason"], "client_timeout");
    // The handshake counts as well.
    let mut client = crate::harness::Client::connect(program.listener("https"));
    assert!(client.is_closed());
}

fn stuck_client() {
    let origin = Origin::serving(|_| response("200 OK", &[], vec![b'x'; 64 << 20]));
    let program = site_with(&origin, "send_timeout: 1s", "").start();
    let mut client = program.connect("http");
    client.send("GET /stuck HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let line = program.logged("/stuck");
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(200), Some("client_timeout")));
}

fn no_server() {
    let (address, _guard) = refusing();
    let yaml = r#"
admin: {address: "127.0.0.1:0"}
listeners:
  - {name: http, address: "127.0.0.1:0"}
  - {name: https, address: "127.0.0.1:0", tls: {development: {}}}
pools:
  - name: down
    servers: [{address: "<rs>"}]
    all_down: refuse
    health_check: {type: tcp, interval: 2s, timeout: 1s, unhealthy_threshold: 1}
  - name: drained
    servers: [{address: "<rs>", weight: 0}]
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: down}, {url: /drained, pool: drained}]}]
"#;
    let program = Setup::new(yaml).put("rs", address).start();
    program.wait_metric(&format!("ingre_server_up{{pool=\"down\",server=\"{address}\"}}"), 0);
    expect(&program, "/", 503, "no_server");
    expect(&program, "/drained", 503, "no_server");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).field("retry-after"), Some("5"));
    program.said(&format!("pool down: {address} is Down, was Probing"));
}
