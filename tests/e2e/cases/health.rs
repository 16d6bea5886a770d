//! Health checks: what an RS sees of them, and when it is taken out and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::origin::{ok, refusing, response};
use crate::harness::{Case, Origin, Program, Request, Setup, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("health::an_rs_that_fails_is_taken_out_and_comes_back", out_and_back),
        Case::new("health::checks_are_what_the_configuration_says", as_configured),
        Case::new("health::so_many_in_a_row_change_the_verdict", thresholds),
        Case::new("health::checks_are_on_by_default", by_default),
        Case::new("health::tcp_needs_a_connection_only", tcp),
        Case::new("health::off_asks_nothing", off),
        Case::new("health::all_down_uses_all_or_none", all_down),
    ]
}

pub(super) fn up(program: &Program, pool: &str, origin: &Origin, value: u64) {
    program
        .wait_metric(&format!("ingre_server_up{{pool=\"{pool}\",server=\"{}\"}}", origin.address()), value);
}

/// An RS whose checks get a status that the case may change; other requests always get 200.
pub(super) fn ailing() -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let shown = Arc::clone(&status);
    let origin = Origin::serving(move |request| match request.is_probe() {
        true => response(&format!("{} Checked", shown.load(Ordering::SeqCst)), &[], "x"),
        false => ok("rs"),
    });
    (origin, status)
}

fn out_and_back() {
    let ((sick, status), (well, _)) = (ailing(), ailing());
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<sick>"}, {address: "<well>"}]
    health_check: {interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("sick", sick.address()).put("well", well.address()).start();
    let ask = |count: usize| {
        let before = sick.received().len();
        for _ in 0..count {
            assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
        }
        sick.received().len() - before
    };
    up(&program, "rs", &sick, 1);
    up(&program, "rs", &well, 1);
    assert_eq!(ask(10), 5);
    status.store(500, Ordering::SeqCst);
    up(&program, "rs", &sick, 0);
    assert_eq!(ask(10), 0);
    program.said(&format!("pool rs: {} is Down, was Up", sick.address()));
    status.store(302, Ordering::SeqCst);
    up(&program, "rs", &sick, 1);
    assert_eq!(ask(10), 5);
    program.said(&format!("pool rs: {} is Up, was Down", sick.address()));
}

fn as_configured() {
    let origins: Vec<Origin> =
        (0..2).map(|_| Origin::serving(|_| response("404 Not Found", &[], ""))).collect();
    let yaml = r#"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: head
    servers: [{address: "<0>"}]
    health_check:
      {type: http, method: HEAD, path: "/health?deep=1", host: check.test, status: [2xx, 404], interval: 2s,
       timeout: 1s, healthy_threshold: 1}
  - name: get
    servers: [{address: "<1>"}]
    health_check: {path: /ok, status: [2xx, 403, 5xx], interval: 2s, timeout: 1s}
routes: [{domains: ["*"], rules: [{url: /, pool: head}, {url: /get, pool: get}]}]
"#;
    let program = Setup::new(yaml).put("0", origins[0].address()).put("1", origins[1].address()).start();
    up(&program, "head", &origins[0], 1);
    up(&program, "get", &origins[1], 0);
    let probe = &origins[0].probes()[0];
    assert_eq!(probe.head.line, "HEAD /health?deep=1 HTTP/1.1");
    assert_eq!(probe.field("host"), Some("check.test"));
    assert_eq!(probe.field("user-agent"), Some(concat!("ingre-healthcheck/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(probe.field("connection"), Some("close"));
    let probe = &origins[1].probes()[0];
    assert_eq!(probe.head.line, "GET /ok HTTP/1.1");
    assert_eq!(probe.field("host"), Some(origins[1].address().to_string().as_str()));
}

fn thresholds() {
    let (origin, status) = ailing();
    let yaml = r#"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<rs>"}]
    health_check: {interval: 2s, timeout: 1s, healthy_threshold: 2, unhealthy_threshold: 2}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    // The first check decides, so that a pool that has just begun knows something soon.
    up(&program, "rs", &origin, 1);
    assert_eq!(origin.probes().len(), 1);
    for (number, value) in [(500, 0), (200, 1)] {
        let before = origin.probes().len();
        status.store(number, Ordering::SeqCst);
        up(&program, "rs", &origin, value);
        assert_eq!(origin.probes().len() - before, 2, "checks until {value}");
    }
}

fn by_default() {
    let origin = Origin::named("rs");
    let yaml = r#"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools: [{name: rs, servers: [{address: "<rs>"}]}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    // Requests do not wait for a verdict.
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
    let probe = until("the first check, at once", || origin.probes().first().cloned());
    assert_eq!(probe.head.line, "GET / HTTP/1.1");
}

fn tcp() {
    let origin = Origin::scripted(|peer| {
        let first = peer.number() == 0;
        peer.rest()?;
        if first { Ok(()) } else { peer.send("never heard") }
    });
    let (dead, _guard) = refusing();
    let yaml = r#"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<rs>"}, {address: "<dead>"}]
    health_check: {type: tcp, interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).put("dead", dead).start();
    up(&program, "rs", &origin, 1);
    program.wait_metric(&format!("ingre_server_up{{pool=\"rs\",server=\"{dead}\"}}"), 0);
    assert!(origin.probes().is_empty(), "a TCP check sends nothing");
}

fn off() {
    let (asked, unasked) = (Origin::named("rs"), Origin::named("rs"));
    let yaml = r#"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - {name: unasked, servers: [{address: "<unasked>"}], health_check: {type: off}}
  - {name: asked, servers: [{address: "<asked>"}], health_check: {interval: 2s, timeout: 1s, healthy_threshold: 2}}
routes: [{domains: ["*"], rules: [{url: /, pool: asked}, {url: /unasked, pool: unasked}]}]
"#;
    let program = Setup::new(yaml).put("asked", asked.address()).put("unasked", unasked.address()).start();
    // Two checks of the one, none of the other.
    until("two checks", || (asked.probes().len() >= 2).then_some(()));
    assert_eq!(unasked.connections(), 0);
    assert_eq!(
        program.metric(&format!("ingre_server_up{{pool=\"unasked\",server=\"{}\"}}", unasked.address())),
        None
    );
}

fn all_down() {
    let ((one, one_status), (two, two_status)) = (ailing(), ailing());
    one_status.store(503, Ordering::SeqCst);
    two_status.store(503, Ordering::SeqCst);
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: all
    servers: [{address: "<one>"}, {address: "<two>"}]
    all_down: use_all
    health_check: {interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
  - name: none
    servers: [{address: "<one>"}, {address: "<two>"}]
    all_down: refuse
    health_check: {interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
routes: [{domains: ["*"], rules: [{url: /all, pool: all}, {url: /none, pool: none}]}]
"#;
    let program = Setup::new(yaml).put("one", one.address()).put("two", two.address()).start();
    for pool in ["all", "none"] {
        up(&program, pool, &one, 0);
        up(&program, pool, &two, 0);
    }
    for _ in 0..4 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/all")).status, 200);
        assert_eq!(program.ask("http", &Request::get("a.test", "/none")).status, 503);
    }
    assert_eq!((one.received().len(), two.received().len()), (2, 2));
    two_status.store(200, Ordering::SeqCst);
    up(&program, "none", &two, 1);
    up(&program, "all", &two, 1);
    for _ in 0..4 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/all")).status, 200);
        assert_eq!(program.ask("http", &Request::get("a.test", "/none")).status, 200);
    }
    assert_eq!((one.received().len(), two.received().len()), (2, 10));
}
