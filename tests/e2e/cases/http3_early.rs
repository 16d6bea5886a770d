//! Requests that come with the first packets of a session that is taken up again (0-RTT).

use serde_json::{Value, json};

use crate::harness::certificates::Authority;
use crate::harness::h3::H3;
use crate::harness::origin::{Received, ok, response};
use crate::harness::{Case, Need, Origin, Program, Setup};

const NEEDS: &[Need] = &[Need::Aioquic];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("http3_early::what_may_be_done_twice_passes", NEEDS, passes),
        Case::needing("http3_early::nothing_comes_early_where_it_may_not", NEEDS, refused),
    ]
}

const SITE: &str = r#"
workers: 2
admin: {address: "127.0.0.1:0"}
listeners:
  - {name: https, address: "127.0.0.1:0", http3_early_data: <early>, tls: {development: {}, client_certificates: [{domains: [b.test], ca: ca.pem, mode: optional}]}}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;

fn start(origin: &Origin, early: &str) -> Program {
    let ca = Authority::new().pem;
    Setup::new(&SITE.replace("<early>", early)).file("ca.pem", &ca).put("rs", origin.address()).start()
}

/// Says what it was told about early data, or that it is too early for it.
fn told(request: &Received) -> Vec<u8> {
    let values = request.head.values("early-data");
    match request.target() {
        "/rs-says-no" => response("425 Too Early", &[], "not yet"),
        _ => ok(&format!("{} {}", request.target(), values.join("+"))),
    }
}

fn statuses(answers: &Value) -> Vec<u64> {
    answers.as_array().unwrap().iter().map(|answer| answer["status"].as_u64().unwrap_or(0)).collect()
}

fn passes() {
    let origin = Origin::serving(told);
    let program = start(&origin, "true");
    let mut client = H3::trusting(program.listener("https"), None);
    let first = client.open(json!({"tickets": 1}));
    assert!(first["closed"].is_null() && first["early"] == false, "{first}");
    assert_eq!(client.get("/first"), (200, "/first ".into()));
    let requests = json!([
        {"path": "/get"},
        {"path": "/forged", "headers": [["early-data", "0"], ["early-data", "2"]]},
        {"path": "/post", "method": "POST", "body": "x"},
        {"path": "/empty", "method": "POST"},
        {"path": "/content", "body": "x"},
        {"path": "/rs-says-no"},
    ]);
    let again = client.open(json!({"ticket": 0, "early": requests, "tickets": 2}));
    assert!(again["closed"].is_null() && again["early"] == true, "{again}");
    assert_eq!(statuses(&again["answers"]), [200, 200, 425, 425, 425, 425], "{again}");
    assert_eq!(again["answers"][0]["body"], "/get 1");
    assert_eq!(again["answers"][1]["body"], "/forged 1");
    assert_eq!(again["answers"][5]["body"], "not yet");
    // What has come later is as good as any.
    assert_eq!(client.get("/later"), (200, "/later ".into()));
    let asked: Vec<_> = origin.received().iter().map(|request| request.target().to_owned()).collect();
    assert!(!asked.iter().any(|path| path == "/post" || path == "/empty" || path == "/content"), "{asked:?}");
    // A session is taken up once, whichever worker it comes to: nothing can be sent again by somebody who has heard it.
    for _ in 0..4 {
        let replayed = client.open(json!({"ticket": 0, "early": []}));
        assert!(replayed["closed"].is_null() && replayed["early"] == false, "{replayed}");
    }
    // Others are good over a reload.
    let same = std::fs::read_to_string(program.path().join("config.yaml")).unwrap();
    assert_eq!(program.reload(&same), "ingre: reloaded");
    let last = again["tickets"].as_u64().unwrap() - 1;
    let after = client.open(json!({"ticket": last, "early": [{"path": "/reloaded"}]}));
    assert_eq!((&after["early"], &after["answers"][0]["body"]), (&json!(true), &json!("/reloaded 1")));
}

fn refused() {
    let origin = Origin::serving(told);
    // Not where clients may have a certificate to show, and not unless it is asked for.
    for (early, name) in [("true", "b.test"), ("false", "localhost")] {
        let program = start(&origin, early);
        let mut client = H3::trusting(program.listener("https"), None);
        let first = client.open(json!({"name": name, "tickets": 1}));
        assert!(first["closed"].is_null(), "{first}");
        let again = client.open(json!({"name": name, "ticket": 0, "early": []}));
        assert!(again["closed"].is_null() && again["early"] == false, "{early}: {again}");
        let got = client.request(json!({"path": "/", "authority": name}));
        assert_eq!((&got["status"], &got["body"]), (&json!(200), &json!("/ ")), "{got}");
    }
}
