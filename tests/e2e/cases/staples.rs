//! OCSP staples: fetched, verified, shown, renewed, and not shown when they are not good.

use std::process::{Command, Stdio};

use rcgen::{CertificateParams, CustomExtension, ExtendedKeyUsagePurpose};
use serde_json::Value;

use crate::harness::certificates::{Authority, Issued};
use crate::harness::program::ingre;
use crate::harness::{Case, Client, Need, Origin, Program, Setup, Tls, python, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("staples::openssl_says_what_clients_are_shown", &[Need::Openssl], openssl),
        Case::needing(
            "staples::only_what_is_good_is_shown_and_only_as_long",
            &[Need::Openssl, Need::Cryptography],
            life,
        ),
    ]
}

const YAML: &str = r#"
admin: {address: "127.0.0.1:0"}
listeners:
  - name: https
    address: "127.0.0.1:0"
    tls: {certificates: [{certificate: a.pem, key: a.key}, {certificate: b.pem, key: b.key}]}
  - name: bare
    address: "127.0.0.1:0"
    tls: {ocsp_stapling: false, certificates: [{certificate: a.pem, key: a.key}]}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;

/// The program with a certificate for a.test and one for b.test.
fn start(origin: &Origin, authority: &Authority, a: &Issued, b: &Issued) -> Program {
    let chain = |issued: &Issued| format!("{}{}", issued.certificate, authority.pem);
    Setup::new(YAML)
        .put("rs", origin.address())
        .file("a.pem", &chain(a))
        .file("a.key", &a.key)
        .file("b.pem", &chain(b))
        .file("b.key", &b.key)
        .start()
}

/// Names a responder (RFC 5280 4.2.2.1).
fn ask_at(params: &mut CertificateParams, port: u16) {
    let url = format!("http://127.0.0.1:{port}/ocsp");
    // 1.3.6.1.5.5.7.48.1, and a URL.
    let method = [&[0x06, 8][..], &[0x2b, 6, 1, 5, 5, 7, 0x30, 1], &[0x86, url.len() as u8]].concat();
    let description = [&[0x30, (method.len() + url.len()) as u8][..], &method, url.as_bytes()].concat();
    let access = [&[0x30, description.len() as u8][..], &description].concat();
    params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access));
}

/// Obliges clients to insist on a staple (RFC 7633).
fn insist(params: &mut CertificateParams) {
    let features = vec![0x30, 3, 2, 1, 5];
    params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], features));
}

/// What `openssl s_client` says about the staple that a listener shows.
fn shown(program: &Program, listener: &str, name: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &program.listener(listener).to_string(), "-servername", name])
        .args(["-status", "-CAfile", "ca.pem"])
        .current_dir(program.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text.find("OCSP response:").unwrap_or_else(|| panic!("no word about OCSP:\n{text}"));
    text[begin..].split("---\nCertificate chain").next().unwrap().to_owned()
}

fn is_good(shown: &str) -> bool {
    shown.contains("OCSP Response Status: successful") && shown.contains("Cert Status: good")
}

fn is_none(shown: &str) -> bool {
    shown.starts_with("OCSP response: no response sent")
}

fn entry(program: &Program, name: &str) -> Value {
    let page: Value = serde_json::from_str(&program.page("/certificates").1).unwrap();
    let mut all = page["certificates"].as_array().unwrap().iter();
    all.find(|entry| entry["names"][0] == name).unwrap().clone()
}

/// The responder of OpenSSL, with a certificate of its own, and one certificate that it says was revoked.
fn openssl() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let signer = authority.issue_with(&["responder"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    });
    let scratch = crate::harness::scratch::Scratch::new();
    let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
    write("ca.pem", &authority.pem);
    write("signer.pem", &signer.certificate);
    write("signer.key", &signer.key);
    write(
        "index.txt",
        "V\t491231235959Z\t\t0A01\tunknown\t/CN=a.test\nR\t491231235959Z\t260101000000Z\t0B01\tunknown\t/CN=b.test\n",
    );
    let mut command = Command::new("openssl");
    command
        .args(["ocsp", "-index", "index.txt", "-port", "0", "-CA", "ca.pem", "-nmin", "5", "-ignore_err"])
        .args(["-rsigner", "signer.pem", "-rkey", "signer.key"])
        .current_dir(scratch.path())
        .stdin(Stdio::null());
    let responder = Program::spawn(command, None);
    let port = until("the port of the responder", || {
        let line = responder.stdout_lines().into_iter().find(|line| line.starts_with("ACCEPT"))?;
        line.split(' ').nth(1)?.rsplit(':').next()?.parse::<u16>().ok()
    });
    let issue = |name: &str, serial: [u8; 2]| {
        authority.issue_with(&[name], |params| {
            params.serial_number = Some(serial.to_vec().into());
            ask_at(params, port);
        })
    };
    let program = start(&origin, &authority, &issue("a.test", [10, 1]), &issue("b.test", [11, 1]));
    std::fs::write(program.path().join("ca.pem"), &authority.pem).unwrap();
    until("a staple", || is_good(&shown(&program, "https", "a.test")).then_some(()));
    let staple = entry(&program, "a.test")["staple"].clone();
    assert_eq!((&staple["state"], &staple["last_error"]), (&"good".into(), &Value::Null), "{staple:#}");
    // The listener that was told not to, with the same certificate.
    assert!(is_none(&shown(&program, "bare", "a.test")));
    program
        .said("ingre: the certificate for b.test (`b.pem`) was REVOKED on 2026-01-01T00:00:00Z: replace it");
    assert!(is_none(&shown(&program, "https", "b.test")));
    let admin = program.admin().to_string();
    let ran = ingre(&["certs", "--admin", &admin], "");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("1 of 2 certificates need attention"), "{ran:?}");
    let row = |name: &str| ran.stdout.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(row("a.test").ends_with("a.pem   good     -"), "{ran:?}");
    assert!(row("b.test").ends_with("b.pem   revoked  revoked"), "{ran:?}");
    let metric = "ingre_certificate_staple_not_after_seconds{listener=\"https\",name=\"a.test\"}";
    assert!(program.metric(metric).is_some());
    // A reload keeps what was fetched.
    let text = std::fs::read_to_string(program.path().join("config.yaml")).unwrap();
    let asked = || responder.stdout_lines().len() + responder.stderr().lines().count();
    let before = asked();
    assert_eq!(program.reload(&text), "ingre: reloaded");
    assert!(is_good(&shown(&program, "https", "a.test")));
    assert_eq!(asked(), before);
    // Switched on where it was off, and off where it was on.
    let turned = text.replace("ocsp_stapling: false", "ocsp_stapling: true").replace(
        "tls: {certificates: [{certificate: a.pem",
        "tls: {ocsp_stapling: false, certificates: [{certificate: a.pem",
    );
    assert_eq!(program.reload(&turned), "ingre: reloaded");
    until("the other way round", || {
        let (https, bare) = (shown(&program, "https", "a.test"), shown(&program, "bare", "a.test"));
        (is_none(&https) && is_good(&bare)).then_some(())
    });
}

/// A responder that is told what to answer, and a certificate that clients refuse without a staple.
fn life() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let scratch = crate::harness::scratch::Scratch::new();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::write(path("ca.pem"), &authority.pem).unwrap();
    std::fs::write(path("ca.key"), authority.key()).unwrap();
    let mut responder = python::here("ocsp_responder.py", &[&path("ca.pem"), &path("ca.key")]);
    let port = until("the port of the responder", || {
        responder.stdout_lines().first()?.strip_prefix("port ")?.parse::<u16>().ok()
    });
    responder.tell("good 8");
    let a = authority.issue_with(&["a.test"], |params| {
        ask_at(params, port);
        insist(params);
    });
    // Nobody can be asked about this one: its responder is not one of HTTP in clear.
    let b = authority.issue_with(&["b.test"], insist);
    let program = start(&origin, &authority, &a, &b);
    std::fs::write(program.path().join("ca.pem"), &authority.pem).unwrap();
    let staple = || shown(&program, "https", "a.test");
    let first = until("a staple", || Some(staple()).filter(|shown| is_good(shown)));
    program.said(
        "ingre: the certificate for b.test (`b.pem`) gets no staple: the certificate names no responder",
    );
    program.said(
        "ATTENTION: the certificate for b.test (`b.pem`) obliges clients to refuse it without a staple",
    );
    assert_eq!(entry(&program, "b.test")["problem"], "clients insist on a staple and there is none");
    assert_eq!(entry(&program, "a.test")["problem"], Value::Null);
    // Half way through there is a newer one; at no moment there is none.
    until("a newer staple", || {
        let now = staple();
        assert!(is_good(&now), "{now}");
        (now != first).then_some(())
    });
    // What is not good is not taken. The last good one is shown up to its end.
    let failures = [
        ("garbage", "the answer is no OCSP response"),
        ("failing", "the answer is 500"),
        ("forged", "the answer is not signed by the issuer or who it has named for that"),
        ("other", "the answer is about another certificate"),
        ("outdated", "the answer was good until "),
        ("unknown", "the responder does not know it"),
    ];
    for (how, reason) in failures {
        // After a success the pause is short.
        responder.tell("good 4");
        until("a good one", || (entry(&program, "a.test")["staple"]["last_error"].is_null()).then_some(()));
        responder.tell(how);
        let last = until(how, || {
            let staple = entry(&program, "a.test")["staple"].clone();
            staple["last_error"].as_str().is_some_and(|error| error.contains(reason)).then_some(staple)
        });
        assert!(last["state"] == "good" || last["state"] == "missing", "{last:#}");
    }
    responder.tell("forged");
    program
        .said("ingre: the staple of the certificate for a.test (`a.pem`) is outdated and not shown any more");
    until("no staple", || is_none(&staple()).then_some(()));
    program.said("ATTENTION: the certificate for a.test");
    responder.tell("good 3600");
    until("a staple again", || is_good(&staple()).then_some(()));
    program.said("ingre: the certificate for a.test (`a.pem`) has a staple again");
    // A new certificate is not shown with the staple of the old one.
    let replace = || {
        let new = authority.issue_with(&["a.test"], |params| ask_at(params, port));
        std::fs::write(program.path().join("a.key"), &new.key).unwrap();
        std::fs::write(program.path().join("a.pem"), format!("{}{}", new.certificate, authority.pem))
            .unwrap();
        let tls = Tls::credulous().name("a.test");
        until("the new certificate", || {
            let shown = Client::connect_tls(program.listener("https"), &tls).certificate();
            (shown == new.der).then_some(())
        });
    };
    replace();
    until("its staple", || {
        let serial = entry(&program, "a.test")["serial"].as_str().unwrap().to_uppercase();
        let shown = staple();
        (is_good(&shown) && shown.contains(&format!("Serial Number: {serial}"))).then_some(())
    });
    // Nobody waits for a responder that is silent, or gone.
    responder.tell("silent");
    replace();
    assert!(is_none(&staple()));
    let no_staple = "ingre: the certificate for a.test (`a.pem`) gets no new staple (it has none): ";
    program.said(&format!("{no_staple}http://127.0.0.1:{port}/ocsp: no answer within 10 s"));
    drop(responder);
    program.said(&format!("{no_staple}http://127.0.0.1:{port}/ocsp: 127.0.0.1:{port}: Connection refused"));
    assert!(is_none(&staple()));
}
