//! HTTP/2 toward real servers, frame by frame and with another implementation: streams, refusals, windows, ends.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::frames::{
    DATA, END_HEADERS, Frames, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, frame, get, request, reset, update,
};
use crate::harness::h2::{self, H2};
use crate::harness::h2_origin::{Echo, Served, data, headers, scripted};
use crate::harness::{Case, Client, Origin, Program, Request, Setup, until};

use super::{SITE, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("upstream_h2::requests_and_responses_are_what_they_are_in_http1", as_in_http1),
        Case::new("upstream_h2::a_connection_carries_as_many_as_the_rs_takes", multiplexed),
        Case::new("upstream_h2::what_was_certainly_not_processed_is_sent_again", refused),
        Case::new("upstream_h2::what_may_have_been_processed_is_not", not_again),
        Case::new("upstream_h2::an_rs_that_breaks_the_rules_harms_only_its_connection", rules),
        Case::new("upstream_h2::a_client_that_leaves_cancels_its_stream", cancelled),
        Case::new("upstream_h2::a_response_may_come_before_the_request_has_ended", early),
        Case::new("upstream_h2::a_slow_client_stops_the_rs_and_nobody_else", slow_client),
        Case::new("upstream_h2::a_slow_rs_stops_the_client", slow_rs),
        Case::new("upstream_h2::large_bodies_both_ways_with_another_implementation", large),
        Case::new("upstream_h2::patience_with_the_rs_ends", patience),
        Case::new("upstream_h2::an_idle_connection_is_left", idle),
        Case::new("upstream_h2::streams_outlive_a_reload_and_a_drain", outlive),
        Case::new("upstream_h2::checks_speak_it_too", checks),
    ]
}

/// The usual site in front of this RS, which speaks HTTP/2 in clear.
fn site(origin: &Origin, more: &str) -> Setup {
    site_with(origin, "", &format!("protocol: h2c{more}"))
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    request(stream, "POST", path, false)
}

/// Reason in the text of a failed request.
fn fails(program: &Program, path: &str, status: u16, reason: &str) {
    let response = program.ask("http", &Request::get("a.test", path));
    assert_eq!(response.status, status, "{path}");
    assert!(response.text().contains(&format!("({reason})")), "{path}: {}", response.text());
}

fn as_in_http1() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let origin = scripted(&[], move |rs| {
        loop {
            let asked = rs.head()?;
            let content = if asked.ended { Vec::new() } else { rs.content()? };
            let path = asked.field(":path").unwrap().to_owned();
            let stream = asked.stream;
            tell.lock().unwrap().send((asked, content)).unwrap();
            match path.as_str() {
                "/interim" => {
                    rs.send(headers(stream, &[(":status", "103"), ("link", "</a>")], false))?;
                    rs.answer(stream, "late")?;
                }
                "/empty" => rs.send(headers(stream, &[(":status", "204"), ("x-own", "1")], true))?,
                "/head" => rs.send(headers(stream, &[(":status", "200"), ("content-length", "7")], true))?,
                "/trailers" => {
                    rs.send(headers(stream, &[(":status", "200"), ("trailer", "sum")], false))?;
                    rs.send(data(stream, "text", false))?;
                    rs.send(headers(stream, &[("sum", "4")], true))?;
                }
                _ => rs.answer(stream, "rs")?,
            }
        }
    });
    let program = site(&origin, "").start();
    let mut client = program.connect("http");
    let asked = || told.recv_timeout(Duration::from_secs(30)).unwrap();

    let response = client.ask(&Request::get("a.test", "/?q=1"));
    assert_eq!((response.status, response.text()), (200, "rs".into()));
    let (head, _) = asked();
    let pseudo: Vec<_> =
        head.fields[..4].iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        pseudo,
        [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/?q=1")]
    );
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert!(head.ended && head.field("host").is_none() && head.field("connection").is_none());

    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nabc");
    assert_eq!(client.response().text(), "rs");
    let (head, content) = asked();
    assert_eq!((head.field("content-length"), &content[..]), (Some("3"), &b"abc"[..]));
    assert_eq!(head.field("upgrade"), None);

    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "rs");
    let (head, content) = asked();
    assert_eq!((head.field("content-length"), &content[..]), (None, &b"abc"[..]));

    assert_eq!(client.ask(&Request::get("a.test", "/interim")).text(), "late");
    let response = client.ask(&Request::get("a.test", "/empty"));
    assert_eq!((response.status, response.field("x-own")), (204, Some("1")));
    client.send("HEAD /head HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = client.head();
    assert_eq!(head.field("content-length"), Some("7"));
    let response = client.ask(&Request::get("a.test", "/trailers"));
    assert_eq!((response.text(), response.trailers), ("text".into(), vec![("sum".into(), "4".into())]));
    // All of it on one connection.
    assert_eq!(origin.connections(), 1);
}

fn multiplexed() {
    // Two at a time; each is answered when all three are there.
    static WAITING: AtomicU32 = AtomicU32::new(0);
    let origin = scripted(&[(3, 2)], |rs| {
        let mut streams = Vec::new();
        loop {
            let asked = rs.head()?;
            if asked.field(":path") == Some("/first") {
                rs.answer(asked.stream, "first")?;
                continue;
            }
            WAITING.fetch_add(1, Ordering::SeqCst);
            streams.push(asked.stream);
            if streams.len() == if rs.number() == 0 { 2 } else { 1 } {
                until("all three", || (WAITING.load(Ordering::SeqCst) == 3).then_some(()));
                for stream in streams.drain(..) {
                    rs.answer(stream, if rs.number() == 0 { "one" } else { "two" })?;
                }
            }
        }
    });
    let program = site(&origin, "").start();
    // The settings are known after it.
    assert_eq!(program.ask("http", &Request::get("a.test", "/first")).text(), "first");
    let mut client = Frames::connect(&program, 1 << 20);
    client.send([get(1, "/"), get(3, "/"), get(5, "/")].concat());
    let mut texts = HashMap::new();
    while texts.len() < 3 {
        let frame = client.next().unwrap();
        if frame.kind == DATA && !frame.payload.is_empty() {
            texts.insert(frame.stream, String::from_utf8(frame.payload).unwrap());
        }
    }
    let mut texts: Vec<_> = texts.into_values().collect();
    texts.sort();
    assert_eq!(texts, ["one", "one", "two"]);
    assert_eq!(origin.connections(), 2);
}

fn refused() {
    let origin = scripted(&[], |rs| {
        loop {
            let asked = rs.head()?;
            let stream = asked.stream;
            match (asked.field(":path").unwrap(), rs.number()) {
                // The first stream is served, what is behind it is not.
                ("/leaving", 0) => {
                    rs.send(frame(GOAWAY, 0, 0, [&(stream - 2).to_be_bytes()[..], &[0; 4]].concat()))?;
                }
                ("/busy", 1) => rs.send(frame(RST_STREAM, 0, stream, 7_u32.to_be_bytes()))?,
                ("/busy", _) | ("/leaving", _) => {
                    let content = if asked.ended { Vec::new() } else { rs.content()? };
                    let text = format!("{} {}", rs.number(), content.len());
                    rs.answer(stream, &text)?;
                }
                ("/always", _) => rs.send(frame(RST_STREAM, 0, stream, 7_u32.to_be_bytes()))?,
                ("/leave", _) => {
                    rs.answer(stream, "bye")?;
                    rs.send(frame(GOAWAY, 0, 0, [&stream.to_be_bytes()[..], &[0; 4]].concat()))?;
                }
                _ => rs.answer(stream, "rs")?,
            }
        }
    });
    let program = site(&origin, "").start();
    let mut client = program.connect("http");
    let mut text = |request: &Request| client.ask(request).text();
    assert_eq!(text(&Request::get("a.test", "/")), "rs");
    // Also with content: it is still there.
    assert_eq!(text(&Request::post("a.test", "/leaving", b"content")), "1 7");
    assert_eq!(program.logged("/leaving")["retries"], 1);
    assert_eq!(text(&Request::get("a.test", "/leave")), "bye");
    assert_eq!(text(&Request::get("a.test", "/")), "rs");
    assert_eq!(origin.connections(), 3);
    fails(&program, "/always", 502, "upstream_refused");
}

fn not_again() {
    let origin = scripted(&[], |rs| {
        loop {
            let asked = rs.head()?;
            match asked.field(":path").unwrap() {
                "/reset" => rs.send(frame(RST_STREAM, 0, asked.stream, 2_u32.to_be_bytes()))?,
                "/close" => return Ok(()),
                "/half" => {
                    let half = [(":status", "200"), ("content-length", "9")];
                    rs.send(
                        [headers(asked.stream, &half, false), data(asked.stream, "half", false)].concat(),
                    )?;
                    rs.send(frame(RST_STREAM, 0, asked.stream, 2_u32.to_be_bytes()))?;
                }
                _ => rs.answer(asked.stream, "rs")?,
            }
        }
    });
    let program = site(&origin, "").start();
    fails(&program, "/reset", 502, "upstream_reset");
    let response = program.ask("http", &Request::post("a.test", "/close", b"x"));
    assert_eq!(response.status, 502);
    assert!(response.text().contains("(upstream_closed)"));
    let mut client = program.connect("http");
    assert!(client.try_ask(&Request::get("a.test", "/half")).is_err());
    assert_eq!(program.logged("/half")["reason"], "upstream_reset");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "rs");
}

fn rules() {
    let origin = scripted(&[], |rs| {
        loop {
            let asked = rs.head()?;
            let stream = asked.stream;
            let (bytes, code) = match asked.field(":path").unwrap() {
                "/push" => (frame(5, END_HEADERS, stream, [0, 0, 0, 2]), Some(1)),
                "/block" => (frame(HEADERS, END_HEADERS, stream, [0x80]), Some(9)),
                "/window" => (update(0, 0x7fff_ffff), Some(3)),
                "/before" => (data(stream, "x", true), None),
                "/field" => (headers(stream, &[(":status", "200"), ("connection", "x")], true), None),
                "/status" => (headers(stream, &[("x", "y")], true), None),
                "/short" => (headers(stream, &[(":status", "200"), ("content-length", "5")], true), None),
                "/interim" => (headers(stream, &[(":status", "102")], false).repeat(17), None),
                _ => return rs.answer(stream, "rs"),
            };
            rs.send(bytes)?;
            // What the program has to say of it.
            match code {
                Some(code) => {
                    assert_eq!(rs.wait(GOAWAY)?.number(4), code);
                    return Ok(());
                }
                None => assert_eq!(rs.wait(RST_STREAM)?.stream, stream),
            }
        }
    });
    let program = site(&origin, "").start();
    for (path, reason) in [
        ("/push", "upstream_h2_error"),
        ("/block", "upstream_h2_error"),
        ("/window", "upstream_h2_error"),
        ("/before", "upstream_reset"),
        ("/field", "bad_field_name"),
        ("/status", "bad_status_line"),
        ("/short", "bad_length"),
        ("/interim", "too_many_interim"),
    ] {
        fails(&program, path, 502, reason);
    }
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
}

/// An RS that answers no request to its end. It tells when one has come, and then the code with which its stream is
/// reset.
fn held(settings: &'static [(u16, u32)]) -> (Origin, Receiver<Option<u32>>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let origin = scripted(settings, move |rs| {
        loop {
            let asked = rs.head()?;
            if asked.field(":path") == Some("/answered") {
                rs.send(headers(asked.stream, &[(":status", "200")], false))?;
                rs.send(data(asked.stream, "begun", false))?;
            }
            tell.lock().unwrap().send(None).unwrap();
            let frame = rs.wait(RST_STREAM)?;
            assert_eq!(frame.stream, asked.stream);
            tell.lock().unwrap().send(Some(frame.number(0))).unwrap();
        }
    });
    (origin, told)
}

fn cancelled() {
    let (origin, told) = held(&[]);
    let program = site(&origin, "").start();
    let next = || told.recv_timeout(Duration::from_secs(30)).unwrap();
    for path in ["/", "/answered"] {
        let mut client = Frames::connect(&program, 1 << 20);
        client.send(get(1, path));
        assert_eq!(next(), None);
        client.send(reset(1));
        assert_eq!(next(), Some(8), "{path}");
    }
    assert_eq!(origin.connections(), 1);
}

fn early() {
    let origin = scripted(&[], |rs| {
        loop {
            let asked = rs.head()?;
            let fields = [(":status", "403"), ("content-length", "2")];
            rs.send([headers(asked.stream, &fields, false), data(asked.stream, "no", true)].concat())?;
            assert_eq!(rs.wait(RST_STREAM)?.stream, asked.stream);
        }
    });
    let program = site(&origin, "").start();
    for stream in [1, 3] {
        let mut client = Frames::connect(&program, 1 << 20);
        client.send([post(stream, "/"), frame(DATA, 0, stream, "beginning")].concat());
        assert_eq!(client.response(stream), (403, "no".into()));
    }
    assert_eq!(origin.connections(), 1);
}

/// Sends as much as the program takes, and tells how much that is whenever it takes no more.
fn flood(rs: &mut Served<'_>, stream: u32, sent: &AtomicU32) -> io::Result<()> {
    // The windows the program begins with, of streams and of the connection.
    let (mut own, mut all) = (256_i64 << 10, 8_i64 << 20);
    rs.send(headers(stream, &[(":status", "200")], false))?;
    loop {
        while own >= 16_384 && all >= 16_384 {
            rs.send(data(stream, vec![b'x'; 16_384], false))?;
            (own, all) = (own - 16_384, all - 16_384);
            sent.fetch_add(16_384, Ordering::SeqCst);
        }
        let frame = rs.next()?;
        match (frame.kind, frame.stream) {
            (WINDOW_UPDATE, 0) => all += i64::from(frame.number(0)),
            (WINDOW_UPDATE, id) if id == stream => own += i64::from(frame.number(0)),
            (RST_STREAM, id) if id == stream => return Ok(()),
            (HEADERS, id) => rs.answer(id, "other")?,
            _ => {}
        }
    }
}

fn slow_client() {
    static SENT: AtomicU32 = AtomicU32::new(0);
    let origin = scripted(&[], |rs| {
        let asked = rs.head()?;
        flood(rs, asked.stream, &SENT)
    });
    let program = site(&origin, "").start();
    // It reads nothing: no window beyond the first.
    let mut client = Frames::connect(&program, 1000);
    client.send(get(1, "/"));
    client.wait(HEADERS, 1);
    let settled = || {
        let before = SENT.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(200));
        (before > 0 && SENT.load(Ordering::SeqCst) == before).then_some(before)
    };
    let sent = until("the RS is stopped", settled);
    assert!(sent <= 512 << 10, "{sent} bytes are kept for a client that reads nothing");
    // Another one, on the same connection.
    assert_eq!(program.ask("http", &Request::get("a.test", "/other")).text(), "other");
    assert_eq!(origin.connections(), 1);
    // It reads on, and the RS goes on.
    client.send([update(0, 2 << 20), update(1, 2 << 20)].concat());
    until("more", || (SENT.load(Ordering::SeqCst) > sent + (1 << 20)).then_some(()));
    client.send(reset(1));
}

fn slow_rs() {
    // It opens no window beyond its first 1000 bytes until it is told to.
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let origin = scripted(&[(4, 1000)], move |rs| {
        let asked = rs.head()?;
        let _ = gone.lock().unwrap().recv();
        rs.send([update(asked.stream, 64 << 20), update(0, 64 << 20)].concat())?;
        let content = rs.content()?;
        rs.answer(asked.stream, &content.len().to_string())
    });
    let program = site(&origin, "").start();
    let mut client = program.connect("http");
    const SIZE: usize = 20 << 20;
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {SIZE}\r\n\r\n"));
    let mut other = Client::sharing(&client);
    let sending = std::thread::spawn(move || other.send(vec![b'x'; SIZE]));
    until("the RS has the request", || (origin.connections() == 1).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!sending.is_finished(), "20 MiB are kept for an RS that takes nothing");
    assert!(program.resident() < 100 << 20);
    go.send(()).unwrap();
    sending.join().unwrap();
    assert_eq!(client.response().text(), SIZE.to_string());
}

fn large() {
    let echo = Echo::new(None);
    let program = Setup::new(SITE)
        .put("rs", echo.address())
        .put("listener", "")
        .put("pool", ", protocol: h2c")
        .put("more", "")
        .start();
    let body: Vec<u8> = (0..5_000_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("sum", "1".parse().unwrap());
        let answer = client.post("https://localhost/", &body, Some(trailers)).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
        let trailers = answer.trailers.unwrap();
        assert_eq!(
            (&trailers["sum"], &trailers["grpc-status"]),
            (&"1".parse().unwrap(), &"0".parse().unwrap())
        );
    });
    let response = program.ask("http", &Request::post("a.test", "/", &body[..1 << 18]));
    assert!(response.body == body[..1 << 18]);
}

fn patience() {
    let (origin, told) = held(&[]);
    let program = site(&origin, ", read_timeout: 1s").start();
    for _ in 0..2 {
        fails(&program, "/", 504, "upstream_timeout");
        assert_eq!(told.iter().nth(1), Some(Some(8)));
    }
    // The settings came while the first one waited, and nothing since.
    until("a connection on which nothing came is left", || (origin.open() == 0).then_some(()));

    // More than what may be sent before its settings are known.
    let (origin, _told) = held(&[(4, 0)]);
    let program = site(&origin, ", send_timeout: 1s").start();
    let response = program.ask("http", &Request::post("a.test", "/", vec![b'x'; 100_000]));
    assert_eq!(response.status, 504);
    assert!(response.text().contains("(upstream_send_timeout)"), "{}", response.text());
}

fn idle() {
    let origin = scripted(&[], |rs| {
        let asked = rs.head()?;
        rs.answer(asked.stream, "rs")?;
        assert_eq!(rs.wait(GOAWAY)?.number(4), 0);
        assert_eq!(rs.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        Ok(())
    });
    for pool in [", keepalive_timeout: 1s", ", keepalive: 0"] {
        let before = origin.connections();
        let program = site(&origin, pool).start();
        assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "rs");
        until("the connection ends", || (origin.open() == 0).then_some(()));
        assert_eq!(origin.connections(), before + 1);
    }
}

fn outlive() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let origin = scripted(&[], move |rs| {
        loop {
            let asked = rs.head()?;
            rs.send(headers(asked.stream, &[(":status", "200")], false))?;
            let _ = gone.lock().unwrap().recv();
            rs.send(data(asked.stream, "rest", true))?;
        }
    });
    let other = Origin::named("other");
    let setup = site(&origin, "");
    let text = SITE
        .replace("<rs>", &other.address().to_string())
        .replace("<listener>", "")
        .replace("<pool>", "")
        .replace("<more>", "");
    let mut program = setup.start();
    let mut client = program.connect("http");
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.head();
    assert_eq!(program.reload(&text), "ingre: reloaded");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "other");
    program.signal(Signal::TERM);
    program.said("draining");
    go.send(()).unwrap();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(rest.contains("rest"), "{rest}");
    assert!(program.wait_exit().success());
}

fn checks() {
    let statuses = [("up", "200"), ("down", "500")];
    let origins = statuses.map(|(_, status)| {
        scripted(&[], move |rs| {
            let asked = rs.head()?;
            assert_eq!(asked.field(":path"), Some("/health"));
            assert!(asked.field("user-agent").unwrap().starts_with("ingre-healthcheck/"));
            rs.send(headers(asked.stream, &[(":status", status)], true))?;
            rs.next().map(drop)
        })
    });
    let pool = |name: &str, origin: &Origin| {
        format!(
            "  - {{name: {name}, servers: [{{address: \"{}\"}}], protocol: h2c, \
             health_check: {{path: /health, interval: 2s, timeout: 1s}}}}\n",
            origin.address()
        )
    };
    let program = Setup::new(&format!(
        "admin: {{address: \"127.0.0.1:0\"}}\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\npools:\n{}{}\
         routes: [{{domains: [\"*\"], rules: [{{url: /, pool: up}}]}}]\n",
        pool("up", &origins[0]),
        pool("down", &origins[1])
    ))
    .start();
    for ((name, _), (origin, value)) in statuses.iter().zip(origins.iter().zip([1, 0])) {
        program.wait_metric(
            &format!("ingre_server_up{{pool=\"{name}\",server=\"{}\"}}", origin.address()),
            value,
        );
    }
}
