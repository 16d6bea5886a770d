//! Whose turn it is, and which connections are used again.

use std::net::SocketAddr;

use crate::harness::origin::{ok, response};
use crate::harness::program::counts;
use crate::harness::{Case, Origin, Request, Setup, until};

use super::{site, site_with};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("pools::requests_are_shared_out_by_weight", weights),
        Case::new("pools::one_worker_or_four", workers),
        Case::new("pools::connections_to_the_rs_are_used_again", reuse),
        Case::new("pools::keepalive_0_keeps_none", no_reuse),
        Case::new("pools::idle_connections_to_the_rs_end", idle_end),
        Case::new("pools::an_rs_that_closes_or_talks_unasked_is_connected_anew", unasked),
        Case::new("pools::idle_connections_of_clients_end", idle_clients),
        Case::new("pools::max_connections_makes_others_wait", max_connections),
    ]
}

fn weights() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::named("rs")).collect();
    let yaml = r#"
workers: 1
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    health_check: {type: off}
    servers:
      - {address: "<0>", weight: 50}
      - {address: "<1>", weight: 20}
      - {address: "<2>"}
      - {address: "<3>", weight: 0}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let setup = (0..4).fold(Setup::new(yaml), |setup, n| setup.put(&n.to_string(), origins[n].address()));
    let program = setup.start();
    let mut client = program.connect("http");
    for _ in 0..160 {
        assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
    }
    let shares: Vec<_> = origins.iter().map(|origin| origin.received().len()).collect();
    assert_eq!(shares, [100, 40, 20, 0]);
    // Smooth: the heavy one does not get its share in a row.
    until("all log lines", || (program.log_lines().len() == 160).then_some(()));
    let order: Vec<_> =
        program.log_lines().iter().map(|line| line["rs"].as_str().unwrap().to_owned()).collect();
    let heavy = origins[0].address().to_string();
    let longest = order.split(|rs| *rs != heavy).map(<[_]>::len).max().unwrap();
    assert!(longest <= 3, "{longest} in a row");
}

fn workers() {
    for count in [1, 4] {
        let origins = [Origin::named("rs"), Origin::named("rs")];
        let yaml = r#"
workers: <workers>
cpu_affinity: "off"
access_log: {output: stdout}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools: [{name: rs, servers: [{address: "<0>"}, {address: "<1>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
        let program = Setup::new(yaml)
            .put("workers", count)
            .put("0", origins[0].address())
            .put("1", origins[1].address())
            .start();
        program.said(&format!("ingre: ready, {count} workers"));
        let address = program.listener("http");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(move || {
                    for number in 0..25 {
                        let mut client = crate::harness::Client::connect(address);
                        let body = format!("{number}");
                        assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
                        assert_eq!(client.ask(&Request::post("a.test", "/", body)).status, 200);
                    }
                });
            }
        });
        until("all log lines", || (program.log_lines().len() == 400).then_some(()));
        let shares = counts(program.log_lines().into_iter().map(|line| line["rs"].to_string()));
        // Each worker takes turns by itself: never off by more than one per worker.
        assert!(shares.values().all(|share| share.abs_diff(200) <= count), "{shares:?}");
    }
}

fn reuse() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for _ in 0..20 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/").close()).status, 200);
        assert_eq!(program.ask("http", &Request::post("a.test", "/", "x").close()).status, 200);
    }
    assert!(origin.received().iter().all(|request| request.connection == 0));
    assert_eq!(origin.connections(), 1, "every client had a connection of its own, the RS should see one");
    // An RS that wants to close is obeyed.
    let origin = Origin::scripted(|peer| {
        peer.request()?;
        peer.send(response("200 OK", &[("Connection", "close")], "last"))
    });
    let program = site(&origin).start();
    for _ in 0..3 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "last");
    }
    assert_eq!(origin.connections(), 3);
}

fn no_reuse() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "", "keepalive: 0").start();
    let mut client = program.connect("http");
    for number in 1..=3 {
        assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
        assert_eq!(origin.connections(), number);
    }
    until("they are closed at once", || (origin.open() == 0).then_some(()));
}

fn idle_end() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "", "keepalive_timeout: 1s").start();
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
    until("the idle connection ends", || (origin.open() == 0).then_some(()));
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
    assert_eq!(origin.connections(), 2);
}

fn unasked() {
    let origin = Origin::scripted(|peer| {
        peer.request()?;
        peer.send(ok("rs"))?;
        // What nobody has asked for must not become the answer to the next request.
        peer.send(response("200 OK", &[], "smuggled"))?;
        peer.rest().map(drop)
    });
    let program = site(&origin).start();
    let mut client = program.connect("http");
    for number in 0..3 {
        assert_eq!(client.ask(&Request::get("a.test", "/")).text(), "rs", "request {number}");
        until("the connection is dropped", || (origin.open() == 0).then_some(()));
    }
    assert_eq!(origin.connections(), 3);
}

fn idle_clients() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "keepalive_timeout: 1s", "").start();
    let mut client = program.connect("http");
    assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
    assert!(client.is_closed());
    crate::harness::h2::run(async {
        let mut client = crate::harness::h2::H2::connect(program.listener("https"), &program.tls()).await;
        assert_eq!(client.get("https://localhost/").await.status, 200);
        // It ends; that the last bytes toward a program that is gone may fail is no matter.
        let _ = client.connection.await.unwrap();
    });
}

fn max_connections() {
    let origin = Origin::named("rs");
    let program = site_with(&origin, "max_connections: 2", "").start();
    let address: SocketAddr = program.listener("http");
    let mut open: Vec<_> = (0..2).map(|_| crate::harness::Client::connect(address)).collect();
    for client in &mut open {
        assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
    }
    // The third is in the kernel's queue until one of the others goes.
    let mut third = crate::harness::Client::connect(address);
    third.send("GET /third HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(open[1].ask(&Request::get("a.test", "/")).status, 200);
    assert!(origin.received().iter().all(|request| request.target() != "/third"));
    drop(open);
    assert_eq!(third.response().status, 200);
}
