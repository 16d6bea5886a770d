//! Header fields as they reach the RS and the client, over HTTP/1.1 and HTTP/2.

use std::net::Ipv4Addr;

use crate::harness::h2::{self, H2};
use crate::harness::origin::{Received, response};
use crate::harness::{Case, Origin, Request, Setup};

use super::{SITE, site};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("fields::requests_reach_the_rs_without_hop_by_hop_fields", request_fields),
        Case::new("fields::http2_requests_become_http1", http2_fields),
        Case::new("fields::nobody_is_believed_by_default", untrusted),
        Case::new("fields::trusted_proxies_are_believed", trusted),
        Case::new("fields::responses_reach_the_client_without_hop_by_hop_fields", response_fields),
        Case::new("fields::date_is_added_where_there_is_none", date),
        Case::new("fields::http10_clients_get_what_they_understand", http10),
        Case::new("fields::options_asterisk", asterisk),
    ]
}

/// The fields of a request, sorted, names in lower case.
fn sorted(received: &Received) -> Vec<String> {
    let mut fields: Vec<String> = received
        .head
        .fields
        .iter()
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect();
    fields.sort();
    fields
}

fn request_fields() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let request = Request::get("a.test", "/x?y")
        .header("Accept", "a/b")
        .header("X-Twice", "1")
        .header("X-Twice", "2")
        .header(
            "Connection",
            "keep-alive, X-Named, X-Real-IP, Host, X-Forwarded-For, Authorization, caf\u{e9}",
        )
        .header("X-Named", "secret")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Proxy-Authorization", "Basic eA==")
        .header("TE", "gzip, trailers")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABk")
        .header("Authorization", "Bearer x")
        .header("X_Forwarded_For", "1.2.3.4")
        .header("Cookie", "a=b");
    assert_eq!(program.ask("http", &request).status, 200);
    let received = origin.only();
    assert_eq!(received.head.line, "GET /x?y HTTP/1.1");
    assert_eq!(
        sorted(&received),
        [
            "accept: a/b",
            "authorization: Bearer x",
            "connection: TE",
            "cookie: a=b",
            "host: a.test",
            "te: trailers",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-real-ip: 127.0.0.1",
            "x-twice: 1",
            "x-twice: 2",
        ]
    );
}

fn http2_fields() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let request = http::Request::get("https://localhost/x?y")
            .header("accept", "a/b")
            .header("cookie", "a=b")
            .header("cookie", "c=d")
            .header("x-forwarded-for", "1.2.3.4")
            .header("te", "trailers");
        let answer = client.ask(request.body(()).unwrap()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "rs"));
    });
    let received = origin.only();
    assert_eq!(received.head.line, "GET /x?y HTTP/1.1");
    assert_eq!(
        sorted(&received),
        [
            "accept: a/b",
            "connection: TE",
            "cookie: a=b; c=d",
            "host: localhost",
            "te: trailers",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: https",
            "x-real-ip: 127.0.0.1",
        ]
    );
    assert_eq!(program.logged("/x?y")["protocol"], "HTTP/2");
}

fn forged() -> Request {
    Request::get("a.test", "/forged")
        .header("X-Forwarded-For", "203.0.113.7")
        .header("X-Forwarded-For", "10.1.1.1, 10.2.2.2")
        .header("X-Forwarded-Proto", "https")
        .header("X-Real-IP", "203.0.113.7")
        .header("Forwarded", "for=203.0.113.7")
}

fn untrusted() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    assert_eq!(program.ask("http", &forged()).status, 200);
    let received = origin.only();
    assert_eq!(received.head.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.field("x-forwarded-proto"), Some("http"));
    assert_eq!(received.field("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(received.field("forwarded"), None);
    assert_eq!(program.logged("/forged")["client"], "127.0.0.1");
}

fn trusted() {
    let origin = Origin::named("rs");
    let start = |networks: &str| {
        Setup::new(SITE)
            .put("rs", origin.address())
            .put("listener", "")
            .put("pool", "")
            .put("more", format!("trusted_proxies: {networks}\n"))
            .start()
    };
    let program = start("[127.0.0.0/8, 10.0.0.0/8]");
    assert_eq!(program.ask("http", &forged()).status, 200);
    let received = origin.only();
    assert_eq!(received.field("x-forwarded-for"), Some("203.0.113.7, 10.1.1.1, 10.2.2.2, 127.0.0.1"));
    assert_eq!(received.field("x-forwarded-proto"), Some("https"));
    assert_eq!(received.field("x-real-ip"), Some("203.0.113.7"));
    // The nearest address that is not one of ours.
    let line = program.logged("/forged");
    assert_eq!(line["client"], "203.0.113.7");
    assert!(line["peer"].as_str().unwrap().starts_with(&format!("{}:", Ipv4Addr::LOCALHOST)));
    // Another network is trusted: this peer is not.
    let program = start("[192.0.2.1]");
    assert_eq!(program.ask("http", &forged()).status, 200);
    assert_eq!(origin.received()[1].head.values("x-forwarded-for"), ["127.0.0.1"]);
}

fn response_fields() {
    let origin = Origin::serving(|_| {
        let fields = [
            ("Connection", "X-Named, keep-alive"),
            ("X-Named", "secret"),
            ("Keep-Alive", "timeout=5"),
            ("Upgrade", "h2c"),
            ("Set-Cookie", "a=b"),
            ("Set-Cookie", "c=d"),
            ("Server", "theirs"),
            ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ];
        response("299 Peculiar", &fields, "x")
    });
    let program = site(&origin).start();
    let got = program.ask("http", &Request::get("a.test", "/"));
    assert_eq!(got.status, 299);
    let mut names: Vec<_> = got.head.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    assert_eq!(names, ["content-length", "date", "server", "set-cookie", "set-cookie"]);
    assert_eq!(got.head.values("set-cookie"), ["a=b", "c=d"]);
    assert_eq!(got.field("date"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let got = client.get("https://localhost/").await;
        assert_eq!(got.status, 299);
        let mut names: Vec<_> = got.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort();
        assert_eq!(names, ["alt-svc", "content-length", "date", "server", "set-cookie"]);
        assert_eq!(got.headers.get_all("set-cookie").iter().count(), 2);
    });
}

fn date() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let got = program.ask("http", &Request::get("a.test", "/"));
    let names: Vec<_> = got.head.fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Date", "Content-Length"]);
    assert!(got.field("date").unwrap().ends_with(" GMT"));
}

fn http10() {
    // Chunked by the RS: toward HTTP/1.0 the end of the connection ends the content.
    let origin = Origin::serving(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".to_vec()
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    let got = client.response();
    assert_eq!((got.status, got.text().as_str()), (200, "abc"));
    assert_eq!(got.field("transfer-encoding"), None);
    assert_eq!(origin.only().head.line, "GET / HTTP/1.1");
    // With a length it may stay.
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = program.connect("http");
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
        let got = client.response();
        assert_eq!((got.text().as_str(), got.field("connection")), ("rs", Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response().text(), "rs");
    assert!(client.is_closed());
}

fn asterisk() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    assert_eq!(program.ask("http", &Request::new("OPTIONS", "a.test", "*")).status, 200);
    assert_eq!(origin.only().head.line, "OPTIONS * HTTP/1.1");
}
