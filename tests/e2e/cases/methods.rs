//! Methods that are for proxies: TRACE, and how far OPTIONS goes (RFC 9110 7.6.2).

use crate::harness::frames::{Frames, request};
use crate::harness::{Case, Origin, Request};

use super::site;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("methods::trace_is_not_allowed", trace),
        Case::new("methods::options_go_no_further_than_they_may", options),
        Case::new("methods::others_are_for_the_rs", others),
    ]
}

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

fn trace() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for limit in ["0", "5"] {
        let trace = Request::new("TRACE", "a.test", "/trace").header("Max-Forwards", limit);
        let got = program.ask("http", &trace.header("Cookie", "secret"));
        assert_eq!((got.status, got.field("allow")), (405, Some(METHODS)));
        assert!(!got.text().contains("secret"));
    }
    assert_eq!(program.logged("/trace")["reason"], "trace_refused");
    let mut client = Frames::connect(&program, 1 << 20);
    client.send(request(1, "TRACE", "/", true));
    assert_eq!(client.response(1).0, 405);
    assert!(origin.received().is_empty());
}

fn options() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    let mut client = program.connect("http");
    let options =
        |target: &str, limit: &str| Request::new("OPTIONS", "a.test", target).header("Max-Forwards", limit);
    for target in ["/", "*"] {
        let got = client.ask(&options(target, "0"));
        assert_eq!((got.status, got.field("allow"), got.body.len()), (200, Some(METHODS), 0));
    }
    assert!(origin.received().is_empty());
    for (number, (limit, left)) in [("1", "0"), ("10", "9"), ("x", "x")].into_iter().enumerate() {
        assert_eq!(client.ask(&options("/", limit)).text(), "rs");
        assert_eq!(origin.received()[number].head.values("max-forwards"), [left]);
    }
    // For other methods it means nothing.
    assert_eq!(client.ask(&Request::get("a.test", "/").header("Max-Forwards", "0")).text(), "rs");
    assert_eq!(origin.received()[3].field("max-forwards"), Some("0"));
}

fn others() {
    let origin = Origin::named("rs");
    let program = site(&origin).start();
    for method in ["PUT", "DELETE", "PATCH", "PROPFIND", "get", "X!#$%&'*+.^_`|~1"] {
        assert_eq!(program.ask("http", &Request::new(method, "a.test", "/")).text(), "rs", "{method}");
    }
    let methods: Vec<_> = origin.received().iter().map(|request| request.method().to_owned()).collect();
    assert_eq!(methods, ["PUT", "DELETE", "PATCH", "PROPFIND", "get", "X!#$%&'*+.^_`|~1"]);
}
