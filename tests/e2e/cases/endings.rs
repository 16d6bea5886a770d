//! Messages and connections that end early, halfway or not at all, and what the other side is told.

use std::io;

use crate::harness::digest::content;
use crate::harness::frames::{DATA, Frames, GOAWAY, HEADERS, frame, get, request};
use crate::harness::origin::{ok, response};
use crate::harness::{Case, Client, Origin, Request, until};

use super::{site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("endings::an_rs_that_answers_and_resets_is_heard", answers_and_resets),
        Case::new("endings::a_client_that_has_only_finished_sending_is_answered", half_closed),
        Case::new("endings::a_client_that_has_only_finished_sending_is_answered_late", answered_late),
        Case::new("endings::a_client_that_leaves_before_the_answer_is_left_by_the_rs_too", leaves_first),
        Case::new("endings::a_client_that_leaves_is_left_by_the_rs_too", leaves),
        Case::new("endings::a_connection_ends_after_its_number_of_requests", counted),
        Case::new("endings::the_rs_is_not_asked_again_on_a_connection_that_is_not_clean", unclean),
    ]
}

fn counted() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "keepalive_requests: 3", "").start();
    let mut client = program.connect("http");
    for number in 1..=3 {
        let answer = client.ask(&Request::get("a.test", "/"));
        let closing = answer.field("connection");
        assert_eq!((answer.text().as_str(), closing), ("rs", (number == 3).then_some("close")), "{number}");
    }
    assert!(client.is_closed());
    let mut client = Frames::connect(&program, 65_535);
    for stream in [1, 3] {
        client.send(get(stream, "/"));
        assert_eq!(client.response(stream), (200, "rs".into()));
    }
    client.send(get(5, "/"));
    let (mut left, mut answered) = (false, false);
    while !(left && answered) {
        let frame = client.next().expect("GOAWAY and the answer");
        left |= frame.kind == GOAWAY;
        answered |= frame.stream == 5 && frame.ends();
    }
}

/// Its end is a reset: much of the content was not read.
fn answers_and_resets() {
    let origin = Origin::scripted(|peer| {
        peer.head()?;
        peer.exactly(1)?;
        peer.send(response("413 Payload Too Large", &[("Connection", "close")], "too much"))
    });
    let program = site(&origin).start();
    let upload = content(1 << 20, 1);
    for number in 0..20 {
        let path = format!("/plain/{number}");
        let mut client = program.connect("http");
        client.send(Request::post("a.test", &path, upload.clone()).head());
        // The program may have closed before all of it was sent.
        let _ = client.try_send(&upload);
        if let Ok(got) = client.try_response() {
            assert_eq!((got.status, got.text().as_str()), (413, "too much"));
        }
        let line = program.logged(&path);
        assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(413), None), "{line}");
        let path = format!("/h2/{number}");
        let mut client = Frames::connect(&program, 1 << 20);
        client.send(request(1, "POST", &path, false));
        for part in upload[..512 << 10].chunks(16_384) {
            client.send(frame(DATA, 0, 1, part));
        }
        let head = client.wait(HEADERS, 1);
        assert_eq!(client.fields(&head)[0].1, "413");
        assert_eq!(program.logged(&path)["status"], 413);
    }
}

fn half_closed() {
    let origin = Origin::serving(|request| response("200 OK", &[], &request.body));
    let program = site(&origin).start();
    let plain = program.connect("http");
    let secure = Client::connect_tls(program.listener("https"), &program.tls());
    for mut client in [plain, secure] {
        let request = Request::post("localhost", "/", "hello");
        client.send([request.head(), request.content()].concat());
        client.finish();
        assert_eq!(client.response().text(), "hello");
        assert!(client.is_closed());
    }
}

/// An RS that answers when it is told to.
fn late() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::scripted(move |peer| {
        loop {
            peer.request()?;
            if wait.lock().unwrap().recv().is_err() {
                return peer.rest().map(drop);
            }
            peer.send(ok("rs"))?;
        }
    });
    (origin, go)
}

fn answered_late() {
    let (origin, go) = late();
    let program = site(&origin).start();
    let plain = program.connect("http");
    let secure = Client::connect_tls(program.listener("https"), &program.tls());
    for mut client in [plain, secure] {
        // One that is answered at once goes before.
        go.send(()).unwrap();
        assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "rs");
        client.send(Request::get("localhost", "/").head());
        client.finish();
        // That is how the program finds out that somebody waits.
        assert_eq!(client.head().line, "HTTP/1.1 102 Processing");
        go.send(()).unwrap();
        assert_eq!(client.response().text(), "rs");
        assert!(client.is_closed());
    }
    // What is no news to a client of HTTP/1.0 would be the answer.
    let mut client = program.connect("http");
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    client.finish();
    until("it is under way", || (origin.received().len() == 5).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    go.send(()).unwrap();
    assert_eq!(client.head().part(1), "200");
}

fn leaves_first() {
    let (origin, go) = late();
    drop(go);
    let program = site(&origin).start();
    let plain = program.connect("http");
    let secure = Client::connect_tls(program.listener("https"), &program.tls());
    for (number, mut client) in [plain, secure].into_iter().enumerate() {
        let path = format!("/{number}");
        client.send(Request::get("localhost", &path).head());
        until("it is under way", || (origin.received().len() == number + 1).then_some(()));
        drop(client);
        until("the RS sees that", || (origin.open() == 0).then_some(()));
        let line = program.logged(&path);
        assert_eq!(
            (line["status"].as_u64(), line["reason"].as_str()),
            (Some(499), Some("client_gone")),
            "{line}"
        );
    }
    // A reset needs no question.
    let mut client = program.connect("http");
    socket2::SockRef::from(client.socket()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    client.send(Request::get("localhost", "/reset").head());
    until("it is under way", || (origin.received().len() == 3).then_some(()));
    drop(client);
    until("the RS sees that", || (origin.open() == 0).then_some(()));
    assert_eq!(program.logged("/reset")["reason"], "client_gone");
}

/// It has asked for a lot, and takes no more of it; or is to be answered when it is gone.
fn leaves() {
    let origin = Origin::scripted(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        while peer.send("5\r\nhello\r\n").is_ok() {}
        Ok(())
    });
    let program = site(&origin).start();
    let plain = program.connect("http");
    let secure = Client::connect_tls(program.listener("https"), &program.tls());
    for (number, mut client) in [plain, secure].into_iter().enumerate() {
        client.send(Request::get("localhost", &format!("/{number}")).head());
        assert_eq!(client.head().part(1), "200");
        drop(client);
        until("the RS sees that", || (origin.connections() > number && origin.open() == 0).then_some(()));
        assert_eq!(program.logged(&format!("/{number}"))["reason"], "client_gone");
    }
    // While it sends.
    let origin = Origin::scripted(|peer| {
        let head = peer.head()?;
        peer.body(&head).map(drop)
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    until("it is under way", || (origin.open() == 1).then_some(()));
    drop(client);
    until("the RS sees that", || (origin.open() == 0).then_some(()));
    assert_eq!(program.logged("/upload")["reason"], "client_gone");
}

/// What a response leaves behind must not become part of the next one.
fn unclean() {
    let origin = Origin::scripted(|peer| -> io::Result<()> {
        loop {
            let answer = match peer.request()?.target() {
                "/more" => [&ok("rs")[..], b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"].concat(),
                "/204" => b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nwrong".to_vec(),
                "/close" => response("200 OK", &[("Connection", "close")], "rs"),
                "/1.0" => b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nrs".to_vec(),
                _ => ok("right"),
            };
            peer.send(answer)?;
        }
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    for (number, target) in ["/more", "/204", "/close", "/1.0"].into_iter().enumerate() {
        let got = client.ask(&Request::get("a.test", target));
        assert!(matches!(got.text().as_str(), "rs" | ""), "{target}: {}", got.text());
        assert_eq!(client.ask(&Request::get("a.test", "/")).text(), "right", "{target}");
        assert_eq!(origin.connections(), number + 2, "{target}");
    }
}
