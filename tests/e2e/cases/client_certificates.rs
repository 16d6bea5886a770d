//! Clients that have to show a certificate: who gets in, what RS are told, and that there is no way around it.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue};
use rustls::client::{Tls12Resumption, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup, SupportedProtocolVersion};
use time::OffsetDateTime;

use crate::harness::certificates::{Authority, Issued};
use crate::harness::h2::{self, H2};
use crate::harness::h3;
use crate::harness::{Case, Client, Origin, Program, Request, Setup, Tls, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("client_certificates::who_gets_in", who_gets_in),
        Case::new("client_certificates::what_rs_and_the_log_are_told", told),
        Case::new("client_certificates::explained", explained),
        Case::new("client_certificates::nobody_can_forge_what_rs_are_told", forged),
        Case::new("client_certificates::a_connection_is_for_what_was_proven_on_it", coalesced),
        Case::new("client_certificates::sessions_are_taken_up_again_by_whom_they_belong_to", resumed),
        Case::new("client_certificates::a_certificate_that_has_ended_since_is_refused", ended),
        Case::new("client_certificates::revoked", revoked),
        Case::new("client_certificates::a_reload_changes_who_may_come", reloaded),
    ]
}

const NAMES: &[&str] =
    &["open.test", "admin.test", "*.admin.test", "maybe.test", "silent.test", "127.0.0.1", "else.test"];

const YAML: &str = r#"
workers: 2
admin: {address: "127.0.0.1:0"}
trusted_proxies: [127.0.0.1]
listeners:
  - name: https
    address: "127.0.0.1:0"
    tls:
      certificates: [{certificate: server.pem, key: server.key}]
      client_certificates:
        - {domains: [admin.test, "*.admin.test"], ca: <ca>, mode: <mode>}
        - {domains: [maybe.test], ca: ca.pem, mode: optional, headers: client_cert}
        - {domains: [silent.test], ca: ca.pem, headers: off, crl: crl.pem}
  - name: all
    address: "127.0.0.1:0"
    tls:
      certificates: [{certificate: server.pem, key: server.key}]
      client_certificates: [{ca: ca.pem}]
  - {name: http, address: "127.0.0.1:0"}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes:
  - domains: ["*"]
    rules:
      - {url: /, pool: rs}
      - url: /told
        pool: rs
        request_headers:
          set: {X-Told: "$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$ssl_client_serial|$ssl_client_fingerprint|$ssl_client_v_start|$ssl_client_v_end"}
"#;

/// The program, and everybody who has or had a certificate.
struct World {
    origin: Origin,
    authority: Authority,
    program: Program,
    ann: Issued,
    wrong: Issued,
    expired: Issued,
}

fn someday() -> OffsetDateTime {
    rcgen::date_time_ymd(2095, 1, 2)
}

fn yaml(origin: &Origin, ca: &str, mode: &str) -> String {
    let rs = origin.address().to_string();
    YAML.replace("<rs>", &rs).replace("<ca>", ca).replace("<mode>", mode)
}

impl World {
    fn new() -> Self {
        let origin = Origin::named("rs");
        let (authority, other) = (Authority::new(), Authority::new());
        let server = authority.issue(NAMES);
        let program = Setup::new(&yaml(&origin, "ca.pem", "required"))
            .file("server.pem", &server.certificate)
            .file("server.key", &server.key)
            .file("ca.pem", &authority.pem)
            .file("other.pem", &other.pem)
            .file("crl.pem", &authority.revoke(&[66], someday()))
            .start();
        Self {
            origin,
            program,
            ann: authority.issue_client("ann", 0x8a01, someday()),
            wrong: other.issue_client("ann", 0x8a01, someday()),
            expired: authority.issue_client("old", 3, rcgen::date_time_ymd(2002, 1, 1)),
            authority,
        }
    }

    fn https(&self) -> SocketAddr {
        self.program.listener("https")
    }

    fn tls(&self, shown: Option<&Issued>) -> Tls {
        let tls = Tls::trusting(self.authority.roots());
        shown.map_or(tls.clone(), |issued| tls.show(issued))
    }

    /// The value of a field of the last request that has reached the RS.
    fn field(&self, name: &str) -> Option<String> {
        self.origin.received().last()?.field(name).map(str::to_owned)
    }
}

/// How requests are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Http1(&'static SupportedProtocolVersion),
    Http2(&'static SupportedProtocolVersion),
    Http3,
}

const VIA: [Via; 4] = [
    Via::Http1(&rustls::version::TLS12),
    Via::Http1(&rustls::version::TLS13),
    Via::Http2(&rustls::version::TLS12),
    Via::Http2(&rustls::version::TLS13),
];

/// The same and HTTP/3, whose client does not tell whether a session is an earlier one.
const ALL: [Via; 5] = [VIA[0], VIA[1], VIA[2], VIA[3], Via::Http3];

impl Via {
    /// As rustls wants it.
    fn config(self, tls: &Tls) -> Arc<ClientConfig> {
        match self {
            Self::Http1(version) => tls.clone().offer(&["http/1.1"]).only(version).config(),
            Self::Http2(version) => tls.clone().offer(&["h2"]).only(version).config(),
            Self::Http3 => tls.clone().offer(&["h3"]).only(&rustls::version::TLS13).config(),
        }
    }

    /// The statuses of requests for these hosts on one connection that begins with a name, and whether its session is an
    /// earlier one; or what went wrong.
    fn ask(
        self,
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &str,
        hosts: &[&str],
    ) -> Result<(Vec<u16>, bool), String> {
        if self == Self::Http3 {
            let mut result = Err(String::new());
            h2::run(async { result = h3::statuses(address, config, name, hosts).await });
            return result.map(|statuses| (statuses, false));
        }
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut statuses = Vec::new();
        match self {
            Self::Http3 => unreachable!("asked above"),
            Self::Http1(_) => {
                let text = |error: std::io::Error| error.to_string();
                let mut client = Client::with_config(address, Arc::clone(config), name).map_err(text)?;
                for host in hosts {
                    statuses.push(client.try_ask(&Request::get(host, "/")).map_err(text)?.status);
                }
                Ok((statuses, client.is_resumed()))
            }
            Self::Http2(_) => {
                let mut result = Err(String::new());
                h2::run(async {
                    result = async {
                        let mut client = H2::with_config(address, Arc::clone(config), name).await?;
                        for host in hosts {
                            statuses.push(client.try_get(&format!("https://{host}/")).await?);
                        }
                        Ok((statuses, client.resumed))
                    }
                    .await;
                });
                result
            }
        }
    }

    fn status(self, address: SocketAddr, tls: &Tls, name: &str) -> Result<u16, String> {
        self.ask(address, &self.config(tls), name, &[name]).map(|(statuses, _)| statuses[0])
    }
}

fn who_gets_in() {
    let world = World::new();
    let (ann, wrong, expired) = (Some(&world.ann), Some(&world.wrong), Some(&world.expired));
    for via in ALL {
        for (listener, name, shown, enters) in [
            ("https", "open.test", None, true),
            // Nobody looks at it.
            ("https", "open.test", wrong, true),
            ("https", "admin.test", None, false),
            ("https", "admin.test", ann, true),
            ("https", "admin.test", wrong, false),
            ("https", "admin.test", expired, false),
            ("https", "x.admin.test", None, false),
            ("https", "x.admin.test", ann, true),
            ("https", "maybe.test", None, true),
            ("https", "maybe.test", ann, true),
            ("https", "maybe.test", wrong, false),
            ("https", "maybe.test", expired, false),
            ("https", "silent.test", None, false),
            ("https", "silent.test", ann, true),
            ("all", "open.test", None, false),
            ("all", "open.test", ann, true),
            ("all", "127.0.0.1", None, false),
            ("all", "127.0.0.1", ann, true),
        ] {
            let got = via.status(world.program.listener(listener), &world.tls(shown), name);
            let what = shown.is_some();
            assert_eq!(
                got.as_ref().ok(),
                enters.then_some(&200),
                "{via:?} {listener} {name} {what}: {got:?}"
            );
        }
    }
    let requests = world.origin.received().len();
    assert_eq!(requests, ALL.len() * 9);
    // The authority of the wrong one has the name of the right one.
    for (reason, count) in [("missing", 5), ("expired", 2), ("bad", 2)] {
        let name = format!("ingre_tls_handshake_failures_total{{reason=\"client_certificate_{reason}\"}}");
        world.program.wait_metric(&name, ALL.len() as u64 * count);
    }
}

fn told() {
    let world = World::new();
    let ask = |listener: &str, name: &str, shown: Option<&Issued>, path: &str| {
        let tls = world.tls(shown).name(name);
        let mut client = Client::connect_tls(world.program.listener(listener), &tls);
        assert_eq!(client.ask(&Request::get(name, path)).status, 200);
    };
    let field = |name: &str| world.field(name);
    let subject = r"CN=ann,O=Tests\, e2e";
    ask("https", "admin.test", Some(&world.ann), "/");
    assert_eq!(field("x-ssl-client-verify").as_deref(), Some("SUCCESS"));
    assert_eq!(field("x-ssl-client-s-dn").as_deref(), Some(subject));
    assert_eq!(field("x-ssl-client-i-dn").as_deref(), Some("CN=e2e CA"));
    assert_eq!(field("x-ssl-client-serial").as_deref(), Some("8A01"));
    assert_eq!(field("x-ssl-client-fingerprint"), Some(world.ann.fingerprint()));
    assert_eq!(field("client-cert"), None);
    let line = world.program.logged("/");
    assert_eq!(line["client_subject"], subject);
    assert_eq!(line["client_fingerprint"], world.ann.fingerprint());

    ask("https", "maybe.test", Some(&world.ann), "/");
    let base64 = world.ann.certificate.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    assert_eq!(field("client-cert"), Some(format!(":{base64}:")));
    assert_eq!(field("x-ssl-client-verify"), None);
    ask("https", "maybe.test", None, "/");
    assert_eq!((field("client-cert"), field("x-ssl-client-verify")), (None, None));

    ask("https", "silent.test", Some(&world.ann), "/told");
    assert_eq!((field("client-cert"), field("x-ssl-client-verify")), (None, None));
    let fingerprint = world.ann.fingerprint();
    let expected = format!(
        "SUCCESS|{subject}|CN=e2e CA|8A01|{fingerprint}|Jan  1 00:00:00 2001 GMT|Jan  2 00:00:00 2095 GMT"
    );
    assert_eq!(field("x-told"), Some(expected));
    ask("https", "open.test", Some(&world.ann), "/told");
    assert_eq!(field("x-told").as_deref(), Some("NONE||||||"));
    assert_eq!(world.program.ask("http", &Request::get("open.test", "/told")).status, 200);
    assert_eq!(field("x-told").as_deref(), Some("||||||"));
}

fn explained() {
    let world = World::new();
    for (name, sni, told) in [
        ("admin.test", "admin.test", "TLS        with a client certificate\n"),
        ("maybe.test", "MAYBE.test", "TLS        with a client certificate, or without\n"),
        ("admin.test", "open.test", "answer     421 Misdirected Request (misdirected)"),
        ("open.test", "admin.test", "answer     421 Misdirected Request (misdirected)"),
    ] {
        let setup = Setup::beside(&world.program, &yaml(&world.origin, "ca.pem", "required"));
        let url = format!("https://{name}/");
        let arguments = ["GET", &url, "--listener", "https", "--sni", sni];
        let ran =
            arguments.iter().fold(setup, |setup, argument| setup.argument(argument)).spawn("explain").ran();
        assert!(ran.stdout.contains(told), "{name} {sni}: {ran:?}");
    }
}

fn forged() {
    let world = World::new();
    let fields = [
        "Client-Cert",
        "client-cert-chain",
        "X-SSL-Client-Verify",
        "x_ssl_client_verify",
        "X-SSL-Client-S-DN",
    ];
    let request = |host: &str| {
        let request = Request::get(host, "/").header("Connection", "x-ssl-client-verify, x-ssl-client-s-dn");
        fields.iter().fold(request, |request, name| request.header(name, "SUCCESS"))
    };
    // Clients here are trusted proxies: even those are believed only where nobody was asked.
    let mut client = Client::connect_tls(world.https(), &world.tls(Some(&world.ann)).name("admin.test"));
    assert_eq!(client.ask(&request("admin.test")).status, 200);
    let received = world.origin.received().pop().unwrap();
    assert_eq!(received.field("client-cert"), None);
    assert_eq!(received.head.values("x-ssl-client-verify"), ["SUCCESS"]);
    assert_eq!(received.head.values("x-ssl-client-s-dn"), [r"CN=ann,O=Tests\, e2e"]);
    let mut client = Client::connect_tls(world.https(), &world.tls(None).name("maybe.test"));
    assert_eq!(client.ask(&request("maybe.test")).status, 200);
    for name in fields {
        assert_eq!(world.field(name), None, "{name}");
    }
    // Anybody else is believed nowhere.
    let text = yaml(&world.origin, "ca.pem", "required").replace("trusted_proxies: [127.0.0.1]", "");
    assert_eq!(world.program.reload(&text), "ingre: reloaded");
    for listener in ["http", "https"] {
        let mut client = match listener {
            "http" => world.program.connect("http"),
            _ => Client::connect_tls(world.https(), &world.tls(None).name("open.test")),
        };
        assert_eq!(client.ask(&request("open.test")).status, 200);
        for name in fields {
            assert_eq!(world.field(name), None, "{listener} {name}");
        }
    }
    // Not behind a body either.
    let trailers = [("X-SSL-Client-Verify", "SUCCESS"), ("X-Sum", "1")];
    let chunked = Request::post("open.test", "/", "").chunked(&[b"a"], &trailers);
    assert_eq!(world.program.ask("http", &chunked).status, 200);
    assert_eq!(world.origin.received().pop().unwrap().trailers, [("X-Sum".to_owned(), "1".to_owned())]);
}

fn coalesced() {
    let world = World::new();
    let guarded = [
        "admin.test",
        "ADMIN.test",
        "admin.test:443",
        "admin.test.",
        "X.admin.TEST",
        "maybe.test",
        "silent.test",
    ];
    for via in ALL {
        let ask = |shown, name: &str, hosts: &[&str]| {
            via.ask(world.https(), &via.config(&world.tls(shown)), name, hosts).unwrap().0
        };
        // Without a certificate, with the name of another domain or none.
        for name in ["open.test", "else.test", "127.0.0.1"] {
            for host in guarded {
                assert_eq!(ask(None, name, &["open.test", host])[1], 421, "{via:?} {name} {host}");
            }
        }
        for host in ["admin.test", "silent.test", "x.admin.test"] {
            assert_eq!(ask(None, "maybe.test", &["maybe.test", host]), [200, 421], "{via:?} {host}");
        }
        // With one: for every host that asks the same.
        let hosts = ["admin.test", "x.admin.test", "ADMIN.test:443", "open.test", "maybe.test", "admin.test"];
        assert_eq!(ask(Some(&world.ann), "admin.test", &hosts), [200, 200, 200, 421, 421, 200], "{via:?}");
        assert_eq!(ask(Some(&world.ann), "Admin.Test", &["admin.test"]), [200], "{via:?}");
    }
    let line = until("the line of a 421", || {
        world.program.log_lines().into_iter().find(|line| line["status"] == 421)
    });
    assert_eq!(line["reason"], "misdirected");
}

/// Sessions whatever the name they were made for: a client that tries.
#[derive(Debug)]
struct Nameless(ClientSessionMemoryCache);

fn nameless() -> ServerName<'static> {
    ServerName::try_from("any.test").unwrap()
}

impl ClientSessionStore for Nameless {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(nameless(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&nameless())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(nameless(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&nameless())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&nameless());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(nameless(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&nameless())
    }
}

fn resumed() {
    let world = World::new();
    for via in VIA {
        let remembering = |shown| {
            let mut config = (*via.config(&world.tls(shown))).clone();
            config.resumption = Resumption::store(Arc::new(Nameless(ClientSessionMemoryCache::new(32))))
                .tls12_resumption(Tls12Resumption::SessionIdOrTickets);
            Arc::new(config)
        };
        let ask = |config: &Arc<ClientConfig>, name: &str| {
            via.ask(world.https(), config, name, &[name]).map(|(statuses, resumed)| (statuses[0], resumed))
        };
        for (name, shown) in [("open.test", None), ("admin.test", Some(&world.ann)), ("maybe.test", None)] {
            let config = remembering(shown);
            assert_eq!(ask(&config, name), Ok((200, false)), "{via:?} {name}");
            assert_eq!(ask(&config, name), Ok((200, true)), "{via:?} {name}");
        }
        // What is told is told again.
        let config = remembering(Some(&world.ann));
        for resumed in [false, true] {
            assert_eq!(ask(&config, "admin.test"), Ok((200, resumed)), "{via:?}");
            assert_eq!(world.field("x-ssl-client-fingerprint"), Some(world.ann.fingerprint()), "{via:?}");
        }
        // A ticket of one domain is not one of another.
        for (one, other) in
            [("open.test", "maybe.test"), ("x.admin.test", "silent.test"), ("x.admin.test", "admin.test")]
        {
            let config = remembering(Some(&world.ann));
            assert_eq!(ask(&config, one), Ok((200, false)), "{via:?} {one}");
            assert_eq!(ask(&config, other), Ok((200, false)), "{via:?} {one} {other}");
        }
        for (one, other) in
            [("open.test", "admin.test"), ("maybe.test", "admin.test"), ("maybe.test", "x.admin.test")]
        {
            let config = remembering(None);
            assert_eq!(ask(&config, one), Ok((200, false)), "{via:?} {one}");
            assert!(ask(&config, other).is_err(), "{via:?} {one} {other}");
        }
    }
}

fn ended() {
    let world = World::new();
    // Whole seconds.
    let end = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + time::Duration::seconds(12);
    let brief = world.authority.issue_client("brief", 5, end);
    let configs: Vec<_> = VIA.iter().map(|via| (*via, via.config(&world.tls(Some(&brief))))).collect();
    for (via, config) in &configs {
        for name in ["admin.test", "maybe.test"] {
            for resumed in [false, true] {
                let got = via.ask(world.https(), config, name, &[name]);
                assert_eq!(got, Ok((vec![200], resumed)), "{via:?} {name}");
            }
        }
    }
    until("the end of a certificate", || {
        (OffsetDateTime::now_utc() > end + time::Duration::seconds(1)).then_some(())
    });
    for (via, config) in &configs {
        for name in ["admin.test", "maybe.test"] {
            let got = via.ask(world.https(), config, name, &[name]);
            assert!(got.is_err(), "{via:?} {name}: {got:?}");
        }
    }
}

fn revoked() {
    let world = World::new();
    let bob = world.authority.issue_client("bob", 66, someday());
    let status =
        |via: Via, shown: &Issued| via.status(world.https(), &world.tls(Some(shown)), "silent.test").ok();
    for via in ALL {
        assert_eq!(status(via, &world.ann), Some(200), "{via:?}");
        assert_eq!(status(via, &bob), None, "{via:?}");
        // Another domain has no list.
        assert_eq!(via.status(world.https(), &world.tls(Some(&bob)), "admin.test"), Ok(200), "{via:?}");
    }
    // A reload reads the list anew, and nobody takes a session up again that was made before it.
    let via = VIA[1];
    let config = via.config(&world.tls(Some(&world.ann)));
    let ask = || via.ask(world.https(), &config, "silent.test", &["silent.test"]);
    assert_eq!(ask(), Ok((vec![200], false)));
    assert_eq!(ask(), Ok((vec![200], true)));
    let text = yaml(&world.origin, "ca.pem", "required");
    let put = |list: &str| std::fs::write(world.program.path().join("crl.pem"), list).unwrap();
    put(&world.authority.revoke(&[0x8a01], someday()));
    assert_eq!(world.program.reload(&text), "ingre: reloaded");
    assert!(ask().is_err());
    assert_eq!(status(via, &bob), Some(200));
    // A list whose time is over says nothing good about anybody.
    put(&world.authority.revoke(&[], rcgen::date_time_ymd(2003, 1, 1)));
    assert_eq!(world.program.reload(&text), "ingre: reloaded");
    assert_eq!((status(via, &bob), status(via, &world.ann)), (None, None));
    // One that cannot be read changes nothing.
    put("nothing");
    assert!(world.program.reload(&text).starts_with("ingre: not reloaded"));
}

fn reloaded() {
    let world = World::new();
    for via in VIA {
        let enters =
            |shown: Option<&Issued>| via.status(world.https(), &world.tls(shown), "admin.test").is_ok();
        let reload = |ca: &str, mode: &str| {
            assert_eq!(world.program.reload(&yaml(&world.origin, ca, mode)), "ingre: reloaded");
        };
        let config = via.config(&world.tls(Some(&world.ann)));
        let ask = || via.ask(world.https(), &config, "admin.test", &["admin.test"]);
        assert_eq!(ask(), Ok((vec![200], false)), "{via:?}");
        let tls = world.tls(Some(&world.ann)).name("admin.test");
        let mut open = Client::connect_tls(world.https(), &tls);
        assert_eq!(open.ask(&Request::get("admin.test", "/")).status, 200);

        reload("other.pem", "required");
        // Neither by the session, nor by the connection, nor by the certificate.
        assert!(ask().is_err(), "{via:?}");
        assert_eq!(open.ask(&Request::get("admin.test", "/")).status, 421, "{via:?}");
        assert!(!enters(Some(&world.ann)) && enters(Some(&world.wrong)) && !enters(None), "{via:?}");

        reload("ca.pem", "optional");
        assert!(enters(Some(&world.ann)) && !enters(Some(&world.wrong)) && enters(None), "{via:?}");
        let config = via.config(&world.tls(None));
        let ask = || via.ask(world.https(), &config, "admin.test", &["admin.test"]);
        assert_eq!(ask(), Ok((vec![200], false)), "{via:?}");

        reload("ca.pem", "required");
        assert!(ask().is_err(), "{via:?}");
        assert!(enters(Some(&world.ann)) && !enters(None), "{via:?}");
    }
    // Two policies for one domain.
    let text = yaml(&world.origin, "ca.pem", "required");
    for (from, to, message) in [
        ("[maybe.test]", "[maybe.test, Admin.test]", "the domain `Admin.test` stands here a second time"),
        ("[{ca: ca.pem}]", "[{ca: ca.pem}, {ca: ca.pem}]", "a second policy for every other domain"),
        ("crl: crl.pem", "crl: ca.pem", "this file holds no revocation lists"),
    ] {
        assert!(world.program.reload(&text.replace(from, to)).starts_with("ingre: not reloaded"), "{to}");
        assert!(world.program.stderr().contains(message), "{message}:\n{}", world.program.stderr());
    }
}
