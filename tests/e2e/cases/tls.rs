//! TLS toward clients: certificates, protocols, versions, and the development certificate.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::certificates::{Authority, Issued};
use crate::harness::curl::curl;
use crate::harness::{Case, Client, Need, Origin, Program, Request, Setup, Tls};

use super::site;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("tls::certificate_by_the_name_asked_for", by_name),
        Case::new("tls::protocols_by_alpn", alpn),
        Case::new("tls::versions_1_2_and_1_3", versions),
        Case::new("tls::development_certificate_is_made_once", development),
        Case::new("tls::development_certificate_is_renewed_while_it_runs", development_renewed),
        Case::new("tls::development_certificate_for_other_names", development_names),
        Case::needing("tls::curl_trusts_the_development_ca", &[Need::Curl], with_curl),
        Case::new("tls::what_is_no_tls_gets_nothing", no_tls),
    ]
}

fn by_name() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let certificates: Vec<Issued> =
        [&["first.test"][..], &["a.test", "www.a.test"], &["*.w.test"], &["exact.w.test"], &["127.0.0.1"]]
            .iter()
            .map(|names| authority.issue(names))
            .collect();
    let mut setup = Setup::new(
        r#"
listeners:
  - name: https
    address: "127.0.0.1:0"
    tls:
      certificates:
        - {certificate: 0.pem, key: 0.key}
        - {certificate: 1.pem, key: 1.key}
        - {certificate: 2.pem, key: 2.key}
        - {certificate: 3.pem, key: 3.key}
        - {certificate: 4.pem, key: 4.key}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#,
    )
    .put("rs", origin.address());
    for (number, issued) in certificates.iter().enumerate() {
        setup = setup
            .file(&format!("{number}.pem"), &issued.certificate)
            .file(&format!("{number}.key"), &issued.key);
    }
    let program = setup.start();
    let shown = |tls: &Tls| {
        let certificate = Client::connect_tls(program.listener("https"), tls).certificate();
        certificates.iter().position(|issued| issued.der == certificate).unwrap()
    };
    for (name, number) in [
        ("a.test", 1),
        ("WWW.a.test", 1),
        ("x.w.test", 2),
        ("exact.w.test", 3),
        // A wildcard is for one label.
        ("y.x.w.test", 0),
        ("w.test", 0),
        ("else.test", 0),
        ("first.test", 0),
    ] {
        assert_eq!(shown(&Tls::credulous().name(name)), number, "{name}");
    }
    assert_eq!(shown(&Tls::credulous().nameless()), 0);
    // And a client that checks is content.
    let tls = Tls::trusting(authority.roots()).name("x.w.test");
    assert_eq!(
        Client::connect_tls(program.listener("https"), &tls).ask(&Request::get("x.w.test", "/")).status,
        200
    );
}

fn alpn() {
    let origin = Origin::named("rs");
    let yaml = r#"
listeners:
  - {name: both, address: "127.0.0.1:0", tls: {development: {}}}
  - {name: old, address: "127.0.0.1:0", http2: false, tls: {development: {}}}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    for (listener, offered, agreed) in [
        ("both", &["h2", "http/1.1"][..], Some("h2")),
        ("both", &["http/1.1", "h2"], Some("h2")),
        ("both", &["http/1.1"], Some("http/1.1")),
        ("both", &[], None),
        ("old", &["h2", "http/1.1"], Some("http/1.1")),
        ("old", &[], None),
    ] {
        let tls = program.tls().offer(offered);
        let mut client = Client::connect_tls(program.listener(listener), &tls);
        assert_eq!(client.protocol().as_deref(), agreed, "{listener} {offered:?}");
        if agreed != Some("h2") {
            assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "rs");
        }
    }
    // No protocol in common: the handshake ends (RFC 7301 3.2).
    let tls = program.tls().offer(&["spdy/3"]);
    assert!(Client::try_tls(program.listener("both"), &tls).is_err());
    assert!(Client::try_tls(program.listener("old"), &program.tls().offer(&["h2"])).is_err());
}

fn versions() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = Client::connect_tls(program.listener("https"), &program.tls().only(version));
        assert_eq!(client.version(), version.version);
        assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "rs");
    }
}

fn development() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    program.said("made a development certificate in");
    let certificate =
        |program: &Program| Client::connect_tls(program.listener("https"), &program.tls()).certificate();
    let first = certificate(&program);
    for (name, mode) in [("dev.key", 0o600), ("dev-ca.key", 0o600), ("dev.pem", 0o644), ("dev-ca.pem", 0o644)]
    {
        let metadata = std::fs::metadata(program.path().join("certs").join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    // By name and by address.
    for name in ["localhost", "127.0.0.1"] {
        Client::connect_tls(program.listener("https"), &program.tls().name(name));
    }
    let again = Setup::beside(&program, super::SITE)
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", "")
        .start();
    assert_eq!(certificate(&again), first, "made a second time");
    assert!(!again.stderr().contains("made a development certificate"));
    // A damaged key is replaced, and the CA that users trust stays.
    std::fs::write(again.path().join("certs/dev.key"), "damaged").unwrap();
    let ca = std::fs::read(again.path().join("certs/dev-ca.pem")).unwrap();
    let third = Setup::beside(&program, super::SITE)
        .put("rs", origin.address())
        .put("listener", "")
        .put("pool", "")
        .put("more", "")
        .start();
    assert_ne!(certificate(&third), first);
    assert_eq!(std::fs::read(third.path().join("certs/dev-ca.pem")).unwrap(), ca);
}

fn development_renewed() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let shown = || Client::connect_tls(program.listener("https"), &program.tls()).certificate();
    let first = shown();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(365 * 24 * 3600);
    let file = std::fs::File::options().write(true).open(program.path().join("certs/dev.pem")).unwrap();
    file.set_modified(long_ago).unwrap();
    crate::harness::until("a new one", || (shown() != first).then_some(()));
    program.said("ingre: the certificate for localhost is replaced, until 20");
}

fn development_names() {
    let origin = Origin::named("rs");
    let yaml = r#"
listeners:
  - name: https
    address: "127.0.0.1:0"
    tls: {development: {directory: keys, names: [shop.test, "*.shop.test"]}}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let ca = std::fs::read_to_string(program.path().join("keys/dev-ca.pem")).unwrap();
    let tls = Tls::trusting(crate::harness::certificates::roots_of(&ca));
    for name in ["shop.test", "www.shop.test"] {
        Client::connect_tls(program.listener("https"), &tls.clone().name(name));
    }
    assert!(Client::try_tls(program.listener("https"), &tls.name("localhost")).is_err());
}

fn with_curl() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let ca = program.path().join("certs/dev-ca.pem");
    let ca = ca.to_str().unwrap();
    for version in ["--http1.1", "--http2"] {
        let got = curl(
            "localhost",
            program.listener("https"),
            "/",
            &["--cacert", ca, version, "-w", " %{http_version}"],
        );
        let number = if version == "--http2" { "2" } else { "1.1" };
        assert_eq!(
            (got.code, String::from_utf8(got.body).unwrap()),
            (0, format!("rs {number}")),
            "{}",
            got.stderr
        );
    }
    let got = curl("localhost", program.listener("https"), "/", &[]);
    assert_eq!(got.code, 60, "without the CA it must be refused: {}", got.stderr);
}

fn no_tls() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = Client::connect(program.listener("https"));
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let rest = client.rest();
    assert!(!rest.windows(4).any(|four| four == b"HTTP"), "{rest:?}");
    assert!(origin.received().is_empty());
    // The other way round: TLS on the plain listener is a malformed request.
    assert!(Client::try_tls(program.listener("http"), &Tls::credulous()).is_err());
}
