//! Domain and URL to a pool, as the whole program decides it.

use crate::harness::certificates::Authority;
use crate::harness::origin::ok;
use crate::harness::{Case, Client, Origin, Program, Request, Setup, Tls};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("routing::domain_and_url_choose_the_rule", domain_and_url),
        Case::new("routing::paths_are_normalised_and_passed_on_as_matched", normalised),
        Case::new("routing::a_missing_slash_is_redirected", redirected),
        Case::new("routing::without_a_default_domain_others_get_404", no_default),
        Case::new("routing::rules_stand_on_the_listeners_they_name", listeners),
        Case::new("routing::a_host_of_another_certificate_is_misdirected", misdirected),
        Case::new("routing::ten_thousand_domains_and_urls", ten_thousand),
    ]
}

const TABLE: &str = r#"
listeners: [{name: http, address: "127.0.0.1:0"}]
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes:
  - domains: [exact.test, "*.lead.test"]
    rules:
      - {url: /, pool: rs}
      - {url: "= /exact", pool: rs}
      - {url: /static/, pool: rs}
      - {url: "^~ /static/raw/", pool: rs}
      - {url: '~ \.php$', pool: rs}
      - {url: '~* \.(jpg|png)$', pool: rs}
      - {url: '~ ^/static/.*\.css$', pool: rs}
      - {url: '~ \.css$', pool: rs}
      - {url: /long, pool: rs}
      - {url: /long/er, pool: rs}
      - {url: "= /x.php", pool: rs}
  - {domains: ["trail.*"], rules: [{url: /trail, pool: rs}]}
  - {domains: ['~^re[0-9]+\.test$'], rules: [{url: /, pool: rs}]}
  - {domains: [deep.lead.test], rules: [{url: /only, pool: rs}]}
  - {domains: ["*"], rules: [{url: /, pool: rs}]}
"#;

/// Host, path, and the domain and URL of the access log; or nothing where the answer is 404.
const EXPECTED: &[(&str, &str, Option<Rule>)] = &[
    ("exact.test", "/", Some((FIRST, "/"))),
    ("EXACT.test.", "/", Some((FIRST, "/"))),
    ("exact.test:8443", "/", Some((FIRST, "/"))),
    ("exact.test", "/exact", Some((FIRST, "= /exact"))),
    ("exact.test", "/exactly", Some((FIRST, "/"))),
    ("exact.test", "/exact/", Some((FIRST, "/"))),
    ("exact.test", "/a.php", Some((FIRST, r"~ \.php$"))),
    ("exact.test", "/a.PHP", Some((FIRST, "/"))),
    ("exact.test", "/x.php", Some((FIRST, "= /x.php"))),
    ("exact.test", "/a.JPG", Some((FIRST, r"~* \.(jpg|png)$"))),
    ("exact.test", "/static/a", Some((FIRST, "/static/"))),
    ("exact.test", "/static/a.php", Some((FIRST, r"~ \.php$"))),
    ("exact.test", "/static/raw/a.php", Some((FIRST, "^~ /static/raw/"))),
    ("exact.test", "/static/a.css", Some((FIRST, r"~ ^/static/.*\.css$"))),
    ("exact.test", "/a.css", Some((FIRST, r"~ \.css$"))),
    ("exact.test", "/longer", Some((FIRST, "/long"))),
    ("exact.test", "/long/e", Some((FIRST, "/long"))),
    ("exact.test", "/long/ers", Some((FIRST, "/long/er"))),
    ("w.lead.test", "/exact", Some((FIRST, "= /exact"))),
    ("w.v.lead.test", "/", Some((FIRST, "/"))),
    ("lead.test", "/", Some(("*", "/"))),
    ("deep.lead.test", "/only/x", Some(("deep.lead.test", "/only"))),
    // The domain is decided first: no way back to the wildcard or to the default domain.
    ("deep.lead.test", "/else", None),
    ("trail.com", "/trail", Some(("trail.*", "/trail"))),
    ("trail.co.uk", "/trails", Some(("trail.*", "/trail"))),
    ("trail.com", "/", None),
    ("re77.test", "/", Some((r"~^re[0-9]+\.test$", "/"))),
    ("re.test", "/", Some(("*", "/"))),
    ("127.0.0.1", "/", Some(("*", "/"))),
    ("[::1]:80", "/", Some(("*", "/"))),
];

/// Domain and URL as the log names them.
type Rule = (&'static str, &'static str);
const FIRST: &str = "exact.test, *.lead.test";

fn domain_and_url() {
    let origin = Origin::named("rs");
    let program = Setup::new(TABLE).put("rs", origin.address()).start();
    let mut client = program.connect("http");
    for (number, (host, path, expected)) in EXPECTED.iter().enumerate() {
        let target = format!("{path}?{number}");
        let status = client.ask(&Request::get(host, &target)).status;
        let line = program.logged(&target);
        let found = line["domain"].as_str().zip(line["url"].as_str());
        assert_eq!(found, *expected, "{host}{path}");
        assert_eq!(status, if expected.is_some() { 200 } else { 404 }, "{host}{path}");
        assert_eq!(line["host"], *host);
        let reason = line["reason"].as_str();
        assert_eq!(reason, expected.is_none().then_some("no_route"), "{host}{path}");
    }
}

fn echo() -> Origin {
    Origin::serving(|request| ok(request.target()))
}

fn normalised() {
    let origin = echo();
    let yaml = r#"
listeners: [{name: http, address: "127.0.0.1:0"}]
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes:
  - domains: ["*"]
    rules: [{url: /, pool: rs}, {url: /b, pool: rs}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut client = program.connect("http");
    for (target, forwarded, url) in [
        ("/a/../b", "/b", "/b"),
        ("/a/./c?q=/../x", "/a/c?q=/../x", "/"),
        ("/%2e%2E/b", "", ""),
        ("/a/%2e%2E/b", "/b", "/b"),
        ("/a%2Fb", "/a%2Fb", "/"),
        ("/a%2fb", "/a%2fb", "/"),
        ("/a/..%2Fb", "/a/..%2Fb", "/"),
        ("/%62c", "/%62c", "/b"),
        ("//b", "//b", "/"),
        ("/a\\..\\b", "/a%5C..%5Cb", "/"),
        ("/a%00", "", ""),
        ("/a%zz", "", ""),
        ("/%252e%252e/b", "/%252e%252e/b", "/"),
        ("http://other.test/b", "/b", "/b"),
        ("/?", "/?", "/"),
    ] {
        let response = client.ask(&Request::get("a.test", target));
        if forwarded.is_empty() {
            assert_eq!((response.status, response.text().contains("(bad_path)")), (400, true), "{target}");
            continue;
        }
        assert_eq!((response.status, response.text().as_str()), (200, forwarded), "{target}");
        if target.starts_with('/') {
            // The log has what the client wrote.
            assert_eq!(program.logged(target)["url"], url, "{target}");
        }
    }
    let received = origin.received();
    let absolute = received.iter().find(|request| request.field("host") == Some("other.test")).unwrap();
    assert_eq!(absolute.target(), "/b");
}

fn redirected() {
    let origin = echo();
    let yaml = r#"
listeners:
  - {name: http, address: "127.0.0.1:0"}
  - {name: https, address: "127.0.0.1:0", tls: {development: {}}}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /dir/, pool: rs}, {url: "= /dir/deep/", pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut plain = program.connect("http");
    let mut secure = Client::connect_tls(program.listener("https"), &program.tls());
    for (target, location) in
        [("/dir", "/dir/"), ("/dir?a=b", "/dir/?a=b"), ("/x/../dir", "/dir/"), ("/dir/deep", "/dir/deep/")]
    {
        let response = plain.ask(&Request::get("a.test:81", target));
        assert_eq!(response.status, 301, "{target}");
        assert_eq!(response.field("location"), Some(format!("http://a.test:81{location}").as_str()));
        let response = secure.ask(&Request::get("localhost", target));
        assert_eq!(response.field("location"), Some(format!("https://localhost{location}").as_str()));
    }
    assert_eq!(plain.ask(&Request::get("a.test", "/dir/x")).text(), "/dir/x");
    assert_eq!(plain.ask(&Request::get("a.test", "/directory")).status, 404);
    assert_eq!(origin.received().len(), 1);
}

fn no_default() {
    let origin = echo();
    let yaml = r#"
listeners: [{name: http, address: "127.0.0.1:0"}]
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: [a.test], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut client = program.connect("http");
    assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
    let response = client.ask(&Request::get("b.test", "/"));
    assert_eq!(response.status, 404);
    assert_eq!(response.text(), "404 Not Found: no rule for this domain and URL (no_route)\n");
    // The connection is still good.
    assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
}

fn listeners() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let yaml = r#"
listeners:
  - {name: a, address: "127.0.0.1:0"}
  - {name: b, address: "127.0.0.1:0"}
pools:
  - {name: one, servers: [{address: "<one>"}], health_check: {type: off}}
  - {name: two, servers: [{address: "<two>"}], health_check: {type: off}}
routes:
  - {domains: [x.test], listeners: [a], rules: [{url: /, pool: one}]}
  - {domains: [x.test], listeners: [b], rules: [{url: /, pool: two}]}
  - {domains: [both.test], rules: [{url: /, pool: one}]}
  - {domains: ["*"], listeners: [b], rules: [{url: /, pool: two}]}
"#;
    let program = Setup::new(yaml).put("one", one.address()).put("two", two.address()).start();
    let text = |listener, host| {
        let response = program.ask(listener, &Request::get(host, "/"));
        if response.status == 200 { response.text() } else { response.status.to_string() }
    };
    assert_eq!(text("a", "x.test"), "one");
    assert_eq!(text("b", "x.test"), "two");
    assert_eq!((text("a", "both.test"), text("b", "both.test")), ("one".into(), "one".into()));
    assert_eq!((text("a", "else.test"), text("b", "else.test")), ("404".into(), "two".into()));
}

fn misdirected() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["a.test", "b.test"]), authority.issue(&["c.test", "*.w.test"]));
    let yaml = r#"
listeners:
  - name: https
    address: "127.0.0.1:0"
    tls:
      certificates:
        - {certificate: one.pem, key: one.key}
        - {certificate: two.pem, key: two.key}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml)
        .put("rs", origin.address())
        .file("one.pem", &one.certificate)
        .file("one.key", &one.key)
        .file("two.pem", &two.certificate)
        .file("two.key", &two.key)
        .start();
    for (name, host, status) in [
        ("a.test", "a.test", 200),
        ("a.test", "A.TEST:443", 200),
        ("a.test", "b.test", 200),
        ("a.test", "c.test", 421),
        ("a.test", "x.w.test", 421),
        ("c.test", "x.w.test", 200),
        ("x.w.test", "y.w.test", 200),
        ("c.test", "a.test", 421),
        // Nobody's name: the first certificate.
        ("a.test", "else.test", 200),
        ("c.test", "else.test", 421),
    ] {
        let tls = Tls::credulous().name(name);
        let mut client = Client::connect_tls(program.listener("https"), &tls);
        assert_eq!(client.ask(&Request::get(host, "/")).status, status, "SNI {name}, Host {host}");
        if status == 421 {
            // The client may use the connection for what it was made for.
            assert_eq!(client.ask(&Request::get(name, "/")).status, 200);
            assert_h2(&program, &tls, host, status);
        }
    }
    let mut nameless = Client::connect_tls(program.listener("https"), &Tls::credulous().nameless());
    for host in ["a.test", "c.test", "x.w.test", "else.test"] {
        assert_eq!(nameless.ask(&Request::get(host, "/")).status, 200, "no SNI, Host {host}");
    }
}

fn assert_h2(program: &Program, tls: &Tls, host: &str, status: u16) {
    crate::harness::h2::run(async {
        let mut client = crate::harness::h2::H2::connect(program.listener("https"), tls).await;
        assert_eq!(client.get(&format!("https://{host}/")).await.status, status, "HTTP/2, {host}");
    });
}

fn ten_thousand() {
    let origin = Origin::named("rs");
    let mut yaml = String::from(
        "listeners: [{name: http, address: \"127.0.0.1:0\"}]\n\
         pools: [{name: rs, servers: [{address: \"<rs>\"}], health_check: {type: off}}]\nroutes:\n",
    );
    for number in 0..10_000 {
        yaml += &format!(
            "  - {{domains: [d{number}.test, \"*.w{number}.test\"], rules: [{{url: /, pool: rs}}]}}\n"
        );
    }
    yaml += "  - domains: [urls.test]\n    rules:\n";
    for number in 0..10_000 {
        yaml +=
            &format!("      - {{url: /p{number}/, pool: rs}}\n      - {{url: \"= /e{number}\", pool: rs}}\n");
    }
    let program = Setup::new(&yaml).put("rs", origin.address()).start();
    let mut client = program.connect("http");
    for (host, target, url) in [
        ("d9999.test", "/exact", "/"),
        ("x.w9999.test", "/wildcard", "/"),
        ("urls.test", "/p9999/x", "/p9999/"),
        ("urls.test", "/e9999", "= /e9999"),
    ] {
        assert_eq!(client.ask(&Request::get(host, target)).status, 200, "{host}{target}");
        assert_eq!(program.logged(target)["url"], url);
    }
    assert_eq!(client.ask(&Request::get("d10000.test", "/")).status, 404);
    assert_eq!(client.ask(&Request::get("urls.test", "/e10000")).status, 404);
}
