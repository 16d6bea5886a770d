//! Connections that leave HTTP.

use std::io;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::origin::{Peer, ok};
use crate::harness::{Case, Client, Origin, Request, Setup, until};

use super::{SITE, site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("websocket::bytes_pass_both_ways", echo),
        Case::new("websocket::each_direction_ends_by_itself", half_close),
        Case::new("websocket::a_refused_upgrade_stays_http", refused),
        Case::new("websocket::only_what_was_asked_for_is_switched_to", unasked),
        Case::new("websocket::h2c_is_not_passed_on", h2c),
        Case::new("websocket::silence_ends_it", silence),
        Case::new("websocket::a_drain_waits_for_it", drain),
    ]
}

pub(super) const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, sends something right behind the 101, and then sends back what comes in pieces of four bytes.
pub(super) fn echoing() -> Origin {
    Origin::scripted(|peer: &mut Peer| -> io::Result<()> {
        peer.request()?;
        peer.send(format!("{SWITCH}hello"))?;
        loop {
            let piece = peer.exactly(4)?;
            peer.send(piece)?;
        }
    })
}

fn echo() {
    let origin = echoing();
    let program = site(&origin).start();
    let plain = program.connect("http");
    let secure = Client::connect_tls(program.listener("https"), &program.tls().offer(&["http/1.1"]));
    for mut client in [plain, secure] {
        // Something right behind the request as well.
        client.send(format!("{UPGRADE}abcd"));
        let got = client.response();
        assert_eq!(got.status, 101);
        assert_eq!(got.field("connection"), Some("Upgrade"));
        assert_eq!(got.field("upgrade"), Some("websocket"));
        assert_eq!(got.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(client.exactly(9), b"helloabcd");
        for number in 0..100 {
            let piece = format!("{number:04}");
            client.send(&piece);
            assert_eq!(client.exactly(4), piece.as_bytes());
        }
        // A lot at once, in both directions.
        let lot = crate::harness::digest::content(256 << 10, 7);
        client.send(&lot);
        assert_eq!(client.exactly(lot.len()), lot);
    }
    // The line comes when the connection ends, with what went through.
    let line = program.logged("/ws");
    assert_eq!(line["status"], 101);
    assert_eq!(line["bytes_in"], 4 + 400 + (256 << 10));
    assert_eq!(line["bytes_out"], 5 + 4 + 400 + (256 << 10));
    let received = origin.received();
    assert_eq!(received[0].field("connection"), Some("Upgrade"));
    assert_eq!(received[0].field("upgrade"), Some("websocket"));
    assert_eq!(received[0].field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(received[1].field("x-forwarded-proto"), Some("https"));
    // With the client the connection to the RS ends.
    until("the RS sees the end", || (origin.open() == 0).then_some(()));
    assert_eq!(program.logged("/ws")["status"], 101);
}

fn half_close() {
    let origin = Origin::scripted(|peer| {
        peer.request()?;
        peer.send(SWITCH)?;
        let all = peer.rest()?;
        peer.send(format!("{} bytes", all.len()))
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send(UPGRADE);
    assert_eq!(client.response().status, 101);
    client.send("twelve bytes");
    client.finish();
    assert_eq!(client.rest(), b"12 bytes");
}

fn unasked() {
    let origin = Origin::scripted(|peer| {
        let request = peer.request()?;
        let upgrade = request.field("x-answer").map_or(String::new(), |name| format!("Upgrade: {name}\r\n"));
        peer.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{upgrade}\r\nhello"))?;
        peer.rest().map(drop)
    });
    let program = site(&origin).start();
    let upgrade = |asked: &str| {
        let request = Request::get("a.test", "/").header("Connection", "Upgrade");
        request.header("Upgrade", asked)
    };
    for request in [
        upgrade("websocket").header("X-Answer", "h2c"),
        upgrade("websocket").header("X-Answer", "websocket, chat"),
        upgrade("websocket"),
        Request::get("a.test", "/").header("X-Answer", "websocket"),
        Request::get("a.test", "/").header("Upgrade", "websocket").header("X-Answer", "websocket"),
    ] {
        let got = program.ask("http", &request);
        assert_eq!((got.status, got.text().contains("(unasked_upgrade)")), (502, true), "{request:?}");
    }
    let mut client = program.connect("http");
    client.send(upgrade("chat/2, WebSocket").header("X-Answer", "websocket").head());
    assert_eq!((client.head().part(1), client.exactly(5).as_slice()), ("101", &b"hello"[..]));
    drop(client);
    until("nothing is left in the other protocol", || (origin.open() == 0).then_some(()));
    // With the request still on its way, the rest of it would be part of the other protocol.
    let origin = Origin::scripted(|peer| {
        peer.head()?;
        peer.send(SWITCH)?;
        peer.rest().map(drop)
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send(UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 10\r\n\r\nhalf"));
    assert_eq!(client.response().status, 502);
}

fn refused() {
    let origin = Origin::serving(|_| ok("no"));
    let program = site(&origin).start();
    let mut client = program.connect("http");
    for _ in 0..2 {
        client.send(UPGRADE);
        let got = client.response();
        assert_eq!((got.status, got.text().as_str(), got.field("upgrade")), (200, "no", None));
    }
    assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "no");
    assert_eq!(origin.connections(), 1);
    // What comes right behind such a request is the next request, and this is none.
    client.send(format!("{UPGRADE}\u{1}\u{5}hello"));
    assert_eq!(client.response().text(), "no");
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed());
    assert_eq!(origin.received().len(), 4);
}

fn h2c() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for value in ["h2c", "websocket, h2c", "H2C"] {
        let request = Request::get("a.test", "/").header("Connection", "Upgrade, HTTP2-Settings");
        let request = request.header("Upgrade", value).header("HTTP2-Settings", "AAMAAABkAAQAAP__");
        assert_eq!(program.ask("http", &request).text(), "rs");
    }
    for request in origin.received() {
        assert_eq!((request.field("upgrade"), request.field("connection")), (None, None), "{request:?}");
        assert_eq!(request.field("http2-settings"), None);
    }
}

fn silence() {
    let origin = echoing();
    let program = site_with(&origin, "", "read_timeout: 1s").start();
    let mut client = program.connect("http");
    client.send(UPGRADE);
    assert_eq!(client.response().status, 101);
    assert_eq!(client.exactly(5), b"hello");
    // What moves keeps it alive for longer than the timeout.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        client.send("ping");
        assert_eq!(client.exactly(4), b"ping");
    }
    assert!(client.is_closed());
}

fn drain() {
    let origin = echoing();
    let setup = Setup::new(SITE).put("rs", origin.address()).put("listener", "").put("pool", "");
    let mut program = setup.put("more", "drain: {timeout: 20s}\n").start();
    let mut client = program.connect("http");
    client.send(UPGRADE);
    assert_eq!(client.response().status, 101);
    program.signal(Signal::TERM);
    program.said("draining for at most 20s");
    assert_eq!(client.exactly(5), b"hello");
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping");
    drop(client);
    assert_eq!(program.wait_exit().code(), Some(0));
}
