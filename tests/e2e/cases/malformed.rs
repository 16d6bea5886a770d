//! Requests that break the rules: the answer, the reason in the log, and the end of the connection.

use crate::harness::h2::{self, H2};
use crate::harness::{Case, Origin, Request, until};

use super::{site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("malformed::each_is_refused_and_the_connection_closed", table),
        Case::new("malformed::limits_of_the_listener", limits),
        Case::new("malformed::content_that_breaks_its_framing", framing),
        Case::new("malformed::http2_with_two_hosts_that_differ", http2),
        Case::new("malformed::pipelined_requests_stand_on_their_own", pipelined),
    ]
}

const TABLE: &[(&str, u16, &str)] = &[
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "conflicting_length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        400,
        "conflicting_length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        400,
        "repeated_length",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400, "repeated_length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400, "bad_length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 400, "bad_length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400, "bad_length"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        400,
        "bad_transfer_encoding",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "unknown_transfer_encoding"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501, "unknown_transfer_encoding"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400, "bad_field_name"),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "transfer_encoding_in_http10"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", 400, "bad_field_name"),
    ("GET / HTTP/1.1\nHost: a\n\n", 400, "bad_line_end"),
    ("GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n", 400, "bad_line_end"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", 400, "bad_field_value"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n", 400, "bad_field_value"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0A: b\r\n\r\n", 400, "bad_field_name"),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, "bad_field_name"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "repeated_host"),
    ("GET / HTTP/1.1\r\nX-A: b\r\n\r\n", 400, "missing_host"),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "missing_host"),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_host"),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_host"),
    ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "bad_host"),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "fragment_in_target"),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 501, "connect_refused"),
    ("GET /\r\n", 400, ""),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_version"),
    ("GET / FTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_version"),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_line"),
    ("\r\n\r\n\r\n\r\n\r\n\r\n", 400, "bad_request_line"),
    ("\u{16}\u{3}\u{1}\u{0}\u{5}", 400, "bad_request_line"),
    ("THISMETHODISLONGERTHANANYREGISTEREDONE / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "unknown_method"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: magic\r\n\r\n", 417, "unknown_expectation"),
];

fn table() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for (number, (bytes, status, reason)) in TABLE.iter().enumerate() {
        let mut client = program.connect("http");
        client.send(bytes);
        let got = client.response();
        assert_eq!(got.status, *status, "{bytes:?}: {}", got.text());
        assert!(got.text().contains(reason), "{bytes:?}: {}", got.text());
        assert_eq!(got.field("connection"), Some("close"), "{bytes:?}");
        assert!(client.is_closed(), "{bytes:?}");
        let line = until("its log line", || program.log_lines().get(number).cloned());
        assert_eq!(line["status"], *status, "{bytes:?}: {line}");
        assert!(line["reason"].as_str().is_some_and(|code| code.contains(reason)), "{bytes:?}: {line}");
    }
    assert!(origin.received().is_empty(), "an RS got one of them");
    // All of the same over TLS, on one that matters most.
    let mut client = crate::harness::Client::connect_tls(program.listener("https"), &program.tls());
    client.send(TABLE[0].0);
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
}

fn limits() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "client_header_size: 4k, client_header_count: 8", "").start();
    let ask = |request: Request| {
        let got = program.ask("http", &request);
        (got.status, got.text().rsplit('(').next().unwrap().trim_end_matches(")\n").to_owned())
    };
    let get = || Request::get("a.test", "/");
    assert_eq!(ask(get().header("X-A", &"b".repeat(3000))).0, 200);
    assert_eq!(ask(get().header("X-A", &"b".repeat(4096))), (431, "head_too_large".into()));
    let fields = |count| (0..count).fold(get(), |request, n| request.header(&format!("X-{n}"), "b"));
    assert_eq!(ask(fields(7)).0, 200);
    assert_eq!(ask(fields(8)), (431, "too_many_fields".into()));
    // The target has a limit of its own.
    let program = site(&origin).start();
    let ask = |length: usize| {
        let got = program.ask("http", &Request::get("a.test", &format!("/{}", "a".repeat(length - 1))));
        (got.status, got.text().contains("(target_too_long)"))
    };
    assert_eq!(ask(8 << 10), (200, false));
    assert_eq!(ask((8 << 10) + 1), (414, true));
    // And what never ends is refused before it does.
    let mut client = program.connect("http");
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-A: {}", "b".repeat(70 << 10)));
    assert_eq!(client.response().status, 431);
}

fn framing() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for (content, reason) in [
        ("zz\r\n", "bad_chunk_size"),
        ("-1\r\n", "bad_chunk_size"),
        ("3\r\nabcd\r\n0\r\n\r\n", "bad_chunk_line_end"),
        ("3\nabc\r\n0\r\n\r\n", "bad_chunk_line_end"),
        ("11111111111111111\r\n", "bad_chunk_size"),
        ("0\r\nX-A\r\n\r\n", "bad_trailers"),
        (&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000)), "chunk_extensions_too_long"),
        (&"1;abc\r\na\r\n".repeat(1100), "chunk_extensions_too_long"),
        (&format!("0\r\nX-A: {}\r\n\r\n", "b".repeat(9000)), "trailers_too_large"),
        (&format!("0\r\n{}\r\n", "X-A: b\r\n".repeat(65)), "trailers_too_large"),
    ] {
        let mut client = program.connect("http");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(content);
        let got = client.response();
        assert_eq!(got.status, 400, "{content:?}");
        assert!(got.text().contains(&format!("({reason})")), "{content:?}: {}", got.text());
        assert!(client.is_closed(), "{content:?}");
    }
    assert!(origin.received().is_empty(), "an RS got one of them as complete");
}

fn http2() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let request = http::Request::get("https://localhost/").header("host", "other.test").body(()).unwrap();
        let got = client.ask(request).await;
        assert_eq!((got.status, got.text().contains("(bad_host)")), (400, true));
        for host in ["localhost", "LocalHost"] {
            let request = http::Request::get("https://localhost/").header("host", host).body(()).unwrap();
            assert_eq!(client.ask(request).await.status, 200);
        }
        let request = http::Request::connect("localhost:443").body(()).unwrap();
        let (answer, _) = client.begin(request, true).await;
        assert!(answer.await.is_ok_and(|answer| answer.status().as_u16() >= 400), "CONNECT");
        // The connection is still good.
        assert_eq!(client.get("https://localhost/").await.status, 200);
    });
    assert!(origin.received().iter().all(|request| request.method() == "GET"));
}

fn pipelined() {
    let origin = Origin::serving(|request| crate::harness::origin::ok(request.target()));
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /GET /3 HTTP/1.1\r\nHost: a\r\n\r\n\
         BAD\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for target in ["/1", "/2", "/3"] {
        assert_eq!(client.response().text(), target);
    }
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
    assert_eq!(origin.received().len(), 3);
}
