//! What a rule can do beyond naming a pool.

use std::sync::mpsc::channel;

use crate::harness::origin::{ok, response};
use crate::harness::{Case, Client, Origin, Program, Request, Setup, Tls, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("rules::conditions_choose_among_rules", conditions),
        Case::new("rules::redirects_and_fixed_answers", answers),
        Case::new("rules::http_is_redirected_to_https", https_redirect),
        Case::new("rules::the_rs_is_asked_for_something_else", rewritten),
        Case::new("rules::header_fields_are_edited", edited),
        Case::new("rules::pages_of_other_origins", cors),
        Case::new("rules::errors_have_pages", error_pages),
        Case::new("rules::requests_are_split_by_weight", split),
        Case::new("rules::requests_are_mirrored", mirrored),
        Case::new("rules::a_slow_mirror_delays_nobody", slow_mirror),
        Case::new("rules::merge_keys_share_options", merge_keys),
        Case::new("rules::mistakes_are_shown", mistakes),
    ]
}

const LISTENER: &str = "workers: 1\nlisteners: [{name: http, address: \"127.0.0.1:0\"}]\n";

fn echo() -> Origin {
    Origin::serving(|request| {
        let fields = request.head.fields.iter().map(|(name, value)| format!("{name}: {value}\n"));
        ok(&format!("{} {}\n{}", request.method(), request.target(), fields.collect::<String>()))
    })
}

/// The program with these rules for every domain and the pools `a` and `b`.
fn with_rules(a: &Origin, b: &Origin, rules: &str) -> Program {
    let pools = "pools:\n  - {name: a, servers: [{address: \"<a>\"}], health_check: {type: off}}\n  \
                 - {name: b, servers: [{address: \"<b>\"}], health_check: {type: off}}\n";
    let yaml = format!("{LISTENER}{pools}routes:\n  - domains: [\"*\"]\n    rules:\n{rules}");
    Setup::new(&yaml).put("a", a.address()).put("b", b.address()).start()
}

fn conditions() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let rules = r#"
      - {url: /, pool: a}
      - {pool: b, when: {methods: [POST, PUT]}}
      - {pool: b, when: {headers: {X-Canary: "1"}}}
      - {respond: {body: both}, when: {headers: {X-Canary: "1", User-Agent: "~^curl/"}}}
      - {respond: {body: any}, when: {headers: {X-Any: "*", X-None: "!"}}}
      - {respond: {body: query}, when: {query: {v: "2", debug: "*"}}}
      - {respond: {body: cookie}, when: {cookies: {group: "~^beta"}}}
      - {respond: {body: network}, when: {clients: [192.0.2.0/24, 2001:db8::1], methods: [DELETE]}}
      - {respond: {body: here}, when: {clients: [127.0.0.0/8], methods: [DELETE]}}
      - {url: = /only, respond: {body: only}, when: {methods: [GET]}}
      - {url: /api/, respond: {body: api}, when: {methods: [GET]}}
      - {url: '~ \.php$', respond: {body: php}, when: {methods: [GET]}}
"#;
    let program = with_rules(&a, &b, rules);
    let mut client = program.connect("http");
    let get = |target: &str| Request::get("a.test", target);
    for (number, (request, expected)) in [
        (get("/"), "a"),
        (Request::post("a.test", "/", "x"), "b"),
        (get("/").header("x-canary", "1"), "b"),
        (get("/").header("X-Canary", "2"), "a"),
        (get("/").header("X-Canary", "1").header("User-Agent", "curl/8"), "both"),
        (get("/").header("X-Any", ""), "any"),
        (get("/").header("X-Any", "").header("x-none", "there"), "a"),
        (get("/?v=2&debug"), "query"),
        (get("/?v=2"), "a"),
        (get("/").header("Cookie", "x=1; group=beta-7"), "cookie"),
        (get("/").header("Cookie", "group=alpha"), "a"),
        (Request::new("DELETE", "a.test", "/"), "here"),
        (get("/only"), "only"),
        // Where the conditions of a better URL do not hold, the next best is asked.
        (Request::post("a.test", "/only", ""), "b"),
        (get("/api/x"), "api"),
        (Request::new("PATCH", "a.test", "/api/x"), "a"),
        (get("/x.php"), "php"),
        (Request::post("a.test", "/x.php", ""), "b"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(client.ask(&request).text(), expected, "{number}");
    }
    // No slash is missing where the rule behind it does not hold.
    let found = client.ask(&get("/api"));
    assert_eq!((found.status, found.field("location")), (301, Some("http://a.test/api/")));
    assert_eq!(client.ask(&Request::post("a.test", "/api", "")).text(), "b");
}

fn answers() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let rules = r#"
      - {url: /old/, redirect: {to: "https://new.test$request_uri", status: 301}}
      - {url: /found, redirect: {to: /elsewhere}}
      - {url: '~ ^/user/', redirect: {to: "/u?id=$1&from=$arg_from", regex: "^/user/([0-9]+)$", status: 308}}
      - {url: = /evil, redirect: {to: "/to/$http_x_evil", status: 307}}
      - {url: = /text, respond: {body: "hello $host\n"}}
      - {url: = /html, respond: {body: "<p>$http_user_agent</p>", content_type: text/html, status: 418}}
      - {url: = /dollar, respond: {body: "5 $$$$"}}
      - {url: = /file, respond: {body: "${file:<file>}"}}
"#;
    let file = std::env::temp_dir().join(format!("ingre-page-{}", std::process::id()));
    std::fs::write(&file, "from a file\n").unwrap();
    let program = with_rules(&a, &b, &rules.replace("<file>", file.to_str().unwrap()));
    std::fs::remove_file(&file).unwrap();
    let mut client = program.connect("http");
    let get = |target: &str| Request::get("a.test", target);
    for (request, status, location) in [
        (get("/old/x?y=%20z"), 301, "https://new.test/old/x?y=%20z"),
        (get("/found"), 302, "/elsewhere"),
        (get("/user/7?from=me"), 308, "/u?id=7&from=me"),
        (get("/evil").header("X-Evil", "a b\"<é"), 307, "/to/a%20b%22%3C%C3%A9"),
    ] {
        let answer = client.ask(&request);
        assert_eq!((answer.status, answer.field("location")), (status, Some(location)));
    }
    for (request, status, kind, text) in [
        (get("/text"), 200, "text/plain; charset=utf-8", "hello a.test\n"),
        (get("/html").header("User-Agent", "<script>"), 418, "text/html", "<p>&#60;script&#62;</p>"),
        (get("/dollar"), 200, "text/plain; charset=utf-8", "5 $"),
        (get("/file"), 200, "text/plain; charset=utf-8", "from a file"),
        (Request::new("HEAD", "a.test", "/text"), 200, "text/plain; charset=utf-8", ""),
    ] {
        let answer = client.ask(&request);
        let found = (answer.status, answer.field("content-type"), answer.text());
        assert_eq!(found, (status, Some(kind), text.to_owned()));
    }
    let line = program.logged("/text");
    assert_eq!(
        (line["url"].as_str(), line["pool"].as_str(), line["rs"].as_str()),
        (Some("= /text"), None, None)
    );
    assert!(a.received().is_empty());
}

fn https_redirect() {
    let yaml = "\
listeners:
  - {name: plain, address: \"127.0.0.1:0\", https_redirect: {}}
  - {name: other, address: \"127.0.0.1:0\", https_redirect: {status: 308, port: 8443}}
  - {name: https, address: \"127.0.0.1:0\", tls: {development: {}}}
routes: [{domains: [a.test], rules: [{respond: {body: secure}}]}]
";
    let program = Setup::new(yaml).start();
    for (listener, host, status, location) in [
        ("plain", "a.test:8080", 301, "https://a.test/x?y"),
        ("other", "B.test", 308, "https://b.test:8443/x?y"),
        ("plain", "[::1]:80", 301, "https://[::1]/x?y"),
    ] {
        let answer = program.ask(listener, &Request::get(host, "/x?y"));
        assert_eq!((answer.status, answer.field("location")), (status, Some(location)));
    }
    let mut client = Client::connect_tls(program.listener("https"), &Tls::credulous().name("a.test"));
    assert_eq!(client.ask(&Request::get("a.test", "/")).text(), "secure");
}

fn rewritten() {
    let (a, b) = (echo(), echo());
    let rules = r#"
      - {url: /strip/, pool: a, rewrite: {prefix: /}}
      - {url: "^~ /app", pool: a, rewrite: {prefix: /v2/app}}
      - {url: '~ ^/u/', pool: a, rewrite: {regex: "^/u/([0-9]+)/(.*)$", path: "/users/$2?id=$1"}}
      - {url: /host, pool: a, rewrite: {host: "internal.test:81"}}
      - {url: /index/, pool: a, rewrite: {path: "/index.html?"}}
      - {url: = /header, pool: a, rewrite: {path: "/h/$http_x_part"}}
      - {url: = /badhost, pool: a, rewrite: {host: "$http_x_part"}}
"#;
    let program = with_rules(&a, &b, rules);
    let mut client = program.connect("http");
    let get = |target: &str| Request::get("a.test", target);
    for (request, target, host) in [
        (get("/strip/x/y?q=1"), "/x/y?q=1", "a.test"),
        (get("/strip/"), "/", "a.test"),
        (get("/app/x"), "/v2/app/x", "a.test"),
        (get("/u/7/a%20b?x=y"), "/users/a%20b?id=7&x=y", "a.test"),
        (get("/u/none"), "/u/none", "a.test"),
        (get("/host?x"), "/host?x", "internal.test:81"),
        (get("/index/any?q=1"), "/index.html", "a.test"),
        (get("/header").header("X-Part", "a b/../c"), "/h/c", "a.test"),
    ] {
        let text = client.ask(&request).text();
        assert_eq!(text.lines().next(), Some(format!("GET {target}").as_str()));
        assert!(text.contains(&format!("Host: {host}\n")), "{text}");
    }
    assert_eq!(program.logged("/host?x")["host"], "a.test");
    assert_eq!(client.ask(&get("/header").header("X-Part", "/../../..")).status, 400);
    assert_eq!(client.ask(&get("/badhost").header("X-Part", "a b")).status, 400);
}

fn edited() {
    let a = Origin::serving(|request| {
        let fields: String =
            request.head.fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        response("200 OK", &[("Server", "secret"), ("X-Kept", "1"), ("X-Frame-Options", "ALLOW")], fields)
    });
    let rules = r#"
      - url: /
        pool: a
        request_headers:
          remove: [X-Secret]
          set: {X-Client: "$remote_addr via $scheme", X-Empty: "$arg_none", X-Forwarded-Proto: https}
          add: {X-More: "$host"}
        response_headers:
          remove: [server]
          set: {X-Frame-Options: DENY, X-Origin: "$upstream_addr $status", X-Uri: "$request_uri|$uri"}
          add: {X-Kept: "2"}
      - {url: /none, pool: b, response_headers: {set: {X-On-Errors: "$status"}}}
"#;
    let (down, _held) = crate::harness::origin::refusing();
    let yaml = format!(
        "{LISTENER}pools:\n  - {{name: a, servers: [{{address: \"<a>\"}}], health_check: {{type: off}}}}\n  \
         - {{name: b, servers: [{{address: \"<b>\"}}], health_check: {{type: off}}}}\n\
         routes:\n  - domains: [\"*\"]\n    rules:\n{rules}"
    );
    let program = Setup::new(&yaml).put("a", a.address()).put("b", down).start();
    let request = Request::get("a.test", "/x/../y?z")
        .header("X-Secret", "1")
        .header("X-Empty", "1")
        .header("X-Client", "forged")
        .header("X-More", "first");
    let answer = program.ask("http", &request);
    let text = answer.text();
    for (line, there) in [
        ("X-Client: 127.0.0.1 via http\n", true),
        ("X-More: first\n", true),
        ("X-More: a.test\n", true),
        ("X-Forwarded-Proto: https\n", true),
        ("X-Secret", false),
        ("X-Empty", false),
        ("forged", false),
        ("X-Forwarded-Proto: http\n", false),
    ] {
        assert_eq!(text.contains(line), there, "{line} in {text}");
    }
    let origin = format!("{} 200", a.address());
    for (name, values) in [
        ("server", vec![]),
        ("x-kept", vec!["1", "2"]),
        ("x-frame-options", vec!["DENY"]),
        ("x-origin", vec![origin.as_str()]),
        ("x-uri", vec!["/x/../y?z|/y"]),
    ] {
        assert_eq!(answer.head.values(name), values, "{name}");
    }
    let answer = program.ask("http", &Request::get("a.test", "/none"));
    assert_eq!((answer.status, answer.field("x-on-errors")), (502, Some("502")));
}

fn cors() {
    let a =
        Origin::serving(|_| response("200 OK", &[("Access-Control-Allow-Origin", "https://of-the-rs")], "a"));
    let rules = r#"
      - {url: /open, pool: a, cors: {}}
      - url: /listed
        pool: a
        cors: {origins: ["https://app.test", '~^https://[a-z]+\.dev\.test$'], methods: [GET, PUT], headers: [X-Token],
               expose: [X-Total], credentials: true, max_age: 1h}
"#;
    let program = with_rules(&a, &a, rules);
    let mut client = program.connect("http");
    let from = |url: &str, origin: &str| Request::get("a.test", url).header("Origin", origin);
    for (request, origin, credentials, vary) in [
        (from("/open", "https://x.test"), Some("*"), None, None),
        (Request::get("a.test", "/open"), None, None, None),
        (from("/listed", "https://app.test"), Some("https://app.test"), Some("true"), Some("Origin")),
        (from("/listed", "https://x.dev.test"), Some("https://x.dev.test"), Some("true"), Some("Origin")),
        (from("/listed", "https://evil.test"), None, None, Some("Origin")),
    ] {
        let answer = client.ask(&request);
        assert_eq!(answer.status, 200);
        let of = |name| answer.head.values(name).first().copied();
        assert_eq!(answer.head.values("access-control-allow-origin").len(), usize::from(origin.is_some()));
        assert_eq!(of("access-control-allow-origin"), origin);
        assert_eq!(of("access-control-allow-credentials"), credentials);
        assert_eq!(of("vary"), vary);
    }
    let reached = a.received().len();
    let preflight = |url: &str, origin: &str| {
        Request::new("OPTIONS", "a.test", url)
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "PUT")
            .header("Access-Control-Request-Headers", "x-any")
    };
    for (url, origin, allowed, headers, age) in [
        ("/open", "https://x.test", Some("*"), Some("x-any"), Some("600")),
        ("/listed", "https://app.test", Some("https://app.test"), Some("X-Token"), Some("3600")),
        ("/listed", "https://evil.test", None, None, None),
    ] {
        let answer = client.ask(&preflight(url, origin));
        assert_eq!(answer.status, 204);
        assert_eq!(answer.field("access-control-allow-origin"), allowed);
        assert_eq!(answer.field("access-control-allow-headers"), headers);
        assert_eq!(answer.field("access-control-max-age"), age);
    }
    assert_eq!(a.received().len(), reached, "the RS is not asked");
}

fn error_pages() {
    let a = Origin::serving(|request| match request.target() {
        "/missing" | "/plain/missing" => response("404 Not Found", &[("X-Of-RS", "1")], "of the rs"),
        _ => response("503 Service Unavailable", &[], "of the rs"),
    });
    let (down, _held) = crate::harness::origin::refusing();
    let rules = r#"
      - url: /
        pool: a
        intercept_errors: true
        error_pages:
          - {status: [404], body: "<h1>not here: $request_uri</h1>"}
          - {status: [503], redirect: "https://status.test/?from=$host"}
          - {status: [5xx], body: sorry, content_type: text/plain, respond_status: 200}
      - {url: /plain/, pool: a, error_pages: [{status: [404], body: never}]}
      - {url: /down, pool: b, error_pages: [{status: [502, 504], body: "$status"}]}
"#;
    let yaml = format!(
        "{LISTENER}pools:\n  - {{name: a, servers: [{{address: \"<a>\"}}], health_check: {{type: off}}}}\n  \
         - {{name: b, servers: [{{address: \"<b>\"}}], health_check: {{type: off}}}}\n\
         routes:\n  - domains: [\"*\"]\n    rules:\n{rules}"
    );
    let program = Setup::new(&yaml).put("a", a.address()).put("b", down).start();
    let mut client = program.connect("http");
    let mut ask = |target: &str| {
        let answer = client.ask(&Request::get("a.test", target));
        let location = answer.field("location").map(str::to_owned);
        (answer.status, location, answer.text())
    };
    assert_eq!(ask("/missing"), (404, None, "<h1>not here: /missing</h1>".into()));
    assert_eq!(ask("/plain/missing"), (404, None, "of the rs".into()));
    assert_eq!(ask("/busy"), (302, Some("https://status.test/?from=a.test".into()), String::new()));
    assert_eq!(ask("/down"), (502, None, "502".into()));
    assert_eq!(program.logged("/down")["reason"], "connect_failed");
}

fn split() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let rules = "      - {split: [{pool: a, weight: 75}, {pool: b, weight: 25}, {pool: b, weight: 0}]}\n";
    let program = with_rules(&a, &b, rules);
    let mut client = program.connect("http");
    for _ in 0..40 {
        client.ask(&Request::get("a.test", "/"));
    }
    assert_eq!((a.received().len(), b.received().len()), (30, 10));
    until("every line of the log", || (program.log_lines().len() == 40).then_some(()));
}

fn mirrored() {
    let (a, b) = (Origin::named("a"), Origin::serving(|_| response("500 Oh", &[], "b")));
    let rules = r#"
      - {url: /, pool: a, mirror: {pool: b}, rewrite: {prefix: /x/}}
      - {url: /some/, pool: a, mirror: {pool: b, percent: 25}}
"#;
    let program = with_rules(&a, &b, rules);
    let mut client = program.connect("http");
    let long = vec![b'l'; 300_000];
    for request in [
        Request::get("a.test", "/get"),
        Request::post("a.test", "/post", "content"),
        Request::post("a.test", "/long", long.clone()),
        Request::post("a.test", "/chunks", "").chunked(&[b"one", b"two"], &[("X-End", "1")]),
    ] {
        assert_eq!(client.ask(&request).text(), "a");
    }
    until("all copies", || (b.received().len() == 4).then_some(()));
    for copy in b.received() {
        let original = a.received().into_iter().find(|request| request.target() == copy.target()).unwrap();
        assert_eq!((&copy.body, &copy.trailers), (&original.body, &original.trailers));
        assert!(copy.target().starts_with("/x/"), "{}", copy.target());
        assert_eq!(copy.field("x-forwarded-for"), Some("127.0.0.1"));
    }
    for _ in 0..8 {
        client.ask(&Request::get("a.test", "/some/"));
    }
    until("a quarter of them", || (b.received().len() == 6).then_some(()));
}

fn slow_mirror() {
    let a = Origin::serving(|request| ok(&request.body.len().to_string()));
    let (release, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    // Reads nothing until it is told to.
    let b = Origin::scripted(move |_| {
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let program = with_rules(&a, &b, "      - {pool: a, mirror: {pool: b}}\n");
    let mut client = program.connect("http");
    for _ in 0..3 {
        assert_eq!(client.ask(&Request::post("a.test", "/", vec![b'x'; 8_000_000])).text(), "8000000");
    }
    drop(release);
}

fn merge_keys() {
    let a = Origin::named("a");
    let yaml = format!(
        "{LISTENER}pools: [{{name: a, servers: [{{address: \"<a>\"}}], health_check: {{type: off}}}}]
routes:
  - domains: [\"*\"]
    rules:
      - &usual {{url: /, pool: a, response_headers: {{set: {{Strict-Transport-Security: max-age=63072000}}}}}}
      - {{<<: *usual, url: /other, response_headers: {{set: {{X-Other: \"1\"}}}}}}
      - {{<<: *usual, url: /third}}
"
    );
    let program = Setup::new(&yaml).put("a", a.address()).start();
    for (target, hsts, other) in [("/", true, false), ("/other", false, true), ("/third", true, false)] {
        let answer = program.ask("http", &Request::get("a.test", target));
        let found = ["strict-transport-security", "x-other"].map(|name| answer.field(name).is_some());
        assert_eq!(found, [hsts, other], "{target}");
    }
}

fn mistakes() {
    for (rules, message) in [
        ("{pool: a, respond: {}}", "more than one of `pool`, `split`, `redirect` and `respond`"),
        ("{url: /}", "nobody answers this rule"),
        ("{redirect: {to: \"$hots\"}}", "there is no variable `$hots`"),
        ("{redirect: {to: /x, status: 200}}", "200 is no redirect"),
        ("{redirect: {to: \"/$2\", regex: \"(a)\"}}", "`$2` is no capture"),
        ("{redirect: {to: /, regex: \"(\"}}", "the regular expression `(` cannot be used"),
        ("{redirect: {to: \"http://$host$request_uri\"}}", "this redirect leads back to itself"),
        ("{redirect: {to: /b}}, {url: /b, redirect: {to: /c}}", "this redirect leads to the one in line 10"),
        ("{split: [{pool: a, weight: 0}]}", "this split has no pool with a share"),
        ("{split: [{pool: x, weight: 1}]}", "there is no pool named `x`"),
        ("{pool: a, mirror: {pool: x}}", "there is no pool named `x`"),
        ("{pool: a, request_headers: {set: {Host: x}}}", "`Host` cannot be edited"),
        ("{pool: a, response_headers: {remove: [\"a b\"]}}", "`a b` is no name of a header field"),
        ("{pool: a, request_headers: {set: {X: \"a\\nb\"}}}", "a control character cannot stand here"),
        ("{url: ~ x, pool: a, rewrite: {prefix: /}}", "a regular expression has no prefix to replace"),
        ("{pool: a, rewrite: {prefix: x}}", "`x` is no path"),
        ("{pool: a, rewrite: {regex: x}}", "`regex` needs a `path`"),
        ("{pool: a, rewrite: {path: x}}", "a path begins with `/`"),
        ("{pool: a, cors: {credentials: true}}", "`credentials` for every origin"),
        ("{pool: a, cors: {origins: [app.test]}}", "`app.test` is no origin"),
        ("{pool: a, error_pages: [{status: [7xx], body: x}]}", "`7xx` is no status"),
        ("{pool: a, error_pages: [{status: [404]}]}", "an error page is either a `body` or a `redirect`"),
        ("{pool: a, when: {methods: [get]}}", "`get` is not a method such as GET"),
        ("{pool: a, when: {headers: {X: \"~(\"}}}", "the regular expression `(` cannot be used"),
        ("{pool: a}, {url: /, pool: a}", "the URL `/` stands here a second time"),
        ("{pool: a, when: {method: [GET]}}", "unknown key `method`"),
    ] {
        let yaml = format!(
            "workers: 1\nlisteners:\n  - name: http\n    address: \"127.0.0.1:0\"\n\
             pools: [{{name: a, servers: [{{address: \"127.0.0.1:9\"}}]}}]\n\
             routes:\n  - domains: [a.test]\n    listeners: [http]\n\n    rules: [    {rules}]\n"
        );
        let ran = Setup::new(&yaml).validate();
        assert_eq!(ran.code, 1, "{rules}");
        assert!(ran.stderr.contains(message) && ran.stderr.contains(":10:"), "{rules}: {}", ran.stderr);
    }
}
