//! `ingre explain`: what would become of a request.

use crate::harness::program::ingre;
use crate::harness::{Case, Request, Setup};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("explain::every_step_is_told", steps),
        Case::new("explain::listeners_by_scheme_and_port", listeners),
        Case::new("explain::it_says_what_the_program_does", agrees),
    ]
}

const SITE: &str = r#"
trusted_proxies: [192.0.2.0/24]
listeners:
  - {name: plain, address: "0.0.0.0:80", https_redirect: {}}
  - {name: secure, address: "0.0.0.0:443", tls: {development: {}}}
  - {name: inner, address: "127.0.0.1:8080", client_max_body_size: 1k, access: [{deny: [203.0.113.0/24]}]}
pools:
  - {name: web, servers: [{address: "10.0.0.1:80", weight: 7}, {address: "10.0.0.2:80", weight: 0}], health_check: {type: off}}
  - {name: api, servers: [{address: "10.0.0.3:80", max_connections: 9}], read_timeout: 7s}
  - {name: keyed, balance: maglev, hash_key: "cookie:user", sticky: {}, servers: [{address: "rs.test:80"}, {address: "10.0.0.5:80", backup: true}]}
  - {name: idle, servers: [{address: "10.0.0.4:80", weight: 0}]}
routes:
  - domains: [www.test, "*.www.test"]
    rules:
      - {url: /, pool: web}
      - {url: /, pool: api, when: {headers: {X-Canary: "1"}, methods: [GET]}}
      - {url: = /only, respond: {body: only, status: 203}, when: {methods: [PUT]}}
      - url: /api/
        pool: api
        rewrite: {prefix: /v2/, host: api.internal}
        request_headers: {set: {X-From: "$remote_addr"}, remove: [X-Secret]}
        response_headers: {remove: [Server], set: {X-A: b}, add: {X-C: d}}
        mirror: {pool: web, percent: 20}
        cors: {}
        error_pages: [{status: [5xx], body: sorry}]
        compress: {}
      - {url: '~ \.old$', redirect: {to: "https://old.test$request_uri", status: 308}}
      - {url: /split, split: [{pool: web, weight: 90}, {pool: api, weight: 10}]}
      - {url: /idle, pool: idle}
      - {url: /keyed, pool: keyed}
      - url: /guarded
        pool: web
        access: [{deny: [198.51.100.0/24]}]
        limits: [{rate: 10/s, burst: 5}, {in_flight: 3, per: rule}]
        forward_auth: {pool: api, path: /may}
        client_max_body_size: 2k
  - domains: [empty.test]
    rules: [{url: /there, pool: web}]
"#;

/// Runs the command; the arguments stand apart by `|`.
fn asked(arguments: &str) -> (i32, String) {
    let arguments: Vec<&str> = ["explain", "-c", "-"].into_iter().chain(arguments.split('|')).collect();
    let ran = ingre(&arguments, SITE);
    (ran.code, ran.stdout + &ran.stderr)
}

fn steps() {
    for (arguments, code, parts) in [
        (
            "GET|https://www.test/x",
            0,
            &[
                "listener   secure on https://0.0.0.0:443\nclient     127.0.0.1\n",
                "domain     www.test, *.www.test (exact name)\n",
                "not        / (longest prefix): the header `X-Canary` is not `1`",
                "rule       / (longest prefix)\n",
                "RS is sent GET /x HTTP/1.1\n           Host: www.test\n",
                "X-Forwarded-For: 127.0.0.1\n",
                "body of 60M",
                "pool       web, HTTP/1.1 in clear\n",
                "RS 10.0.0.1:80, weight 7\n",
                "RS 10.0.0.2:80, weight 0 (drained)\n",
            ][..],
        ),
        (
            "GET|https://a.www.test/|-H|X-Canary: 2",
            0,
            &["(longest name with a wildcard in front)", "the header `X-Canary` is not `1`"],
        ),
        (
            "POST|https://www.test/|-H|X-Canary: 1",
            0,
            &["not        / (longest prefix): it is for other methods"],
        ),
        (
            "GET|https://www.test/|-H|X-Canary:1",
            0,
            &["rule       / (longest prefix, and its conditions hold)", "pool       api"],
        ),
        (
            "GET|https://www.test/only",
            0,
            &["not        = /only (exact path): it is for other methods\n", "rule       / (longest"],
        ),
        ("PUT|https://www.test/only", 0, &["rule       = /only (exact path, and", "answer     203"]),
        (
            "GET|https://www.test/api/./x?q|--from|192.0.2.9|-H|X-Forwarded-For: 198.51.100.7|-H|X-Secret: 1|-H|Accept-Encoding: br",
            0,
            &[
                "client     198.51.100.7\n",
                "rule       /api/ (longest prefix)\n",
                "GET /v2/x?q HTTP/1.1\n",
                "Host: api.internal\n",
                "X-Forwarded-For: 198.51.100.7, 192.0.2.9\n",
                "X-From: 198.51.100.7\n",
                "copies     20 % go to web\n",
                "response   removes Server, sets X-A, adds X-C\n",
                "1 error pages, for errors of ingre\n",
                "compressed: br,",
                "7s to answer",
                "RS 10.0.0.3:80, weight 10, at most 9 requests\n",
            ],
        ),
        (
            "OPTIONS|https://www.test/api/|-H|Origin: https://x|-H|Access-Control-Request-Method: PUT",
            0,
            &["answer     204"],
        ),
        (
            "GET|https://www.test/api?x",
            0,
            &["answer     301 to https://www.test/api/?x, since only the slash is missing"],
        ),
        (
            "GET|https://www.test/y.old?a",
            0,
            &["(first regular expression that matches)", "308 to https://old.test/y.old?a"],
        ),
        (
            "GET|https://www.test/split",
            0,
            &["pool       web for 90 of 100 requests", "pool       api for 10 of 100 requests"],
        ),
        ("GET|https://www.test/idle", 1, &["answer     503 Service Unavailable (no_server)"]),
        (
            "GET|https://www.test/guarded",
            0,
            &[
                "limit      one request every 100ms, 5 at once for each client; else 429\n",
                "limit      3 in flight for each rule; else 429\n",
                "wanted     2xx from the pool api for /may (`forward_auth`)\n",
                "body of 2k",
            ],
        ),
        (
            "GET|https://www.test/keyed",
            0,
            &[
                "the RS that the cookie user leads to\n",
                "but first the RS that the cookie `ingre` names\n",
                "RS rs.test:80, each of its addresses, weight 10\n",
                "RS 10.0.0.5:80, weight 10, backup\n",
            ],
        ),
        ("TRACE|https://www.test/", 1, &["405 Method Not Allowed (trace_refused)"]),
        ("OPTIONS|https://www.test/|-H|Max-Forwards: 0", 0, &["answer     200, since OPTIONS"]),
        ("GET|https://www.test/guarded|--from|198.51.100.1", 1, &["403 Forbidden (access_denied)"]),
        ("GET|http://www.test:8080/|--from|203.0.113.9", 1, &["answer     none: `access` of the listener"]),
        ("GET|http://www.test/x", 0, &["listener   plain", "answer     301 to https://www.test/x"]),
        (
            "GET|https://empty.test/x",
            1,
            &["domain     empty.test (exact name)", "404 Not Found (no_route)", "1 more URLs"],
        ),
        ("GET|https://other.test/", 1, &["none is for `other.test`", "404 Not Found (no_route)"]),
        ("GET|https://www.test/%zz", 1, &["400 Bad Request (bad_path)"]),
        ("GET|https://www.test/|-H|X Y: 1", 1, &["400 Bad Request ("]),
        (
            "POST|http://www.test:8080/|-H|Content-Length: 2000",
            1,
            &["413 Payload Too Large (body_too_large)"],
        ),
    ] {
        let (found, text) = asked(arguments);
        assert_eq!(found, code, "{arguments}: {text}");
        for part in parts {
            assert!(text.contains(part), "{arguments}: {part} in\n{text}");
        }
        assert!(!text.contains("X-Secret:"), "{text}");
        assert_eq!(text.contains("neither an RS nor a rule"), code == 1, "{text}");
    }
    for wrong in
        ["GET|www.test", "GET|ftp://www.test", "GET|https://www.test|-H|x", "GET|https://www.test|--from|x"]
    {
        assert_eq!(asked(wrong).0, 2, "{wrong}");
    }
}

fn listeners() {
    for (arguments, listener) in [
        ("GET|https://www.test/", Some("secure")),
        ("GET|https://www.test:443/", Some("secure")),
        ("GET|https://www.test:444/", None),
        ("GET|http://www.test:8080/", Some("inner")),
        ("GET|http://www.test/|--listener|inner", Some("inner")),
        ("GET|http://www.test/|--listener|none", None),
    ] {
        let (code, text) = asked(arguments);
        match listener {
            Some(name) => assert!(code == 0 && text.starts_with(&format!("listener   {name} on")), "{text}"),
            None => {
                assert_eq!(code, 1);
                assert!(
                    text.contains("no listener is reached")
                        && text.contains("inner on http://127.0.0.1:8080")
                );
            }
        }
    }
    // Where no listener has the usual port, all of the scheme are meant.
    let two = "listeners: [{name: a, address: \"127.0.0.1:81\"}, {name: b, address: \"127.0.0.1:82\"}]\n\
               routes: [{domains: [\"*\"], rules: [{respond: {}}]}]\n";
    let ran = ingre(&["explain", "GET", "http://x.test/", "-c", "-"], two);
    assert_eq!((ran.code, ran.stdout.matches("answer     200").count()), (0, 2));
}

/// The URL of the rule and the status that the program answers with are those that are told.
fn agrees() {
    let yaml = "\
listeners: [{name: http, address: \"127.0.0.1:0\"}]
routes:
  - domains: [\"*\"]
    rules:
      - {url: /, respond: {status: 210}}
      - {url: /, respond: {status: 211}, when: {query: {a: \"1\"}}}
      - {url: /, respond: {status: 212}, when: {query: {a: \"1\", b: \"*\"}}}
      - {url: ^~ /f, respond: {status: 213}, when: {query: {a: \"1\"}}}
      - {url: /f/, respond: {status: 214}, when: {methods: [GET]}}
      - {url: = /f/x, respond: {status: 215}, when: {query: {b: \"*\"}}}
      - {url: ~ x$, respond: {status: 216}, when: {query: {a: \"!\"}}}
";
    let program = Setup::new(yaml).start();
    let mut client = program.connect("http");
    for path in ["/", "/f", "/f/", "/f/x", "/fx", "/y", "/%2e%2e"] {
        for query in ["", "?a=1", "?b=2", "?a=1&b"] {
            for method in ["GET", "POST"] {
                let target = format!("{path}{query}");
                let status = client.ask(&Request::new(method, "a.test", &target)).status;
                let ran = ingre(&["explain", method, &format!("http://a.test{target}"), "-c", "-"], yaml);
                let told = format!("answer     {status} ");
                assert!(ran.stdout.contains(&told), "{method} {target} {told}: {}", ran.stdout);
            }
        }
    }
}
