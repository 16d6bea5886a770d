//! HTTP/3 as an independent implementation speaks it: requests and responses, and what leads clients there.

use serde_json::{Value, json};

use crate::harness::digest::{content, sha256, websocket_accept};
use crate::harness::h2::{self, H2};
use crate::harness::h3::H3;
use crate::harness::origin::{Received, ok, response};
use crate::harness::{Case, Client, Need, Origin, Request, Setup, until};

use super::{SITE, site, site_with};

const NEEDS: &[Need] = &[Need::Aioquic];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("http3::messages_pass_both_ways", NEEDS, messages),
        Case::needing("http3::large_contents_arrive_whole", NEEDS, large),
        Case::needing("http3::a_hundred_requests_at_once", NEEDS, parallel),
        Case::needing("http3::limits_of_the_listener", NEEDS, limits),
        Case::needing("http3::malformed_requests_get_an_answer_and_the_connection_goes_on", NEEDS, malformed),
        Case::needing("http3::interim_responses_and_expectations", NEEDS, interim),
        Case::needing("http3::an_early_response_ends_the_upload", NEEDS, early),
        Case::needing("http3::a_reset_reaches_the_rs", NEEDS, reset),
        Case::new("http3::other_protocols_are_told_about_it", alt_svc),
        Case::needing("http3::certificates_by_name", NEEDS, names),
        Case::needing("http3::websocket", NEEDS, websocket),
        Case::needing("http3::without_it_nobody_answers", NEEDS, off),
    ]
}

/// Says what it was asked, and how long its content was with which digest.
fn mirror(request: &Received) -> Vec<u8> {
    let cookie = request.field("cookie").unwrap_or("-");
    let text = format!(
        "{} {} host={} cookie={cookie} proto={} {} {}",
        request.method(),
        request.target(),
        request.field("host").unwrap_or("-"),
        request.field("x-forwarded-proto").unwrap_or("-"),
        request.body.len(),
        sha256(&request.body)
    );
    response(
        "200 OK",
        &[("X-Upper-Case", "kept"), ("Set-Cookie", "a=1"), ("Connection", "X-Gone"), ("X-Gone", "1")],
        text,
    )
}

fn messages() {
    let origin = Origin::scripted(|peer| {
        loop {
            let request = peer.request()?;
            match request.target() {
                "/trailers" => {
                    let sum = request.trailers.first().map_or("-", |(_, value)| value.as_str());
                    peer.send(format!(
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: {sum}\r\n\r\n"
                    ))?;
                }
                "/none" => peer.send("HTTP/1.1 204 No Content\r\n\r\n")?,
                "/head" => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?,
                _ => peer.send(mirror(&request))?,
            }
        }
    });
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    let got = client.request(json!({"path": "/a?b=c", "headers": [["cookie", "x=1"], ["cookie", "y=2"]]}));
    assert_eq!(got["status"], 200, "{got}");
    let nothing = sha256(b"");
    assert_eq!(got["body"], format!("GET /a?b=c host=localhost cookie=x=1; y=2 proto=https 0 {nothing}"));
    let fields = &got["headers"];
    assert_eq!((&fields["x-upper-case"], &fields["set-cookie"]), (&json!("kept"), &json!("a=1")), "{got}");
    assert!(fields["date"].is_string() && fields["content-length"].is_string(), "{got}");
    assert!(
        fields["x-gone"].is_null() && fields["connection"].is_null() && fields["alt-svc"].is_null(),
        "{got}"
    );
    let request = origin.only();
    assert_eq!((request.field("transfer-encoding"), request.field("content-length")), (None, None));

    let got = client.request(json!({"path": "/head", "method": "HEAD"}));
    assert_eq!((&got["status"], &got["length"]), (&json!(200), &json!(0)), "{got}");
    assert_eq!(got["headers"]["content-length"], "1000");
    let got = client.request(json!({"path": "/none"}));
    assert_eq!((&got["status"], &got["ended"]), (&json!(204), &json!(true)));
    let got = client.request(json!({
        "path": "/trailers", "method": "POST", "body": "hello", "trailers": [["x-sum", "abc"]],
    }));
    assert_eq!((&got["body"], &got["trailers"]["x-sum"]), (&json!("body"), &json!("abc")), "{got}");

    let line = program.logged("/a?b=c");
    assert_eq!(
        (&line["protocol"], &line["sni"], &line["status"]),
        (&json!("HTTP/3"), &json!("localhost"), &json!(200))
    );
    program.wait_metric("ingre_requests_total{listener=\"https\",code=\"2xx\"}", 4);
    assert_eq!(program.metric("ingre_connections_open"), Some(1));
    client.ask(json!({"do": "close"}));
    program.wait_metric("ingre_connections_open", 0);
}

fn large() {
    let body = content(20_000_000, 7);
    let digest = sha256(&body);
    let origin = Origin::serving(move |request| match request.method() {
        "GET" => response("200 OK", &[], &body),
        _ => mirror(request),
    });
    let program = Setup::new(&SITE.replace("workers: 1", "workers: 4"))
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", "")
        .start();
    let mut client = H3::connect(&program);
    let got = client.request(json!({}));
    assert_eq!((&got["length"], &got["sha256"]), (&json!(20_000_000), &json!(digest)));
    let got = client.request(json!({"method": "POST", "path": "/up", "size": 6_000_000}));
    let wanted = format!("6000000 {}", sha256(&vec![b'x'; 6_000_000]));
    assert!(got["body"].as_str().unwrap().ends_with(&wanted), "{got}");
    assert_eq!(program.logged("/up")["bytes_in"], 6_000_000);
}

fn parallel() {
    let origin = Origin::serving(|request| ok(request.target()));
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    for _ in 0..3 {
        let paths = (0..100).map(|number| format!("/{number}"));
        let got = client.requests(paths.clone().map(|path| json!({"path": path})).collect());
        for (path, got) in paths.zip(got) {
            assert_eq!((&got["status"], &got["body"]), (&json!(200), &json!(path)));
        }
    }
}

fn limits() {
    let origin = Origin::serving(mirror);
    let program =
        site_with(&origin, "client_header_size: 4k, client_header_count: 10, client_max_body_size: 1000", "")
            .start();
    let mut client = H3::connect(&program);
    let long = "v".repeat(5000);
    let many: Vec<_> = (0..20).map(|number| json!([format!("x-{number}"), "1"])).collect();
    for (what, request, status, reason) in [
        ("a long field", json!({"headers": [["x", long]]}), 431, "head_too_large"),
        ("many fields", json!({"headers": many}), 431, "too_many_fields"),
        (
            "a long body",
            json!({"method": "POST", "size": 2000, "headers": [["content-length", "2000"]]}),
            413,
            "body_too_large",
        ),
        ("a long body of unknown length", json!({"method": "POST", "size": 2000}), 413, "body_too_large"),
    ] {
        let got = client.request(request);
        assert_eq!(got["status"], status, "{what}: {got}");
        let line =
            until("its line", || program.log_lines().into_iter().find(|line| line["reason"] == reason));
        assert_eq!((&line["status"], &line["protocol"]), (&json!(status), &json!("HTTP/3")), "{what}");
    }
    assert_eq!(client.get("/").0, 200);
    assert_eq!(client.ask(json!({"do": "goaway", "count": 0}))["settings"]["6"], 4096);
}

fn malformed() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    let with = |field: Value| {
        let usual = [[":method", "GET"], [":scheme", "https"], [":authority", "localhost"], [":path", "/"]];
        let fields = usual.iter().map(|field| json!(field)).chain([field]).collect::<Vec<_>>();
        json!({"fields": fields})
    };
    for (request, status, reason) in [
        (with(json!(["X", "y"])), 400, "bad_field_name"),
        (with(json!(["connection", "close"])), 400, "bad_field_name"),
        (with(json!(["transfer-encoding", "chunked"])), 400, "bad_field_name"),
        (with(json!(["te", "gzip"])), 400, "bad_field_value"),
        (with(json!(["x", "y\r\nz: a"])), 400, "bad_field_value"),
        (with(json!(["host", "other"])), 400, "bad_host"),
        (with(json!([":path", "/"])), 400, "bad_field_name"),
        (with(json!([":what", "/"])), 400, "bad_field_name"),
        (with(json!(["content-length", "1"])), 400, "bad_length"),
        (
            json!({"fields": [[":method", "GET"], [":scheme", "https"], [":authority", "localhost"]]}),
            400,
            "bad_request_line",
        ),
        (
            json!({"fields": [[":method", "GET"], [":path", "/"], [":authority", "localhost"]]}),
            400,
            "bad_request_line",
        ),
        (json!({"fields": [[":method", "GET"], [":scheme", "https"], [":path", "/"]]}), 400, "bad_host"),
        (json!({"fields": [[":method", "CONNECT"], [":authority", "localhost:1"]]}), 501, "connect_refused"),
    ] {
        let got = client.request(request.clone());
        assert_eq!(got["status"], status, "{request} {got}");
        assert!(got["body"].as_str().unwrap().contains(&format!("({reason})")), "{request} {got}");
    }
    assert!(origin.received().is_empty());
    assert_eq!(client.get("/"), (200, "rs".into()));
}

fn interim() {
    let origin = Origin::scripted(|peer| {
        loop {
            let head = peer.head()?;
            if head.field("expect").is_some() {
                peer.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            } else {
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
            }
            let (body, _) = peer.body(&head)?;
            peer.send(response("200 OK", &[], body))?;
        }
    });
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    let got = client.request(json!({}));
    assert_eq!(got["interim"], json!([{":status": "103", "link": "</style.css>; rel=preload"}]), "{got}");
    assert_eq!(got["status"], 200);
    let begun = client.ask(json!({
        "do": "begin", "method": "POST", "end": false, "until": 1, "patience": 2,
        "headers": [["expect", "100-continue"], ["content-length", "5"]],
    }));
    assert_eq!(begun["interim"], json!([{":status": "100"}]), "{begun}");
    client.ask(json!({"do": "send", "stream": begun["stream"], "body": "hello", "end": true}));
    let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
    assert_eq!((&got["status"], &got["body"]), (&json!(200), &json!("hello")), "{got}");
}

fn early() {
    let origin = Origin::scripted(|peer| {
        let head = peer.head()?;
        if head.part(0) == "GET" {
            return peer.send(ok("fine"));
        }
        peer.send(response("403 Forbidden", &[], "no"))?;
        peer.rest().map(drop)
    });
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    let begun = client.ask(json!({"do": "begin", "method": "POST", "body": "hello", "end": false}));
    let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
    // H3_NO_ERROR: the rest is not wanted, and the response is whole.
    assert_eq!(
        (&got["status"], &got["body"], &got["reset"]),
        (&json!(403), &json!("no"), &Value::Null),
        "{got}"
    );
    client.ask(json!({"do": "wait", "patience": 0.2}));
    let got = client.ask(json!({"do": "finish", "stream": begun["stream"]}));
    assert_eq!(got["stop"], 0x100, "{got}");
    assert_eq!(client.get("/").0, 200);
}

fn reset() {
    let origin = Origin::scripted(|peer| {
        peer.head()?;
        peer.rest().map(drop)
    });
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    let begun = client.ask(json!({"do": "begin", "path": "/wait"}));
    until("the request at the RS", || (origin.open() == 1).then_some(()));
    client.ask(json!({"do": "reset", "stream": begun["stream"]}));
    until("the end of it", || (origin.open() == 0).then_some(()));
    assert_eq!(program.logged("/wait")["status"], 499);
    // The same when the whole client is gone.
    client.ask(json!({"do": "begin", "path": "/gone"}));
    until("the request at the RS", || (origin.open() == 1).then_some(()));
    client.ask(json!({"do": "close"}));
    until("the end of it", || (origin.open() == 0).then_some(()));
    assert_eq!(program.logged("/gone")["status"], 499);
}

fn alt_svc() {
    let origin = Origin::serving(|request| match request.target() {
        "/own" => response("200 OK", &[("Alt-Svc", "clear")], ""),
        _ => ok("rs"),
    });
    let program = site(&origin).start();
    let port = program.listener("https").port();
    let ours = format!("h3=\":{port}\"; ma=86400");
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    assert_eq!(client.ask(&Request::get("localhost", "/")).field("alt-svc"), Some(ours.as_str()));
    // That of an RS is left alone, and nothing is said where nothing is to be said.
    let own = client.ask(&Request::get("localhost", "/own"));
    assert_eq!(own.head.values("alt-svc"), ["clear"]);
    assert_eq!(program.ask("http", &Request::get("localhost", "/")).field("alt-svc"), None);
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        assert_eq!(client.get("https://localhost/").await.headers["alt-svc"], ours.as_str());
        assert_eq!(client.get("https://localhost/own").await.headers["alt-svc"], "clear");
    });
    let elsewhere = Setup::new(&SITE.replace(
        "{development: {}}<listener>",
        "{development: {}}, http3_port: 443, http3_early_data: true",
    ))
    .put("rs", origin.address())
    .put("listener", "")
    .put("pool", "")
    .put("more", "")
    .start();
    let mut client = Client::connect_tls(elsewhere.listener("https"), &elsewhere.tls());
    let got = client.ask(&Request::get("localhost", "/"));
    assert_eq!(got.field("alt-svc"), Some("h3=\":443\"; ma=86400"));
}

fn names() {
    use crate::harness::certificates::Authority;
    let origin = Origin::named("rs");
    let (one, other) = (Authority::new(), Authority::new());
    let (a, b) = (one.issue(&["a.test"]), other.issue(&["b.test"]));
    let config = "\
admin: {address: \"127.0.0.1:0\"}
listeners:
  - name: https
    address: \"127.0.0.1:0\"
    tls: {certificates: [{certificate: a.pem, key: a.key}, {certificate: b.pem, key: b.key}]}
pools: [{name: rs, servers: [{address: \"<rs>\"}], health_check: {type: off}}]
routes: [{domains: [\"*\"], rules: [{url: /, pool: rs}]}]
";
    let setup = Setup::new(config).put("rs", origin.address());
    let setup = setup.file("a.pem", &a.certificate).file("a.key", &a.key);
    let program = setup.file("b.pem", &b.certificate).file("b.key", &b.key).start();
    let (one_pem, other_pem) = (program.path().join("one.pem"), program.path().join("other.pem"));
    std::fs::write(&one_pem, &one.pem).unwrap();
    std::fs::write(&other_pem, &other.pem).unwrap();
    let ask = |ca: &std::path::Path, name: &str| {
        let mut client = H3::trusting(program.listener("https"), Some(ca));
        let closed = client.open(json!({"name": name}))["closed"].clone();
        (closed.is_null()).then(|| client.request(json!({"authority": name}))["status"].clone())
    };
    assert_eq!(ask(&one_pem, "a.test"), Some(json!(200)));
    assert_eq!(ask(&other_pem, "b.test"), Some(json!(200)));
    assert_eq!(ask(&other_pem, "a.test"), None);
    // No other protocol is spoken on UDP.
    let mut client = H3::trusting(program.listener("https"), Some(&one_pem));
    let closed = client.open(json!({"name": "a.test", "alpn": ["h2"]}))["closed"].clone();
    // The alert no_application_protocol.
    assert_eq!(closed["code"], 0x178, "{closed}");
    // A domain that another certificate is for (RFC 9110 7.4).
    let mut client = H3::trusting(program.listener("https"), Some(&one_pem));
    client.open(json!({"name": "a.test"}));
    assert_eq!(client.request(json!({"authority": "b.test"}))["status"], 421);
}

fn websocket() {
    let origin = Origin::scripted(|peer| {
        let head = peer.head()?;
        if head.part(1) == "/refused" {
            return peer.send(response("403 Forbidden", &[], "no"));
        }
        assert_eq!((head.part(0), head.field("upgrade")), ("GET", Some("websocket")));
        let accept = websocket_accept(head.field("sec-websocket-key").unwrap());
        peer.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\nhello "
        ))?;
        let rest = peer.rest()?;
        peer.send(rest)
    });
    let program = site(&origin).start();
    let mut client = H3::connect(&program);
    let connect = |path: &str| {
        json!({"do": "begin", "end": false, "until": 6, "patience": 5, "fields": [
            [":method", "CONNECT"], [":protocol", "websocket"], [":scheme", "https"], [":authority", "localhost"],
            [":path", path], ["sec-websocket-version", "13"],
        ]})
    };
    let begun = client.ask(connect("/ws"));
    assert_eq!((&begun["status"], &begun["body"]), (&json!(200), &json!("hello ")), "{begun}");
    assert!(begun["headers"]["sec-websocket-accept"].is_null(), "{begun}");
    let stream = &begun["stream"];
    client.ask(json!({"do": "send", "stream": stream, "body": "again"}));
    client.ask(json!({"do": "send", "stream": stream, "body": "!", "end": true}));
    let got = client.ask(json!({"do": "finish", "stream": stream}));
    assert_eq!((&got["body"], &got["reset"]), (&json!("hello again!"), &Value::Null), "{got}");
    let line = program.logged("/ws");
    assert_eq!(
        (&line["status"], &line["protocol"], &line["bytes_in"]),
        (&json!(200), &json!("HTTP/3"), &json!(6))
    );
    let begun = client.ask(json!({
        "do": "begin", "end": false, "patience": 1, "until": 2, "fields": connect("/refused")["fields"],
    }));
    assert_eq!((&begun["status"], &begun["body"]), (&json!(403), &json!("no")), "{begun}");
    // A reset reaches the RS.
    let begun = client.ask(connect("/gone"));
    assert_eq!((&begun["status"], origin.open()), (&json!(200), 1));
    client.ask(json!({"do": "reset", "stream": begun["stream"]}));
    until("the end of it", || (origin.open() == 0).then_some(()));
    assert_eq!(client.ask(json!({"do": "goaway", "count": 0}))["settings"]["8"], 1);
}

fn off() {
    let origin = Origin::named("rs");
    let program = Setup::new(&SITE.replace("{development: {}}<listener>", "{development: {}}, http3: false"))
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", "")
        .start();
    // Nobody has the UDP port.
    std::net::UdpSocket::bind(program.listener("https")).unwrap();
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    assert_eq!(client.ask(&Request::get("localhost", "/")).field("alt-svc"), None);
}
