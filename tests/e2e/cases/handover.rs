//! A new process takes over from a running one: what clients of TCP see of it, which is nothing.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::digest::{content, sha256};
use crate::harness::h2::{self, H2};
use crate::harness::origin::{ok, response};
use crate::harness::{Case, Client, Origin, Program, Request, Setup, Tls, until};

use super::SITE;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("handover::downloads_go_on", downloads),
        Case::new("handover::no_request_fails", hammer),
        Case::new("handover::a_websocket_goes_on", websocket),
        Case::new("handover::an_idle_connection_may_bring_one_more_request", idle),
        Case::new("handover::connections_that_wait_are_not_lost", waiting),
        Case::new("handover::admin_pages_and_the_demo_go_over", admin_and_demo),
        Case::new("handover::listeners_may_come_and_go", listeners),
        Case::new("handover::the_old_one_ends_after_its_drain_timeout", timeout),
        Case::new("handover::handed_in_sockets_go_over", handed_in),
    ]
}

/// [`SITE`] in front of an RS, found at a path.
pub(super) fn text(origin: &Origin, workers: usize) -> String {
    SITE.replace("workers: 1", &format!("workers: {workers}"))
        .replace("<rs>", &origin.address().to_string())
        .replace("<listener>", "")
        .replace("<pool>", "")
        .replace("<more>", "handover: {path: ingre.sock}\ndrain: {timeout: 20s}\naccess_log: {output: off}\n")
}

/// Starts another one that takes over, with this configuration.
pub(super) fn succeed(old: &Program, text: &str) -> Program {
    let new = Setup::beside(old, text).start();
    new.said(&format!("from process {}", old.pid()));
    old.said(&format!("process {} takes over; draining", new.pid()));
    new
}

/// Waits until the old one has ended as it should.
pub(super) fn ends(mut old: Program) {
    assert_eq!(old.exit_within(Duration::from_secs(30)).code(), Some(0), "{}", old.stderr());
    old.said("ingre: drained");
}

/// An RS that sends the first half of a body, and the other one for each thing that it is told.
pub(super) fn halves(body: Vec<u8>) -> (Origin, Sender<()>) {
    let (go, wait) = channel();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::scripted(move |peer| {
        loop {
            let request = peer.request()?;
            if request.target() != "/halves" {
                peer.send(ok("rs"))?;
                continue;
            }
            let whole = response("200 OK", &[], &body);
            let (first, second) = whole.split_at(whole.len() / 2);
            peer.send(first)?;
            let _ = wait.lock().unwrap().recv();
            peer.send(second)?;
        }
    });
    (origin, go)
}

fn downloads() {
    let body = content(4_000_000, 11);
    let digest = sha256(&body);
    let (origin, go) = halves(body);
    let old = Setup::new(&text(&origin, 2)).start();
    let tls = old.tls();
    let mut h1 = Client::connect_tls(old.listener("https"), &tls);
    h1.send(Request::get("localhost", "/halves").head());
    until("the request at the RS", || (origin.received().len() == 1).then_some(()));
    h2::run(async {
        let mut h2 = H2::connect(old.listener("https"), &tls).await;
        let request = http::Request::get("https://localhost/halves").body(()).unwrap();
        let (answer, _) = h2.begin(request, true).await;
        while origin.received().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let new = succeed(&old, &text(&origin, 2));
        assert_eq!(new.listener("https"), old.listener("https"));
        assert_eq!(
            Client::connect_tls(new.listener("https"), &tls).ask(&Request::get("localhost", "/")).text(),
            "rs"
        );
        for _ in 0..2 {
            go.send(()).unwrap();
        }
        assert_eq!(sha256(&h2::read(answer).await.body), digest);
        let got = h1.response();
        assert_eq!((sha256(&got.body), got.status), (digest, 200));
        drop((h1, h2));
        ends(old);
    });
}

/// Clients that ask again and again until they are told to stop.
pub(super) struct Hammer {
    stop: Arc<AtomicBool>,
    pub(super) count: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Hammer {
    pub(super) fn new() -> Self {
        Self { stop: Arc::default(), count: Arc::default(), threads: Vec::new() }
    }

    /// Does this for as long as it runs; a failure is a panic.
    pub(super) fn with(mut self, client: impl Fn(&dyn Fn() -> bool) + Send + 'static) -> Self {
        let (stop, count) = (Arc::clone(&self.stop), Arc::clone(&self.count));
        let next = move || {
            count.fetch_add(1, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        };
        self.threads.push(std::thread::spawn(move || client(&next)));
        self
    }

    /// How many requests there were.
    pub(super) fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.count.load(Ordering::Relaxed)
    }
}

/// HTTP/1.1 on kept-alive connections; no request is sent twice.
fn keep_alive(connect: impl Fn() -> Client, next: &dyn Fn() -> bool) {
    let mut client = connect();
    while next() {
        let got = client.ask(&Request::get("localhost", "/"));
        assert_eq!((got.status, got.text()), (200, "rs".into()));
        if got.field("connection") == Some("close") {
            client = connect();
        }
    }
}

/// HTTP/1.1 with a connection for each request.
fn close(connect: impl Fn() -> Client, next: &dyn Fn() -> bool) {
    while next() {
        let got = connect().ask(&Request::get("localhost", "/").close());
        assert_eq!((got.status, got.text()), (200, "rs".into()));
    }
}

/// HTTP/2: a request that the server says it has not looked at is sent again (RFC 9113 6.8).
fn over_h2(address: SocketAddr, tls: &Tls, next: &dyn Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = H2::connect(address, tls).await;
        while next() {
            let got = client.try_get("https://localhost/").await;
            if got.is_err() {
                let end = client.connection.await.unwrap();
                assert!(end.is_ok(), "{got:?} {end:?}");
                client = H2::connect(address, tls).await;
                assert_eq!(client.try_get("https://localhost/").await, Ok(200));
            } else {
                assert_eq!(got, Ok(200));
            }
        }
    });
}

/// All of these at once, and a few of each.
pub(super) fn clients(program: &Program) -> Hammer {
    let (plain, secure, tls) = (program.listener("http"), program.listener("https"), program.tls());
    let mut hammer = Hammer::new();
    for _ in 0..2 {
        let [one, two, three] = [(); 3].map(|()| tls.clone());
        hammer = hammer
            .with(move |next| keep_alive(|| Client::connect(plain), next))
            .with(move |next| keep_alive(|| Client::connect_tls(secure, &one), next))
            .with(move |next| close(|| Client::connect(plain), next))
            .with(move |next| close(|| Client::connect_tls(secure, &two), next))
            .with(move |next| over_h2(secure, &three, next));
    }
    hammer
}

/// Waits until so many more requests were made.
pub(super) fn some(hammer: &Hammer, more: usize) {
    let wanted = hammer.count.load(Ordering::Relaxed) + more;
    until("some requests", || {
        assert!(hammer.threads.iter().all(|thread| !thread.is_finished()), "a client has given up");
        (hammer.count.load(Ordering::Relaxed) >= wanted).then_some(())
    });
}

fn hammer() {
    let origin = Origin::named("rs");
    let mut running = Setup::new(&text(&origin, 2)).start();
    let hammer = clients(&running);
    // Another number of workers each time.
    for workers in [2, 1, 4, 3] {
        some(&hammer, 200);
        let new = succeed(&running, &text(&origin, workers));
        some(&hammer, 200);
        ends(std::mem::replace(&mut running, new));
    }
    assert!(hammer.end() > 1600);
    assert_eq!(running.metric("ingre_failures_total{reason=\"client_closed\"}"), None);
}

fn websocket() {
    let origin = super::websocket::echoing();
    let old = Setup::new(&text(&origin, 1)).start();
    let mut client = Client::connect_tls(old.listener("https"), &old.tls().offer(&["http/1.1"]));
    client.send(super::websocket::UPGRADE);
    assert_eq!(client.response().status, 101);
    assert_eq!(client.exactly(5), b"hello");
    let mut old = old;
    let new = succeed(&old, &text(&origin, 1));
    for number in 0..100 {
        let piece = format!("{number:04}");
        client.send(&piece);
        assert_eq!(client.exactly(4), piece.as_bytes());
    }
    assert!(!old.has_ended());
    drop(client);
    assert!(old.exit_within(Duration::from_secs(10)).success());
    drop(new);
}

fn idle() {
    let origin = Origin::named("rs");
    let old = Setup::new(&text(&origin, 1)).start();
    let [mut used, mut silent] = [old.connect("http"), old.connect("http")];
    for client in [&mut used, &mut silent] {
        assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "rs");
    }
    let _new = succeed(&old, &text(&origin, 1).replace("timeout: 20s", "timeout: 4s"));
    let got = used.ask(&Request::get("localhost", "/"));
    assert_eq!((got.text().as_str(), got.field("connection")), ("rs", Some("close")));
    assert!(used.is_closed());
    // Of the old one's timeout half is for those who say nothing.
    let before = Instant::now();
    assert!(silent.is_closed());
    assert!(before.elapsed() > Duration::from_secs(5), "{:?}", before.elapsed());
    ends(old);
}

fn waiting() {
    let origin = Origin::named("rs");
    // One connection at a time: others wait in the queue of the kernel.
    let one = text(&origin, 1).replace(
        "{name: http, address: \"127.0.0.1:0\"}",
        "{name: http, address: \"127.0.0.1:0\", max_connections: 1}",
    );
    let old = Setup::new(&one).start();
    let mut first = old.connect("http");
    assert_eq!(first.ask(&Request::get("localhost", "/")).text(), "rs");
    let mut waiting: Vec<_> = (0..20).map(|_| old.connect("http")).collect();
    for client in &mut waiting {
        client.send(Request::get("localhost", "/").close().head());
    }
    let _new = succeed(&old, &one);
    for client in &mut waiting {
        assert_eq!(client.response().text(), "rs");
    }
    assert_eq!(first.ask(&Request::get("localhost", "/")).text(), "rs");
    ends(old);
}

fn admin_and_demo() {
    let text = "workers: 1\nadmin: {address: \"127.0.0.1:0\"}\ndemo: {address: \"127.0.0.1:0\"}\nhandover: {path: \
                ingre.sock, timeout: 30s}\nlisteners: [{name: http, address: \"127.0.0.1:0\"}]\npools: [{name: rs, servers: \
                [{address: \"<rs>\"}]}]\nroutes: [{domains: [\"*\"], rules: [{url: /, pool: rs}]}]\naccess_log: {output: off}\n";
    let rs = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = text.replace("demo: {address: \"127.0.0.1:0\"}", &format!("demo: {{address: \"{rs}\"}}"));
    let text = text.replace("<rs>", &rs.to_string());
    let old = Setup::new(&text).start();
    assert_eq!(old.ask("http", &Request::get("localhost", "/")).status, 200);
    let hammer = Hammer::new().with({
        let (admin, http) = (old.admin(), old.listener("http"));
        move |next| {
            while next() {
                // The check of a balancer in front sees nothing but a process that is ready.
                let got = Client::connect(admin).ask(&Request::get("localhost", "/readyz").close());
                assert_eq!((got.status, got.text()), (200, "ready\n".into()));
                assert_eq!(Client::connect(http).ask(&Request::get("localhost", "/").close()).status, 200);
            }
        }
    });
    some(&hammer, 50);
    let new = succeed(&old, &text);
    assert_eq!((new.admin(), new.demo()), (old.admin(), old.demo()));
    some(&hammer, 50);
    ends(old);
    some(&hammer, 50);
    hammer.end();
    new.said("took over 3 sockets from process");
    // What is shown now is what the new one has counted.
    assert!(new.metric("ingre_requests_total{listener=\"http\",code=\"2xx\"}") > Some(0));
}

fn listeners() {
    let origin = Origin::named("rs");
    let two = text(&origin, 1);
    let https = "  - {name: https, address: \"127.0.0.1:0\", tls: {development: {}}}\n";
    let three = two.replace(https, "  - {name: other, address: \"127.0.0.1:0\"}\n");
    assert_ne!(two, three);
    let old = Setup::new(&two).start();
    let gone = old.listener("https");
    let new = succeed(&old, &three);
    assert_eq!(new.listener("http"), old.listener("http"));
    // There is nobody who accepts there.
    until("the listener is gone", || TcpStream::connect(gone).is_err().then_some(()));
    assert_eq!(new.ask("other", &Request::get("localhost", "/")).text(), "rs");
    ends(old);
    // And back; the address of a listener counts, not its name.
    let at = new.listener("http");
    let renamed =
        three.replace("{name: http, address: \"127.0.0.1:0\"}", &format!("{{name: web, address: \"{at}\"}}"));
    let third = succeed(&new, &renamed);
    assert_eq!(third.listener("web"), at);
    ends(new);
    assert_eq!(third.ask("web", &Request::get("localhost", "/")).text(), "rs");
    // The same name at another address is another listener; the port of a listener that stays cannot be had by another.
    let other = third.listener("other");
    let moved =
        renamed.replace("{name: other, address: \"127.0.0.1:0\"}", "{name: other, address: \"[::1]:0\"}");
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let fourth = succeed(&third, &moved);
        assert!(fourth.listener("other").is_ipv6());
        until("the listener is gone", || TcpStream::connect(other).is_err().then_some(()));
        ends(third);
    }
}

fn timeout() {
    let (origin, _go) = halves(content(100_000, 3));
    let short = text(&origin, 1).replace("timeout: 20s", "timeout: 1s");
    let mut old = Setup::new(&short).start();
    let mut busy = old.connect("http");
    busy.send(Request::get("localhost", "/halves").head());
    until("the request at the RS", || (origin.received().len() == 1).then_some(()));
    let new = succeed(&old, &short);
    assert_eq!(old.wait_exit().code(), Some(0));
    old.said("the drain timeout has passed");
    assert!(busy.try_response().is_err());
    assert_eq!(new.ask("http", &Request::get("localhost", "/")).text(), "rs");
    // A signal ends it sooner.
    let long = text(&origin, 1).replace("timeout: 20s", "timeout: 1h");
    let mut third = succeed(&new, &long);
    ends(new);
    let mut busy = third.connect("http");
    busy.send(Request::get("localhost", "/halves").head());
    until("the request at the RS", || (origin.received().len() == 3).then_some(()));
    let fourth = succeed(&third, &long);
    third.signal(Signal::TERM);
    assert_eq!(third.exit_within(Duration::from_secs(10)).code(), Some(0));
    third.said("leaving at once");
    assert_eq!(fourth.ask("http", &Request::get("localhost", "/")).text(), "rs");
}

fn handed_in() {
    let origin = Origin::named("rs");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let copy = socket.try_clone().unwrap();
    let old = Setup::new(&text(&origin, 1)).socket("http", socket).start();
    // A supervisor hands it to the next one again, or does not.
    let new = Setup::beside(&old, &text(&origin, 1)).socket("http", copy).start();
    new.said(&format!("from process {}", old.pid()));
    ends(old);
    let third = succeed(&new, &text(&origin, 1));
    ends(new);
    assert_eq!(third.listener("http"), at);
    assert_eq!(third.ask("http", &Request::get("localhost", "/")).text(), "rs");
}
