//! How TLS is spoken with clients: one of several certificates, versions and key exchange, sessions that are taken up again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, SupportedProtocolVersion};

use crate::harness::certificates::{Authority, Issued};
use crate::harness::program::BINARY;
use crate::harness::python;
use crate::harness::{Case, Client, Need, Origin, Program, Request, Setup, Tls};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tls::several_certificates_for_one_name", &[Need::Openssl], several),
        Case::needing("tls::keys_are_renewed_when_a_client_wants", &[Need::Openssl], renewed),
        Case::new("tls::policies_and_oldest_versions", policies),
        Case::new("tls::post_quantum_key_exchange", post_quantum),
        Case::new("tls::nodes_with_one_secret_take_each_others_tickets", shared),
        Case::new("tls::tickets_of_one_process", own_tickets),
        Case::new("tls::secrets_are_replaced", replaced),
        Case::new("tls::handshakes_are_counted", counted),
        Case::needing("tls::scanners_find_nothing", &[Need::Openssl, Need::Scanners], scanned),
    ]
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// The certificate that `openssl s_client` is shown, in one line of base64; nothing where there is no handshake.
fn shown(address: SocketAddr, name: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", name])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    Some(rest.split_once("-----END CERTIFICATE-----")?.0.split_whitespace().collect())
}

fn several() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let names = &["a.test", "www.a.test"];
    let certificates = [
        authority.issue_rsa(names),
        authority.issue(names),
        authority.issue_rsa(&["b.test"]),
        authority.issue(&["*.w.test"]),
        authority.issue_rsa(&["*.w.test"]),
        authority.issue(&["late.test", "a.test"]),
    ];
    let listed: Vec<String> = (0..certificates.len())
        .map(|number| format!("{{certificate: {number}.pem, key: {number}.key}}"))
        .collect();
    let yaml = r#"
listeners: [{name: https, address: "127.0.0.1:0", tls: {certificates: [<listed>]}}]
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let mut setup = Setup::new(yaml).put("rs", origin.address()).put("listed", listed.join(", "));
    for (number, issued) in certificates.iter().enumerate() {
        setup = setup
            .file(&format!("{number}.pem"), &issued.certificate)
            .file(&format!("{number}.key"), &issued.key);
    }
    let program = setup.start();
    let https = program.listener("https");
    let of = |issued: &Issued| {
        issued.certificate.lines().filter(|line| !line.starts_with('-')).collect::<String>()
    };
    let (both, rsa, ecdsa) = ("RSA-PSS+SHA256:ECDSA+SHA256", "RSA-PSS+SHA256", "ECDSA+SHA256");
    for (name, arguments, number) in [
        ("a.test", &[][..], Some(1)),
        ("a.test", &["-sigalgs", both], Some(1)),
        ("A.test", &["-sigalgs", rsa], Some(0)),
        ("www.a.test", &["-sigalgs", ecdsa], Some(1)),
        ("www.a.test", &["-sigalgs", rsa, "-tls1_2"], Some(0)),
        ("a.test", &["-tls1_2"], Some(1)),
        // In TLS 1.2 the cipher suite says what signs.
        ("a.test", &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], Some(0)),
        ("a.test", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], Some(1)),
        ("b.test", &[], Some(2)),
        ("b.test", &["-sigalgs", ecdsa], None),
        ("x.w.test", &[], Some(3)),
        ("x.w.test", &["-sigalgs", rsa], Some(4)),
        ("late.test", &[], Some(5)),
        // Everybody else is shown the first, by one of its keys.
        ("else.test", &[], Some(1)),
        ("else.test", &["-sigalgs", rsa], Some(0)),
    ] {
        let expected = number.map(|number: usize| of(&certificates[number]));
        assert_eq!(shown(https, name, arguments), expected, "{name} {arguments:?}");
    }
    // The order of cipher suites is ours.
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &https.to_string(), "-tls1_3", "-ciphersuites"])
        .arg("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Cipher is TLS_AES_128_GCM_SHA256"), "{said}");
    // One connection is for all names that would have been shown the same.
    let mut client = Client::connect_tls(https, &Tls::trusting(authority.roots()).name("b.test"));
    assert_eq!(client.ask(&Request::get("b.test", "/")).status, 200);
    for host in ["a.test", "x.w.test", "else.test"] {
        assert_eq!(client.ask(&Request::get(host, "/")).status, 421, "{host}");
    }
    let mut client = Client::connect_tls(https, &Tls::trusting(authority.roots()).name("y.w.test"));
    for (host, status) in [("x.w.test", 200), ("late.test", 421), ("Y.w.test", 200)] {
        assert_eq!(client.ask(&Request::get(host, "/")).status, status, "{host}");
    }
}

/// `K` of `openssl s_client` renews the client's keys and asks for new ones of ours (RFC 8446 4.6.3).
fn renewed() {
    let origin = Origin::named("rs");
    let yaml = r#"
listeners: [{name: https, address: "127.0.0.1:0", tls: {development: {}}}]
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &program.listener("https").to_string(), "-tls1_3", "-msg"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    for turn in 0..3 {
        // It takes a letter for a command only where nothing else is read with it.
        stdin.write_all(b"K\n").unwrap();
        let sent =
            lines.find(|line| line.starts_with(">>> TLS 1.3, Handshake") && line.contains("KeyUpdate"));
        assert!(sent.is_some(), "{turn}");
        stdin.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        let mut answer = lines.by_ref().take_while(|line| line != "HTTP/1.1 200 OK");
        assert!(answer.any(|line| line.starts_with("<<<") && line.contains("KeyUpdate")), "{turn}");
        assert!(answer.all(|line| !line.contains("Alert")));
    }
    drop(stdin);
    assert!(client.wait().unwrap().success());
}

fn policies() {
    let origin = Origin::named("rs");
    let yaml = r#"
listeners:
  - {name: usual, address: "127.0.0.1:0", tls: {development: {}}}
  - {name: intermediate, address: "127.0.0.1:0", tls: {development: {}, policy: intermediate}}
  - {name: newer, address: "127.0.0.1:0", tls: {development: {}, policy: intermediate, min_version: 1.3}}
  - {name: modern, address: "127.0.0.1:0", tls: {development: {}, policy: modern, min_version: 1.3}}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    for (listener, has_1_2) in [("usual", true), ("intermediate", true), ("newer", false), ("modern", false)]
    {
        for version in VERSIONS {
            let client = Client::try_tls(program.listener(listener), &program.tls().only(version));
            let expected = has_1_2 || version.version == rustls::ProtocolVersion::TLSv1_3;
            assert_eq!(client.is_ok(), expected, "{listener} {:?}", version.version);
        }
    }
}

fn post_quantum() {
    let origin = Origin::named("rs");
    let program = super::site(&origin).start();
    let (hybrid, plain) = (kx_group::X25519MLKEM768, kx_group::X25519);
    for (groups, agreed) in [
        (vec![hybrid, plain], NamedGroup::X25519MLKEM768),
        (vec![hybrid], NamedGroup::X25519MLKEM768),
        (vec![plain], NamedGroup::X25519),
        (vec![kx_group::SECP384R1], NamedGroup::secp384r1),
    ] {
        let roots = crate::harness::certificates::roots_of(
            &std::fs::read_to_string(program.path().join("certs/dev-ca.pem")).unwrap(),
        );
        let kx_groups: Vec<&'static dyn SupportedKxGroup> = groups;
        let provider = CryptoProvider { kx_groups, ..rustls::crypto::aws_lc_rs::default_provider() };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = Client::with_config(program.listener("https"), Arc::new(config), name).unwrap();
        assert_eq!(client.group(), agreed);
    }
}

/// A part of what they look at; `just scan` runs all of it.
fn scanned() {
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scanners.py"))
        .args(["--quick", "--binary", BINARY, "--sslyze", &python::scanner().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

const TICKETS: &str = r#"
workers: 4
admin: {address: "127.0.0.1:0"}
listeners:
  - {name: https, address: "127.0.0.1:0", tls: {certificates: [{certificate: a.pem, key: a.key}], session_tickets: <tickets>}}
  - {name: other, address: "127.0.0.1:0", tls: {certificates: [{certificate: a.pem, key: a.key}], session_tickets: <tickets>}}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;

const SECRET: &str = "first-secret-of-at-least-thirty-two-characters\n";
const SECOND: &str = "second-secret-of-at-least-thirty-two-characters\n";

/// An RS, who signs, and a certificate for a.test.
struct Tenant {
    origin: Origin,
    authority: Authority,
    issued: Issued,
}

impl Tenant {
    fn new() -> Self {
        let authority = Authority::new();
        let issued = authority.issue(&["a.test"]);
        Self { origin: Origin::named("rs"), issued, authority }
    }

    fn yaml(&self, tickets: &str) -> String {
        TICKETS.replace("<rs>", &self.origin.address().to_string()).replace("<tickets>", tickets)
    }

    fn setup(&self, tickets: &str, secrets: &str) -> Setup {
        Setup::new(&self.yaml(tickets))
            .file("a.pem", &self.issued.certificate)
            .file("a.key", &self.issued.key)
            .file("secrets", secrets)
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        Tls::trusting(self.authority.roots()).only(version).config()
    }
}

/// Asks for something, by a session of before where there is one; whether it was taken up again.
fn resumes(program: &Program, config: &Arc<ClientConfig>) -> bool {
    resumes_at(program, "https", config)
}

fn resumes_at(program: &Program, listener: &str, config: &Arc<ClientConfig>) -> bool {
    let name = ServerName::try_from("a.test").unwrap();
    let mut client = Client::with_config(program.listener(listener), Arc::clone(config), name).unwrap();
    assert_eq!(client.ask(&Request::get("a.test", "/").close()).text(), "rs");
    client.is_resumed()
}

fn shared() {
    let tenant = Tenant::new();
    let tickets = "{file: secrets, rotate: 1h}";
    let one = tenant.setup(tickets, SECRET).start();
    let two = tenant.setup(tickets, SECRET).start();
    let stranger = tenant.setup(tickets, SECOND).start();
    for version in VERSIONS {
        let config = tenant.client(version);
        assert!(!resumes(&one, &config));
        // By any of the workers.
        for _ in 0..8 {
            assert!(resumes(&two, &config) && resumes(&one, &config), "{:?}", version.version);
        }
        assert_eq!(one.reload(&tenant.yaml(tickets)), "ingre: reloaded");
        assert!(resumes(&one, &config), "{:?}", version.version);
        // Another listener has nothing to do with it, nor has a node with other secrets.
        assert!(!resumes_at(&one, "other", &config), "{:?}", version.version);
        assert!(!resumes(&stranger, &config), "{:?}", version.version);
    }
    // After a restart.
    let configs = VERSIONS.map(|version| tenant.client(version));
    for config in &configs {
        assert!(!resumes(&one, config));
    }
    let again = Setup::beside(&one, &tenant.yaml(tickets));
    drop(one);
    let again = again.start();
    for config in &configs {
        assert!(resumes(&again, config));
    }
}

fn own_tickets() {
    let tenant = Tenant::new();
    let (one, two) = (tenant.setup("{rotate: 12h}", "").start(), tenant.setup("{enabled: true}", "").start());
    let none = tenant.setup("{enabled: false}", "").start();
    for version in VERSIONS {
        let config = tenant.client(version);
        assert!(!resumes(&one, &config) && resumes(&one, &config), "{:?}", version.version);
        assert_eq!(one.reload(&tenant.yaml("{rotate: 12h}")), "ingre: reloaded");
        assert!(resumes(&one, &config), "{:?}", version.version);
        assert!(!resumes(&two, &config), "{:?}", version.version);
        let config = tenant.client(version);
        assert!(!resumes(&none, &config) && !resumes(&none, &config), "{:?}", version.version);
    }
}

fn replaced() {
    let tenant = Tenant::new();
    let tickets = "{file: secrets}";
    let program = tenant.setup(tickets, SECRET).start();
    let put = |text: &str| {
        std::fs::write(program.path().join("secrets"), text).unwrap();
        program.reload(&tenant.yaml(tickets))
    };
    for version in VERSIONS {
        assert_eq!(put(SECRET), "ingre: reloaded");
        // One configuration has a ticket of the first secret that it keeps.
        let (config, kept) = (tenant.client(version), tenant.client(version));
        assert!(!resumes(&program, &config) && !resumes(&program, &kept));
        assert_eq!(put(&format!("{SECOND}\n{SECRET}")), "ingre: reloaded");
        assert!(resumes(&program, &config), "{:?}", version.version);
        // The session that was taken up again has a ticket of the new secret, at least in TLS 1.3.
        assert_eq!(put(SECOND), "ingre: reloaded");
        assert!(!resumes(&program, &kept), "{:?}", version.version);
        if version.version == rustls::ProtocolVersion::TLSv1_3 {
            assert!(resumes(&program, &config));
        }
        assert!(put("short\n").starts_with("ingre: not reloaded"));
    }
}

fn counted() {
    let tenant = Tenant::new();
    let program = tenant.setup("{enabled: true}", "").start();
    let config = tenant.client(&rustls::version::TLS13);
    for _ in 0..3 {
        resumes(&program, &config);
    }
    program.wait_metric("ingre_tls_handshakes_total{kind=\"full\"}", 1);
    program.wait_metric("ingre_tls_handshakes_total{kind=\"resumed\"}", 2);
    let https = program.listener("https");
    let failures = |reason: &str| format!("ingre_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    // A client that believes nobody, one that speaks another protocol, one that leaves.
    assert!(Client::try_tls(https, &Tls::trusting(Authority::new().roots()).name("a.test")).is_err());
    program.wait_metric(&failures("alert"), 1);
    let mut plain = Client::connect(https);
    plain.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    plain.rest();
    program.wait_metric(&failures("bad_message"), 1);
    Client::connect(https).finish();
    program.wait_metric(&failures("closed"), 1);
    let tls = Tls::credulous().name("a.test").offer(&["spdy/3"]);
    assert!(Client::try_tls(https, &tls).is_err());
    program.wait_metric(&failures("no_protocol"), 1);
}
