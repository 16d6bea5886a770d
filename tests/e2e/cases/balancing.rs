//! Who gets the next request: methods, keys, backups.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::origin::{ok, refusing};
use crate::harness::program::counts;
use crate::harness::{Case, Client, Origin, Program, Request, Setup, until};

use super::health::{ailing, up};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("balancing::a_key_decides_and_nothing_else", keys),
        Case::new("balancing::clients_stay_at_their_rs_whichever_worker_serves_them", by_address),
        Case::new("balancing::of_an_rs_that_is_down_only_its_share_moves", disruption),
        Case::new("balancing::least_connections_counts_what_every_worker_sends", least),
        Case::new("balancing::peak_ewma_goes_round_the_slow_one", quicker),
        Case::new("balancing::backups_serve_when_no_other_does", backups),
    ]
}

/// Real servers that answer with their number.
pub(super) fn numbered<const N: usize>() -> [Origin; N] {
    std::array::from_fn(|number| Origin::serving(move |_| ok(&number.to_string())))
}

/// Puts the addresses of real servers for `<0>`, `<1>`, ...
pub(super) fn put_all(setup: Setup, origins: &[Origin]) -> Setup {
    let numbered = origins.iter().enumerate();
    numbered.fold(setup, |setup, (number, origin)| setup.put(&number.to_string(), origin.address()))
}

/// The text of the answer, 200.
pub(super) fn text(client: &mut Client, request: &Request) -> String {
    let response = client.ask(request);
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

fn keys() {
    let origins = numbered::<3>();
    // A key of each kind, and how a request says it.
    type Say = fn(&str) -> Request;
    let kinds: [(&str, Say); 7] = [
        ("header:x-user", |key| Request::get("a.test", "/<pool>").header("X-User", key)),
        ("cookie:session", |key| {
            Request::get("a.test", "/<pool>").header("Cookie", &format!("a=1; session={key}"))
        }),
        ("query:id", |key| Request::get("a.test", &format!("/<pool>?x=1&id={key}"))),
        ("host", |key| Request::get(&format!("{key}.test"), "/<pool>")),
        ("path", |key| Request::get("a.test", &format!("/<pool>/{key}"))),
        ("uri", |key| Request::get("a.test", &format!("/<pool>?{key}"))),
        ("client", |key| {
            Request::get("a.test", "/<pool>").header("X-Forwarded-For", &format!("10.0.{key}.1"))
        }),
    ];
    let mut pools = String::new();
    let mut rules = String::new();
    for method in ["maglev", "ring_hash"] {
        for (number, (kind, _)) in kinds.iter().enumerate() {
            pools += &format!(
                "  - {{name: {method}{number}, balance: {method}, hash_key: \"{kind}\", health_check: {{type: off}},\n     \
                 servers: [{{address: \"<0>\", weight: 20}}, {{address: \"<1>\"}}, {{address: \"<2>\"}}]}}\n"
            );
            rules += &format!("      - {{url: /{method}{number}, pool: {method}{number}}}\n");
        }
    }
    let yaml = format!(
        "workers: 1\ntrusted_proxies: [127.0.0.1]\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         pools:\n{pools}routes:\n  - domains: [\"*\"]\n    rules:\n{rules}"
    );
    let program = put_all(Setup::new(&yaml), &origins).start();
    let mut client = program.connect("http");
    for method in ["maglev", "ring_hash"] {
        for (number, (kind, say)) in kinds.iter().enumerate() {
            let pool = format!("{method}{number}");
            let mut ask = |key: &str| text(&mut client, &at(&pool, *say, key));
            let before: Vec<_> = (0..100).map(|key| ask(&key.to_string())).collect();
            let after: Vec<_> = (0..100).map(|key| ask(&key.to_string())).collect();
            assert_eq!(before, after, "{method} {kind}");
            let shares = counts(before);
            assert!(
                shares.len() == 3 && shares["0"] > shares["1"].min(shares["2"]),
                "{method} {kind}: {shares:?}"
            );
        }
        // Without a key everybody has his turn.
        let absent =
            counts((0..8).map(|_| text(&mut client, &Request::get("a.test", &format!("/{method}0")))));
        assert_eq!(absent, HashMap::from([("0".into(), 4), ("1".into(), 2), ("2".into(), 2)]));
    }
}

/// The request that says a key, for a pool.
fn at(pool: &str, say: fn(&str) -> Request, key: &str) -> Request {
    say(key).map_target(|target| target.replace("<pool>", pool))
}

fn by_address() {
    let origins = numbered::<3>();
    let mut owners = Vec::new();
    for workers in [1, 4] {
        let yaml = r#"
workers: <workers>
cpu_affinity: "off"
trusted_proxies: [127.0.0.1]
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    balance: ip_hash
    health_check: {type: off}
    servers: [{address: "<0>", weight: 30}, {address: "<1>"}, {address: "<2>", weight: 0}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
        let program = put_all(Setup::new(yaml).put("workers", workers), &origins).start();
        let mut clients: Vec<_> = (0..8).map(|_| program.connect("http")).collect();
        let mut ask = |connection: usize, number: usize| {
            let from = format!("198.51.100.{number}");
            text(&mut clients[connection], &Request::get("a.test", "/").header("X-Forwarded-For", &from))
        };
        let first: Vec<_> = (0..100).map(|number| ask(number % 8, number)).collect();
        let again: Vec<_> = (0..100).map(|number| ask((number + 3) % 8, number)).collect();
        assert_eq!(first, again);
        owners.push(first);
    }
    // Not even the number of workers matters.
    assert_eq!(owners[0], owners[1]);
    let shares = counts(owners.remove(0));
    assert!((60..=90).contains(&shares["0"]) && shares.len() == 2, "{shares:?}");
}

fn disruption() {
    let ailing: Vec<_> = (0..3).map(|_| ailing()).collect();
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
trusted_proxies: [127.0.0.1]
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - {name: ip_hash, balance: ip_hash, servers: <servers>, health_check: <check>}
  - {name: maglev, balance: maglev, servers: <servers>, health_check: <check>}
  - {name: ring_hash, balance: ring_hash, servers: <servers>, health_check: <check>}
routes: [{domains: ["*"], rules: [{url: /ip_hash, pool: ip_hash}, {url: /maglev, pool: maglev}, {url: /ring_hash, pool: ring_hash}]}]
"#;
    let servers: Vec<_> =
        ailing.iter().map(|(origin, _)| format!("{{address: \"{}\"}}", origin.address())).collect();
    let program = Setup::new(yaml)
        .put("servers", format!("[{}]", servers.join(", ")))
        .put("check", "{interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}")
        .start();
    let mut client = program.connect("http");
    const POOLS: [&str; 3] = ["ip_hash", "maglev", "ring_hash"];
    let mut round = 0;
    let mut owners = |pool: &str| -> Vec<String> {
        for number in 0..60 {
            let request = Request::get("a.test", &format!("/{pool}?{number}"));
            text(&mut client, &request.header("X-Forwarded-For", &format!("203.0.113.{number}")));
        }
        round += 1;
        until("all log lines", || (program.log_lines().len() == round * 60).then_some(()));
        // In the order of the requests: they came over one connection.
        let lines = program.log_lines().split_off((round - 1) * 60);
        lines.iter().map(|line| line["rs"].as_str().unwrap().to_owned()).collect()
    };
    let wait = |value| {
        for pool in POOLS {
            up(&program, pool, &ailing[1].0, value);
        }
    };
    // Nobody is asked before its first probe has ended.
    for (pool, (origin, _)) in POOLS.iter().flat_map(|pool| ailing.iter().map(move |ailing| (pool, ailing))) {
        up(&program, pool, origin, 1);
    }
    let before = POOLS.map(&mut owners);
    ailing[1].1.store(500, Ordering::SeqCst);
    wait(0);
    let down = ailing[1].0.address().to_string();
    let during = POOLS.map(&mut owners);
    for (before, during) in before.iter().zip(&during) {
        assert!(before.contains(&down) && !during.contains(&down));
        for (before, during) in before.iter().zip(during) {
            assert!(before == during || *before == down, "{before} -> {during}");
        }
    }
    ailing[1].1.store(200, Ordering::SeqCst);
    wait(1);
    assert_eq!(POOLS.map(&mut owners), before, "everybody is back");
}

fn least() {
    for workers in [1, 4] {
        let origins: Vec<_> = (0..3).map(|_| Origin::stuck()).collect();
        let yaml = r#"
workers: <workers>
cpu_affinity: "off"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    balance: least_connections
    health_check: {type: off}
    servers: [{address: "<0>", weight: 20}, {address: "<1>"}, {address: "<2>", weight: 0}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
        let setup = Setup::new(yaml).put("workers", workers);
        let numbered = origins.iter().enumerate();
        let program = numbered
            .fold(setup, |setup, (number, (origin, _))| setup.put(&number.to_string(), origin.address()))
            .start();
        let in_flight = |number: usize| {
            let server = origins[number].0.address();
            program.metric(&format!("ingre_server_requests_in_flight{{pool=\"rs\",server=\"{server}\"}}"))
        };
        let mut clients = Vec::new();
        for number in 1..=30 {
            let mut client = program.connect("http");
            client.send(Request::get("a.test", "/").head());
            clients.push(client);
            until("the request is counted", || (in_flight(0)? + in_flight(1)? == number).then_some(()));
        }
        // Exact, whichever worker each of them came to.
        assert_eq!([0, 1, 2].map(in_flight), [Some(20), Some(10), Some(0)], "{workers} workers");
    }
}

fn quicker() {
    let slow = Origin::serving(|_| {
        std::thread::sleep(Duration::from_millis(60));
        ok("slow")
    });
    let quick = Origin::named("quick");
    let yaml = r#"
workers: 1
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - {name: rs, balance: peak_ewma, servers: [{address: "<slow>"}, {address: "<quick>"}], health_check: {type: off}}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("slow", slow.address()).put("quick", quick.address()).start();
    let mut client = program.connect("http");
    for _ in 0..100 {
        assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
    }
    // Known after one request each.
    assert!((1..=5).contains(&slow.received().len()), "{} of 100", slow.received().len());
}

fn backups() {
    let (dead, _guard) = refusing();
    let (regular, status) = ailing();
    let backup = Origin::named("backup");
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: failing
    servers: [{address: "<dead>"}, {address: "<backup>", backup: true}]
    health_check: {type: off}
  - name: checked
    servers: [{address: "<backup>", backup: true}, {address: "<regular>", backup: false}]
    health_check: {interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
routes: [{domains: ["*"], rules: [{url: /failing, pool: failing}, {url: /, pool: checked}]}]
"#;
    let program = Setup::new(yaml)
        .put("dead", dead)
        .put("regular", regular.address())
        .put("backup", backup.address())
        .start();
    let ask = |program: &Program, path| program.ask("http", &Request::get("a.test", path)).text();
    // Every request fails at the regular one first.
    for _ in 0..3 {
        assert_eq!(ask(&program, "/failing"), "backup");
    }
    program.wait_metric("ingre_retries_total", 3);
    up(&program, "checked", &regular, 1);
    for (number, value, text) in [(200, 1, "rs"), (500, 0, "backup"), (200, 1, "rs")] {
        status.store(number, Ordering::SeqCst);
        up(&program, "checked", &regular, value);
        for _ in 0..4 {
            assert_eq!(ask(&program, "/"), text);
        }
    }
}
