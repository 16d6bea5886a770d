//! Real servers that are known by name.

use std::net::{Ipv4Addr, TcpListener};

use crate::harness::dns::{Dns, Say};
use crate::harness::origin::ok;
use crate::harness::program::counts;
use crate::harness::{Case, Origin, Program, Request, Setup, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("names::nobody_waits_for_a_name", nobody_waits),
        Case::new("names::addresses_come_and_go_with_their_time", come_and_go),
        Case::new("names::forged_and_cut_off_answers_are_no_answers", hostile),
        Case::new("names::what_is_known_of_an_rs_is_kept", kept),
        Case::new("names::a_reload_changes_names", reload),
        Case::new("names::the_system_knows_localhost", system),
    ]
}

const SITE: &str = r#"
workers: 2
admin: {address: "127.0.0.1:0"}
resolver: {servers: ["<dns>"]}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools: [{name: rs, servers: [{address: "web.internal:<port>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;

/// Real servers on one port of several addresses, which they answer with.
fn neighbours<const N: usize>() -> ([Origin; N], u16) {
    let address = |number: usize| Ipv4Addr::new(127, 0, 0, 1 + number as u8);
    let listeners = until("a port that is free on all of them", || {
        let first = TcpListener::bind((address(0), 0)).ok()?;
        let port = first.local_addr().ok()?.port();
        let others = (1..N).map(|number| TcpListener::bind((address(number), port)).ok());
        std::iter::once(Some(first)).chain(others).collect::<Option<Vec<_>>>()
    });
    let port = listeners[0].local_addr().unwrap().port();
    let mut listeners = listeners.into_iter().enumerate();
    let origins = std::array::from_fn(|_| {
        let (number, listener) = listeners.next().unwrap();
        Origin::on(listener, move |peer| {
            loop {
                peer.request()?;
                peer.send(ok(&address(number).to_string()))?;
            }
        })
    });
    (origins, port)
}

fn ask(program: &Program) -> String {
    let response = program.ask("http", &Request::get("a.test", "/"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// Waits until a name has so many addresses.
fn known(program: &Program, name: &str, count: u64) {
    program.wait_metric(&format!("ingre_name_addresses{{name=\"{name}\"}}"), count);
}

fn nobody_waits() {
    let dns = Dns::new();
    dns.say("web.internal", Say::Nothing);
    let (_origins, port) = neighbours::<1>();
    let program = Setup::new(SITE).put("dns", dns.address()).put("port", port).start();
    let response = program.ask("http", &Request::get("a.test", "/early"));
    assert_eq!(response.status, 503);
    assert_eq!(program.logged("/early")["reason"], "no_server");
    dns.addresses("web.internal", &["127.0.0.1"]);
    known(&program, "web.internal", 1);
    program.said("the name web.internal stands for 127.0.0.1");
    assert_eq!(ask(&program), "127.0.0.1");
}

fn come_and_go() {
    let dns = Dns::new();
    let (_origins, port) = neighbours::<3>();
    dns.say("web.internal", Say::Alias("pool.web.internal", 60));
    dns.addresses("pool.web.internal", &["127.0.0.2", "127.0.0.1"]);
    let program = Setup::new(SITE).put("dns", dns.address()).put("port", port).start();
    known(&program, "web.internal", 2);
    let shares = counts((0..8).map(|_| ask(&program)));
    assert!(shares.len() == 2 && shares.values().all(|share| *share == 4), "{shares:?}");
    // The time of the addresses counts, not that of the alias.
    dns.addresses("pool.web.internal", &["127.0.0.2", "127.0.0.1", "127.0.0.3"]);
    known(&program, "web.internal", 3);
    assert_eq!(counts((0..12).map(|_| ask(&program))).len(), 3);
    dns.addresses("pool.web.internal", &["127.0.0.3"]);
    known(&program, "web.internal", 1);
    assert_eq!(counts((0..8).map(|_| ask(&program))).len(), 1);
    // Whatever goes wrong now, the last one is kept.
    let failures = || program.metric("ingre_name_failures_total{name=\"web.internal\"}").unwrap_or_default();
    for wrong in [Say::Code(2), Say::Code(3), Say::Addresses(Vec::new(), 1)] {
        let before = failures();
        dns.say("pool.web.internal", wrong);
        until("a failure", || (failures() > before).then_some(()));
        assert_eq!(ask(&program), "127.0.0.3");
    }
    program.said("the name web.internal is not resolved: ");
    dns.addresses("pool.web.internal", &["127.0.0.2"]);
    program.said("the name web.internal stands for 127.0.0.2");
    until("the new one", || (ask(&program) == "127.0.0.2").then_some(()));
}

fn hostile() {
    let dns = Dns::new();
    dns.be_hostile();
    dns.addresses("web.internal", &["127.0.0.1"]);
    let (_origins, port) = neighbours::<1>();
    let program = Setup::new(SITE).put("dns", dns.address()).put("port", port).start();
    known(&program, "web.internal", 1);
    assert!(dns.asked().1 >= 2, "both families over TCP");
    assert_eq!(ask(&program), "127.0.0.1");
}

fn kept() {
    let dns = Dns::new();
    let (origins, port) = neighbours::<2>();
    dns.addresses("web.internal", &["127.0.0.1"]);
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
resolver: {servers: ["<dns>"]}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "web.internal:<port>", weight: 5, max_connections: 1, backup: true}, {address: "127.0.0.9:1"}]
    health_check: {interval: 2s, timeout: 1s, unhealthy_threshold: 1}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("dns", dns.address()).put("port", port).start();
    let up = |number: usize| {
        let server = origins[number].address();
        program.wait_metric(&format!("ingre_server_up{{pool=\"rs\",server=\"{server}\"}}"), 1);
    };
    up(0);
    program.wait_metric("ingre_server_up{pool=\"rs\",server=\"127.0.0.9:1\"}", 0);
    assert_eq!(ask(&program), "127.0.0.1");
    let connections = origins[0].connections();
    dns.addresses("web.internal", &["127.0.0.1", "127.0.0.2"]);
    up(1);
    // Its verdict was not forgotten, and its connection was used again: only checks made new ones.
    let verdicts = program.stderr().matches(&format!("{} is Up", origins[0].address())).count();
    assert_eq!(verdicts, 1, "{}", program.stderr());
    assert_eq!(counts((0..4).map(|_| ask(&program))).len(), 2);
    let since = origins[0].connections() - connections;
    let probes = origins[0].probes().len();
    assert!(since <= probes, "{since} connections, {probes} checks");
}

fn reload() {
    let dns = Dns::new();
    dns.addresses("web.internal", &["127.0.0.1"]);
    dns.addresses("other.internal", &["127.0.0.2"]);
    let (_origins, port) = neighbours::<2>();
    let program = Setup::new(SITE).put("dns", dns.address()).put("port", port).start();
    known(&program, "web.internal", 1);
    let text = SITE.replace("<dns>", &dns.address().to_string()).replace("<port>", &port.to_string());
    // What is known of a name is not asked again.
    assert_eq!(program.reload(&text), "ingre: reloaded");
    assert_eq!(ask(&program), "127.0.0.1");
    assert_eq!(program.reload(&text.replace("web.internal", "Other.internal")), "ingre: reloaded");
    until("the other name", || {
        let response = program.ask("http", &Request::get("a.test", "/"));
        (response.text() == "127.0.0.2").then_some(())
    });
    assert_eq!(program.metric("ingre_name_addresses{name=\"web.internal\"}"), None);
}

fn system() {
    let (_origins, port) = neighbours::<1>();
    let yaml = SITE.replace("resolver: {servers: [\"<dns>\"]}\n", "").replace("web.internal", "localhost");
    let program = Setup::new(&yaml).put("port", port).start();
    // /etc/hosts may name ::1 as well, where nobody listens: then the other one is tried.
    until("the first address", || {
        let response = program.ask("http", &Request::get("a.test", "/"));
        (response.status == 200).then_some(())
    });
}
