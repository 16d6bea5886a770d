//! WebSocket over HTTP/2 (RFC 8441), to an RS that speaks HTTP/1.1.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::digest::{content, websocket_accept};
use crate::harness::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, block,
    frame, get, reset, update,
};
use crate::harness::origin::{Peer, response};
use crate::harness::{Case, Origin, Program, Setup, until};

use super::{SITE, site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("websocket_h2::it_is_announced", announced),
        Case::new("websocket_h2::bytes_pass_both_ways", echo),
        Case::new("websocket_h2::each_direction_ends_by_itself", half_close),
        Case::new("websocket_h2::a_client_that_does_not_read_can_still_send", no_window),
        Case::new("websocket_h2::what_does_not_open_it_does_not_look_like_it", refused),
        Case::new("websocket_h2::other_protocols_are_refused", others),
        Case::new("websocket_h2::a_reset_passes_both_ways", resets),
        Case::new("websocket_h2::silence_ends_it", silence),
        Case::new("websocket_h2::a_drain_waits_for_it", drain),
    ]
}

/// HEADERS that open a WebSocket.
fn connect(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("origin", "https://localhost"),
        ("sec-websocket-version", "13"),
    ];
    frame(HEADERS, END_HEADERS, stream, block(&fields))
}

/// Reads the request for a WebSocket and agrees to it.
fn agree(peer: &mut Peer) -> io::Result<()> {
    let request = peer.request()?;
    let accept = websocket_accept(request.field("sec-websocket-key").unwrap());
    peer.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    ))
}

/// Agrees, says hello, and then sends back what comes in pieces of four bytes.
fn echoing() -> Origin {
    Origin::scripted(|peer| {
        agree(peer)?;
        peer.send("hello")?;
        loop {
            let piece = peer.exactly(4)?;
            peer.send(piece)?;
        }
    })
}

fn data(stream: u32, content: &[u8]) -> Vec<u8> {
    content.chunks(16_384).flat_map(|part| frame(DATA, 0, stream, part)).collect()
}

/// The fields of the response that opens the WebSocket.
fn opened(client: &mut Frames, stream: u32) -> Vec<(String, String)> {
    let head = client.wait(HEADERS, stream);
    assert!(!head.ends());
    client.fields(&head)
}

/// So many bytes of content from one stream.
fn exactly(client: &mut Frames, stream: u32, count: usize) -> Vec<u8> {
    let mut content = Vec::new();
    while content.len() < count {
        let frame = client.wait(DATA, stream);
        assert!(!frame.ends());
        content.extend_from_slice(&frame.payload);
    }
    content
}

fn announced() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = Frames::silent(&program);
    client.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat());
    let settings = client.wait(SETTINGS, 0).payload;
    assert!(settings.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), "{settings:?}");
}

fn echo() {
    let origin = echoing();
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 4 << 20);
    client.send(update(0, 8 << 20));
    // Something right behind the request as well.
    client.send([connect(1, "/ws"), data(1, b"abcd")].concat());
    let fields = opened(&mut client, 1);
    let mut names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, [":status", "alt-svc", "date", "sec-websocket-protocol"]);
    assert_eq!(fields[0].1, "200");
    assert_eq!(exactly(&mut client, 1, 9), b"helloabcd");
    // Requests go on beside it.
    client.send(connect(3, "/other"));
    assert_eq!(opened(&mut client, 3)[0].1, "200");
    assert_eq!(exactly(&mut client, 3, 5), b"hello");
    for number in 0..100 {
        let piece = format!("{number:04}");
        client.send(data(1, piece.as_bytes()));
        assert_eq!(exactly(&mut client, 1, 4), piece.as_bytes());
    }
    // A lot at once, in both directions.
    let lot = content(1 << 20, 7);
    for part in lot.chunks(64 << 10) {
        client.send(data(1, part));
        assert_eq!(exactly(&mut client, 1, part.len()), part);
    }
    client.send([frame(DATA, END_STREAM, 1, []), frame(DATA, END_STREAM, 3, [])].concat());
    assert!(client.wait(DATA, 1).ends());
    let line = program.logged("/ws");
    assert_eq!((line["status"].as_u64(), line["protocol"].as_str()), (Some(200), Some("HTTP/2")), "{line}");
    assert_eq!((line["upstream_status"].as_u64(), line["reason"].as_str()), (Some(101), None), "{line}");
    assert_eq!(line["bytes_in"], 4 + 400 + (1 << 20));
    assert_eq!(line["bytes_out"], 5 + 4 + 400 + (1 << 20));
    let received = origin.received();
    assert_eq!(received[0].head.line, "GET /ws HTTP/1.1");
    for (name, value) in [
        ("host", "localhost"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("origin", "https://localhost"),
        ("sec-websocket-version", "13"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(received[0].field(name), Some(value));
    }
    let key = |number: usize| received[number].field("sec-websocket-key").unwrap().to_owned();
    assert!(key(0).len() == 24 && key(0) != key(1));
    until("the RS sees the end", || (origin.open() == 0).then_some(()));
}

fn half_close() {
    let origin = Origin::scripted(|peer| {
        agree(peer)?;
        let all = peer.rest()?;
        peer.send(format!("{} bytes", all.len()))
    });
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send([connect(1, "/"), data(1, b"twelve bytes"), frame(DATA, END_STREAM, 1, [])].concat());
    assert_eq!(opened(&mut client, 1)[0].1, "200");
    assert_eq!(client.wait(DATA, 1).payload, b"12 bytes");
    let last = client.wait(DATA, 1);
    assert!(last.ends() && last.payload.is_empty());
    assert!(client.round().iter().all(|frame| frame.kind != RST_STREAM));
    // The other way round: the RS ends first.
    let origin = Origin::scripted(|peer| {
        agree(peer)?;
        peer.finish()?;
        // The connection counts as open for as long as this does not hold.
        assert_eq!(peer.rest()?, b"twelve bytes");
        Ok(())
    });
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(connect(1, "/"));
    assert_eq!(opened(&mut client, 1)[0].1, "200");
    assert!(client.wait(DATA, 1).ends());
    client.send([data(1, b"twelve bytes"), frame(DATA, END_STREAM, 1, [])].concat());
    assert_eq!(program.logged("/")["bytes_in"], 12);
    until("the RS sees the end", || (origin.open() == 0).then_some(()));
    assert!(client.round().iter().all(|frame| frame.kind != RST_STREAM));
}

fn no_window() {
    const LOT: usize = 512 << 10;
    let (told, has_all) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::scripted(move |peer| {
        agree(peer)?;
        peer.send("hello")?;
        peer.exactly(LOT)?;
        told.lock().unwrap().send(()).unwrap();
        peer.send("all is here")?;
        peer.rest().map(drop)
    });
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 0);
    client.send(connect(1, "/"));
    assert_eq!(opened(&mut client, 1)[0].1, "200");
    for _ in 0..LOT / (64 << 10) {
        client.send(data(1, &[b'x'; 64 << 10]));
    }
    has_all.recv().unwrap();
    client.send(update(1, 1000));
    assert_eq!(exactly(&mut client, 1, 16), b"helloall is here");
}

fn refused() {
    let origin = Origin::scripted(|peer| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
        loop {
            let answer = match peer.request()?.target() {
                "/200" => response("200 OK", &[], "a page"),
                "/403" => response("403 Forbidden", &[], "no"),
                "/accept" => format!("{switch}Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n").into(),
                "/none" => format!("{switch}Upgrade: websocket\r\n\r\n").into(),
                _ => format!("{switch}Upgrade: chat\r\n\r\n").into(),
            };
            peer.send(answer)?;
        }
    });
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    for (number, (path, status, text)) in [
        ("/403", 403, "no"),
        ("/200", 502, "(unasked_upgrade)"),
        ("/accept", 502, "(unasked_upgrade)"),
        ("/none", 502, "(unasked_upgrade)"),
        ("/chat", 502, "(unasked_upgrade)"),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = 2 * number as u32 + 1;
        client.send([connect(stream, path), frame(DATA, END_STREAM, stream, "never")].concat());
        let got = client.response(stream);
        assert_eq!((got.0, got.1.contains(text)), (status, true), "{path}: {got:?}");
        assert_eq!(program.logged(path)["status"], status);
    }
    until("no connection is left in the other protocol", || (origin.open() <= 1).then_some(()));
}

fn others() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    let common = [(":method", "CONNECT"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")];
    let fields = [&common[..], &[(":protocol", "connect-udp")]].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&fields)));
    assert_eq!(client.response(1).0, 501);
    // Only with CONNECT.
    let fields = [(":method", "GET"), common[1], common[2], common[3], (":protocol", "websocket")];
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, block(&fields)));
    assert_eq!(client.response(3).0, 400);
    assert!(origin.received().is_empty());
    client.send(get(5, "/"));
    assert_eq!(client.response(5), (200, "rs".into()));
}

fn resets() {
    let (told, ends) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::scripted(move |peer| {
        agree(peer)?;
        peer.exactly(4)?;
        if peer.number() == 0 {
            let end = peer.rest().map_err(|error| error.kind());
            told.lock().unwrap().send(end).unwrap();
        }
        // What it has not read makes its end a reset.
        Ok(())
    });
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send([connect(1, "/ours"), data(1, b"abcd")].concat());
    assert_eq!(opened(&mut client, 1)[0].1, "200");
    client.send(reset(1));
    assert_eq!(ends.recv().unwrap(), Err(io::ErrorKind::ConnectionReset));
    assert_eq!(program.logged("/ours")["reason"], "client_gone");
    client.send([connect(3, "/theirs"), data(3, &[b'x'; 256 << 10])].concat());
    assert_eq!(client.wait(RST_STREAM, 3).number(0), 8);
    // The connection is still good.
    assert_eq!(client.round(), []);
}

fn silence() {
    let origin = echoing();
    let program = site_with(&origin, "", "read_timeout: 1s").start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(connect(1, "/"));
    assert_eq!(opened(&mut client, 1)[0].1, "200");
    assert_eq!(exactly(&mut client, 1, 5), b"hello");
    // What moves keeps it alive for longer than the timeout.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        client.send(data(1, b"ping"));
        assert_eq!(exactly(&mut client, 1, 4), b"ping");
        // The connection's window, of 65,535 bytes, is never opened by this client.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.wait(RST_STREAM, 1).number(0), 8);
    until("the RS sees the end", || (origin.open() == 0).then_some(()));
}

fn drain() {
    let origin = echoing();
    let mut program: Program = Setup::new(SITE)
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", "drain: {timeout: 20s}\n")
        .start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(connect(1, "/"));
    assert_eq!(exactly(&mut client, 1, 5), b"hello");
    program.signal(Signal::TERM);
    client.wait(GOAWAY, 0);
    let asked = client.wait(PING, 0);
    client.send(frame(PING, ACK, 0, asked.payload));
    assert_eq!(client.wait(GOAWAY, 0).number(0), 1);
    client.send(data(1, b"ping"));
    assert_eq!(exactly(&mut client, 1, 4), b"ping");
    client.send(frame(DATA, END_STREAM, 1, []));
    assert!(client.wait(DATA, 1).ends());
    assert_eq!(client.next(), None);
    assert_eq!(program.wait_exit().code(), Some(0));
}
