//! gRPC: streams with trailers end to end, deadlines, failures that its clients understand, and its health checks.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::harness::frames::RST_STREAM;
use crate::harness::h2::{self, H2, read, read_body};
use crate::harness::h2_origin::{Asked, Echo, data, headers, scripted};
use crate::harness::origin::refusing;
use crate::harness::{Case, Origin, Setup};

use super::SITE;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("grpc::calls_of_every_kind_pass", calls),
        Case::new("grpc::failures_are_told_in_its_own_way", failures),
        Case::new("grpc::a_deadline_ends_the_call_on_both_sides", deadline),
        Case::new("grpc::health_checks", health),
    ]
}

/// The usual site in front of an RS at this address that speaks gRPC.
fn site(address: std::net::SocketAddr, more: &str) -> Setup {
    Setup::new(SITE)
        .put("rs", address)
        .put("listener", "")
        .put("pool", format!(", protocol: grpc{more}"))
        .put("more", "")
}

/// A call of the method at this path, which more content is to follow.
fn call(path: &str) -> http::Request<()> {
    http::Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

fn message(text: &str) -> Vec<u8> {
    [&[0][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn grpc_status(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status").map(|value| value.to_str().unwrap())
}

fn calls() {
    let echo = Echo::new(None);
    let program = site(echo.address(), "").start();
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        // Unary: one message each way.
        let (response, mut stream) = client.begin(call("/a.B/Unary"), false).await;
        h2::send(&mut stream, &message("one"), true).await;
        let answer = read(response).await;
        assert_eq!((answer.status, answer.body), (200, message("one")));
        assert_eq!(grpc_status(&answer.trailers.unwrap()), Some("0"));
        // Both streams at a time: each message comes back before the next is sent.
        let (response, mut stream) = client.begin(call("/a.B/Both"), false).await;
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.headers["content-type"], "application/grpc+proto");
        for text in ["first", "second", "third"] {
            stream.send_data(Bytes::from(message(text)), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message(text));
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read_body(&mut body).await.unwrap(), b"");
        assert_eq!(grpc_status(&body.trailers().await.unwrap().unwrap()), Some("0"));
    });
    for head in echo.heads() {
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!((head.uri.scheme_str(), head.method.as_str()), (Some("http"), "POST"));
    }
}

fn failures() {
    let (nobody, _guard) = refusing();
    let program = site(nobody, "").start();
    let reset = Origin::scripted(|peer| peer.exactly(24).map(drop));
    let broken = site(reset.address(), "").start();
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let answer = client.ask(call("/a.B/Any")).await;
        assert_eq!((answer.status, grpc_status(&answer.headers)), (200, Some("14")));
        assert_eq!(answer.headers["content-type"], "application/grpc");
        let message = answer.headers["grpc-message"].to_str().unwrap();
        assert!(message.contains("(connect_failed)"), "{message}");
        // Of another kind, it is as ever.
        let answer = client.get("https://localhost/").await;
        assert_eq!((answer.status, grpc_status(&answer.headers)), (502, None));
        let mut client = H2::connect(broken.listener("https"), &broken.tls()).await;
        let answer = client.ask(call("/a.B/Any")).await;
        assert_eq!((answer.status, grpc_status(&answer.headers)), (200, Some("14")));
        // No rule at all.
        let text = SITE
            .replace("<rs>", &nobody.to_string())
            .replace("<listener>", "")
            .replace("<pool>", ", protocol: grpc")
            .replace("<more>", "")
            .replace("url: /,", "url: /other,");
        assert_eq!(program.reload(&text), "ingre: reloaded");
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let answer = client.ask(call("/a.B/Any")).await;
        assert_eq!((answer.status, grpc_status(&answer.headers)), (200, Some("12")));
    });
    assert_eq!(program.logged("/a.B/Any")["reason"], "connect_failed");
}

fn deadline() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let origin = scripted(&[], move |rs| {
        loop {
            let asked = rs.head()?;
            if asked.field(":path") == Some("/begun") {
                rs.send(headers(asked.stream, &[(":status", "200")], false))?;
                rs.send(data(asked.stream, message("one"), false))?;
            }
            tell.lock().unwrap().send((asked, rs.wait(RST_STREAM)?.number(0))).unwrap();
        }
    });
    let program = site(origin.address(), "").start();
    let reset = || -> (Asked, u32) { told.recv_timeout(Duration::from_secs(30)).unwrap() };
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let with_timeout = |path: &str| {
            let mut call = call(path);
            call.headers_mut().insert("grpc-timeout", "300m".parse().unwrap());
            call
        };
        let answer = client.ask(with_timeout("/mute")).await;
        assert_eq!((answer.status, grpc_status(&answer.headers)), (200, Some("4")));
        let (asked, code) = reset();
        assert_eq!((asked.field("grpc-timeout"), code), (Some("300m"), 8));
        // What has begun ends with trailers.
        let answer = client.ask(with_timeout("/begun")).await;
        assert_eq!((answer.status, answer.body), (200, message("one")));
        assert_eq!(grpc_status(&answer.trailers.unwrap()), Some("4"));
        assert_eq!(reset().1, 8);
    });
    assert_eq!(program.logged("/mute")["reason"], "deadline");
}

fn health() {
    // What the service answers: content, trailers or none.
    let answering = |content: &'static [u8], status: &'static str| {
        scripted(&[], move |rs| {
            let asked = rs.head()?;
            assert_eq!(asked.field(":path"), Some("/grpc.health.v1.Health/Check"));
            assert_eq!(asked.field("content-type"), Some("application/grpc"));
            let request = rs.content()?;
            let service =
                if asked.field(":authority") == Some("named.test") { &b"\x0a\x03a.B"[..] } else { b"" };
            assert_eq!(request, [&[0, 0, 0, 0, service.len() as u8][..], service].concat());
            let stream = asked.stream;
            if content.is_empty() {
                rs.send(headers(stream, &[(":status", "200"), ("grpc-status", status)], true))?;
            } else {
                rs.send(headers(stream, &[(":status", "200")], false))?;
                rs.send(data(stream, content, false))?;
                rs.send(headers(stream, &[("grpc-status", status)], true))?;
            }
            rs.next().map(drop)
        })
    };
    let serving = answering(b"\0\0\0\0\x02\x08\x01", "0");
    let not_serving = answering(b"\0\0\0\0\x02\x08\x02", "0");
    let without = answering(b"", "12");
    let failing = answering(b"", "13");
    let named = "service: a.B, host: named.test";
    let table = [
        ("serving", &serving, "protocol: grpc", "", 1),
        ("serving-named", &serving, "protocol: h2c", "type: grpc, service: a.B, host: named.test", 1),
        ("not-serving", &not_serving, "protocol: grpc", "", 0),
        ("without", &without, "protocol: grpc", "", 1),
        ("without-named", &without, "protocol: grpc", named, 0),
        ("failing", &failing, "protocol: grpc", "", 0),
    ];
    let mut pools = String::new();
    for (name, origin, protocol, check, _) in &table {
        let comma = if check.is_empty() { "" } else { ", " };
        pools += &format!(
            "  - {{name: {name}, servers: [{{address: \"{}\"}}], {protocol}, \
             health_check: {{interval: 2s, timeout: 1s{comma}{check}}}}}\n",
            origin.address()
        );
    }
    let program = Setup::new(&format!(
        "admin: {{address: \"127.0.0.1:0\"}}\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\npools:\n{pools}\
         routes: [{{domains: [\"*\"], rules: [{{url: /, pool: serving}}]}}]\n"
    ))
    .start();
    for (name, origin, _, _, value) in table {
        let metric = format!("ingre_server_up{{pool=\"{name}\",server=\"{}\"}}", origin.address());
        program.wait_metric(&metric, value);
    }
}
