//! The access log, the metrics and the other pages of the admin listener.

use crate::harness::{Case, Client, Origin, Program, Request, Setup, Tls, until};

use super::{SITE, site};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("access_log::every_field", every_field),
        Case::new("access_log::goes_where_the_configuration_says", outputs),
        Case::new("access_log::cannot_be_forged_by_a_request", forged),
        Case::new("admin::pages", pages),
        Case::new("admin::metrics_count_what_happened", metrics),
        Case::new("admin::the_shipped_configuration_starts", shipped),
    ]
}

fn every_field() {
    let origin = Origin::named("four");
    let program = site(&origin).start();
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    assert_eq!(client.ask(&Request::post("localhost:1", "/a?b=c", "three")).status, 200);
    let line = program.logged("/a?b=c");
    for (field, value) in [
        ("client", "127.0.0.1"),
        ("listener", "https"),
        ("scheme", "https"),
        ("protocol", "HTTP/1.1"),
        ("method", "POST"),
        ("host", "localhost:1"),
        ("sni", "localhost"),
        ("domain", "*"),
        ("url", "/"),
        ("pool", "rs"),
        ("rs", &origin.address().to_string()),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    for (field, value) in
        [("status", 200), ("upstream_status", 200), ("bytes_in", 5), ("bytes_out", 4), ("retries", 0)]
    {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    let number = |field: &str| line[field].as_f64().unwrap_or_else(|| panic!("{field}: {line}"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - number("ts")).abs() < 60.0);
    assert!(
        number("connect_ms") <= number("header_ms") && number("header_ms") <= number("duration_ms"),
        "{line}"
    );
    assert_eq!(line["peer"], client.socket().local_addr().unwrap().to_string());
    assert!(line.get("reason").is_none() && line.get("tunnel").is_none(), "{line}");
}

fn with_log(origin: &Origin, output: &str) -> Program {
    Setup::new(SITE)
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", format!("access_log: {{output: {output}}}\n"))
        .start()
}

fn outputs() {
    let origin = Origin::named("rs");
    let ask = |program: &Program| assert_eq!(program.ask("http", &Request::get("a.test", "/x")).status, 200);
    let program = with_log(&origin, "stderr");
    ask(&program);
    assert!(program.said("\"target\":\"/x\"").starts_with('{'));
    let program = with_log(&origin, "log.json");
    ask(&program);
    let path = program.path().join("log.json");
    let text = until("the log", || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["target"], "/x");
    assert!(program.log_lines().is_empty());
    let mut program = with_log(&origin, "\"off\"");
    ask(&program);
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.wait_exit().code(), Some(0));
    assert!(!program.stderr().contains("\"target\"") && program.log_lines().is_empty());
    let ran = Setup::new(&format!("{}access_log: {{output: none/log}}\n", super::cli::LEAST)).fail();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the access log cannot be opened"), "{ran:?}");
}

fn forged() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let target = "/\"},{\"status\":599";
    assert_eq!(program.ask("http", &Request::get("a.test", target)).status, 200);
    assert_eq!(program.logged(target)["status"], 200);
    assert_eq!(program.log_lines().len(), 1);
}

fn pages() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    assert_eq!(program.page("/livez"), (200, "ok\n".into()));
    assert_eq!(program.page("/readyz"), (200, "ready\n".into()));
    assert_eq!(program.page("/nothing").0, 404);
    let mut client = Client::connect(program.admin());
    assert_eq!(client.ask(&Request::post("localhost", "/livez", "")).status, 405);
    let got = client.ask(&Request::get("localhost", "/metrics"));
    assert_eq!(got.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(client.ask(&Request::new("HEAD", "localhost", "/readyz")).status, 200);
    // Nothing of it on the listeners that clients reach.
    assert_eq!(program.ask("http", &Request::get("a.test", "/metrics")).text(), "rs");
}

fn metrics() {
    let origin = Origin::serving(|request| match request.target() {
        "/500" => crate::harness::origin::response("500 Oops", &[], "12345"),
        _ => crate::harness::origin::ok("rs"),
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    for target in ["/", "/", "/500"] {
        client.ask(&Request::get("a.test", target));
    }
    client.ask(&Request::post("a.test", "/", "hello"));
    client.send("BAD\r\n\r\n");
    assert_eq!(client.response().status, 400);
    drop(client);
    Client::connect_tls(program.listener("https"), &Tls::credulous()).ask(&Request::get("localhost", "/"));
    for (name, value) in [
        ("ingre_requests_total{listener=\"http\",code=\"2xx\"}", 3),
        ("ingre_requests_total{listener=\"http\",code=\"4xx\"}", 1),
        ("ingre_requests_total{listener=\"http\",code=\"5xx\"}", 1),
        ("ingre_requests_total{listener=\"https\",code=\"2xx\"}", 1),
        ("ingre_pool_requests_total{pool=\"rs\",code=\"2xx\"}", 4),
        ("ingre_pool_requests_total{pool=\"rs\",code=\"5xx\"}", 1),
        ("ingre_failures_total{reason=\"bad_request_line\"}", 1),
        ("ingre_connections_total", 2),
        ("ingre_connections_open", 0),
        ("ingre_request_body_bytes_total", 5),
        ("ingre_retries_total", 0),
        ("ingre_access_log_lost_lines_total", 0),
    ] {
        program.wait_metric(name, value);
    }
    let (_, page) = program.page("/metrics");
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(page.contains(&format!("# TYPE {name} ")), "{line} has no type");
        assert!(page.contains(&format!("# HELP {name} ")), "{line} has no help");
    }
}

/// The file a user gets, on other ports.
fn shipped() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.yaml")).unwrap();
    assert_eq!(Setup::new(&text).validate().code, 0);
    let demo = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = ["8443", "8080", "9901"]
        .iter()
        .fold(text, |text, port| text.replace(&format!("127.0.0.1:{port}"), "127.0.0.1:0"))
        .replace("127.0.0.1:8081", &demo.to_string());
    let program = Setup::new(&text).start();
    assert_eq!(program.demo(), demo);
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    let got = client.ask(&Request::get("localhost", "/hello"));
    assert_eq!(got.field("x-real-server"), Some("demo"));
    assert!(got.text().contains("GET /hello HTTP/1.1") && got.text().contains("X-Forwarded-Proto: https"));
}
