//! Certificates from an authority that speaks ACME: each kind of proof, renewal, and an authority that is not there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::origin::response;
use crate::harness::pebble::{Pebble, Wish};
use crate::harness::relay::{Act, Relay};
use crate::harness::{Case, Client, Need, Origin, Program, Request, Setup, Tls, until, within};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("acme::http_01", &[Need::Pebble], http_01),
        Case::needing("acme::tls_alpn_01", &[Need::Pebble], tls_alpn_01),
        Case::needing("acme::dns_01_and_wildcards", &[Need::Pebble, Need::Curl], dns_01),
        Case::needing("acme::a_dns_hook_that_fails", &[Need::Pebble], failing_hook),
        Case::needing("acme::a_proof_that_is_not_accepted", &[Need::Pebble], wrong_proof),
        Case::needing("acme::nonces_that_are_refused", &[Need::Pebble], nonces),
        Case::needing("acme::an_authority_that_asks_for_patience", &[Need::Pebble], patience),
        Case::needing("acme::an_authority_that_is_away", &[Need::Pebble], away),
        Case::needing("acme::renewal_when_the_authority_wants_it", &[Need::Pebble], renewal),
        Case::needing("acme::accounts_keys_and_kinds", &[Need::Pebble], accounts),
        Case::needing("acme::a_reload_adds_and_removes", &[Need::Pebble], reload),
    ]
}

/// `<acme>` stands for options of the account, `<managed>` for those of the listener. Programs that follow each other have the
/// same sockets, which are of TCP.
const SITE: &str = "\
workers: 1
admin: {address: \"127.0.0.1:0\"}
acme: {directory: \"<directory>\", ca: ca.pem, storage: kept, email: ops@example.com<acme>}
listeners:
  - {name: http, address: \"127.0.0.1:0\", https_redirect: {}}
  - {name: https, address: \"127.0.0.1:0\", http3: false, tls: {acme: {<managed>}}}
routes: [{domains: [\"*\"], rules: [{url: /, respond: {status: 200, body: here}}]}]
";

/// The same text as [`SITE`] with these options, for a reload.
pub(super) fn site(ca: &Pebble, acme: &str, managed: &str) -> String {
    SITE.replace("<directory>", &ca.directory()).replace("<acme>", acme).replace("<managed>", managed)
}

/// A program with [`SITE`].
fn start(ca: &Pebble, acme: &str, managed: &str) -> Program {
    ca.setup(&site(ca, acme, managed)).start()
}

/// What a client that checks sees.
pub(super) fn ask(program: &Program, tls: &Tls, name: &str) -> String {
    let mut client = Client::connect_tls(program.listener("https"), &tls.clone().name(name));
    client.ask(&Request::get(name, "/")).text()
}

/// Whether a client that checks is content.
pub(super) fn is_served(program: &Program, tls: &Tls, name: &str) -> bool {
    Client::try_tls(program.listener("https"), &tls.clone().name(name)).is_ok()
}

/// What a client that asks for this name is shown.
fn shown(program: &Program, name: &str) -> Vec<u8> {
    let tls = Tls::credulous().name(name);
    Client::connect_tls(program.listener("https"), &tls).certificate().to_vec()
}

/// The entry of the page /certificates that has this name.
fn entry(program: &Program, name: &str) -> Value {
    let page: Value = serde_json::from_str(&program.page("/certificates").1).unwrap();
    let mut all = page["certificates"].as_array().unwrap().iter();
    all.find(|entry| entry["names"][0] == name).unwrap_or_else(|| panic!("{name} in {page:#}")).clone()
}

/// How long until the next attempt, seconds.
fn next_attempt(program: &Program, names: &str) -> u64 {
    let name = format!("ingre_acme_next_attempt_timestamp_seconds{{certificate=\"{names}\"}}");
    let at = program.metric(&name).unwrap();
    at.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn failures(program: &Program, reason: &str) -> Option<u64> {
    program.metric(&format!("ingre_acme_failures_total{{reason=\"{reason}\"}}"))
}

fn http_01() {
    let mut ca = Pebble::start(Wish::default());
    let program = start(&ca, "", "domains: [a.test, [b.test, www.b.test]]");
    program.said("the certificate for a.test is there, until 2");
    program.said("the certificate for b.test, www.b.test is there");
    let tls = Tls::trusting(ca.roots());
    for name in ["a.test", "b.test", "www.b.test"] {
        assert_eq!(ask(&program, &tls, name), "here");
    }
    // What is on port 80 otherwise goes on, also below the path of proofs.
    for path in ["/", "/.well-known/acme-challenge/unknown", "/.well-known/acme-challenge/../lock"] {
        assert_eq!(program.ask("http", &Request::get("a.test", path)).status, 301, "{path}");
    }
    private(&program.path().join("kept"));
    assert_eq!(program.metric("ingre_acme_issued_total"), Some(2));
    assert_eq!(program.metric("ingre_acme_writer"), Some(1));
    let entry = entry(&program, "a.test");
    assert_eq!((&entry["source"], &entry["problem"]), (&json!("acme"), &Value::Null));
    assert!(entry["next_attempt"].as_str().is_some_and(|date| date.starts_with('2')), "{entry:#}");
    // What is kept is there from the first handshake on, with no authority to ask.
    ca.stop();
    let again = Setup::beside(&program, &site(&ca, "", "domains: [a.test, [b.test, www.b.test]]")).start();
    assert_eq!(ask(&again, &tls, "www.b.test"), "here");
    // A name that has no certificate sees the first one.
    assert_eq!(shown(&again, "else.test"), shown(&again, "a.test"));
}

/// Nobody but the owner may look into anything.
fn private(path: &Path) {
    let metadata = std::fs::metadata(path).unwrap();
    let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
    assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
    if metadata.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| private(&entry.unwrap().path()));
    }
}

fn tls_alpn_01() {
    let ca = Pebble::start(Wish::default());
    // Without any listener for plain HTTP.
    let yaml = site(&ca, ", challenge: tls-alpn-01", "domains: [[a.test, b.test]]");
    let yaml: String = yaml
        .lines()
        .filter(|line| !line.contains("name: http,"))
        .fold(String::new(), |all, line| all + line + "\n");
    let program = ca.introduce(Setup::new(&yaml)).socket("https", ca.https()).start();
    program.said("the certificate for a.test, b.test is there");
    let tls = Tls::trusting(ca.roots());
    assert_eq!(ask(&program, &tls, "b.test"), "here");
    let offers = |protocols: &[&str]| {
        Client::try_tls(program.listener("https"), &tls.clone().name("a.test").offer(protocols))
    };
    assert_eq!(offers(&["h2", "http/1.1"]).unwrap().protocol().as_deref(), Some("h2"));
    // Nothing is proven any more.
    assert!(offers(&["acme-tls/1"]).is_err());
    // An authority shows no certificate of its own.
    let yaml = yaml.replace("tls: {acme", "tls: {client_certificates: [{ca: ca.pem}], acme");
    let verdict = program.reload(&yaml);
    assert!(verdict.contains("tls-alpn-01 on a listener with `client_certificates`"), "{verdict}");
}

/// Writes down how it was called, and sets or removes the record.
const HOOK: &str = "\
#!/bin/sh
set -eu
[ \"$1 $2\" = \"--zone a b\" ]
shift 2
[ \"$1 $2 $3\" = \"$ACME_ACTION $ACME_NAME $ACME_VALUE\" ]
[ \"$2\" = \"_acme-challenge.$ACME_DOMAIN\" ]
echo \"$1 $2\" >>calls
case $1 in
present) curl -sf -d \"{\\\"host\\\": \\\"$2.\\\", \\\"value\\\": \\\"$3\\\"}\" http://RECORDS/set-txt ;;
cleanup) curl -sf -d \"{\\\"host\\\": \\\"$2.\\\"}\" http://RECORDS/clear-txt ;;
esac
";

/// A program with a hook.
fn with_hook(ca: &Pebble, hook: &str, acme: &str, managed: &str) -> Program {
    let acme = format!(", challenge: dns-01, dns_hook: [./hook, --zone, a b]{acme}");
    let setup = ca.setup(&site(ca, &acme, managed));
    let setup = setup.file("hook", &hook.replace("RECORDS", &ca.records().to_string()));
    let path = setup.path().join("hook");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    setup.start()
}

fn dns_01() {
    let ca = Pebble::start(Wish::default());
    let program =
        with_hook(&ca, HOOK, ", dns_hook_timeout: 20s", "domains: [[\"*.w.test\", w.test], a.test]");
    program.said("the certificate for *.w.test, w.test is there");
    program.said("the certificate for a.test is there");
    let tls = Tls::trusting(ca.roots());
    for name in ["x.w.test", "w.test", "a.test"] {
        assert_eq!(ask(&program, &tls, name), "here");
    }
    let calls = std::fs::read_to_string(program.path().join("calls")).unwrap();
    for (call, times) in [
        ("present _acme-challenge.w.test", 2),
        ("cleanup _acme-challenge.w.test", 2),
        ("present _acme-challenge.a.test", 1),
        ("cleanup _acme-challenge.a.test", 1),
    ] {
        assert_eq!(calls.lines().filter(|line| *line == call).count(), times, "{calls}");
    }
    assert!(program.path().join("kept/certificates").read_dir().unwrap().count() == 2);
}

fn failing_hook() {
    let ca = Pebble::start(Wish::default());
    let hook = "#!/bin/sh\necho no such zone >&2\nexit 3\n";
    let program = with_hook(&ca, hook, "", "domains: [a.test]");
    let line = program.said("the certificate for a.test is not issued: the DNS hook has failed: ");
    assert!(
        line.contains("hook present`: exit status: 3, and said: no such zone; next attempt in "),
        "{line}"
    );
    program.said("of the proof for the certificate for a.test something is left: the DNS hook has failed");
    assert_eq!(failures(&program, "dns_hook"), Some(1));
    // One that does not end is ended, with everything that it has started.
    let hook = "#!/bin/sh\necho $$ >pid\nsleep 1000 &\nwait\n";
    let program = with_hook(&ca, hook, ", dns_hook_timeout: 1s", "domains: [a.test]");
    program.said("hook present`: has not ended within 1s");
    let pid = std::fs::read_to_string(program.path().join("pid")).unwrap();
    until("the end of the hook", || (!Path::new("/proc").join(pid.trim()).exists()).then_some(()));
    // One that cannot be run.
    let program = with_hook(&ca, "", "", "domains: [a.test]");
    program.said("hook present`: ");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 301);
}

fn wrong_proof() {
    // Somebody else has the names.
    let other = Origin::named("nothing to prove");
    let ca = Pebble::start(Wish { http: Some(other.address().port()), ..Wish::default() });
    let program = start(&ca, "", "domains: [[a.test, b.test]]");
    let line = program.said("the certificate for a.test, b.test is not issued: the proof was not accepted: ");
    assert!(line.contains("test: "), "{line}");
    assert_eq!(failures(&program, "challenge"), Some(1));
    let wait = next_attempt(&program, "a.test,b.test");
    assert!((30..=75).contains(&wait), "{wait}");
    let entry = entry(&program, "a.test");
    assert!(entry["last_error"].as_str().unwrap().starts_with("the proof was not accepted"), "{entry:#}");
    assert_eq!((&entry["consecutive_failures"], &entry["problem"]), (&json!(1), &json!("no certificate")));
    // Nobody waits for a certificate, and nothing is left of the proof.
    assert!(Client::try_tls(program.listener("https"), &Tls::credulous().name("a.test")).is_err());
    let tokens = || program.path().join("kept/challenges").read_dir().unwrap().count();
    assert_eq!(tokens(), 0);
    assert!(
        other.received().iter().all(|request| request.target().starts_with("/.well-known/acme-challenge/"))
    );
}

fn nonces() {
    let ca = Pebble::start(Wish { bad_nonces: 60, ..Wish::default() });
    let program = start(&ca, "", "domains: [[a.test, b.test, c.test]]");
    let there = within(Duration::from_secs(60), || {
        program.stderr().contains("the certificate for a.test, b.test, c.test is there").then_some(())
    });
    assert!(there.is_some(), "{}", program.stderr());
}

fn patience() {
    let ca = Pebble::start(Wish::default());
    let relay = Relay::new(&ca, |asked| match &asked.payload["identifiers"][0]["value"] {
        Value::String(name) if name == "a.test" => {
            let problem =
                json!({"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many orders"});
            let fields = [("Retry-After", "7200"), ("Content-Type", "application/problem+json")];
            Act::Answer(response("429 Too Many Requests", &fields, problem.to_string()))
        }
        _ => Act::Pass,
    });
    let yaml = site(&ca, "", "domains: [a.test, b.test]").replace(&ca.directory(), &relay.directory());
    let program = ca.setup(&yaml).start();
    let line = program.said("the certificate for a.test is not issued: ");
    assert!(line.contains("asks for patience (429 Too Many Requests, 7200s): too many orders"), "{line}");
    // Another certificate is not concerned.
    program.said("the certificate for b.test is there");
    assert_eq!(failures(&program, "rate_limited"), Some(1));
    let wait = next_attempt(&program, "a.test");
    assert!((7100..=7200).contains(&wait), "{wait}");
    assert_eq!(relay.orders().len(), 2);
}

fn away() {
    let mut ca = Pebble::start(Wish { validity: 24, ..Wish::default() });
    let roots = |ca: &Pebble| Tls::trusting(ca.roots());
    ca.stop();
    let program = start(&ca, "", "domains: [a.test, b.test, c.test, d.test]");
    // It serves, and says what is wrong.
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 301);
    program.said("is not issued: no connection to 127.0.0.1:");
    // One attempt at a time, however many certificates there are.
    assert_eq!(failures(&program, "unreachable"), Some(1));
    ca.run();
    for name in ["a", "b", "c", "d"] {
        program.said(&format!("the certificate for {name}.test is there"));
    }
    let (tls, first) = (roots(&ca), shown(&program, "a.test"));
    assert_eq!(ask(&program, &tls, "a.test"), "here");
    // It is away again when they are to be renewed; the old ones are shown until it is back, and has forgotten us.
    ca.stop();
    until("another attempt", || failures(&program, "unreachable").filter(|count| *count > 1));
    assert_eq!(shown(&program, "a.test"), first);
    assert!(entry(&program, "a.test")["not_after"].is_string());
    ca.run();
    until("another certificate", || (shown(&program, "a.test") != first).then_some(()));
    assert_eq!(ask(&program, &roots(&ca), "a.test"), "here");
    program.said("the certificate for a.test is replaced, until ");
    let accounts = program.path().join("kept/accounts");
    let account = accounts.read_dir().unwrap().next().unwrap().unwrap().path();
    assert!(account.join("account.json").exists() && account.join("account.json.unknown").exists());
}

fn renewal() {
    let ca = Pebble::start(Wish::default());
    // The first certificate that is asked about is to be renewed at once, every other one in years.
    let first = std::sync::Mutex::new(None::<String>);
    let relay = Relay::new(&ca, move |asked| {
        if asked.target == "/dir" {
            return Act::Change(Box::new(|directory| {
                let base = directory["newOrder"].as_str().unwrap().rsplit_once('/').unwrap().0.to_owned();
                directory["renewalInfo"] = json!(base + "/renewal");
                directory["meta"]["profiles"] = json!({"shortlived": "six days"});
            }));
        }
        if let Some(identifier) = asked.target.strip_prefix("/renewal/") {
            let mut first = first.lock().unwrap();
            let window = match first.get_or_insert_with(|| identifier.to_owned()) == identifier {
                true => ["2001-01-02T04:00:00Z", "2001-01-03T04:00:00Z"],
                false => ["2035-01-02T04:00:00Z", "2035-01-03T04:00:00Z"],
            };
            let info = json!({"suggestedWindow": {"start": window[0], "end": window[1]}});
            let fields = [("Retry-After", "21600"), ("Content-Type", "application/json")];
            return Act::Answer(response("200 OK", &fields, info.to_string()));
        }
        match asked.payload["replaces"].clone() {
            Value::Null => Act::Pass,
            // This authority knows nothing of it; what stands in front of it does.
            replaces => Act::Change(Box::new(move |order| order["replaces"] = replaces)),
        }
    });
    let yaml = site(&ca, ", profile: shortlived", "domains: [a.test]");
    let program = ca.setup(&yaml.replace(&ca.directory(), &relay.directory())).start();
    program.said("the certificate for a.test is there");
    program.said("the certificate for a.test is replaced");
    let orders = until("two orders", || Some(relay.orders()).filter(|orders| orders.len() == 2));
    assert_eq!(orders[0]["replaces"], Value::Null);
    assert!(orders[1]["replaces"].as_str().unwrap().contains('.'));
    assert!(orders.iter().all(|order| order["profile"] == "shortlived"), "{orders:#?}");
    let questions = || relay.asked().into_iter().filter(|asked| asked.target.starts_with("/renewal/"));
    let asked = until("a question about each", || Some(questions().count()).filter(|count| *count == 2));
    assert_eq!(asked, 2);
    // The window is believed only as far as the certificate lasts: two thirds of 90 days.
    let wait = until("the window", || Some(next_attempt(&program, "a.test")).filter(|wait| *wait > 86_400));
    assert!((59 * 86_400..=64 * 86_400).contains(&wait), "{wait}");
    assert_eq!(program.metric("ingre_acme_issued_total"), Some(2));
}

fn accounts() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let ca = Pebble::start(Wish { eab: Some(("kid-1", key)), ..Wish::default() });
    let eab = format!(", eab: {{key_id: kid-1, hmac_key: {key}}}");
    let program = start(&ca, &format!("{eab}, key_type: p384"), "domains: [a.test]");
    program.said("the certificate for a.test is there");
    assert_eq!(entry(&program, "a.test")["key"], "EC P-384");
    // Another key for what comes from now on, and another address of the operator.
    let yaml = site(&ca, &format!("{eab}, key_type: rsa2048"), "domains: [a.test, b.test]");
    assert_eq!(program.reload(&yaml.replace("ops@", "admin@")), "ingre: reloaded");
    program.said("the certificate for b.test is there");
    assert_eq!(entry(&program, "b.test")["key"], "RSA 2048");
    assert_eq!(entry(&program, "a.test")["key"], "EC P-384");
    let accounts = program.path().join("kept/accounts");
    let account = accounts.read_dir().unwrap().next().unwrap().unwrap().path().join("account.json");
    let account: Value = serde_json::from_str(&std::fs::read_to_string(account).unwrap()).unwrap();
    assert_eq!(account["email"], "admin@example.com");
    // Without the key that was agreed on there is no account.
    let program = start(&ca, "", "domains: [a.test]");
    let line =
        program.said("the certificate for a.test is not issued: there is no account: the authority says: ");
    assert!(line.contains("(urn:ietf:params:acme:error:externalAccountRequired); next attempt in"), "{line}");
    assert_eq!(failures(&program, "refused"), Some(1));
    // A storage that is none: everything else goes on.
    let yaml = site(&ca, "", "domains: [a.test]").replace("storage: kept", "storage: ca.pem/kept");
    let program = ca.setup(&yaml).start();
    program.said("no certificate can be got: cannot make the directory `ca.pem/kept`: ");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 301);
}

fn reload() {
    let ca = Pebble::start(Wish::default());
    let program = start(&ca, "", "domains: [a.test]");
    program.said("the certificate for a.test is there");
    let tls = Tls::trusting(ca.roots());
    let a = shown(&program, "a.test");
    assert_eq!(program.reload(&site(&ca, "", "domains: [b.test, a.test]")), "ingre: reloaded");
    program.said("the certificate for b.test is there");
    assert_eq!((ask(&program, &tls, "b.test"), shown(&program, "a.test")), ("here".into(), a.clone()));
    assert_eq!(program.reload(&site(&ca, "", "domains: [b.test]")), "ingre: reloaded");
    until("a.test to be gone", || (shown(&program, "a.test") == shown(&program, "b.test")).then_some(()));
    // What comes back is kept, and not got again.
    assert_eq!(program.reload(&site(&ca, "", "domains: [a.test, b.test]")), "ingre: reloaded");
    until("a.test to be back", || (shown(&program, "a.test") == a).then_some(()));
    assert_eq!((program.metric("ingre_acme_issued_total"), ca.issued()), (Some(2), 2));
    // A configuration that is wrong changes nothing.
    let verdict = program.reload(&site(&ca, "", "domains: [\"*.a.test\"]"));
    assert!(verdict.starts_with("ingre: not reloaded"), "{verdict}");
    assert_eq!(shown(&program, "a.test"), a);
}
