//! HTTP/2 frame by frame: errors, floods, windows, turns, and the end of connections.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PADDED, PING, PREFACE, RST_STREAM, SETTINGS,
    block, frame, get, request, reset, update,
};
use crate::harness::origin::{ok, response, silent};
use crate::harness::{Case, Need, Origin, Program, Request, Setup, until};

use super::{SITE, site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("http2::errors_of_the_connection_are_told_by_their_code", errors),
        Case::new("http2::malformed_requests_get_an_answer_and_the_connection_goes_on", malformed),
        Case::new("http2::requests_that_are_reset_at_once_end_the_connection", rapid_reset),
        Case::new("http2::requests_that_make_us_reset_them_end_the_connection", made_to_reset),
        Case::new("http2::streams_share_the_window_of_the_connection", fair),
        Case::new("http2::a_stream_without_a_window_holds_up_no_other", no_window),
        Case::new("http2::a_window_that_never_opens_ends_the_stream", never_opens),
        Case::new("http2::a_client_that_takes_nothing_is_cut_off_when_all_is_said", takes_nothing),
        Case::new("http2::a_client_that_takes_nothing_is_cut_off_whatever_it_sends", takes_nothing_but_talks),
        Case::new("http2::an_rs_that_does_not_read_stops_the_client", stuck),
        Case::new("http2::content_in_tiny_frames_costs_what_it_is_long", tiny),
        Case::new("http2::a_reset_reaches_the_rs", reset_reaches),
        Case::new("http2::an_early_response_ends_the_upload", early),
        Case::new("http2::a_drain_serves_what_was_on_its_way", drain),
        Case::new("http2::an_idle_connection_is_left_with_goaway", idle),
        Case::new("http2::a_head_that_drips_is_cut_off", drips),
        Case::needing("http2::load_of_another_implementation", &[Need::Nghttp2], load),
    ]
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    request(stream, "POST", path, false)
}

/// An RS that takes heads and never answers, until the connection ends.
fn mute() -> Origin {
    Origin::scripted(|peer| {
        peer.head()?;
        peer.rest().map(drop)
    })
}

fn errors() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let settings = frame(SETTINGS, 0, 0, []);
    let behind = |bytes: &[u8]| [PREFACE, &settings, bytes].concat();
    for (what, bytes, code) in [
        ("no preface", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 1),
        ("no settings", [PREFACE, &get(1, "/")].concat(), 1),
        ("stream 2", behind(&get(2, "/")), 1),
        ("DATA on an idle stream", behind(&frame(DATA, 0, 1, "x")), 1),
        ("a frame too large", behind(&[0, 64, 1, DATA, 0, 0, 0, 0, 1]), 6),
        ("PING of 7 bytes", behind(&frame(PING, 0, 0, [0; 7])), 6),
        ("a damaged block", behind(&frame(HEADERS, END_HEADERS, 1, [0x80])), 9),
        ("a window too large", behind(&[update(0, 0x7fff_ffff)].concat()), 3),
        ("a block interrupted", behind(&[frame(HEADERS, 0, 1, []), get(3, "/")].concat()), 1),
        ("DATA behind the end", behind(&[get(1, "/"), frame(DATA, 0, 1, "x")].concat()), 5),
    ] {
        let mut client = Frames::silent(&program);
        client.send(bytes);
        assert_eq!(client.goaway(), code, "{what}");
    }
}

fn malformed() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    let mut stream = 1;
    for (number, (field, reason)) in [
        (("X", "y"), "bad_field_name"),
        (("connection", "close"), "bad_field_name"),
        (("transfer-encoding", "chunked"), "bad_field_name"),
        (("x", "y\r\nz: a"), "bad_field_value"),
        (("content-length", "1"), "bad_length"),
        (("host", "other"), "bad_host"),
        ((":path", "/"), "bad_field_name"),
    ]
    .into_iter()
    .enumerate()
    {
        let fields =
            [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/"), field];
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block(&fields)));
        let (status, text) = client.response(stream);
        assert_eq!(status, 400, "{field:?}");
        assert!(text.contains(&format!("({reason})")), "{field:?}: {text}");
        let line = until("its log line", || program.log_lines().get(number).cloned());
        assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(400), Some(reason)), "{line}");
        stream += 2;
    }
    // Far more than may be open at a time, one after the other: none lingers.
    for _ in 0..300 {
        client.send(request(stream, "GET", "", true));
        assert_eq!(client.response(stream).0, 400);
        stream += 2;
    }
    assert!(origin.received().is_empty());
    client.send(get(stream, "/"));
    assert_eq!(client.response(stream), (200, "rs".into()));
}

/// Sends what `attack` says for one stream after the other until the connection ends with ENHANCE_YOUR_CALM.
fn attacked(attack: impl Fn(u32) -> Vec<u8>) {
    const HELD: usize = 20;
    let origin = mute();
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    for number in 0..HELD as u32 {
        client.send(post(2 * number + 1, "/held"));
    }
    until("they are under way", || (origin.open() == HELD).then_some(()));
    let code = (HELD as u32..2000).find_map(|number| {
        client.send(attack(2 * number + 1));
        client.send(frame(PING, 0, 0, [0; 8]));
        loop {
            let frame = client.next().expect("GOAWAY before the end");
            match frame.kind {
                GOAWAY => return Some(frame.number(4)),
                PING => return None,
                _ => {}
            }
        }
    });
    assert_eq!(code, Some(11));
    until("nothing of it is left at the RS", || (origin.open() == 0).then_some(()));
    // Others do not notice.
    let mut other = Frames::connect(&program, 1 << 20);
    assert_eq!(other.round(), []);
}

fn rapid_reset() {
    attacked(|stream| [post(stream, "/"), frame(DATA, 0, stream, "x"), reset(stream)].concat());
}

fn made_to_reset() {
    attacked(|stream| {
        [post(stream, "/"), frame(DATA, 0, stream, "x"), frame(HEADERS, END_HEADERS, stream, [])].concat()
    });
}

fn fair() {
    const STREAMS: usize = 8;
    const SIZE: usize = 1 << 20;
    let origin = Origin::serving(|_| response("200 OK", &[], vec![b'x'; SIZE]));
    let program = site(&origin).start();
    // The window of the connection is what they have to share.
    let mut client = Frames::connect(&program, 4 << 20);
    for number in 0..STREAMS as u32 {
        client.send(get(2 * number + 1, "/"));
    }
    let (mut received, mut begun, mut first, mut waiting) = ([0; STREAMS], 0, None, 0);
    while received != [SIZE; STREAMS] {
        let frame = client.next().unwrap();
        begun += usize::from(frame.kind == HEADERS);
        if frame.kind == DATA {
            waiting += frame.payload.len() as u32;
        }
        // Not before all of them could begin.
        if waiting >= 32_000 && begun == STREAMS {
            client.send(update(0, waiting));
            waiting = 0;
        }
        if frame.kind != DATA {
            continue;
        }
        received[frame.stream as usize / 2] += frame.payload.len();
        if frame.ends() {
            first.get_or_insert(received);
        }
    }
    let first = first.unwrap();
    assert!(first.iter().all(|&received| received >= SIZE / 2), "when the first was complete: {first:?}");
}

fn no_window() {
    let origin = Origin::serving(|request| ok(request.target()));
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 0);
    client.send([get(1, "/one"), get(3, "/two"), get(5, "/three")].concat());
    let mut begun = 0;
    while begun < 3 {
        let frame = client.next().unwrap();
        assert!(!frame.ends() && frame.kind != DATA, "{frame:?}");
        begun += usize::from(frame.kind == HEADERS);
    }
    client.send(update(3, 2));
    assert_eq!(client.wait(DATA, 3).payload, b"/t");
    client.send(update(5, 100));
    let frame = client.wait(DATA, 5);
    assert!(frame.ends());
    assert_eq!(frame.payload, b"/three");
    // For all of them at once, and less than nothing for one.
    client.send(frame_setting(4));
    assert_eq!(client.wait(DATA, 1).payload, b"/one");
    client.send([frame_setting(0), update(3, 1)].concat());
    assert!(client.round().iter().all(|frame| frame.kind != DATA || frame.payload.len() <= 2));
    client.send(update(3, 100));
    assert_eq!(client.round().iter().filter(|frame| frame.kind == RST_STREAM).count(), 0);
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
fn frame_setting(window: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, [&[0, 4][..], &window.to_be_bytes()].concat())
}

fn never_opens() {
    let origin = Origin::serving(|request| ok(request.target()));
    let program = site_with(&origin, "send_timeout: 1s", "").start();
    let mut client = Frames::connect(&program, 0);
    let before = Instant::now();
    client.send(get(1, "/never"));
    let head = client.wait(HEADERS, 1);
    client.fields(&head);
    assert_eq!(client.wait(RST_STREAM, 1).number(0), 8);
    assert!(before.elapsed() >= Duration::from_millis(900), "{:?}", before.elapsed());
    let line = program.logged("/never");
    assert_eq!(
        (line["reason"].as_str(), line["bytes_out"].as_u64()),
        (Some("client_timeout"), Some(0)),
        "{line}"
    );
    client.send([get(3, "/other"), update(3, 100)].concat());
    assert_eq!(client.response(3), (200, "/other".into()));
}

/// Connections that are open, all of them once.
fn open(program: &Program) -> Option<u64> {
    let (_, page) = program.page("/metrics");
    let values = page.lines().filter(|line| line.starts_with("ingre_connections_open"));
    Some(values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum())
}

fn takes_nothing() {
    let origin = Origin::serving(|_| response("200 OK", &[], vec![b'x'; 10_000]));
    // The kernel keeps little for the client, and the connections have that from their listener.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket2::SockRef::from(&listener).set_send_buffer_size(16 << 10).unwrap();
    let program =
        site_with(&origin, "send_timeout: 1s, keepalive_timeout: 1s", "").socket("https", listener).start();
    // More and more, so that with one of them all of it is encrypted and not all of it is sent.
    let _clients: Vec<_> = (1..10)
        .map(|many| {
            let mut client = Frames::connect(&program, 4 << 20);
            client.send(update(0, 4 << 20));
            let requests = (0..4 * many).map(|number| get(2 * number + 1, "/"));
            client.send(requests.collect::<Vec<_>>().concat());
            client
        })
        .collect();
    until("all of them are cut off", || (open(&program) == Some(0)).then_some(()));
    assert_eq!(program.ask("http", &Request::get("a.test", "/").close()).status, 200);
}

/// Bytes from a client are no room for bytes to it.
fn takes_nothing_but_talks() {
    let origin = Origin::scripted(|peer| {
        let head = peer.head()?;
        if head.part(0) == "POST" {
            return peer.rest().map(drop);
        }
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
        while peer.send([b'x'; 16 << 10]).is_ok() {}
        Ok(())
    });
    let program = site_with(&origin, "send_timeout: 1s", "").start();
    let mut client = Frames::connect(&program, 1 << 30);
    client.send([update(0, 1 << 30), post(1, "/"), get(3, "/flood")].concat());
    let before = Instant::now();
    until("it is cut off", || {
        let gone = client.try_send(frame(DATA, 0, 1, "x")).is_err() || open(&program) == Some(0);
        assert!(before.elapsed() < Duration::from_secs(10), "it goes on");
        gone.then_some(())
    });
    until("the RS are free", || (origin.open() == 0).then_some(()));
}

fn stuck() {
    let (origin, over) = Origin::stuck();
    let program = site_with(&origin, "client_max_body_size: 0", "").start();
    let before = program.resident();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(post(1, "/"));
    client.round();
    let (mut sent, mut room, mut quiet) = (0_u64, 1_i64 << 20, 0);
    // Each look is 5 ms after the one before.
    until("nothing moves any more", || {
        while client.window >= 16_384 && room >= 16_384 {
            client.send(frame(DATA, 0, 1, [b'x'; 16_384]));
            (client.window, room, sent) = (client.window - 16_384, room - 16_384, sent + 16_384);
        }
        let granted =
            client.round().iter().filter(|frame| frame.stream == 1).map(|frame| frame.number(0)).sum::<u32>();
        room += i64::from(granted);
        quiet = if granted == 0 { quiet + 1 } else { 0 };
        (quiet == 60).then_some(())
    });
    assert!(sent < 100 << 20, "{sent} bytes went through although nobody reads");
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 40 << 20, "the program has grown by {grown} bytes");
    client.send(reset(1));
    drop(over);
    until("the RS is rid of it", || (origin.open() == 0).then_some(()));
}

/// Each byte of content with 265 around it, for an RS that does not even answer the call.
fn tiny() {
    const FRAMES: usize = 100_000;
    let (address, _guards) = silent();
    let program = Setup::new(SITE)
        .put("rs", address)
        .put("listener", "")
        .put("pool", ", connect_timeout: 20s")
        .put("more", "")
        .start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(post(1, "/"));
    client.round();
    let before = program.resident();
    let mut padded = [0; 257];
    padded[0] = 255;
    let many = frame(DATA, PADDED, 1, padded).repeat(100);
    for _ in 0..FRAMES / 100 {
        client.send(&many);
        client.window -= 257 * 100;
        // Padding is granted again at once.
        while client.window < 1 << 17 {
            client.round();
        }
    }
    client.round();
    let grown = program.resident().saturating_sub(before);
    assert!(grown < 6 << 20, "the program has grown by {grown} bytes");
}

fn reset_reaches() {
    let origin = mute();
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send([get(1, "/one"), post(3, "/two"), get(5, "/three")].concat());
    until("they are under way", || (origin.open() == 3).then_some(()));
    client.send([reset(1), reset(3)].concat());
    until("two are gone", || (origin.open() == 1).then_some(()));
    for target in ["/one", "/two"] {
        let line = program.logged(target);
        assert_eq!(
            (line["status"].as_u64(), line["reason"].as_str()),
            (Some(499), Some("client_gone")),
            "{line}"
        );
    }
    assert_eq!(client.round(), []);
    // And so does the end of the connection.
    drop(client);
    until("all are gone", || (origin.open() == 0).then_some(()));
}

fn early() {
    let origin = Origin::scripted(|peer| {
        peer.head()?;
        peer.send(response("403 Forbidden", &[("Connection", "close")], "no"))
    });
    let program = site(&origin).start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(post(1, "/"));
    assert_eq!(client.response(1), (403, "no".into()));
    // It goes on for a while, and is asked to stop without an error.
    client.send(frame(DATA, 0, 1, [b'x'; 16_384]).repeat(16));
    assert_eq!(client.wait(RST_STREAM, 1).number(0), 0);
    // A client that ends by itself is not reset.
    client.send(post(3, "/"));
    assert_eq!(client.response(3).0, 403);
    client.send(frame(DATA, END_STREAM, 3, "x"));
    assert!(client.round().iter().chain(&client.round()).all(|frame| frame.kind != RST_STREAM));
}

fn drain() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::serving(move |request| {
        let _ = wait.lock().unwrap().recv();
        ok(request.target())
    });
    let mut program = Setup::new(SITE)
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", "drain: {timeout: 20s}\n")
        .start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(get(1, "/one"));
    until("it is under way", || (origin.received().len() == 1).then_some(()));
    program.signal(Signal::TERM);
    let first = client.wait(GOAWAY, 0);
    assert_eq!((first.number(0), first.number(4)), (0x7fff_ffff, 0));
    let asked = client.wait(PING, 0);
    assert_eq!(asked.flags, 0);
    // On its way when the client heard of it; and one that was not.
    client.send([get(3, "/two"), frame(PING, ACK, 0, asked.payload), get(5, "/three")].concat());
    let last = client.wait(GOAWAY, 0);
    assert_eq!((last.number(0), last.number(4)), (3, 0));
    go.send(()).unwrap();
    assert_eq!(client.response(1).1, "/one");
    go.send(()).unwrap();
    assert_eq!(client.response(3).1, "/two");
    assert_eq!(client.next(), None);
    assert_eq!(program.wait_exit().code(), Some(0));
    assert_eq!(origin.received().len(), 2);
}

fn idle() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "keepalive_timeout: 1s", "").start();
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(get(1, "/"));
    assert_eq!(client.response(1), (200, "rs".into()));
    let before = Instant::now();
    assert_eq!(client.wait(GOAWAY, 0).number(0), 0x7fff_ffff);
    assert!(before.elapsed() >= Duration::from_millis(900), "{:?}", before.elapsed());
    let asked = client.wait(PING, 0);
    client.send(frame(PING, ACK, 0, asked.payload));
    let last = client.wait(GOAWAY, 0);
    assert_eq!((last.number(0), last.number(4)), (1, 0));
    assert_eq!(client.next(), None);
}

/// A byte now and then keeps neither the beginning of a connection, nor a block, nor a frame waiting for its end.
fn drips() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "client_header_timeout: 1s", "").start();
    let settings = frame(SETTINGS, 0, 0, []);
    let begun = [
        PREFACE[..3].to_vec(),
        [PREFACE, &settings, &frame(HEADERS, 0, 1, [])].concat(),
        [PREFACE, &settings, &get(1, "/")[..5]].concat(),
    ];
    let mut clients: Vec<_> = begun
        .iter()
        .map(|begun| {
            let mut client = Frames::silent(&program);
            client.send(begun);
            client
        })
        .collect();
    let drops = [PREFACE[3..].to_vec(), frame(9, 0, 1, []).repeat(60), get(1, "/")[5..].to_vec()];
    let (before, mut number) = (Instant::now(), 0);
    until("all of them are cut off", || {
        std::thread::sleep(Duration::from_millis(60));
        for (client, drops) in clients.iter_mut().zip(&drops) {
            let _ = drops.get(number).map(|&byte| client.try_send([byte]));
        }
        number += 1;
        (open(&program) == Some(0)).then_some(())
    });
    assert!(before.elapsed() < Duration::from_millis(60 * 20 + 1000), "{:?}", before.elapsed());
}

fn load() {
    let origin = Origin::serving(|_| response("200 OK", &[("Server", "x")], vec![b'x'; 20_000]));
    let program = site(&origin).start();
    let url = format!("https://localhost:{}/", program.listener("https").port());
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(&url).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = said("h2load", &["-n", "1000", "-c", "4", "-m", "32"]);
    assert!(text.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    // Windows that are far smaller than a response.
    let text = said("h2load", &["-n", "100", "-c", "2", "-m", "8", "-w", "10", "-W", "12"]);
    assert!(text.contains("100 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    assert_eq!(said("nghttp", &["--no-verify-peer", "-m", "5", "-p", "10"]).len(), 5 * 20_000);
}
