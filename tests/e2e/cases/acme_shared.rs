//! Certificates that are got when somebody asks, and nodes that share a storage.

use rustix::process::Signal;

use super::acme::{ask, is_served, site};
use crate::harness::pebble::{Pebble, Wish};
use crate::harness::scratch::Scratch;
use crate::harness::{Case, Client, Need, Program, Request, Setup, Tls, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("acme::on_demand_behind_a_list", &[Need::Pebble], on_demand),
        Case::needing("acme::two_nodes_on_one_storage", &[Need::Pebble], two_nodes),
        Case::needing("acme::the_example_gets_its_certificates", &[Need::Pebble], example),
    ]
}

/// How often the limits of names on demand have refused one.
fn refused(program: &Program) -> Option<u64> {
    program.metric("ingre_acme_failures_total{reason=\"on_demand_limit\"}")
}

fn on_demand() {
    let ca = Pebble::start(Wish::default());
    let managed = "domains: [first.test], on_demand: {allow: [ok.test, \"*.t.test\"], max_certificates: 3, max_per_hour: 2}";
    let program = ca.setup(&site(&ca, "", managed)).start();
    program.said("the certificate for first.test is there");
    let tls = Tls::trusting(ca.roots());
    // Whoever asks first sees another certificate, and does not wait.
    for name in ["ok.test", "x.t.test"] {
        assert!(!is_served(&program, &tls, name));
        until("the certificate that was asked for", || is_served(&program, &tls, name).then_some(()));
        assert_eq!(ask(&program, &tls, name), "here");
    }
    // Not on the list, not one label, no name at all.
    for name in ["no.test", "y.x.t.test", "t.test"] {
        assert!(!is_served(&program, &tls, name));
    }
    assert!(Client::try_tls(program.listener("https"), &tls.clone().nameless()).is_err());
    assert_eq!(refused(&program), None);
    // Two in an hour, and no third one.
    until("the limit", || {
        assert!(!is_served(&program, &tls, "z.t.test"));
        refused(&program)
    });
    assert_eq!((program.metric("ingre_acme_issued_total"), ca.issued()), (Some(3), 3));
    // A connection for one such name is none for another.
    let mut client = Client::connect_tls(program.listener("https"), &tls.clone().name("x.t.test"));
    assert_eq!(client.ask(&Request::get("ok.test", "/")).status, 421);
    let page = program.page("/certificates").1;
    assert!(
        page.contains("\"ok.test\"") && page.contains("\"x.t.test\"") && !page.contains("z.t.test"),
        "{page}"
    );
    // They are there from the first handshake on when the program starts again, and go when they are not allowed.
    let again = Setup::beside(&program, &site(&ca, "", managed)).start();
    assert_eq!((ask(&again, &tls, "x.t.test"), ask(&again, &tls, "ok.test")), ("here".into(), "here".into()));
    let managed = "domains: [first.test], on_demand: {allow: [ok.test]}";
    assert_eq!(again.reload(&site(&ca, "", managed)), "ingre: reloaded");
    until("x.t.test to be gone", || (!is_served(&again, &tls, "x.t.test")).then_some(()));
    assert_eq!(ask(&again, &tls, "ok.test"), "here");
}

fn two_nodes() {
    let ca = Pebble::start(Wish::default());
    let shared = Scratch::new();
    let yaml = |managed: &str| {
        site(&ca, "", managed).replace("storage: kept", &format!("storage: \"{}\"", shared.path().display()))
    };
    let managed = "domains: [a.test], on_demand: {allow: [ok.test]}";
    // The first one gets the certificates, and the authority asks the second one for the proof.
    let nothing = "on_demand: {allow: [ok.test]}";
    let first = ca.introduce(Setup::new(&yaml(nothing))).start();
    first.said("this node gets the certificates");
    let second = ca.setup(&yaml(nothing)).start();
    until("the second one to look", || (second.metric("ingre_acme_writer") == Some(0)).then_some(()));
    for node in [&second, &first] {
        assert_eq!(node.reload(&yaml(managed)), "ingre: reloaded");
    }
    let tls = Tls::trusting(ca.roots());
    for node in [&first, &second] {
        until("the certificate", || is_served(node, &tls, "a.test").then_some(()));
        assert_eq!(ask(node, &tls, "a.test"), "here");
    }
    assert_eq!(ca.issued(), 1);
    let writers = || [&first, &second].map(|node| node.metric("ingre_acme_writer"));
    assert_eq!(writers(), [Some(1), Some(0)]);
    assert!(!second.stderr().contains("this node gets"));
    // Somebody asks the second one for a name, and both have it.
    assert!(!is_served(&second, &tls, "ok.test"));
    for node in [&second, &first] {
        until("the certificate that was asked for", || is_served(node, &tls, "ok.test").then_some(()));
    }
    // The first one is killed: the second one takes over, and gets what is new.
    first.signal(Signal::KILL);
    second.said("this node gets the certificates");
    assert_eq!(second.reload(&yaml("domains: [a.test, b.test]")), "ingre: reloaded");
    second.said("the certificate for b.test is there");
    assert_eq!(ask(&second, &tls, "b.test"), "here");
    // One that leaves in order gives its place away at once.
    let third = ca.introduce(Setup::new(&yaml("domains: [a.test, b.test]"))).start();
    assert_eq!(ask(&third, &tls, "b.test"), "here");
    second.signal(Signal::TERM);
    second.said("ingre: drained");
    third.said("this node gets the certificates");
    assert_eq!(ca.issued(), 3);
}

/// The file in `examples/`, with addresses of its own and another authority.
fn example() {
    let ca = Pebble::start(Wish::default());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/acme.yaml");
    let yaml = std::fs::read_to_string(path).unwrap();
    let yaml = yaml
        .replace("acme:\n  email", &format!("acme:\n  directory: {}\n  ca: ca.pem\n  email", ca.directory()))
        .replace("0.0.0.0:443", "127.0.0.1:0")
        .replace("0.0.0.0:80", "127.0.0.1:0")
        .replace("/var/lib/ingre/acme", "kept");
    let program = ca.setup(&yaml).start();
    let tls = Tls::trusting(ca.roots());
    for name in ["www.example.com", "example.com", "shop.example.com"] {
        until("the certificate", || is_served(&program, &tls, name).then_some(()));
    }
}
