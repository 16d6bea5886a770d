//! Interim responses, and clients that wait for one before they send their content.

use std::io;
use std::time::{Duration, Instant};

use crate::harness::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, block, frame, get};
use crate::harness::origin::{Peer, ok, response};
use crate::harness::{Case, Client, Origin, Request, until};

use super::{site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("interim::content_follows_the_100_of_the_rs", agreed),
        Case::new("interim::content_follows_the_100_of_the_rs_over_http2", agreed_h2),
        Case::new("interim::a_final_response_takes_the_place_of_100", refused),
        Case::new("interim::a_final_response_takes_the_place_of_100_over_http2", refused_h2),
        Case::new("interim::an_rs_that_knows_no_100_gets_the_content_all_the_same", unknown),
        Case::new("interim::an_expectation_without_content_or_of_http10_is_none", pointless),
        Case::new("interim::what_would_be_refused_is_refused_before_it_is_sent", too_large),
        Case::new("interim::responses_reach_clients_that_can_read_them", forwarded),
        Case::new("interim::responses_reach_clients_of_http2", forwarded_h2),
    ]
}

const POST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

/// Says something else first, so that a 100 that is not its own would come before that.
fn agreeing() -> Origin {
    Origin::scripted(|peer| {
        loop {
            let head = peer.head()?;
            assert_eq!(head.field("expect"), Some("100-continue"));
            peer.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")?;
            let (body, _) = peer.body(&head)?;
            peer.send(response("200 OK", &[], body))?;
        }
    })
}

fn agreed() {
    let origin = agreeing();
    let program = site(&origin).start();
    let plain = program.connect("http");
    let secure = Client::connect_tls(program.listener("https"), &program.tls());
    for mut client in [plain, secure] {
        for _ in 0..2 {
            client.send(POST);
            assert_eq!(client.head().line, "HTTP/1.1 102 Processing");
            let head = client.head();
            assert_eq!((head.line.as_str(), head.fields.len()), ("HTTP/1.1 100 Continue", 0));
            client.send("hello");
            let got = client.response();
            assert_eq!((got.text().as_str(), got.field("connection")), ("hello", None));
        }
    }
    assert_eq!(origin.connections(), 1);
}

/// HEADERS of a request with content whose client waits.
fn post(stream: u32) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
    frame(HEADERS, END_HEADERS, stream, block(&[&fields[..], &[("expect", "100-continue")]].concat()))
}

/// The status of the next HEADERS on a stream.
fn status(client: &mut Frames, stream: u32) -> String {
    let frame = client.wait(HEADERS, stream);
    let fields = client.fields(&frame);
    assert_eq!(fields[0].0, ":status");
    fields[0].1.clone()
}

fn agreed_h2() {
    let origin = agreeing();
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    for stream in [1, 3] {
        client.send(post(stream));
        assert_eq!(status(&mut client, stream), "102");
        assert_eq!(status(&mut client, stream), "100");
        client.send(frame(DATA, END_STREAM, stream, "hello"));
        assert_eq!(client.response(stream), (200, "hello".into()));
    }
    assert_eq!(origin.connections(), 1);
}

/// Answers by the head alone. The content must not come, although the connection stays open.
fn refusing(answer: &'static [u8]) -> Origin {
    Origin::scripted(move |peer: &mut Peer| -> io::Result<()> {
        peer.head()?;
        peer.send(answer)?;
        // The connection counts as open for as long as this does not hold.
        assert_eq!(peer.rest()?, b"", "content that nobody wanted");
        Ok(())
    })
}

const CHUNKED: &[u8] = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";

fn refused() {
    for answer in [&ok("no")[..], &response("417 Expectation Failed", &[], "no"), CHUNKED] {
        let answer: &'static [u8] = Box::leak(answer.to_vec().into_boxed_slice());
        let wanted = std::str::from_utf8(&answer[9..12]).unwrap().parse::<u16>().unwrap();
        let origin = refusing(answer);
        let program = site(&origin).start();
        // One that waits, and one that does not.
        for content in ["", "hello"] {
            let mut client = program.connect("http");
            client.send(format!("{POST}{content}"));
            let head = client.head();
            assert_eq!(head.part(1), wanted.to_string(), "{content:?}");
            // Whether the content comes is not known: the next request could be part of it.
            assert_eq!(head.field("connection"), Some("close"), "{content:?}");
            assert!(client.rest().windows(2).any(|two| two == b"no"));
        }
        until("the RS sees both ends", || (origin.open() == 0).then_some(()));
    }
}

fn refused_h2() {
    let origin = refusing(CHUNKED);
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(post(1));
    assert_eq!(client.response(1), (403, "no".into()));
    // It ends by itself instead of sending.
    client.send(frame(DATA, END_STREAM, 1, "hello"));
    assert!(client.round().iter().all(|frame| frame.kind != RST_STREAM));
    client.send([post(3), frame(DATA, END_STREAM, 3, "hello")].concat());
    assert_eq!(client.response(3), (403, "no".into()));
    until("the RS sees both ends", || (origin.open() == 0).then_some(()));
}

fn unknown() {
    let origin = Origin::serving(|request| response("200 OK", &[], &request.body));
    let program = site(&origin).start();
    let mut client = program.connect("http");
    let before = Instant::now();
    client.send(POST);
    assert_eq!(client.head().line, "HTTP/1.1 100 Continue");
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(10), "{waited:?}");
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
    assert_eq!(origin.only().field("expect"), Some("100-continue"));
    // The same for a client that sends without waiting, and over HTTP/2.
    client.send(format!("{POST}hello"));
    assert_eq!(client.head().part(1), "100");
    assert_eq!(client.response().text(), "hello");
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(post(1));
    assert_eq!(status(&mut client, 1), "100");
    client.send(frame(DATA, END_STREAM, 1, "hello"));
    assert_eq!(client.response(1), (200, "hello".into()));
}

fn pointless() {
    let origin = Origin::serving(|request| response("200 OK", &[], &request.body));
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().part(1), "200");
    let mut client = program.connect("http");
    client.send("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert_eq!(client.head().part(1), "200");
    let mut client = Frames::connect(&program, 1 << 20);
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
    let fields = [&fields[..], &[("expect", "100-continue")]].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&fields)));
    assert_eq!(client.response(1).0, 200);
    assert_eq!(origin.received().len(), 3);
    for request in origin.received() {
        assert_eq!(request.field("expect"), None, "{request:?}");
    }
    // What is no expectation that anybody knows is refused, in HTTP/2 as well.
    let fields = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/")];
    let fields = [&fields[..], &[("expect", "magic")]].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, block(&fields)));
    assert_eq!(client.response(3).0, 417);
}

fn too_large() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "client_max_body_size: 1k", "").start();
    let mut client = program.connect("http");
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().part(1), "413");
    assert!(origin.received().is_empty());
}

/// Interim responses of every kind in front of the final one; fields that belong to nobody else among them.
fn talkative() -> Origin {
    Origin::serving(|_| {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 102 Processing\r\nX-Step: 1\r\nConnection: X-Named\r\nX-Named: a\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
            HTTP/1.1 199 Peculiar\r\n\r\n";
        [interim.as_bytes(), &ok("rs")].concat()
    })
}

fn forwarded() {
    let origin = talkative();
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send(Request::get("a.test", "/").head());
    let head = client.head();
    assert_eq!(head.line, "HTTP/1.1 102 Processing");
    assert_eq!(head.fields, [("X-Step".to_owned(), "1".to_owned())]);
    // Some clients take 103 for the final response.
    assert_eq!(client.head().part(1), "199");
    assert_eq!(client.head().part(1), "200");
    let mut client = program.connect("http");
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.head().part(1), "200");
}

fn forwarded_h2() {
    let origin = talkative();
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(get(1, "/"));
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let frame = client.wait(HEADERS, 1);
        assert!(!frame.ends());
        seen.push(client.fields(&frame));
    }
    let fields = |all: &[(&str, &str)]| -> Vec<_> {
        all.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    assert_eq!(seen[0], fields(&[(":status", "102"), ("x-step", "1")]));
    assert_eq!(seen[1], fields(&[(":status", "103"), ("link", "</a>")]));
    assert_eq!(seen[2], fields(&[(":status", "199")]));
    assert_eq!(client.response(1), (200, "rs".into()));
}
