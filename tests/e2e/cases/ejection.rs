//! RS that are spared because their requests fail, and RS that come back slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::origin::{refusing, response, silent};
use crate::harness::{Case, Origin, Program, Request, Setup, until};

use super::health::{ailing, up};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("ejection::so_many_failures_in_a_row_eject_an_rs_for_a_while", in_a_row),
        Case::new("ejection::connections_that_fail_count", connections),
        Case::new("ejection::somebody_is_left", floor),
        Case::new("ejection::an_rs_that_comes_back_starts_slowly", slow_start),
    ]
}

/// An RS that answers with a status that the case may change.
fn moody(status: u16) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let shown = Arc::clone(&status);
    let origin = Origin::serving(move |_| response(&format!("{} X", shown.load(Ordering::SeqCst)), &[], "x"));
    (origin, status)
}

fn ejected(program: &Program, server: impl ToString) -> Option<u64> {
    program.metric(&format!("ingre_server_ejected{{pool=\"rs\",server=\"{}\"}}", server.to_string()))
}

fn in_a_row() {
    for workers in [1, 4] {
        let ((bad, status), (good, _)) = (moody(500), moody(200));
        let yaml = r#"
workers: <workers>
cpu_affinity: "off"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<bad>"}, {address: "<good>"}]
    ejection: {failures: 6, interval: 1h, base_time: 2s, max_percent: 50}
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
        let program = Setup::new(yaml)
            .put("workers", workers)
            .put("bad", bad.address())
            .put("good", good.address())
            .start();
        let mut clients: Vec<_> = (0..8).map(|_| program.connect("http")).collect();
        let mut ask = |count: usize| {
            let before = bad.received().len();
            for number in 0..count {
                clients[number % 8].ask(&Request::get("a.test", "/"));
            }
            bad.received().len() - before
        };
        // A success in between begins the row anew.
        while bad.received().len() < 5 {
            ask(1);
        }
        status.store(404, Ordering::SeqCst);
        while bad.received().len() < 6 {
            ask(1);
        }
        status.store(503, Ordering::SeqCst);
        while ejected(&program, bad.address()) == Some(0) {
            ask(1);
        }
        assert_eq!(bad.received().len(), 12, "six in a row, whichever workers saw them");
        assert_eq!(ask(16), 0);
        status.store(200, Ordering::SeqCst);
        until("it is back", || (ejected(&program, bad.address()) == Some(0)).then_some(()));
        assert!((6..=10).contains(&ask(16)));
    }
}

fn connections() {
    let (dead, _guard) = refusing();
    let (mute, _guards) = silent();
    let closing = Origin::scripted(|peer| peer.request().map(drop));
    let good = Origin::named("good");
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<dead>"}, {address: "<mute>"}, {address: "<closing>"}, {address: "<good>"}]
    ejection: {failures: 1, base_time: 1h, max_percent: 100}
    connect_timeout: 100ms
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml)
        .put("dead", dead)
        .put("mute", mute)
        .put("closing", closing.address())
        .put("good", good.address())
        .start();
    for _ in 0..8 {
        program.ask("http", &Request::get("a.test", "/"));
    }
    for bad in [dead, mute, closing.address()] {
        assert_eq!(ejected(&program, bad), Some(1), "{bad}");
    }
    assert_eq!(ejected(&program, good.address()), Some(0));
    for _ in 0..4 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "good");
    }
    assert_eq!(closing.received().len(), 1);
}

fn floor() {
    let bad: Vec<_> = (0..3).map(|_| moody(500).0).collect();
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<0>"}, {address: "<1>"}, {address: "<2>"}]
    ejection: {failures: 1, max_percent: 34, base_time: 1h}
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let setup = Setup::new(yaml);
    let setup = (0..3).fold(setup, |setup, n| setup.put(&n.to_string(), bad[n].address()));
    let program = setup.start();
    for _ in 0..9 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 500);
    }
    let out = bad.iter().filter(|origin| ejected(&program, origin.address()) == Some(1)).count();
    assert_eq!(out, 2, "a third of three, rounded up");
}

fn slow_start() {
    let ((weak, status), (strong, _)) = (ailing(), ailing());
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<weak>"}, {address: "<strong>"}]
    slow_start: 900s
    health_check: {interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("weak", weak.address()).put("strong", strong.address()).start();
    let mut client = program.connect("http");
    let mut share = || {
        let before = weak.received().len();
        for _ in 0..200 {
            assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
        }
        weak.received().len() - before
    };
    up(&program, "rs", &weak, 1);
    up(&program, "rs", &strong, 1);
    assert_eq!(share(), 100, "at the start nobody is slow");
    status.store(500, Ordering::SeqCst);
    up(&program, "rs", &weak, 0);
    assert_eq!(share(), 0);
    status.store(200, Ordering::SeqCst);
    up(&program, "rs", &weak, 1);
    // A hundredth and what grows in a few seconds of 900.
    assert!((1..=12).contains(&share()), "{} of 200", weak.received().len() - 100);
}
