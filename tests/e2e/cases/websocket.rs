//! Connections that leave HTTP.

use std::io;
use std::time::Duration;

use crate::harness::origin::{Peer, ok};
use crate::harness::{Case, Client, Origin, Request, until};

use super::{site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("websocket::bytes_pass_both_ways", echo),
        Case::new("websocket::each_direction_ends_by_itself", half_close),
        Case::new("websocket::a_refused_upgrade_stays_http", refused),
        Case::new("websocket::h2c_is_not_passed_on", h2c),
        Case::new("websocket::silence_ends_it", silence),
    ]
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, sends something right behind the 101, and then sends back what comes in pieces of four bytes.
fn echoing() -> Origin {
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
