//! Clients that stay at their RS by a cookie.

use std::sync::atomic::Ordering;

use crate::harness::program::counts;
use crate::harness::{Case, Client, Request, Setup};

use super::balancing::{numbered, put_all, text};
use super::health::{ailing, up};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("sticky::a_client_stays_at_its_rs", stays),
        Case::new("sticky::what_was_not_sealed_here_is_ignored", forged),
        Case::new("sticky::nodes_with_one_secret_share_their_clients", shared),
        Case::new("sticky::an_rs_that_is_down_or_drained_loses_its_clients", loses),
    ]
}

/// One pool of three real servers. `<sticky>` stands for the options of the cookie, `<weight>` for the weight of the first.
const SITE: &str = r#"
workers: 2
listeners:
  - {name: http, address: "127.0.0.1:0"}
  - {name: https, address: "127.0.0.1:0", tls: {development: {}}}
pools:
  - name: shop
    servers: [{address: "<0>", weight: <weight>}, {address: "<1>"}, {address: "<2>"}]
    sticky: {<sticky>}
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: shop}]}]
"#;

/// Asks with a cookie; the answer and the cookie that comes with it, `NAME=VALUE` each.
fn ask(client: &mut Client, cookie: Option<&str>) -> (String, String) {
    let mut request = Request::get("localhost", "/");
    if let Some(cookie) = cookie {
        request = request.header("Cookie", cookie);
    }
    let response = client.ask(&request);
    assert_eq!(response.status, 200);
    let set = response.field("set-cookie").unwrap();
    (response.text(), set.split(';').next().unwrap().to_owned())
}

fn stays() {
    let origins = numbered::<3>();
    let program =
        put_all(Setup::new(SITE).put("sticky", "cookie: keep, max_age: 60s").put("weight", 10), &origins)
            .start();
    let clients = [
        (program.connect("http"), ""),
        (Client::connect_tls(program.listener("https"), &program.tls().offer(&["http/1.1"])), "; Secure"),
    ];
    for (mut client, secure) in clients {
        let set = client.ask(&Request::get("localhost", "/")).field("set-cookie").unwrap().to_owned();
        let (pair, attributes) = set.split_once(';').unwrap();
        assert!(pair.starts_with("keep="), "{set}");
        assert_eq!(attributes, format!(" Path=/; Max-Age=60; HttpOnly; SameSite=Lax{secure}"));
        // Nobody knows this client yet: everybody in turn.
        let strangers = counts((0..9).map(|_| ask(&mut client, None).0));
        assert!(strangers.values().all(|count| *count == 3), "{strangers:?}");
        let (home, mut cookie) = ask(&mut client, None);
        for _ in 0..9 {
            let (again, fresh) = ask(&mut client, Some(&format!("a=1; {cookie}; b=2")));
            assert_eq!(again, home);
            assert_ne!(fresh, cookie, "refreshed with every response");
            cookie = fresh;
        }
        // On another connection, and the RS sees the field as it came.
        let sent = format!("{cookie}; a=\"1\"");
        assert_eq!(ask(&mut program.connect("http"), Some(&sent)).0, home);
        let number: usize = home.parse().unwrap();
        assert_eq!(origins[number].received().last().unwrap().field("cookie"), Some(sent.as_str()));
    }
}

fn forged() {
    let origins = numbered::<3>();
    let program = put_all(Setup::new(SITE).put("sticky", "").put("weight", 10), &origins).start();
    let mut client = program.connect("http");
    let (_, cookie) = ask(&mut client, None);
    assert!(cookie.starts_with("ingre="), "{cookie}");
    let (name, value) = cookie.split_once('=').unwrap();
    let mut changed = value.to_owned();
    let last = if changed.pop() == Some('A') { 'B' } else { 'A' };
    changed.push(last);
    for wrong in [&changed, "", "1", &"A".repeat(72), &"x".repeat(4000)] {
        let answers = counts((0..6).map(|_| ask(&mut client, Some(&format!("{name}={wrong}"))).0));
        assert!(answers.len() == 3 && answers.values().all(|count| *count == 2), "{wrong}: {answers:?}");
    }
    // Sealed by another process that was told no secret.
    let other = put_all(Setup::new(SITE).put("sticky", "").put("weight", 10), &origins).start();
    let answers = counts((0..6).map(|_| ask(&mut other.connect("http"), Some(&cookie)).0));
    assert_eq!(answers.len(), 3);
}

fn shared() {
    let origins = numbered::<3>();
    let start = || {
        let setup = Setup::new(SITE).put("sticky", "secret: \"${file:<path>/secret}\"").put("weight", 10);
        let path = setup.path().display().to_string();
        let setup = setup.file("secret", "0123456789abcdef0123456789abcdef\n").put("path", path);
        put_all(setup, &origins).start()
    };
    let nodes = [start(), start()];
    for _ in 0..3 {
        let (home, mut cookie) = ask(&mut nodes[0].connect("http"), None);
        for number in 0..6 {
            let (again, fresh) = ask(&mut nodes[number % 2].connect("http"), Some(&cookie));
            assert_eq!(again, home);
            cookie = fresh;
        }
    }
}

fn loses() {
    let origins = numbered::<3>();
    let text_of = |weight: u8| {
        let text = SITE.replace("<sticky>", "").replace("<weight>", &weight.to_string());
        (0..3).fold(text, |text, n| text.replace(&format!("<{n}>"), &origins[n].address().to_string()))
    };
    let program = Setup::new(&text_of(10)).start();
    let mut client = program.connect("http");
    let mut cookie = None;
    while cookie.is_none() {
        let (home, given) = ask(&mut client, None);
        cookie = (home == "0").then_some(given);
    }
    let cookie = cookie.unwrap();
    // What was sealed before a reload is good after it.
    assert_eq!(program.reload(&text_of(100)), "ingre: reloaded");
    for _ in 0..6 {
        assert_eq!(ask(&mut client, Some(&cookie)).0, "0");
    }
    assert_eq!(program.reload(&text_of(0)), "ingre: reloaded");
    let (other, fresh) = ask(&mut client, Some(&cookie));
    assert_ne!(other, "0");
    for _ in 0..6 {
        assert_eq!(ask(&mut client, Some(&fresh)).0, other);
    }

    let ailing: Vec<_> = (0..2).map(|_| ailing()).collect();
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    servers: [{address: "<0>"}, {address: "<1>"}]
    sticky: {}
    health_check: {interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("0", ailing[0].0.address()).put("1", ailing[1].0.address()).start();
    let mut client = program.connect("http");
    up(&program, "rs", &ailing[0].0, 1);
    up(&program, "rs", &ailing[1].0, 1);
    let (_, cookie) = ask(&mut client, None);
    let home = usize::from(ailing[0].0.received().is_empty());
    let (sick, well) = (&ailing[home], &ailing[1 - home]);
    sick.1.store(500, Ordering::SeqCst);
    up(&program, "rs", &sick.0, 0);
    let (_, fresh) = ask(&mut client, Some(&cookie));
    assert_eq!(well.0.received().len(), 1);
    sick.1.store(200, Ordering::SeqCst);
    up(&program, "rs", &sick.0, 1);
    // With its new cookie it stays, and with the old one it would be back.
    for _ in 0..4 {
        text(&mut client, &Request::get("localhost", "/").header("Cookie", &fresh));
    }
    assert_eq!((sick.0.received().len(), well.0.received().len()), (1, 5));
    text(&mut client, &Request::get("localhost", "/").header("Cookie", &cookie));
    assert_eq!(sick.0.received().len(), 2);
}
