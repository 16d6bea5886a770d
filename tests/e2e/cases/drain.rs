//! Leaving: what TERM does to connections of each kind.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::h2::{self, H2};
use crate::harness::origin::ok;
use crate::harness::{Case, Client, Origin, Program, Request, Setup, until};

use super::SITE;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("drain::requests_under_way_finish", finish),
        Case::new("drain::requests_under_way_finish_over_http2", finish_h2),
        Case::new("drain::connections_made_before_a_reload_count_too", after_reload),
        Case::new("drain::a_second_signal_ends_at_once", second),
        Case::new("drain::delay_keeps_serving_while_not_ready", delay),
        Case::new("drain::timeout_cuts_what_is_left", timeout),
        Case::new("drain::an_idle_program_leaves_at_once", idle),
        Case::new("drain::int_is_as_good_as_term", interrupt),
    ]
}

/// An RS that answers when it is told to.
fn held() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (go, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::serving(move |request| {
        if request.target() == "/held" {
            let _ = wait.lock().unwrap().recv();
        }
        ok("rs")
    });
    (origin, go)
}

fn start(origin: &Origin, drain: &str) -> Program {
    Setup::new(SITE)
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", format!("drain: {{{drain}}}\naccess_log: {{output: access.log}}\n"))
        .start()
}

fn refused(program: &Program) {
    let address = program.listener("http");
    until("new connections are refused", || {
        let refused =
            TcpStream::connect(address).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        refused.then_some(())
    });
}

fn log(program: &Program) -> String {
    std::fs::read_to_string(program.path().join("access.log")).unwrap()
}

fn finish() {
    let (origin, go) = held();
    let mut program = start(&origin, "timeout: 20s");
    let mut idle = program.connect("http");
    assert_eq!(idle.ask(&Request::get("a.test", "/")).status, 200);
    let mut busy = program.connect("http");
    busy.send(Request::get("a.test", "/held").head());
    until("it is under way", || (origin.received().len() == 2).then_some(()));
    program.signal(Signal::TERM);
    program.said("draining for at most 20s");
    assert!(idle.is_closed());
    refused(&program);
    go.send(()).unwrap();
    let got = busy.response();
    assert_eq!((got.text().as_str(), got.field("connection")), ("rs", Some("close")));
    drop(busy);
    assert_eq!(program.wait_exit().code(), Some(0));
    program.said("ingre: drained");
    assert!(log(&program).contains("\"/held\""), "the last line is not in the log");
}

fn finish_h2() {
    let (origin, go) = held();
    let mut program = start(&origin, "timeout: 20s");
    h2::run(async {
        let mut client = H2::connect(program.listener("https"), &program.tls()).await;
        let request = http::Request::get("https://localhost/held").body(()).unwrap();
        let (answer, _) = client.begin(request, true).await;
        let mut idle = H2::connect(program.listener("https"), &program.tls()).await;
        assert_eq!(idle.get("https://localhost/").await.status, 200);
        while origin.received().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        program.signal(Signal::TERM);
        // GOAWAY and the end of the connection; the last bytes toward a program that is gone may fail.
        let _ = idle.connection.await.unwrap();
        go.send(()).unwrap();
        assert_eq!(h2::read(answer).await.text(), "rs");
        let _ = client.connection.await.unwrap();
    });
    assert_eq!(program.wait_exit().code(), Some(0));
    assert!(log(&program).contains("\"/held\""));
}

fn after_reload() {
    let (origin, go) = held();
    let mut program = start(&origin, "timeout: 20s");
    let mut busy = program.connect("http");
    busy.send(Request::get("a.test", "/held").head());
    until("it is under way", || (origin.received().len() == 1).then_some(()));
    let config = std::fs::read_to_string(program.path().join("config.yaml")).unwrap();
    assert_eq!(program.reload(&config), "ingre: reloaded");
    program.signal(Signal::TERM);
    refused(&program);
    go.send(()).unwrap();
    assert_eq!(busy.response().text(), "rs");
    drop(busy);
    assert_eq!(program.wait_exit().code(), Some(0));
}

fn second() {
    let (origin, _go) = held();
    let mut program = start(&origin, "timeout: 1h");
    let mut busy = program.connect("http");
    busy.send(Request::get("a.test", "/held").head());
    until("it is under way", || (origin.received().len() == 1).then_some(()));
    program.signal(Signal::TERM);
    program.said("a second signal ends at once");
    refused(&program);
    program.signal(Signal::TERM);
    assert_eq!(program.exit_within(Duration::from_secs(10)).code(), Some(0));
    program.said("leaving at once");
}

fn delay() {
    let origin = Origin::named("rs");
    let mut program = start(&origin, "delay: 2s, timeout: 20s");
    assert_eq!(program.page("/readyz"), (200, "ready\n".into()));
    let before = std::time::Instant::now();
    program.signal(Signal::TERM);
    until("it is not ready", || (program.page("/readyz").0 == 503).then_some(()));
    assert_eq!(program.page("/livez").0, 200);
    // New connections are served meanwhile.
    assert_eq!(program.ask("http", &Request::get("a.test", "/").close()).status, 200);
    assert!(before.elapsed() < Duration::from_secs(2), "this machine is too slow for the case");
    assert_eq!(program.wait_exit().code(), Some(0));
    assert!(before.elapsed() >= Duration::from_secs(2));
}

fn timeout() {
    let (origin, _go) = held();
    let mut program = start(&origin, "timeout: 1s");
    let mut busy = program.connect("http");
    busy.send(Request::get("a.test", "/held").head());
    until("it is under way", || (origin.received().len() == 1).then_some(()));
    program.signal(Signal::TERM);
    assert_eq!(program.wait_exit().code(), Some(0));
    program.said("the drain timeout has passed");
    assert!(busy.try_response().is_err());
}

fn idle() {
    let origin = Origin::named("rs");
    let mut program = start(&origin, "timeout: 1h");
    // Neither a kept connection nor one in the middle of its handshake holds it up for long.
    let mut kept = Client::connect_tls(program.listener("https"), &program.tls());
    assert_eq!(kept.ask(&Request::get("localhost", "/")).status, 200);
    program.signal(Signal::TERM);
    assert_eq!(program.exit_within(Duration::from_secs(10)).code(), Some(0));
    assert!(kept.is_closed());
}

fn interrupt() {
    let origin = Origin::named("rs");
    let mut program = start(&origin, "");
    program.signal(Signal::INT);
    assert_eq!(program.wait_exit().code(), Some(0));
    program.said("ingre: drained");
}
