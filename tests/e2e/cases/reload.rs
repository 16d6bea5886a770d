//! HUP and USR1: what changes while requests run, and what does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::harness::certificates::Authority;
use crate::harness::{Case, Client, Origin, Request, Setup, Tls, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("reload::no_request_fails_under_load", under_load),
        Case::new("reload::a_bad_file_keeps_the_old_configuration", bad),
        Case::new("reload::what_needs_a_restart_is_refused", fixed),
        Case::new("reload::the_drain_is_the_new_one", drain),
        Case::new("reload::an_rs_that_is_added_waits_for_its_first_success", added),
        Case::new("reload::a_signal_during_the_start_is_heard", during_start),
        Case::new("reload::certificates_are_replaced", certificates),
        Case::new("reload::usr1_opens_the_log_again", reopen),
        Case::new("reload::without_a_file_there_is_none", no_file),
    ]
}

fn config(servers: &[&Origin], check: &str) -> String {
    let servers: Vec<_> =
        servers.iter().map(|origin| format!("{{address: \"{}\"}}", origin.address())).collect();
    format!(
        "admin: {{address: \"127.0.0.1:0\"}}\n\
         listeners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
         pools: [{{name: rs, servers: [{}], health_check: {{{check}}}}}]\n\
         routes: [{{domains: [\"*\"], rules: [{{url: /, pool: rs}}]}}]\n",
        servers.join(", ")
    )
}

fn under_load() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let texts =
        [config(&[&one], "type: off"), config(&[&one, &two], "type: off"), config(&[&two], "type: off")];
    let program = Setup::new(&texts[0]).start();
    let address = program.listener("http");
    let over = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for keep in [true, true, false] {
            let (over, count) = (Arc::clone(&over), Arc::clone(&count));
            scope.spawn(move || {
                let mut client = Client::connect(address);
                while !over.load(Ordering::Relaxed) {
                    let request = Request::get("a.test", "/");
                    if keep {
                        assert_eq!(client.ask(&request).status, 200);
                    } else {
                        assert_eq!(Client::connect(address).ask(&request.close()).status, 200);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..30 {
            assert_eq!(program.reload(&texts[round % 3]), "ingre: reloaded");
            // Requests in between.
            let before = count.load(Ordering::Relaxed);
            until("requests", || (count.load(Ordering::Relaxed) > before + 20).then_some(()));
        }
        over.store(true, Ordering::Relaxed);
    });
    // The last of them is in force, for old connections too.
    let before = one.received().len();
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "two");
    assert_eq!(one.received().len(), before);
}

fn bad() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let program = Setup::new(&config(&[&one], "type: off")).start();
    let broken = config(&[&two], "type: off").replace("pool: rs}", "pool: rss}");
    let verdict = program.reload(&broken);
    assert!(
        verdict.starts_with("ingre: not reloaded, the old configuration stays: config.yaml:4:"),
        "{verdict}"
    );
    assert!(verdict.contains("there is no pool named `rss`"), "{verdict}");
    program.said("help: did you mean `rs`?");
    assert!(program.reload("listeners: {").contains("not reloaded"));
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "one");
    assert_eq!(program.reload(&config(&[&two], "type: off")), "ingre: reloaded");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "two");
}

fn fixed() {
    let origin = Origin::named("rs");
    let text = config(&[&origin], "type: off");
    let program = Setup::new(&text).start();
    for (from, to) in
        [("name: http", "name: web"), ("\"127.0.0.1:0\"}]", "\"127.0.0.1:0\", max_connections: 5}]")]
    {
        let verdict = program.reload(&text.replace(from, to));
        assert!(verdict.contains("change only with a restart"), "{verdict}");
    }
    for more in ["access_log: {output: off}", "workers: 3", "demo: {address: \"127.0.0.1:0\"}"] {
        let verdict = program.reload(&format!("{text}{more}\n"));
        assert!(verdict.contains("change only with a restart"), "{verdict}");
    }
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
}

fn drain() {
    let origin = Origin::named("rs");
    let text = config(&[&origin], "type: off");
    let mut program = Setup::new(&format!("{text}drain: {{timeout: 1h}}\n")).start();
    assert_eq!(program.reload(&format!("{text}drain: {{timeout: 1s}}\n")), "ingre: reloaded");
    program.signal(Signal::TERM);
    program.said("draining for at most 1s");
    assert!(program.wait_exit().success());
}

fn added() {
    let one = Origin::named("one");
    let healthy = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&healthy);
    let two = Origin::serving(move |request| {
        let fails = request.is_probe() && !shown.load(Ordering::SeqCst);
        crate::harness::origin::response(if fails { "500 Starting" } else { "200 OK" }, &[], "two")
    });
    let check = "interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 10";
    let program = Setup::new(&config(&[&one], check)).start();
    program.wait_metric(&format!("ingre_server_up{{pool=\"rs\",server=\"{}\"}}", one.address()), 1);
    assert_eq!(program.reload(&config(&[&one, &two], check)), "ingre: reloaded");
    until("it is checked", || (!two.probes().is_empty()).then_some(()));
    for _ in 0..10 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "one");
    }
    healthy.store(true, Ordering::SeqCst);
    program.wait_metric(&format!("ingre_server_up{{pool=\"rs\",server=\"{}\"}}", two.address()), 1);
    for _ in 0..10 {
        assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
    }
    assert!(!two.received().is_empty());
    // What is known of the other was kept.
    assert!(!program.stderr().contains(&format!("{} is Down", one.address())));
}

/// Whoever reads the first line of a start may send a signal: it waits until it can be obeyed.
fn during_start() {
    let origin = Origin::named("rs");
    let program = Setup::new(&config(&[&origin], "type: off")).spawn("run");
    program.said("listener http serves");
    program.signal(Signal::HUP);
    program.said("ingre: reloaded");
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "rs");
}

fn certificates() {
    let origin = Origin::named("rs");
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let yaml = r#"
listeners:
  - name: https
    address: "127.0.0.1:0"
    tls: {certificates: [{certificate: a.pem, key: a.key}]}
pools: [{name: rs, servers: [{address: "<rs>"}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let yaml = yaml.replace("<rs>", &origin.address().to_string());
    let program = Setup::new(&yaml).file("a.pem", &old.certificate).file("a.key", &old.key).start();
    let tls = Tls::trusting(authority.roots()).name("a.test");
    let mut before = Client::connect_tls(program.listener("https"), &tls);
    assert_eq!(before.certificate(), old.der);
    // A key that does not fit yet: the old pair stays.
    std::fs::write(program.path().join("a.pem"), &new.certificate).unwrap();
    assert!(program.reload(&yaml).contains("not reloaded"));
    assert_eq!(Client::connect_tls(program.listener("https"), &tls).certificate(), old.der);
    std::fs::write(program.path().join("a.key"), &new.key).unwrap();
    assert_eq!(program.reload(&yaml), "ingre: reloaded");
    until("the new certificate", || {
        (Client::connect_tls(program.listener("https"), &tls).certificate() == new.der).then_some(())
    });
    // The old connection goes on.
    assert_eq!(before.ask(&Request::get("a.test", "/")).text(), "rs");
}

fn reopen() {
    let origin = Origin::named("rs");
    let text = format!("{}access_log: {{output: access.log}}\n", config(&[&origin], "type: off"));
    let program = Setup::new(&text).start();
    let (path, moved) = (program.path().join("access.log"), program.path().join("access.log.1"));
    let has = |path: &std::path::Path, target: &str| {
        until("the log line", || {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.contains(&format!("\"{target}\"")).then_some(())
        });
    };
    assert_eq!(program.ask("http", &Request::get("a.test", "/before")).status, 200);
    has(&path, "/before");
    std::fs::rename(&path, &moved).unwrap();
    // Until it is told, it writes to the file it has open.
    assert_eq!(program.ask("http", &Request::get("a.test", "/between")).status, 200);
    has(&moved, "/between");
    program.signal(Signal::USR1);
    until("the new file", || {
        assert_eq!(program.ask("http", &Request::get("a.test", "/after")).status, 200);
        path.exists().then_some(())
    });
    has(&path, "/after");
}

fn no_file() {
    let origin = Origin::named("rs");
    let scratch = Arc::new(crate::harness::scratch::Scratch::new());
    let mut command = std::process::Command::new(crate::harness::program::BINARY);
    command.args(["proxy", "--from", "127.0.0.1:0", "--to", &origin.address().to_string()]);
    command.current_dir(scratch.path());
    let program = crate::harness::Program::spawn(command, Some(scratch));
    program.wait_ready();
    program.signal(Signal::HUP);
    program.said("not reloaded, the old configuration stays");
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "rs");
}
