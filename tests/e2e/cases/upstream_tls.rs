//! TLS toward real servers: who is believed, what is shown, and that nothing agreed on before is used after a change.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};

use crate::harness::certificates::{Authority, Issued};
use crate::harness::h2_origin::Echo;
use crate::harness::origin::ok;
use crate::harness::{Case, Origin, Program, Request, Setup, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("upstream_tls::who_is_believed_and_why_not", believed),
        Case::new("upstream_tls::servers_known_by_name_are_asked_for_it", by_name),
        Case::new("upstream_tls::a_client_certificate_is_shown", client_certificate),
        Case::new("upstream_tls::connections_are_kept_and_sessions_taken_up_again", kept),
        Case::new("upstream_tls::a_change_of_settings_uses_nothing_of_before", changed),
        Case::new("upstream_tls::checks_speak_it_too", checks),
    ]
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// Answers with this text inside TLS.
fn named(tls: Arc<ServerConfig>, text: &'static str) -> Origin {
    Origin::secure(tls, move |peer| {
        loop {
            peer.request()?;
            peer.send(ok(text))?;
        }
    })
}

/// A pool with this name, these options, and every request for `NAME.test` to it.
fn setup<'a>(pools: impl IntoIterator<Item = (&'a str, std::net::SocketAddr, String)>) -> Setup {
    let (mut list, mut routes) = (String::new(), String::new());
    for (name, address, options) in pools {
        list += &format!("  - {{name: {name}, servers: [{{address: \"{address}\"}}], {options}}}\n");
        routes += &format!("  - {{domains: [{name}.test], rules: [{{url: /, pool: {name}}}]}}\n");
    }
    Setup::new(&format!(
        "workers: 1\nadmin: {{address: \"127.0.0.1:0\"}}\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         pools:\n{list}routes:\n{routes}"
    ))
}

fn ask(program: &Program, pool: &str) -> (u16, String) {
    let response = program.ask("http", &Request::get(&format!("{pool}.test"), "/"));
    (response.status, response.text())
}

fn by_name() {
    let authority = Authority::new();
    let rs = named(authority.issue(&["localhost"]).server(&[], BOTH), "rs");
    let yaml = "\
listeners: [{name: http, address: \"127.0.0.1:0\"}]
pools: [{name: rs, servers: [{address: \"localhost:<port>\"}], protocol: https, tls: {ca: ca.pem}, health_check: {type: off}}]
routes: [{domains: [\"*\"], rules: [{pool: rs}]}]
";
    let program = Setup::new(yaml).put("port", rs.address().port()).file("ca.pem", &authority.pem).start();
    until("an answer from the address of the name", || {
        (program.ask("http", &Request::get("a.test", "/")).text() == "rs").then_some(())
    });
}

fn believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let good = authority.issue(&["rs.test", "127.0.0.1"]);
    let strange = other.issue(&["rs.test"]);
    let rs = named(good.server(&[], BOTH), "rs");
    let stranger = named(strange.server(&[], BOTH), "stranger");
    let expired = named(authority.issue_expired(&["rs.test"]).server(&[], BOTH), "expired");
    let old = named(good.server(&[], &[&TLS12]), "old");
    let plain = Origin::scripted(|peer| {
        peer.exactly(5)?;
        peer.send("HTTP/1.1 400 Bad Request\r\n\r\n")
    });
    let h2 = Echo::new(Some(good.server(&["h2"], BOTH)));
    let (right, wrong) = (good.pin(), strange.pin());
    let name = "ca: ca.pem, server_name: rs.test";
    // Pool, RS, protocol, TLS, and the reason why it fails.
    let table: &[(&str, std::net::SocketAddr, &str, String, &str)] = &[
        ("name", rs.address(), "https", name.into(), ""),
        ("address", rs.address(), "https", "ca: ca.pem".into(), ""),
        ("pin", rs.address(), "https", format!("{name}, pin_sha256: [\"{wrong}\", \"{right}\"]"), ""),
        ("only-pin", rs.address(), "https", format!("verify: false, pin_sha256: [\"{right}\"]"), ""),
        ("anybody", stranger.address(), "https", "verify: false".into(), ""),
        ("both-versions", old.address(), "https", name.into(), ""),
        ("new", rs.address(), "https", format!("{name}, min_version: 1.3"), ""),
        ("h2", h2.address(), "h2", name.into(), ""),
        ("grpcs", h2.address(), "grpcs", name.into(), ""),
        ("authority", stranger.address(), "https", name.into(), "upstream_tls_authority"),
        ("system", rs.address(), "https", "server_name: rs.test".into(), "upstream_tls_authority"),
        ("other-name", rs.address(), "https", "ca: ca.pem, server_name: b.test".into(), "upstream_tls_name"),
        ("no-address", stranger.address(), "https", "ca: other.pem".into(), "upstream_tls_name"),
        ("expired", expired.address(), "https", name.into(), "upstream_tls_expired"),
        ("key", rs.address(), "https", format!("{name}, pin_sha256: [\"{wrong}\"]"), "upstream_tls_pin"),
        (
            "unverified-key",
            rs.address(),
            "https",
            format!("verify: false, pin_sha256: [\"{wrong}\"]"),
            "upstream_tls_pin",
        ),
        ("old", old.address(), "https", format!("{name}, min_version: \"1.3\""), "upstream_tls_handshake"),
        ("plain", plain.address(), "https", name.into(), "upstream_tls_handshake"),
        ("no-h2", rs.address(), "h2", name.into(), "upstream_tls_protocol"),
        ("no-grpc", rs.address(), "grpcs", name.into(), "upstream_tls_protocol"),
    ];
    let pools = table.iter().map(|(name, address, protocol, tls, _)| {
        (*name, *address, format!("protocol: {protocol}, tls: {{{tls}}}, health_check: {{type: off}}"))
    });
    let program = setup(pools).file("ca.pem", &authority.pem).file("other.pem", &other.pem).start();
    for (name, _, _, _, reason) in table {
        let (status, text) = ask(&program, name);
        match *reason {
            "" => assert_eq!(status, 200, "{name}: {text}"),
            reason => {
                assert_eq!(status, 502, "{name}: {text}");
                assert!(text.contains(&format!("({reason})")), "{name}: {text}");
            }
        }
    }
    program.wait_metric("ingre_failures_total{reason=\"upstream_tls_pin\"}", 2);
    let names: Vec<_> = rs.handshakes().into_iter().map(|handshake| handshake.name).collect();
    assert_eq!(names[..2], [Some("rs.test".to_owned()), None]);
}

fn client_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (server, client) = (authority.issue(&["rs.test"]), clients.issue(&["ingre.test"]));
    let rs = named(server.server_for(&[], BOTH, Some(&clients)), "rs");
    let tls = "ca: ca.pem, server_name: rs.test";
    let pool = |more: &str| format!("protocol: https, tls: {{{tls}{more}}}, health_check: {{type: off}}");
    let program = setup([
        ("with", rs.address(), pool(", certificate: client.pem, key: client.key")),
        ("without", rs.address(), pool("")),
    ])
    .file("ca.pem", &authority.pem)
    .file("client.pem", &client.certificate)
    .file("client.key", &client.key)
    .start();
    assert_eq!(ask(&program, "with"), (200, "rs".into()));
    assert_eq!(ask(&program, "without").0, 502);
    let shown: Vec<_> = rs.handshakes().into_iter().map(|handshake| handshake.certificate).collect();
    assert_eq!(shown, [true]);
}

fn kept() {
    let authority = Authority::new();
    let server = |issued: &Issued| named(issued.server(&[], BOTH), "rs");
    let issued = authority.issue(&["rs.test"]);
    let (kept, new) = (server(&issued), server(&issued));
    let tls = "protocol: https, tls: {ca: ca.pem, server_name: rs.test}, health_check: {type: off}";
    let program = setup([
        ("kept", kept.address(), tls.to_owned()),
        ("new", new.address(), format!("{tls}, keepalive: 0")),
    ])
    .file("ca.pem", &authority.pem)
    .start();
    assert_eq!(ask(&program, "kept"), (200, "rs".into()));
    assert_eq!(ask(&program, "kept"), (200, "rs".into()));
    // Apart from any worker, too.
    program.wait_metric("ingre_upstream_connections_parked", 1);
    assert_eq!(ask(&program, "kept"), (200, "rs".into()));
    assert_eq!(kept.connections(), 1);
    for _ in 0..2 {
        assert_eq!(ask(&program, "new"), (200, "rs".into()));
    }
    let resumed: Vec<_> = new.handshakes().into_iter().map(|handshake| handshake.resumed).collect();
    assert_eq!(resumed, [false, true]);
}

fn changed() {
    let authority = Authority::new();
    let issued = authority.issue(&["rs.test"]);
    let rs = named(issued.server(&["http/1.1"], BOTH), "rs");
    let text = |more: &str| {
        format!(
            "workers: 1\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
             pools: [{{name: rs, servers: [{{address: \"{}\"}}], health_check: {{type: off}}, protocol: https, \
             tls: {{ca: ca.pem, server_name: rs.test{more}}}}}]\nroutes: [{{domains: [\"*\"], rules: [{{url: /, pool: rs}}]}}]\n",
            rs.address()
        )
    };
    let program = Setup::new(&text("")).file("ca.pem", &authority.pem).start();
    assert_eq!(ask(&program, "rs").0, 200);
    assert_eq!(program.reload(&text("")), "ingre: reloaded");
    assert_eq!(ask(&program, "rs").0, 200);
    assert_eq!(rs.connections(), 1, "the same settings keep the connection");
    let wrong = authority.issue(&["rs.test"]).pin();
    assert_eq!(program.reload(&text(&format!(", pin_sha256: [\"{wrong}\"]"))), "ingre: reloaded");
    let (status, answer) = ask(&program, "rs");
    assert!(status == 502 && answer.contains("upstream_tls_pin"), "{answer}");
    until("the connection of before ends", || (rs.open() == 0).then_some(()));
    assert_eq!(program.reload(&text(&format!(", pin_sha256: [\"{}\"]", issued.pin()))), "ingre: reloaded");
    assert_eq!(ask(&program, "rs").0, 200);
    let handshakes = rs.handshakes();
    assert!(handshakes.iter().all(|handshake| !handshake.resumed), "{handshakes:?}");
    assert_eq!(handshakes[0].protocol.as_deref(), Some("http/1.1"));
}

fn checks() {
    let authority = Authority::new();
    let rs = named(authority.issue(&["rs.test"]).server(&[], BOTH), "rs");
    let check = |kind: &str| format!("health_check: {{type: {kind}, interval: 2s, timeout: 1s}}");
    let right = "protocol: https, tls: {ca: ca.pem, server_name: rs.test}";
    let wrong = "protocol: https, tls: {ca: ca.pem, server_name: b.test}";
    let program = setup([
        ("right", rs.address(), format!("{right}, {}", check("http"))),
        ("wrong", rs.address(), format!("{wrong}, {}", check("http"))),
        ("tcp", rs.address(), format!("{wrong}, {}", check("tcp"))),
    ])
    .file("ca.pem", &authority.pem)
    .start();
    for (pool, value) in [("right", 1), ("wrong", 0), ("tcp", 1)] {
        let metric = format!("ingre_server_up{{pool=\"{pool}\",server=\"{}\"}}", rs.address());
        program.wait_metric(&metric, value);
    }
}
