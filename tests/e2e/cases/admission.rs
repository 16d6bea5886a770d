//! Who may come, how often, and with what proof.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::harness::origin::{ok, response};
use crate::harness::{Case, Client, Origin, Program, Request, Setup, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("admission::access_lists_decide_by_address", access),
        Case::new("admission::rates_are_kept_over_all_workers", rates),
        Case::new("admission::requests_at_a_time_are_counted", in_flight),
        Case::new("admission::counts_survive_a_reload", reload),
        Case::new("admission::connections_of_one_client_are_bounded", connections),
        Case::new("admission::bodies_have_a_limit_of_their_rule", body_size),
        Case::new("admission::names_and_passwords", basic_auth),
        Case::new("admission::tokens", jwt),
        Case::new("admission::another_server_decides", forward_auth),
        Case::new("admission::mistakes_are_shown", mistakes),
    ]
}

/// `secret`.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A configuration with these rules and one pool `rs`; clients are told apart by X-Forwarded-For.
fn with_rules(rules: &str) -> Setup {
    Setup::new(&format!(
        "workers: 4\nadmin: {{address: \"127.0.0.1:0\"}}\ntrusted_proxies: [127.0.0.1]\n\
         listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         pools: [{{name: rs, servers: [{{address: \"<rs>\"}}], health_check: {{type: off}}}}]\n\
         routes:\n  - domains: [\"*\"]\n    rules:\n{rules}"
    ))
}

fn from(client: &str, target: &str) -> Request {
    Request::get("a.test", target).header("X-Forwarded-For", client)
}

fn access() {
    let origin = Origin::named("rs");
    let program = with_rules(
        "      - url: /office
        pool: rs
        access: [{deny: [192.0.2.66]}, {allow: [192.0.2.0/24, \"2001:db8::/32\"]}, {deny: [all]}]
      - {url: /open, pool: rs, access: [{deny: [192.0.2.66]}]}
",
    )
    .put("rs", origin.address())
    .start();
    for (client, target, status) in [
        ("192.0.2.1", "/office", 200),
        ("192.0.2.66", "/office", 403),
        ("2001:db8::1", "/office", 200),
        ("198.51.100.1", "/office", 403),
        ("198.51.100.1", "/open", 200),
        ("192.0.2.66", "/open", 403),
    ] {
        let target = format!("{target}?{client}");
        assert_eq!(program.ask("http", &from(client, &target)).status, status, "{target}");
        let reason = program.logged(&target)["reason"].as_str().map(str::to_owned);
        assert_eq!(reason.as_deref(), (status == 403).then_some("access_denied"));
    }
    // At the listener only the other end of the connection counts.
    for (list, open) in [("{deny: [127.0.0.0/8]}", false), ("{allow: [127.0.0.1]}, {deny: [all]}", true)] {
        let yaml = format!(
            "admin: {{address: \"127.0.0.1:0\"}}\n\
             listeners: [{{name: http, address: \"127.0.0.1:0\", access: [{list}]}}]\n\
             routes: [{{domains: [\"*\"], rules: [{{respond: {{body: in}}}}]}}]\n"
        );
        let program = Setup::new(&yaml).start();
        let answer = program.connect("http").try_ask(&Request::get("a.test", "/"));
        assert_eq!(answer.is_ok_and(|answer| answer.text() == "in"), open, "{list}");
        if !open {
            program.wait_metric("ingre_failures_total{reason=\"access_denied\"}", 1);
        }
    }
}

fn rates() {
    let origin = Origin::named("rs");
    let program = with_rules(
        "      - {url: /client, pool: rs, limits: [{rate: 1/h, burst: 5}]}
      - {url: /one, pool: rs, limits: [{rate: 1/h}]}
      - {url: /all, pool: rs, limits: [{rate: 3/h, per: rule, burst: 3}]}
      - {url: /key, pool: rs, limits: [{rate: 2/h, per: \"header:X-Key\", burst: 2}]}
      - {url: /both, pool: rs, limits: [{rate: 100/s, burst: 1000, per: rule}, {rate: 60/m, burst: 2}]}
",
    )
    .put("rs", origin.address())
    .start();
    let admitted = |requests: usize, request: Request| {
        // Each on a connection of its own, so that all workers have some.
        let statuses: Vec<u16> = (0..requests).map(|_| program.ask("http", &request).status).collect();
        assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        statuses.into_iter().filter(|status| *status == 200).count()
    };
    assert_eq!(admitted(12, from("192.0.2.1", "/client")), 5);
    assert_eq!(admitted(12, from("192.0.2.2", "/client")), 5);
    assert_eq!(admitted(4, from("192.0.2.2", "/one")), 1);
    // Neighbours in IPv6 are one client.
    assert_eq!(admitted(3, from("2001:db8::1", "/client")) + admitted(6, from("2001:db8::2", "/client")), 5);
    assert_eq!(admitted(2, from("192.0.2.1", "/all")) + admitted(3, from("192.0.2.2", "/all")), 3);
    let keyed = |key: &str| from("192.0.2.1", "/key").header("X-Key", key);
    assert_eq!(admitted(4, keyed("a")) + admitted(4, keyed("b")) + admitted(4, from("192.0.2.1", "/key")), 6);
    assert_eq!(admitted(5, from("192.0.2.9", "/both")), 2);
    let refused = program.ask("http", &from("192.0.2.1", "/client"));
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert_eq!(program.logged("/client")["listener"], "http");
    assert!(program.metric("ingre_failures_total{reason=\"rate_limited\"}").is_some_and(|count| count > 20));
}

fn in_flight() {
    let (release, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::serving(move |request| {
        if request.target() == "/slow" {
            let _ = wait.lock().unwrap().recv();
        }
        ok("done")
    });
    let program =
        with_rules("      - {pool: rs, limits: [{in_flight: 2}]}\n").put("rs", origin.address()).start();
    let ask = |target| program.ask("http", &from("192.0.2.1", target));
    let mut slow: Vec<Client> = (0..2).map(|_| program.connect("http")).collect();
    for client in &mut slow {
        client.send(from("192.0.2.1", "/slow").head());
    }
    until("both are under way", || (origin.connections() == 2).then_some(()));
    assert_eq!(ask("/").status, 429);
    assert_eq!(program.ask("http", &from("192.0.2.2", "/")).status, 200);
    // A response that has ended makes room.
    release.send(()).unwrap();
    until("room", || (ask("/").status == 200).then_some(()));
    release.send(()).unwrap();
    for mut client in slow {
        assert_eq!(client.response().text(), "done");
    }
    until("its line in the log", || {
        program.log_lines().iter().any(|line| line["reason"] == "too_many_in_flight").then_some(())
    });
}

fn reload() {
    let origin = Origin::named("rs");
    let rules = "      - {pool: rs, limits: [{rate: 1/h, burst: 2}]}\n";
    let program = with_rules(rules).put("rs", origin.address()).start();
    let yaml = std::fs::read_to_string(program.path().join("config.yaml")).unwrap();
    let status = || program.ask("http", &from("192.0.2.1", "/")).status;
    assert_eq!([status(), status(), status()], [200, 200, 429]);
    program.reload(&format!("{yaml}      - {{url: /new, respond: {{body: new}}}}\n"));
    until("the new rule", || (program.ask("http", &from("192.0.2.3", "/new")).text() == "new").then_some(()));
    assert_eq!(status(), 429, "what was counted still counts");
    program.reload(&yaml.replace("burst: 2", "burst: 3"));
    until("another limit begins anew", || (status() == 200).then_some(()));
}

fn connections() {
    let yaml = "\
workers: 4
admin: {address: \"127.0.0.1:0\"}
listeners: [{name: http, address: \"127.0.0.1:0\", max_connections_per_client: 3}]
routes: [{domains: [\"*\"], rules: [{respond: {body: in}}]}]
";
    let program = Setup::new(yaml).start();
    let request = Request::get("a.test", "/");
    let mut open: Vec<Client> = (0..3).map(|_| program.connect("http")).collect();
    for client in &mut open {
        assert_eq!(client.ask(&request).text(), "in");
    }
    for _ in 0..4 {
        assert!(program.connect("http").try_ask(&request).is_err());
    }
    program.wait_metric("ingre_failures_total{reason=\"too_many_connections\"}", 4);
    drop(open.pop());
    until("there is room again", || {
        program.connect("http").try_ask(&request).is_ok_and(|answer| answer.text() == "in").then_some(())
    });
}

fn body_size() {
    let origin = Origin::serving(|request| ok(&request.body.len().to_string()));
    let program = with_rules(
        "      - {url: /small, pool: rs, client_max_body_size: 1k}\n      - {url: /usual, pool: rs}\n",
    )
    .put("rs", origin.address())
    .start();
    let post = |target: &str, size: usize| Request::post("a.test", target, vec![b'x'; size]);
    assert_eq!(program.ask("http", &post("/small", 1024)).text(), "1024");
    assert_eq!(program.ask("http", &post("/small", 1025)).status, 413);
    assert_eq!(program.ask("http", &post("/usual", 1025)).text(), "1025");
    let chunks = |sizes: &[usize]| {
        let chunks: Vec<Vec<u8>> = sizes.iter().map(|size| vec![b'x'; *size]).collect();
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        Request::post("a.test", "/small", "").chunked(&chunks, &[])
    };
    assert_eq!(program.ask("http", &chunks(&[1000, 24])).text(), "1024");
    assert_eq!(program.ask("http", &chunks(&[1000, 25])).status, 413);
}

fn basic_auth() {
    let origin = Origin::serving(|request| ok(request.field("x-user").unwrap_or("nobody")));
    let setup = with_rules(
        "      - url: /
        pool: rs
        basic_auth: {users: users, realm: the office}
        request_headers: {set: {X-User: \"$remote_user\"}}
",
    );
    let program = setup.put("rs", origin.address()).file("users", &format!("# who\nann:{HASH}\n")).start();
    let with = |text: &str| {
        Request::get("a.test", "/").header("Authorization", &format!("Basic {}", STANDARD.encode(text)))
    };
    let mut client = program.connect("http");
    for _ in 0..3 {
        assert_eq!(client.ask(&with("ann:secret")).text(), "ann");
    }
    for wrong in [
        with("ann:Secret"),
        with("bob:secret"),
        with("ann"),
        Request::get("a.test", "/"),
        Request::get("a.test", "/").header("Authorization", "Bearer x"),
    ] {
        let answer = client.ask(&wrong);
        assert_eq!(answer.status, 401);
        assert_eq!(answer.field("www-authenticate"), Some("Basic realm=\"the office\", charset=\"UTF-8\""));
    }
    let line = program.logged("/");
    assert_eq!((line["user"].as_str(), line["status"].as_u64()), (Some("ann"), Some(200)));
    // With the wrong ones many at a time nobody else has to wait.
    let clients: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = program.connect("http");
            client.send(with(&format!("ann:{number}")).head());
            client
        })
        .collect();
    assert_eq!(client.ask(&with("ann:secret")).text(), "ann");
    for mut client in clients {
        assert_eq!(client.response().status, 401);
    }
}

fn jwt() {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let sign = |key: &EcdsaKeyPair, claims: &str| {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k1"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    };
    let point = key.public_key().as_ref();
    let keys = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"k1","x":"{}","y":"{}"}}]}}"#,
        URL_SAFE_NO_PAD.encode(&point[1..33]),
        URL_SAFE_NO_PAD.encode(&point[33..])
    );
    let origin = Origin::serving(|request| {
        let field = |name| request.field(name).unwrap_or("-").to_owned();
        ok(&format!("{} {}", field("x-user"), field("x-groups")))
    });
    let program = with_rules(
        "      - {url: /, pool: rs, jwt: {keys: keys.json, issuer: us, audiences: [here], claims: {X-User: sub, X-Groups: groups}}}
      - {url: /cookie, pool: rs, jwt: {keys: keys.json, cookie: session}}
",
    )
    .put("rs", origin.address())
    .file("keys.json", &keys)
    .start();
    let mut client = program.connect("http");
    let bearer = |token: &str| {
        Request::get("a.test", "/")
            .header("Authorization", &format!("Bearer {token}"))
            .header("X-User", "forged")
            .header("x-groups", "forged")
    };
    let good = r#"{"iss":"us","aud":["x","here"],"sub":"ann","groups":["a","b"],"exp":4000000000}"#;
    assert_eq!(client.ask(&bearer(&sign(&key, good))).text(), "ann a,b");
    assert_eq!(client.ask(&bearer(&sign(&key, &good.replace(r#","groups":["a","b"]"#, "")))).text(), "ann -");
    let cookie = format!("x=y; session={}", sign(&key, "{}"));
    assert_eq!(client.ask(&Request::get("a.test", "/cookie").header("Cookie", &cookie)).status, 200);
    let mut cut = sign(&key, good);
    cut.pop();
    for (request, error) in [
        (bearer(&sign(&other, good)), "the token is not one of ours"),
        (bearer(&cut), "the token is not one of ours"),
        (bearer(&sign(&key, &good.replace("us", "them"))), "from somebody else or for somebody else"),
        (bearer(&sign(&key, &good.replace("here", "there"))), "from somebody else or for somebody else"),
        (bearer(&sign(&key, &good.replace("4000000000", "1000000000"))), "does not count at this time"),
        (Request::get("a.test", "/"), "Bearer"),
    ] {
        let answer = client.ask(&request);
        assert_eq!(answer.status, 401);
        let challenge = answer.field("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer") && challenge.contains(error), "{challenge}");
    }
    assert_eq!(program.logged("/cookie")["reason"].as_str(), None);
}

fn forward_auth() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let judge = Origin::serving(move |request| {
        let field = |name| request.field(name).unwrap_or("-").to_owned();
        noted.lock().unwrap().push(format!(
            "{} {} {} {} {}",
            request.method(),
            request.target(),
            field("x-forwarded-method"),
            field("x-forwarded-host"),
            field("x-forwarded-uri")
        ));
        match request.field("x-token") {
            Some("good") => response("200 OK", &[("X-User", "ann"), ("X-Other", "1")], "yes"),
            Some("login") => response("302 Found", &[("Location", "https://login.test/")], ""),
            _ => response("401 Unauthorized", &[("WWW-Authenticate", "Custom")], "who are you?"),
        }
    });
    let origin = Origin::serving(|request| {
        let field = |name| request.field(name).unwrap_or("-").to_owned();
        ok(&format!("{} {} {}", field("x-user"), field("x-other"), request.body.len()))
    });
    let (down, _held) = crate::harness::origin::refusing();
    let yaml = "\
trusted_proxies: [127.0.0.1]
listeners: [{name: http, address: \"127.0.0.1:0\"}]
pools:
  - {name: rs, servers: [{address: \"<rs>\"}], health_check: {type: off}}
  - {name: judge, servers: [{address: \"<judge>\"}], health_check: {type: off}}
  - {name: down, servers: [{address: \"<down>\"}], health_check: {type: off}}
routes:
  - domains: [\"*\"]
    rules:
      - {url: /, pool: rs, forward_auth: {pool: judge, path: /check, copy_headers: [X-User]}, rewrite: {prefix: /x/}}
      - {url: /fixed, respond: {body: fixed}, forward_auth: {pool: judge}}
      - {url: /closed, pool: rs, forward_auth: {pool: down}}
";
    let setup = Setup::new(yaml).put("rs", origin.address()).put("judge", judge.address()).put("down", down);
    let program: Program = setup.start();
    let mut client = program.connect("http");
    let with = |token: &str| Request::post("a.test", "/page?q=1", "12345").header("X-Token", token);
    assert_eq!(client.ask(&with("good").header("X-User", "forged")).text(), "ann - 5");
    let refused = client.ask(&with("bad"));
    assert_eq!((refused.status, refused.text().as_str()), (401, "who are you?"));
    assert_eq!(refused.field("www-authenticate"), Some("Custom"));
    let mut client = program.connect("http");
    assert_eq!(client.ask(&with("login")).field("location"), Some("https://login.test/"));
    assert_eq!(seen.lock().unwrap()[0], "GET /check POST a.test /page?q=1");
    let get = |target: &str, token: &str| Request::get("a.test", target).header("X-Token", token);
    assert_eq!(program.ask("http", &get("/fixed", "bad")).status, 401);
    assert_eq!(program.ask("http", &get("/fixed", "good")).text(), "fixed");
    // Who cannot be asked has not agreed.
    assert_eq!(program.ask("http", &get("/closed", "good")).status, 502);
    assert_eq!(origin.received().len(), 1);
}

fn mistakes() {
    for (rule, message) in [
        ("access: [{allow: [10.0.0.0/8], deny: [all]}]", "an entry of `access` either allows or denies"),
        ("access: [{allow: [all, 10.0.0.0/8]}]", "`all` among networks"),
        ("access: [{allow: [x]}]", "`x` is not a network such as 10.0.0.0/8, a single address, or `all`"),
        ("limits: [{rate: 10}]", "`10` is not a rate such as 10/s, 600/m or 1000/h"),
        ("limits: [{burst: 10}]", "`burst` needs a `rate`"),
        ("limits: [{rate: 1/s, per: cookie}]", "`cookie` is not `client`, `rule` or `header:NAME`"),
        ("limits: [{in_flight: 0}]", "0 is out of range: 1 to 1000000"),
        ("limits: [{}]", "a limit without `rate` and `in_flight`"),
        ("basic_auth: {users: none}", "cannot read"),
        ("basic_auth: {users: weak}", "line 1 has no hash of bcrypt"),
        ("jwt: {keys: weak}", "is no JSON Web Key Set"),
        ("jwt: {keys: keys, claims: {Host: sub}}", "`Host` cannot be edited"),
        ("forward_auth: {pool: none}", "there is no pool named `none`"),
        ("forward_auth: {pool: rs, path: x}", "`x` is no path"),
    ] {
        let ran = with_rules(&format!("      - {{pool: rs, {rule}}}\n"))
            .put("rs", "127.0.0.1:9")
            .file("weak", "ann:plain\n")
            .file("keys", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#)
            .validate();
        assert_eq!(ran.code, 1, "{rule}");
        assert!(
            ran.stderr.contains(message) && ran.stderr.contains("config.yaml:9:"),
            "{rule}: {}",
            ran.stderr
        );
    }
}
