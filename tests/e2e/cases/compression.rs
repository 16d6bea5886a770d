//! Responses that are compressed on their way to the client, and those that are not.

use std::io::Read as _;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::harness::curl::curl;
use crate::harness::http1::chunked;
use crate::harness::origin::{ok, response};
use crate::harness::{Case, Client, Need, Origin, Program, Request, Setup, h2};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("compression::curl_reads_every_algorithm", &[Need::Curl], read_by_curl),
        Case::new("compression::the_fields_tell", fields),
        Case::new("compression::options_of_a_rule", options),
        Case::new("compression::some_responses_are_left_alone", never),
        Case::new("compression::slow_streams_are_not_held_back", streams),
        Case::new("compression::http2_gets_content_and_trailers", http2),
        Case::new("compression::what_breaks_off_does_not_look_complete", broken_off),
        Case::new("compression::mistakes_are_shown", mistakes),
    ]
}

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

fn decoded(coding: &str, coded: &[u8]) -> String {
    let mut plain = String::new();
    // Of an incomplete stream the beginning is read, and then comes an error.
    let _ = match coding {
        "gzip" => flate2::read::GzDecoder::new(coded).read_to_string(&mut plain),
        "br" => brotli::Decompressor::new(coded, 4096).read_to_string(&mut plain),
        "zstd" => zstd::stream::read::Decoder::new(coded).unwrap().read_to_string(&mut plain),
        other => panic!("{other}"),
    };
    plain
}

/// The program in front of one RS, with these options of `compress:`.
fn program(rs: &Origin, compress: &str, more: &str) -> Program {
    let yaml = format!(
        "\
workers: 1
listeners:
  - {{name: http, address: \"127.0.0.1:0\"}}
  - {{name: https, address: \"127.0.0.1:0\", tls: {{development: {{}}}}}}
pools: [{{name: rs, servers: [{{address: \"<rs>\"}}], health_check: {{type: off}}}}]
routes:
  - domains: [\"*\"]
    rules:
      - {{url: /, pool: rs, compress: {{{compress}}}{more}}}
      - {{url: /transparent/, pool: rs}}
      - {{url: = /text, respond: {{body: \"{}\"}}, compress: {{min_size: 100}}}}
",
        "a fixed text ".repeat(20)
    );
    Setup::new(&yaml).put("rs", rs.address()).start()
}

/// A long text that is not the same everywhere.
fn long_text() -> String {
    (0..60_000_u64).map(|number| format!("line {} of many\n", number * number % 7919)).collect()
}

fn read_by_curl() {
    let rs =
        Origin::serving(|_| response("200 OK", &[("Content-Type", "text/html; charset=utf-8")], long_text()));
    let program = program(&rs, "", "");
    for protocol in ["--http1.1", "--http2"] {
        for coding in CODINGS {
            let accept = format!("Accept-Encoding: {coding}");
            let arguments = ["--insecure", "--compressed", "--include", protocol, "--header", &accept];
            let curled = curl("localhost", program.listener("https"), "/", &arguments);
            assert_eq!(curled.code, 0, "{}", curled.stderr);
            let answer = String::from_utf8(curled.body).unwrap();
            let (head, content) = answer.split_once("\r\n\r\n").unwrap();
            let field = format!("content-encoding: {coding}");
            assert!(head.to_ascii_lowercase().contains(&field), "{protocol}: {head}");
            assert!(content == long_text(), "{protocol} {coding}");
        }
    }
    let line = program.logged("/");
    assert!(line["bytes_out"].as_u64().is_some_and(|bytes| bytes < 300_000), "{line}");
}

fn fields() {
    let rs = Origin::serving(|_| {
        let fields = [
            ("Content-Type", "text/plain"),
            ("ETag", "\"v1\""),
            ("Accept-Ranges", "bytes"),
            ("Vary", "Origin"),
        ];
        response("200 OK", &fields, "text ".repeat(1000))
    });
    let program = program(&rs, "", ", request_headers: {remove: [Accept-Encoding]}");
    let mut client = program.connect("http");
    for (method, target, accepts, coding) in [
        ("GET", "/", "gzip, br;q=0.5", Some("gzip")),
        ("GET", "/", "gzip, deflate, br, zstd", Some("zstd")),
        ("GET", "/", "deflate", None),
        ("GET", "/", "*;q=0", None),
        ("HEAD", "/", "br", Some("br")),
        ("GET", "/transparent/", "gzip", None),
    ] {
        let answer = client.ask(&Request::new(method, "a.test", target).header("Accept-Encoding", accepts));
        let field = |name| answer.field(name);
        assert_eq!(field("content-encoding"), coding, "{accepts}");
        if target == "/transparent/" {
            assert_eq!(answer.head.values("vary"), ["Origin"]);
            continue;
        }
        assert_eq!(answer.head.values("vary"), ["Origin", "Accept-Encoding"], "{accepts}");
        match coding {
            Some(coding) => {
                assert_eq!(
                    (field("etag"), field("accept-ranges"), field("content-length")),
                    (Some("W/\"v1\""), None, None)
                );
                let content = if method == "HEAD" { String::new() } else { "text ".repeat(1000) };
                assert!(decoded(coding, &answer.body) == content && answer.body.len() < 200);
            }
            None => {
                assert_eq!((field("etag"), field("accept-ranges")), (Some("\"v1\""), Some("bytes")));
                assert_eq!(field("content-length"), Some("5000"));
            }
        }
    }
    // What the rule chooses by is not what its RS sees.
    let seen = rs.received();
    let told = |target: &str| {
        seen.iter().find(|request| request.target() == target).unwrap().field("accept-encoding")
    };
    assert_eq!((told("/"), told("/transparent/")), (None, Some("gzip")));
    // A text of the configuration is a response like any other.
    let answer = client.ask(&Request::get("a.test", "/text").header("Accept-Encoding", "gzip"));
    assert_eq!(decoded("gzip", &answer.body), "a fixed text ".repeat(20));
}

fn options() {
    let rs = Origin::serving(|request| {
        let kind = if request.target() == "/own" { "Application/X-Own; v=1" } else { "text/html" };
        response("200 OK", &[("Content-Type", kind)], "x".repeat(60))
    });
    let program = program(&rs, "algorithms: [gzip, zstd], types: [application/x-own], min_size: 50", "");
    let mut client = program.connect("http");
    for (target, accepts, coding) in [
        ("/own", "zstd, gzip, br", Some("gzip")),
        ("/own", "zstd, gzip;q=0.9, br", Some("zstd")),
        ("/own", "br", None),
        ("/html", "gzip", None),
    ] {
        let answer = client.ask(&Request::get("a.test", target).header("Accept-Encoding", accepts));
        assert_eq!(answer.field("content-encoding"), coding, "{target} {accepts}");
        assert_eq!(answer.field("vary").is_some(), target == "/own");
    }
}

fn never() {
    const LONG: usize = 2000;
    let rs = Origin::serving(|request| {
        let long = "y".repeat(LONG);
        let text = ("Content-Type", "text/plain");
        let with = |name, value| response("200 OK", &[text, (name, value)], &long);
        match request.target() {
            "/events" => response("200 OK", &[("Content-Type", "text/event-stream")], &long),
            "/grpc" => response("200 OK", &[("Content-Type", "application/grpc+proto")], &long),
            "/image" => response("200 OK", &[("Content-Type", "image/png")], &long),
            "/no-type" => ok(&long),
            "/coded" => with("Content-Encoding", "gzip"),
            "/no-transform" => with("Cache-Control", "public, no-transform"),
            "/range" => with("Content-Range", "bytes 0-1999/9999"),
            "/digest" => with("Content-Digest", "sha-256=:AA==:"),
            "/part" => {
                response("206 Partial Content", &[text, ("Content-Range", "bytes 0-1999/9999")], &long)
            }
            "/short" => response("200 OK", &[text], "y".repeat(1023)),
            "/empty" => response("200 OK", &[text], ""),
            "/204" => b"HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n\r\n".to_vec(),
            "/304" => {
                b"HTTP/1.1 304 Not Modified\r\nContent-Type: text/plain\r\nETag: \"a\"\r\n\r\n".to_vec()
            }
            _ => response("200 OK", &[text], &long),
        }
    });
    let program = program(&rs, "", "");
    let mut client = program.connect("http");
    let ask = |target: &str| Request::get("a.test", target).header("Accept-Encoding", "gzip, br, zstd");
    for target in [
        "/events",
        "/grpc",
        "/image",
        "/no-type",
        "/coded",
        "/no-transform",
        "/range",
        "/digest",
        "/part",
        "/short",
        "/empty",
        "/204",
        "/304",
    ] {
        let answer = client.ask(&ask(target));
        assert_eq!(answer.field("vary"), None, "{target}");
        let coding = (target == "/coded").then_some("gzip");
        assert_eq!(answer.field("content-encoding"), coding, "{target}");
        assert!(answer.body.iter().all(|byte| *byte == b'y'), "{target}");
    }
    let answer = client.ask(&ask("/plain").header("Cache-Control", "no-transform"));
    assert_eq!((answer.field("content-encoding"), answer.field("vary")), (None, Some("Accept-Encoding")));
    assert_eq!(client.ask(&ask("/plain")).field("content-encoding"), Some("zstd"));
}

/// An RS that sends each piece when it is told to, as a chunk; an empty one is the end.
fn piecewise() -> (Origin, std::sync::mpsc::Sender<&'static str>) {
    let (sender, pieces) = channel::<&'static str>();
    let pieces = Mutex::new(pieces);
    let rs = Origin::scripted(move |peer| {
        loop {
            peer.request()?;
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            loop {
                match pieces.lock().unwrap().recv() {
                    Ok("") => {
                        peer.send(chunked(&[] as &[&str], &[("X-End".to_owned(), "yes".to_owned())]))?;
                        break;
                    }
                    Ok(piece) => peer.send(format!("{:x}\r\n{piece}\r\n", piece.len()))?,
                    // Breaks off.
                    Err(_) => return Ok(()),
                }
            }
        }
    });
    (rs, sender)
}

const PIECES: [&str; 3] = ["{\"first\": 1}\n", "{\"second\": 2}\n", "{\"third\": 3}\n"];

fn streams() {
    let (rs, sender) = piecewise();
    let program = program(&rs, "", "");
    for coding in CODINGS {
        let mut client = program.connect("http");
        let request = Request::get("a.test", "/").header("Accept-Encoding", coding);
        client.send(request.head());
        assert_eq!(client.head().field("content-encoding"), Some(coding));
        let mut coded = Vec::new();
        let mut sent = String::new();
        for piece in PIECES {
            sender.send(piece).unwrap();
            sent += piece;
            while decoded(coding, &coded) != sent {
                coded.append(&mut chunk(&mut client));
            }
        }
        sender.send("").unwrap();
        loop {
            match chunk(&mut client) {
                last if last.is_empty() => break,
                mut more => coded.append(&mut more),
            }
        }
        assert_eq!(decoded(coding, &coded), sent);
    }
}

/// The next chunk; empty at the end.
fn chunk(client: &mut Client) -> Vec<u8> {
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(client.exactly(1)[0].into());
    }
    let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
    if size == 0 {
        return Vec::new();
    }
    let mut content = client.exactly(size + 2);
    content.truncate(size);
    content
}

fn http2() {
    h2::run(async {
        let (rs, sender) = piecewise();
        let program = program(&rs, "", "");
        let mut client = h2::H2::connect(program.listener("https"), &program.tls()).await;
        for coding in CODINGS {
            let request =
                http::Request::get("https://localhost/").header("accept-encoding", coding).body(()).unwrap();
            let (response, _) = client.begin(request, true).await;
            sender.send(PIECES[0]).unwrap();
            let (head, mut stream) = response.await.unwrap().into_parts();
            assert_eq!(head.headers["content-encoding"], coding);
            let mut coded = Vec::new();
            while decoded(coding, &coded) != PIECES[0] {
                coded.extend_from_slice(&stream.data().await.unwrap().unwrap());
            }
            sender.send(PIECES[1]).unwrap();
            sender.send("").unwrap();
            while let Some(data) = stream.data().await {
                coded.extend_from_slice(&data.unwrap());
            }
            assert_eq!(decoded(coding, &coded), PIECES[..2].concat());
            assert_eq!(stream.trailers().await.unwrap().unwrap()["x-end"], "yes");
        }
        drop((rs, sender));
    });
}

fn broken_off() {
    for coding in CODINGS {
        let (rs, sender) = piecewise();
        let program = program(&rs, "", "");
        let mut client = program.connect("http");
        client.send(Request::get("a.test", "/").header("Accept-Encoding", coding).head());
        client.head();
        sender.send(PIECES[0]).unwrap();
        let mut coded = Vec::new();
        while decoded(coding, &coded) != PIECES[0] {
            coded.append(&mut chunk(&mut client));
        }
        drop(sender);
        assert!(!client.rest().ends_with(b"0\r\n\r\n"), "{coding}");
    }
}

fn mistakes() {
    for (compress, message) in [
        ("algorithms: [deflate]", "deflate"),
        ("types: [text]", "`text` is no media type"),
        ("types: [\"text/*\"]", "`text/*` is no media type"),
        ("types: [text/Event-Stream]", "`text/Event-Stream` is never compressed"),
        ("types: [application/grpc-web]", "`application/grpc-web` is never compressed"),
        ("min_size: 2M", "2097152 bytes"),
        ("level: 9", "unknown key `level`"),
    ] {
        let yaml = format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
             routes: [{{domains: [\"*\"], rules: [{{respond: {{}}, compress: {{{compress}}}}}]}}]\n"
        );
        let ran = Setup::new(&yaml).validate();
        assert_eq!(ran.code, 1, "{compress}");
        assert!(ran.stderr.contains(message) && ran.stderr.contains(":2:"), "{compress}: {}", ran.stderr);
    }
}
