//! When a request is sent to another RS.

use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::origin::{ok, response};
use crate::harness::{Case, Origin, Program, Request, Setup};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("retries::what_the_pool_names_goes_to_another_rs", named),
        Case::new("retries::an_rs_that_is_too_slow_is_left", slow),
        Case::new("retries::a_budget_bounds_them", budget),
        Case::new("retries::mistakes_are_shown", mistakes),
    ]
}

/// One worker in front of these RS, with these retries.
fn start(servers: &[&Origin], retries: &str) -> Program {
    let servers: Vec<_> =
        servers.iter().map(|server| format!("{{address: \"{}\"}}", server.address())).collect();
    Setup::new(&format!(
        "workers: 1\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         pools: [{{name: rs, servers: [{}], health_check: {{type: off}}, retries: {retries}}}]\n\
         routes: [{{domains: [\"*\"], rules: [{{pool: rs}}]}}]\n",
        servers.join(", ")
    ))
    .start()
}

fn named() {
    let busy = Origin::serving(|request| match request.target() {
        "/gone" => response("404 Not Found", &[], "busy"),
        _ => response("503 Service Unavailable", &[], "busy"),
    });
    let broken = Origin::scripted(|peer| {
        peer.request()?;
        Err(io::ErrorKind::ConnectionReset.into())
    });
    let good = Origin::named("good");
    let program = start(&[&busy, &broken, &good], "{attempts: 2, on: [closed, 503], budget: 100}");
    let mut client = program.connect("http");
    for _ in 0..6 {
        assert_eq!(client.ask(&Request::get("a.test", "/")).text(), "good");
    }
    assert!(!broken.received().is_empty() && !busy.received().is_empty());
    // What may have been done is not done again.
    let statuses: Vec<u16> =
        (0..3).map(|_| program.ask("http", &Request::post("a.test", "/", "content")).status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    // Where everybody says so, the answer is one of theirs.
    let program = start(&[&busy], "{attempts: 2, on: [503], budget: 100}");
    let answer = program.ask("http", &Request::get("a.test", "/all"));
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    assert_eq!(program.logged("/all")["retries"], 1);
    let program = start(&[&busy, &good], "{on: [5xx], budget: 100}");
    let texts: Vec<String> =
        (0..2).map(|_| program.ask("http", &Request::get("a.test", "/gone")).text()).collect();
    assert!(texts.contains(&"busy".into()) && texts.contains(&"good".into()), "{texts:?}");
}

fn slow() {
    let (release, wait) = channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let slow = Origin::serving(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
        ok("slow")
    });
    let good = Origin::named("good");
    let program = start(&[&slow, &good], "{on: [timeout], per_try_timeout: 100ms, budget: 100}");
    for _ in 0..2 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "good");
    }
    assert_eq!(slow.received().len(), 1);
    let program = start(&[&slow], "{on: [timeout], per_try_timeout: 100ms}");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 504);
    drop(release);
}

fn budget() {
    let busy = Origin::serving(|_| response("503 Service Unavailable", &[], "busy"));
    let good = Origin::named("good");
    let program = start(&[&busy, &good], "{on: [503], budget: 0}");
    let mut client = program.connect("http");
    let good_answers = (0..40).filter(|_| client.ask(&Request::get("a.test", "/")).text() == "good").count();
    // Ten to begin with; a retry leaves the turn to the next RS, whose own turn is then behind it.
    assert_eq!(busy.received().len() - (40 - good_answers), 10);
}

fn mistakes() {
    for (retries, message) in [
        ("{attempts: 6}", "6 is out of range: 0 to 5"),
        ("{on: [sometimes]}", "`sometimes` is no reason to retry"),
        ("{per_try_timeout: 1s}", "`per_try_timeout` without a retry behind it"),
        ("{budget: 101}", "101 is out of range: 0 to 100"),
    ] {
        let yaml = format!(
            "listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
             pools: [{{name: rs, servers: [{{address: \"127.0.0.1:9\"}}], retries: {retries}}}]\n"
        );
        let ran = Setup::new(&yaml).validate();
        assert_eq!(ran.code, 1, "{retries}");
        assert!(ran.stderr.contains(message) && ran.stderr.contains("config.yaml:2:"), "{}", ran.stderr);
    }
}
