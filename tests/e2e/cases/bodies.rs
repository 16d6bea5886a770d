//! Content both ways: lengths, chunks, trailers, large ones, and those that are refused or cut short.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;

use crate::harness::curl::curl;
use crate::harness::digest::{content, sha256};
use crate::harness::h2::{self, H2};
use crate::harness::origin::{Peer, response};
use crate::harness::{Case, Client, Need, Origin, Program, Request, until};

use super::{site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("bodies::framing_and_trailers_pass_both_ways", framing),
        Case::new("bodies::framing_and_trailers_pass_both_ways_over_http2", framing_h2),
        Case::new("bodies::fifty_megabytes_each_way", large),
        Case::new("bodies::fifty_megabytes_each_way_over_http2", large_h2),
        Case::needing("bodies::fifty_megabytes_each_way_with_curl", &[Need::Curl], large_curl),
        Case::new("bodies::an_early_response_is_passed_on_while_the_client_sends", early),
        Case::new("bodies::a_response_that_begins_first_costs_the_upload_nothing", both_at_once),
        Case::new("bodies::responses_without_content", bodiless),
        Case::new("bodies::too_large_is_413", too_large),
        Case::needing("bodies::curl_learns_that_its_upload_is_too_large", &[Need::Curl], too_large_curl),
        Case::new("bodies::a_response_that_breaks_off_does_not_look_complete", cut_short),
        Case::new("bodies::a_request_that_breaks_off_does_not_look_complete", request_cut_short),
        Case::new("bodies::a_client_that_does_not_read_stops_the_rs", backpressure_down),
        Case::new("bodies::a_client_that_does_not_read_stops_the_rs_over_http2", backpressure_down_h2),
        Case::new("bodies::an_rs_that_does_not_read_stops_the_client", backpressure_up),
    ]
}

/// One trailer that passes, and those that would change what somebody makes of the message (RFC 9110 6.5.1).
const FORBIDDEN: &[(&str, &str)] = &[
    ("Content-Length", "9"),
    ("Host", "b"),
    ("X-Sum", "2"),
    ("Authorization", "Basic eA=="),
    ("TE", "gzip"),
];

fn framing() {
    let origin = Origin::serving(|request| match request.target() {
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                        3\r\nabc\r\n5;ext=1\r\ndefgh\r\n0\r\nX-Sum: 8\r\nSet-Cookie: a=b\r\nX-More: y\r\n\r\n"
                .to_vec()
        }
        "/close" => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end".to_vec(),
        _ => response("200 OK", &[], &request.body),
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    // Content-Length stays, chunks stay chunks.
    assert_eq!(client.ask(&Request::post("a.test", "/length", "hello")).text(), "hello");
    let request = Request::new("PUT", "a.test", "/chunks").chunked(&[b"a", b"b"], FORBIDDEN);
    assert_eq!(client.ask(&request.header("Trailer", "X-Sum")).text(), "ab");
    assert_eq!(client.ask(&Request::post("a.test", "/empty", "")).text(), "");
    let received = origin.received();
    assert_eq!(received[0].field("content-length"), Some("5"));
    assert_eq!(received[0].field("transfer-encoding"), None);
    assert_eq!(received[1].field("transfer-encoding"), Some("chunked"));
    assert_eq!(received[1].trailers, [("X-Sum".to_owned(), "2".to_owned())]);
    assert_eq!(received[2].field("content-length"), Some("0"));

    let got = client.ask(&Request::get("a.test", "/chunked").header("TE", "trailers"));
    assert_eq!(got.text(), "abcdefgh");
    assert_eq!(got.trailers, [("X-Sum".into(), "8".into()), ("X-More".into(), "y".into())]);
    assert_eq!(program.logged("/chunked")["bytes_out"], 8);
    assert_eq!(program.logged("/length")["bytes_in"], 5);
    assert_eq!(received.len(), 3);
}

fn framing_h2() {
    let origin = Origin::serving(|request| match request.target() {
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                        3\r\nabc\r\n0\r\nX-Sum: 3\r\nSet-Cookie: a=b\r\nConnection: x\r\n\r\n"
            .to_vec(),
        _ => response("200 OK", &[], &request.body),
    });
    let program = site(&origin).start();
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let got = client.get("https://localhost/chunked").await;
        assert_eq!(got.text(), "abc");
        let trailers = got.trailers.unwrap();
        assert_eq!((trailers.get("x-sum").unwrap().as_bytes(), trailers.len()), (&b"3"[..], 1));
        // No length is known: chunks toward the RS.
        let mut trailers = HeaderMap::new();
        for (name, value) in [("x-sum", "5"), ("authorization", "Basic eA=="), ("x-forwarded-for", "1.2.3.4")]
        {
            trailers.insert(name, value.parse().unwrap());
        }
        assert_eq!(client.post("https://localhost/chunks", b"hello", Some(trailers)).await.text(), "hello");
        let request =
            http::Request::post("https://localhost/length").header("content-length", 3).body(()).unwrap();
        let (answer, mut stream) = client.begin(request, false).await;
        h2::send(&mut stream, b"abc", true).await;
        assert_eq!(h2::read(answer).await.text(), "abc");
    });
    let received = origin.received();
    assert_eq!(received[1].field("transfer-encoding"), Some("chunked"));
    assert_eq!(received[1].trailers, [("x-sum".to_owned(), "5".to_owned())]);
    assert_eq!((received[2].field("content-length"), received[2].body.as_slice()), (Some("3"), &b"abc"[..]));
}

const LARGE: usize = 50 << 20;

/// Answers with 50 MB of its own, and the digests of what came and of what it sends.
fn large_origin() -> Origin {
    let theirs = content(LARGE, 2);
    let digest = sha256(&theirs);
    Origin::serving(move |request| {
        let received = sha256(&request.body);
        response("200 OK", &[("X-Received", &received), ("X-Sent", &digest)], &theirs)
    })
}

fn large() {
    let origin = large_origin();
    let program = site(&origin).start();
    let ours = content(LARGE, 1);
    let digest = sha256(&ours);
    for request in [
        Request::post("localhost", "/length", ours.clone()),
        Request::new("POST", "localhost", "/chunks").chunked(&ours.chunks(70_001).collect::<Vec<_>>(), &[]),
    ] {
        let mut client = Client::connect_tls(program.listener("https"), &program.tls());
        let got = client.ask(&request);
        assert_eq!(got.status, 200);
        assert_eq!(got.field("x-received"), Some(digest.as_str()));
        assert_eq!(got.field("x-sent"), Some(sha256(&got.body).as_str()));
    }
    assert_eq!(program.logged("/chunks")["bytes_in"], LARGE);
    assert_eq!(program.logged("/chunks")["bytes_out"], LARGE);
}

fn large_h2() {
    let origin = large_origin();
    let program = site(&origin).start();
    let ours = content(LARGE, 1);
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let got = client.post("https://localhost/", &ours, None).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.headers["x-received"], sha256(&ours));
        assert_eq!(got.headers["x-sent"], sha256(&got.body));
    });
}

fn large_curl() {
    let origin = large_origin();
    let program = site(&origin).start();
    let ours = content(LARGE, 1);
    let file = program.path().join("upload");
    std::fs::write(&file, &ours).unwrap();
    let ca = program.path().join("certs/dev-ca.pem");
    let headers = program.path().join("headers");
    for version in ["--http1.1", "--http2"] {
        let upload = format!("@{}", file.display());
        let arguments = [
            version,
            "--cacert",
            ca.to_str().unwrap(),
            "--data-binary",
            &upload,
            "--dump-header",
            headers.to_str().unwrap(),
        ];
        let got = curl("localhost", program.listener("https"), "/", &arguments);
        assert_eq!(got.code, 0, "{}", got.stderr);
        let headers = std::fs::read_to_string(&headers).unwrap().to_ascii_lowercase();
        assert!(headers.contains(&format!("x-received: {}", sha256(&ours))), "{version}: {headers}");
        assert!(headers.contains(&format!("x-sent: {}", sha256(&got.body))), "{version}: {headers}");
    }
}

/// Refuses after the head, and reads no more of the content than it must.
fn refuse(peer: &mut Peer) -> io::Result<()> {
    peer.head()?;
    peer.send(response("413 Payload Too Large", &[("Connection", "close")], "too much"))?;
    peer.finish()?;
    peer.rest().map(drop)
}

fn early() {
    let origin = Origin::scripted(refuse);
    let program = site(&origin).start();
    let mut client = program.connect("http");
    client.send("POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nthe beginning");
    let got = client.response();
    assert_eq!((got.status, got.text().as_str()), (413, "too much"));
    assert_eq!(got.field("connection"), Some("close"));
    client.finish();
    assert!(client.is_closed());
    // While it is still sending for all it is worth.
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    client.send("POST /early2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\n");
    let piece = vec![b'x'; 64 << 10];
    // What is sent is thrown away or refused; the answer is there all the same.
    while client.try_send(&piece).is_ok() && program.log_lines().len() < 2 {}
    assert_eq!(client.try_response().map(|got| got.status).unwrap_or(413), 413);
    assert_eq!(program.logged("/early2")["status"], 413);
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let request = http::Request::post("https://localhost/early3").body(()).unwrap();
        let (answer, mut stream) = client.begin(request, false).await;
        let upload = content(4 << 20, 1);
        let (got, ()) = tokio::join!(h2::read(answer), h2::send(&mut stream, &upload, false));
        assert_eq!((got.status, got.text().as_str()), (413, "too much"));
    });
}

/// The RS begins its response while much of the request waits for it in every buffer on the way.
fn both_at_once() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::scripted(move |peer| {
        let head = peer.head()?;
        let _ = wait.lock().unwrap().recv();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let _ = wait.lock().unwrap().recv();
        let (body, _) = peer.body(&head)?;
        peer.send(format!("40\r\n{}\r\n0\r\n\r\n", sha256(&body)))
    });
    let program = site_with(&origin, "client_max_body_size: 0", "").start();
    let mut client = program.connect("http");
    let mut reading = Client::sharing(&client);
    // More than the kernel keeps in the buffers on the way.
    let upload = content(120 << 20, 7);
    let bytes = upload.clone();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let sending = std::thread::spawn(move || {
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Many small chunks: what waits holds more than one of them.
        for many in bytes.chunks(100_000) {
            let chunks = many
                .chunks(1000)
                .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            client.send(chunks.collect::<Vec<u8>>());
            counter.fetch_add(many.len() as u64, Ordering::Relaxed);
        }
        client.send("0\r\n\r\n");
    });
    assert!(stalled(&sent) < upload.len() as u64, "nothing waits");
    go.send(()).unwrap();
    assert_eq!(reading.head().part(1), "200");
    go.send(()).unwrap();
    assert_eq!(String::from_utf8(reading.exactly(4 + 64)).unwrap()[4..], sha256(&upload));
    sending.join().unwrap();
}

fn bodiless() {
    let origin = Origin::serving(|request| match (request.method(), request.target()) {
        ("HEAD", "/chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        (_, "/204") => b"HTTP/1.1 204 No Content\r\nX-A: b\r\nContent-Length: 0\r\n\r\n".to_vec(),
        (_, "/304") => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n".to_vec(),
        _ => response("200 OK", &[], "hello"),
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    for round in 0..2 {
        let got = client.ask(&Request::new("HEAD", "a.test", "/"));
        assert_eq!((got.status, got.field("content-length"), got.body.len()), (200, Some("5"), 0));
        let got = client.ask(&Request::new("HEAD", "a.test", "/chunked"));
        assert_eq!((got.status, got.body.len()), (200, 0));
        let got = client.ask(&Request::get("a.test", "/204"));
        assert_eq!((got.status, got.field("content-length"), got.field("x-a")), (204, None, Some("b")));
        let got = client.ask(&Request::get("a.test", "/304"));
        assert_eq!((got.status, got.field("etag")), (304, Some("\"x\"")));
        // Nothing was left between the messages, on either side.
        assert_eq!(client.ask(&Request::get("a.test", "/")).text(), "hello", "round {round}");
    }
    assert_eq!(origin.connections(), 1);
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let head = http::Request::head("https://localhost/").body(()).unwrap();
        let got = client.ask(head).await;
        assert_eq!((got.status, got.body.len()), (200, 0));
        assert_eq!(got.headers["content-length"], "5");
        let got = client.get("https://localhost/204").await;
        assert_eq!((got.status, got.headers.get("content-length")), (204, None));
        let got = client.get("https://localhost/304").await;
        assert_eq!((got.status, got.headers["content-length"].as_bytes()), (304, &b"5"[..]));
        assert_eq!(client.get("https://localhost/").await.text(), "hello");
    });
}

fn too_large() {
    let origin = Origin::serving(|request| response("200 OK", &[], &request.body));
    let program = site_with(&origin, "client_max_body_size: 1k", "").start();
    let text = |status: u16, text: String| {
        assert_eq!(
            (status, text.as_str()),
            (413, "413 Payload Too Large: request body too large (body_too_large)\n")
        );
    };
    assert_eq!(program.ask("http", &Request::post("a.test", "/", vec![b'x'; 1024])).status, 200);
    let got = program.ask("http", &Request::post("a.test", "/length", vec![b'x'; 1025]));
    text(got.status, got.text());
    assert_eq!(got.field("connection"), Some("close"));
    // A length that is not told beforehand.
    let chunks = [&[b'x'; 600][..], &[b'x'; 600]];
    let got = program.ask("http", &Request::new("POST", "a.test", "/chunks").chunked(&chunks, &[]));
    text(got.status, got.text());
    assert_eq!(program.logged("/chunks")["reason"], "body_too_large");
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let got = client.post("https://localhost/h2", &[b'x'; 3000], None).await;
        text(got.status, got.text());
        assert_eq!(client.post("https://localhost/", &[b'x'; 1024], None).await.status, 200);
    });
    assert_eq!(origin.received().iter().filter(|request| request.body.len() > 1024).count(), 0);
    // 0 is no limit.
    let program = site_with(&origin, "client_max_body_size: 0", "").start();
    assert_eq!(program.ask("http", &Request::post("a.test", "/", vec![b'x'; 70 << 20])).status, 200);
}

/// A client that is told 413 while it has far more to send, as curl does it.
fn too_large_curl() {
    let origin = Origin::named("never asked");
    let program = site_with(&origin, "client_max_body_size: 1k", "").start();
    let file = program.path().join("upload");
    std::fs::write(&file, content(40 << 20, 1)).unwrap();
    let (file, ca) = (file.display().to_string(), program.path().join("certs/dev-ca.pem"));
    for (version, path) in [("--http1.1", "/one"), ("--http2", "/two")] {
        let arguments = [version, "--cacert", ca.to_str().unwrap(), "--upload-file", &file];
        let got = curl("localhost", program.listener("https"), path, &arguments);
        let text = String::from_utf8_lossy(&got.body);
        assert!(text.starts_with("413 "), "{version}: {text} {}", got.stderr);
        let line = program.logged(path);
        assert_eq!((line["status"].as_u64(), line["method"].as_str()), (Some(413), Some("PUT")));
    }
}

fn cut_short() {
    let origin = Origin::scripted(|peer| {
        let request = peer.request()?;
        match request.target() {
            "/length" => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            "/chunks" => peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
            _ => peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"),
        }
    });
    let program = site(&origin).start();
    for (target, reason) in
        [("/length", "upstream_closed"), ("/chunks", "upstream_closed"), ("/damaged", "bad_chunk_size")]
    {
        let mut client = program.connect("http");
        assert!(client.try_ask(&Request::get("a.test", target)).is_err(), "{target} looks complete");
        let line = program.logged(target);
        assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(200), Some(reason)), "{target}");
    }
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        for target in ["length", "chunks", "damaged"] {
            let request = http::Request::get(format!("https://localhost/{target}")).body(()).unwrap();
            let (answer, _) = client.begin(request, true).await;
            // The head may be gone with the stream.
            if let Ok(answer) = answer.await {
                let mut body = answer.into_body();
                assert!(h2::read_body(&mut body).await.is_err(), "{target} looks complete");
            }
        }
    });
}

fn request_cut_short() {
    let origin = Origin::serving(|request| response("200 OK", &[], &request.body));
    let program = site(&origin).start();
    for head in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = program.connect("http");
        client.send(format!("POST /cut HTTP/1.1\r\nHost: a.test\r\n{head}"));
        client.finish();
        let got = client.try_response();
        assert!(got.is_err() || got.is_ok_and(|got| got.status >= 400));
    }
    until("both log lines", || (program.log_lines().len() == 2).then_some(()));
    for line in program.log_lines() {
        assert_eq!(line["reason"], "client_gone", "{line}");
    }
    until("the RS sees both connections end", || (origin.open() == 0).then_some(()));
    assert!(origin.received().is_empty(), "a request that was cut looks complete to the RS");
}

/// More than all buffers between the two ends together, and a bound for what the program may hold of it.
const FLOOD: u64 = 200 << 20;
const BOUND: u64 = 24 << 20;

/// Waits until the counter has stood still for a while.
fn stalled(counter: &AtomicU64) -> u64 {
    let mut last = (counter.load(Ordering::Relaxed), 0);
    until("nothing moves any more", || {
        let now = counter.load(Ordering::Relaxed);
        last = if now == last.0 && now > 0 { (now, last.1 + 1) } else { (now, 0) };
        // Each look is 5 ms after the one before.
        (last.1 == 100).then_some(now)
    })
}

fn flooding() -> (Origin, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let origin = Origin::scripted(move |peer| {
        peer.request()?;
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n"))?;
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..FLOOD / piece.len() as u64 {
            peer.send(&piece)?;
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    });
    (origin, sent)
}

fn assert_bounded(program: &Program, before: u64, moved: u64) {
    assert!(moved < FLOOD / 2, "{moved} bytes went through although nobody reads");
    let grown = program.resident().saturating_sub(before);
    assert!(grown < BOUND, "the program has grown by {grown} bytes");
}

fn backpressure_down() {
    let (origin, sent) = flooding();
    let program = site(&origin).start();
    let before = program.resident();
    let mut client = program.connect("http");
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let moved = stalled(&sent);
    assert_bounded(&program, before, moved);
    // And when somebody reads, all of it comes.
    assert_eq!(client.response().body.len() as u64, FLOOD);
    let grown = program.resident().saturating_sub(before);
    assert!(grown < BOUND, "the program has grown by {grown} bytes");
}

fn backpressure_down_h2() {
    let (origin, sent) = flooding();
    let program = site(&origin).start();
    let before = program.resident();
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let request = http::Request::get("https://localhost/").body(()).unwrap();
        let (answer, _) = client.begin(request, true).await;
        // Its content is not read, and the window closes.
        let held = answer.await.unwrap();
        assert_eq!(held.status(), 200);
        let counter = Arc::clone(&sent);
        let moved = tokio::task::spawn_blocking(move || stalled(&counter)).await.unwrap();
        assert_bounded(&program, before, moved);
        drop(held);
    });
}

fn backpressure_up() {
    let (origin, over) = Origin::stuck();
    let program = site_with(&origin, "client_max_body_size: 0", "").start();
    let before = program.resident();
    let sent = Arc::new(AtomicU64::new(0));
    let mut client = program.connect("http");
    client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {FLOOD}\r\n\r\n"));
    let counter = Arc::clone(&sent);
    client.socket().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 << 10];
        while client.try_send(&piece).is_ok() {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    let moved = stalled(&sent);
    assert_bounded(&program, before, moved);
    drop(over);
    sending.join().unwrap();
}
