//! Certificates that look after themselves: files that change, ends that come near, and what operators see of it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::certificates::{Authority, Issued};
use crate::harness::program::ingre;
use crate::harness::{Case, Client, Origin, Program, Request, Setup, Tls, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("certificates::files_that_change_are_read_again", changed),
        Case::new("certificates::a_bad_one_never_replaces_a_good_one", bad),
        Case::new("certificates::a_directory_that_is_swapped_by_a_link", swapped),
        Case::new("certificates::an_end_that_comes_near_is_said", ends),
        Case::new("certificates::the_command_shows_them_and_its_exit_code_tells", command),
        Case::new("certificates::a_reload_and_a_change_at_once", with_reload),
    ]
}

const YAML: &str = r#"
admin: {address: "127.0.0.1:0"}
listeners:
  - name: https
    address: "127.0.0.1:0"
    tls: {certificates: [{certificate: <dir>a.pem, key: <dir>a.key}, {certificate: b.pem, key: b.key}]}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;

/// The program with two certificates, the first of them below a directory.
fn start(origin: &Origin, dir: &str, first: &Issued, second: &Issued) -> Program {
    let setup = Setup::new(YAML).put("rs", origin.address()).put("dir", dir);
    let path = setup.path().join(dir);
    std::fs::create_dir_all(&path).unwrap();
    put(&path, "a", first);
    setup.file("b.pem", &second.certificate).file("b.key", &second.key).start()
}

fn put(directory: &Path, name: &str, issued: &Issued) {
    std::fs::write(directory.join(format!("{name}.key")), &issued.key).unwrap();
    std::fs::write(directory.join(format!("{name}.pem")), &issued.certificate).unwrap();
}

/// What a client that asks for this name is shown.
fn shown(program: &Program, name: &str) -> Vec<u8> {
    let tls = Tls::credulous().name(name);
    Client::connect_tls(program.listener("https"), &tls).certificate().to_vec()
}

fn wait_shown(program: &Program, name: &str, issued: &Issued) {
    until("the new certificate", || (shown(program, name) == issued.der.to_vec()).then_some(()));
}

/// The entry of the page /certificates for what is first for this name.
fn entry(program: &Program, name: &str) -> Value {
    let (status, text) = program.page("/certificates");
    assert_eq!(status, 200);
    let page: Value = serde_json::from_str(&text).unwrap();
    let mut all = page["certificates"].as_array().unwrap().iter();
    all.find(|entry| entry["names"][0] == name).unwrap_or_else(|| panic!("{name} in {page:#}")).clone()
}

fn changed() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let issue = |name: &str| authority.issue(&[name]);
    let (first, second) = (issue("a.test"), issue("b.test"));
    let program = start(&origin, "", &first, &second);
    let tls = Tls::trusting(authority.roots()).name("a.test");
    let mut before = Client::connect_tls(program.listener("https"), &tls);
    let path = program.path();
    // Written over in place, key first; as large as before and, in the end, as old.
    let third = issue("a.test");
    let old = std::fs::metadata(path.join("a.pem")).unwrap().modified().unwrap();
    put(path, "a", &third);
    std::fs::File::options().write(true).open(path.join("a.pem")).unwrap().set_modified(old).unwrap();
    wait_shown(&program, "a.test", &third);
    program.said("ingre: the certificate for a.test (`a.pem`) is replaced, until 4096-01-01T00:00:00Z");
    // Renamed over the old ones, certificate first, the key some time later.
    let fourth = issue("a.test");
    put(path, "new", &fourth);
    std::fs::rename(path.join("new.pem"), path.join("a.pem")).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2500) {
        assert_eq!(shown(&program, "a.test"), third.der.to_vec());
    }
    std::fs::rename(path.join("new.key"), path.join("a.key")).unwrap();
    wait_shown(&program, "a.test", &fourth);
    // For another name: the listener finds it by that, and the other certificate is where it was.
    let fifth = issue("c.test");
    put(path, "a", &fifth);
    wait_shown(&program, "c.test", &fifth);
    assert_eq!(shown(&program, "b.test"), second.der.to_vec());
    assert!(!program.stderr().contains("stays as it is"), "{}", program.stderr());
    let entry = entry(&program, "c.test");
    assert_eq!((&entry["replacements"], &entry["problem"]), (&3.into(), &Value::Null), "{entry:#}");
    assert_eq!(entry["listeners"][0], "https");
    program.wait_metric("ingre_certificate_replacements_total{listener=\"https\",name=\"c.test\"}", 3);
    program.wait_metric("ingre_certificate_replacements_total{listener=\"https\",name=\"b.test\"}", 0);
    program.wait_metric(
        "ingre_certificate_not_after_seconds{listener=\"https\",name=\"b.test\"}",
        67_090_118_400,
    );
    // The connection from before all of that.
    assert_eq!(before.ask(&Request::get("a.test", "/")).text(), "rs");
}

fn bad() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let (first, second, other) =
        (authority.issue(&["a.test"]), authority.issue(&["b.test"]), authority.issue(&["a.test"]));
    let expired = authority.issue_expired(&["a.test"]);
    let program = start(&origin, "", &first, &second);
    let path = program.path();
    let metric = "ingre_certificate_failing{listener=\"https\",name=\"a.test\"}";
    let mut count = 0;
    for (certificate, key, said) in [
        (Some(other.certificate.as_str()), first.key.as_str(), "`a.pem` and `a.key` do not go together: "),
        (
            Some("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"),
            &first.key,
            "`a.pem` is damaged PEM",
        ),
        (Some(""), &first.key, "`a.pem` holds no PEM certificate"),
        (None, &first.key, "cannot read `a.pem`: "),
        (Some(&expired.certificate), &expired.key, "the new certificate has expired on 2002-01-01T00:00:00Z"),
    ] {
        match certificate {
            Some(text) => std::fs::write(path.join("a.pem"), text).unwrap(),
            None => std::fs::remove_file(path.join("a.pem")).unwrap(),
        }
        std::fs::write(path.join("a.key"), key).unwrap();
        program.said(&format!("ingre: the certificate for a.test (`a.pem`) stays as it is: {said}"));
        count += 1;
        assert_eq!(shown(&program, "a.test"), first.der.to_vec(), "{said}");
        let entry = entry(&program, "a.test");
        assert!(entry["last_error"].as_str().unwrap().starts_with(said), "{entry:#}");
        assert_eq!((&entry["problem"], &entry["failures"]), (&entry["last_error"], &count.into()));
        program.wait_metric(metric, 1);
    }
    // What is refused as a change is no better when a reload finds it.
    let text = std::fs::read_to_string(path.join("config.yaml")).unwrap();
    assert_eq!(program.reload(&text), "ingre: reloaded");
    assert_eq!(shown(&program, "a.test"), first.der.to_vec());
    // The old ones are there again: nothing to replace, and nothing wrong.
    put(path, "a", &first);
    program.wait_metric(metric, 0);
    assert_eq!(entry(&program, "a.test")["problem"], Value::Null);
    put(path, "a", &other);
    wait_shown(&program, "a.test", &other);
    assert!(!program.stderr().contains("PRIVATE"), "a key is shown:\n{}", program.stderr());
}

/// As Kubernetes changes a mounted secret: files are links into `..data`, which is a link that is renamed over.
fn swapped() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let program = start(&origin, "secret/", &first, &second);
    let secret = program.path().join("secret");
    let turn = |version: &str, issued: &Issued| {
        std::fs::create_dir(secret.join(version)).unwrap();
        put(&secret.join(version), "a", issued);
        symlink(version, secret.join("..data_tmp")).unwrap();
        std::fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
    };
    turn("..2026_01", &first);
    for name in ["a.pem", "a.key"] {
        std::fs::remove_file(secret.join(name)).unwrap();
        symlink(format!("..data/{name}"), secret.join(name)).unwrap();
    }
    let third = authority.issue(&["a.test"]);
    turn("..2026_02", &third);
    std::fs::remove_dir_all(secret.join("..2026_01")).unwrap();
    wait_shown(&program, "a.test", &third);
    let fourth = authority.issue(&["a.test"]);
    turn("..2026_03", &fourth);
    wait_shown(&program, "a.test", &fourth);
    assert!(!program.stderr().contains("stays as it is"), "{}", program.stderr());
}

/// A reload may read the old files just before they change, and put what it has read there just after.
fn with_reload() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let program = start(&origin, "", &first, &second);
    let text = std::fs::read_to_string(program.path().join("config.yaml")).unwrap();
    for _ in 0..5 {
        let next = authority.issue(&["a.test"]);
        std::thread::scope(|scope| {
            scope.spawn(|| put(program.path(), "a", &next));
            for _ in 0..5 {
                // Where it meets half a pair it is refused, and what is there stays.
                program.reload(&text);
            }
        });
        wait_shown(&program, "a.test", &next);
    }
    assert_eq!(shown(&program, "b.test"), second.der.to_vec());
}

fn ends() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let now = std::time::SystemTime::now();
    let issue = |name: &str, before: u64, after: u64| {
        authority.issue_with(&[name], |params| {
            params.not_before = (now - Duration::from_secs(before)).into();
            params.not_after = (now + Duration::from_secs(after)).into();
        })
    };
    let hour = 3600;
    let program = start(
        &origin,
        "",
        &issue("a.test", 24 * hour, 10),
        &issue("b.test", 300 * 24 * hour, 6 * 24 * hour + hour),
    );
    program.said("ingre: the certificate for b.test (`b.pem`) ends in 6 days, on 20");
    program.said("ingre: the certificate for a.test (`a.pem`) ends in ");
    program.said("ingre: the certificate for a.test (`a.pem`) has EXPIRED on 20");
    assert_eq!(entry(&program, "a.test")["problem"], "expired");
    let lines = || program.stderr().lines().filter(|line| line.contains(".test (`")).count();
    assert_eq!(lines(), 3, "{}", program.stderr());
    // What has expired is replaced even by what is not good yet; there is nothing better.
    let early = authority.issue_with(&["a.test"], |params| {
        params.not_before = (now + Duration::from_secs(hour)).into();
    });
    put(program.path(), "a", &early);
    program.said("ingre: the certificate for a.test (`a.pem`) does not hold before 20");
    wait_shown(&program, "a.test", &early);
    assert_eq!(entry(&program, "a.test")["problem"], "not yet valid");
    let good = authority.issue(&["a.test"]);
    put(program.path(), "a", &good);
    wait_shown(&program, "a.test", &good);
    until("it is well", || entry(&program, "a.test")["problem"].is_null().then_some(()));
}

fn command() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["a.test", "b.test", "c.test"]), authority.issue(&["d.test"]));
    let program = start(&origin, "", &first, &second);
    let path = program.path().join("config.yaml");
    let file = path.to_str().unwrap();
    // The file has a port that the system chose: nobody is there, and the files are looked at.
    let ran = ingre(&["certs", "-c", file], "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("this is what the files hold"), "{ran:?}");
    assert!(ran.stdout.contains("a.test, b.test and 1 more"), "{ran:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    let admin = format!("admin: {{address: \"{}\"}}", program.admin());
    std::fs::write(&path, text.replace("admin: {address: \"127.0.0.1:0\"}", &admin)).unwrap();
    let ran = ingre(&["certs", "-c", file], "");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    for part in ["NAMES", "LISTENERS", "ISSUER", "NOT AFTER", "LEFT", "KEY", "SOURCE", "STAPLE", "PROBLEM"] {
        assert!(lines[0].contains(part), "{ran:?}");
    }
    for part in
        ["a.test, b.test and 1 more", "https", "e2e CA", "4096-01-01", " days", "EC P-256", "a.pem", "none"]
    {
        assert!(lines[1].contains(part), "{part}: {ran:?}");
    }
    assert!(lines[2].starts_with("d.test "), "{ran:?}");
    // A file that is damaged does not hide what is being shown.
    std::fs::write(program.path().join("b.key"), "damaged").unwrap();
    program.said("the certificate for d.test (`b.pem`) stays as it is: `b.key` holds no PEM private key");
    let ran = ingre(&["certs", "-c", file, "--json"], "");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("1 of 2 certificates need attention"), "{ran:?}");
    let page: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(page["certificates"][1]["names"], serde_json::json!(["d.test"]));
    assert!(page["certificates"][1]["last_error"].as_str().unwrap().starts_with("`b.key` holds"), "{page:#}");
    assert_eq!(page["certificates"][1]["files"], serde_json::json!(["b.pem", "b.key"]));
    drop(program);
    let ran = ingre(&["certs", "--admin", "127.0.0.1:1"], "");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no answer from the admin listener on 127.0.0.1:1"), "{ran:?}");
    // One that has expired, in a file, and a development certificate that is not there yet.
    let expired = authority.issue_expired(&["old.test"]);
    let setup = Setup::new("").file("old.pem", &expired.certificate).file("old.key", &expired.key);
    let text = "listeners: [{name: https, address: \"127.0.0.1:0\", tls: {development: {}, certificates: \
                [{certificate: old.pem, key: old.key}]}}]\n";
    std::fs::write(setup.path().join("config.yaml"), text).unwrap();
    let ran = ingre(&["certs", "-c", setup.path().join("config.yaml").to_str().unwrap()], "");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the configuration has no admin listener to ask"), "{ran:?}");
    assert!(ran.stdout.contains("old.test") && ran.stdout.contains("expired"), "{ran:?}");
    assert!(!setup.path().join("certs").exists());
}
