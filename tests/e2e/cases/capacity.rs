//! How many requests an RS and a pool have at a time, and the queue in front of them.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use crate::harness::origin::ok;
use crate::harness::{Case, Client, Origin, Program, Request, Setup, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("capacity::no_rs_has_more_requests_than_it_may_have", caps),
        Case::new("capacity::a_response_and_a_websocket_count_until_their_end", until_the_end),
        Case::new("capacity::a_reload_forgets_no_request", reload),
        Case::new("capacity::who_waits_is_served_in_order", order),
        Case::new("capacity::waiting_has_limits", limits),
        Case::new("capacity::who_gives_up_costs_nobody_his_turn", given_up),
        Case::new("capacity::a_pool_has_no_more_requests_than_it_may_have", whole_pool),
    ]
}

/// A real server that answers each request when it is given leave to.
fn held() -> (Origin, Sender<()>) {
    let (leave, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::scripted(move |peer| {
        loop {
            peer.request()?;
            wait.lock().unwrap().recv().map_err(io::Error::other)?;
            peer.send(ok("rs"))?;
        }
    });
    (origin, leave)
}

/// A client whose request is under way.
fn begin(program: &Program, target: &str) -> Client {
    let mut client = program.connect("http");
    client.send(Request::get("a.test", target).head());
    client
}

/// Waits until so many requests of a pool wait.
fn waiting(program: &Program, pool: &str, count: u64) {
    program.wait_metric(&format!("ingre_pool_requests_waiting{{pool=\"{pool}\"}}"), count);
}

fn in_flight(program: &Program, pool: &str, origin: &Origin, count: u64) {
    let server = origin.address();
    program.wait_metric(
        &format!("ingre_server_requests_in_flight{{pool=\"{pool}\",server=\"{server}\"}}"),
        count,
    );
}

fn refused(program: &Program, target: &str, status: u16, reason: &str) {
    let response = program.ask("http", &Request::get("a.test", target));
    assert_eq!((response.status, response.text().contains(reason)), (status, true), "{}", response.text());
    assert_eq!(program.logged(target)["reason"], reason);
}

fn caps() {
    for workers in [1, 4] {
        let ((one, leave_one), (two, leave_two)) = (held(), held());
        let yaml = r#"
workers: <workers>
cpu_affinity: "off"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    max_connections: 2
    servers: [{address: "<one>"}, {address: "<two>", max_connections: 5}]
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
        let program = Setup::new(yaml)
            .put("workers", workers)
            .put("one", one.address())
            .put("two", two.address())
            .start();
        let mut clients: Vec<_> = (0..7).map(|_| begin(&program, "/")).collect();
        in_flight(&program, "rs", &one, 2);
        in_flight(&program, "rs", &two, 5);
        for number in 0..8 {
            refused(&program, &format!("/{number}"), 503, "no_room");
        }
        leave_one.send(()).unwrap();
        in_flight(&program, "rs", &one, 1);
        clients.push(begin(&program, "/"));
        in_flight(&program, "rs", &one, 2);
        for _ in 0..5 {
            leave_one.send(()).unwrap();
            leave_two.send(()).unwrap();
        }
        assert!(clients.iter_mut().all(|client| client.response().status == 200));
        assert_eq!((one.received().len(), two.received().len()), (3, 5));
    }
}

fn until_the_end() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha";
    const SWITCH: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (leave, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::scripted(move |peer| {
        loop {
            let request = peer.request()?;
            if request.target() == "/ws" {
                peer.send(SWITCH)?;
                return peer.rest().map(drop);
            }
            peer.send(HEAD)?;
            wait.lock().unwrap().recv().map_err(io::Error::other)?;
            peer.send("lf")?;
        }
    });
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools: [{name: rs, servers: [{address: "<rs>", max_connections: 1}], health_check: {type: off}}]
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut client = begin(&program, "/slow");
    assert_eq!(client.head().part(1), "200");
    assert_eq!(client.exactly(2), b"ha");
    refused(&program, "/1", 503, "no_room");
    leave.send(()).unwrap();
    assert_eq!(client.exactly(2), b"lf");
    in_flight(&program, "rs", &origin, 0);
    let mut client = program.connect("http");
    client.send("GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().part(1), "101");
    refused(&program, "/2", 503, "no_room");
    drop(client);
    in_flight(&program, "rs", &origin, 0);
    // A client that leaves in the middle of a response frees its RS as well.
    let mut client = begin(&program, "/left");
    client.head();
    refused(&program, "/3", 503, "no_room");
    drop(client);
    leave.send(()).unwrap();
    in_flight(&program, "rs", &origin, 0);
}

fn reload() {
    let (origin, leave) = held();
    let text = |cap: u32| {
        format!(
            "workers: 1\nadmin: {{address: \"127.0.0.1:0\"}}\nlisteners: [{{name: http, address: \"127.0.0.1:0\"}}]\n\
             pools: [{{name: rs, servers: [{{address: \"{}\", max_connections: {cap}}}], health_check: {{type: off}}}}]\n\
             routes: [{{domains: [\"*\"], rules: [{{url: /, pool: rs}}]}}]\n",
            origin.address()
        )
    };
    let program = Setup::new(&text(2)).start();
    let mut clients = vec![begin(&program, "/"), begin(&program, "/")];
    in_flight(&program, "rs", &origin, 2);
    assert_eq!(program.reload(&text(3)), "ingre: reloaded");
    clients.push(begin(&program, "/"));
    in_flight(&program, "rs", &origin, 3);
    refused(&program, "/1", 503, "no_room");
    // A smaller cap ends nobody's request.
    assert_eq!(program.reload(&text(1)), "ingre: reloaded");
    for left in [2, 1] {
        leave.send(()).unwrap();
        in_flight(&program, "rs", &origin, left);
        refused(&program, &format!("/left-{left}"), 503, "no_room");
    }
    leave.send(()).unwrap();
    in_flight(&program, "rs", &origin, 0);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
}

fn order() {
    for workers in [1, 4] {
        let (origin, leave) = held();
        let yaml = r#"
workers: <workers>
cpu_affinity: "off"
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    balance: least_connections
    servers: [{address: "<rs>", max_connections: 1}]
    queue: {size: 20, timeout: 60s}
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
        let program = Setup::new(yaml).put("workers", workers).put("rs", origin.address()).start();
        let mut clients = vec![begin(&program, "/0")];
        in_flight(&program, "rs", &origin, 1);
        for number in 1..=20 {
            clients.push(begin(&program, &format!("/{number}")));
            waiting(&program, "rs", number);
        }
        refused(&program, "/more", 503, "queue_full");
        for _ in &clients {
            leave.send(()).unwrap();
        }
        assert!(clients.iter_mut().all(|client| client.response().status == 200));
        let served: Vec<_> = origin.received().iter().map(|request| request.target().to_owned()).collect();
        assert_eq!(served, (0..=20).map(|number| format!("/{number}")).collect::<Vec<_>>());
        // There was never a second request at the RS: each worker needed one connection.
        assert!(origin.connections() <= workers);
    }
}

fn limits() {
    let (origin, leave) = held();
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    max_connections: 1
    servers: [{address: "<rs>"}]
    queue: {size: 1, timeout: 50ms}
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut client = begin(&program, "/");
    in_flight(&program, "rs", &origin, 1);
    refused(&program, "/late", 504, "queue_timeout");
    waiting(&program, "rs", 0);
    leave.send(()).unwrap();
    assert_eq!(client.response().status, 200);
    program.wait_metric("ingre_failures_total{reason=\"queue_timeout\"}", 1);
}

fn given_up() {
    let (origin, leave) = held();
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners:
  - {name: http, address: "127.0.0.1:0"}
  - {name: https, address: "127.0.0.1:0", tls: {development: {}}}
pools:
  - name: rs
    max_connections: 1
    servers: [{address: "<rs>"}]
    queue: {size: 9, timeout: 60s}
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut first = begin(&program, "/first");
    in_flight(&program, "rs", &origin, 1);
    crate::harness::h2::run(async {
        let mut client = crate::harness::h2::H2::connect(program.listener("https"), &program.tls()).await;
        let request = |path| http::Request::get(format!("https://localhost{path}")).body(()).unwrap();
        let (answer, mut stream) = client.begin(request("/given-up"), true).await;
        until_waiting(&program, 1).await;
        let (_kept, _) = client.begin(request("/kept"), true).await;
        until_waiting(&program, 2).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        until_waiting(&program, 1).await;
        leave.send(()).unwrap();
        leave.send(()).unwrap();
        until_waiting(&program, 0).await;
    });
    assert_eq!(first.response().status, 200);
    let served = until("both are served", || Some(origin.received()).filter(|all| all.len() == 2));
    assert_eq!(served[1].target(), "/kept");
}

/// Waits, and lets the client's connection go on meanwhile.
async fn until_waiting(program: &Program, count: u64) {
    while program.metric("ingre_pool_requests_waiting{pool=\"rs\"}") != Some(count) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn whole_pool() {
    let (origin, leave) = held();
    let yaml = r#"
workers: 1
admin: {address: "127.0.0.1:0"}
listeners: [{name: http, address: "127.0.0.1:0"}]
pools:
  - name: rs
    max_requests: 2
    servers: [{address: "<rs>"}]
    health_check: {type: off}
routes: [{domains: ["*"], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut clients = [begin(&program, "/"), begin(&program, "/")];
    until("both are there", || (origin.received().len() == 2).then_some(()));
    refused(&program, "/more", 503, "pool_full");
    leave.send(()).unwrap();
    leave.send(()).unwrap();
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    leave.send(()).unwrap();
    assert_eq!(program.ask("http", &Request::get("a.test", "/")).status, 200);
}
