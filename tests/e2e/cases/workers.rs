//! Several workers: who gets a connection, and that nobody waits for a neighbour.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use rustix::process::Signal;

use crate::harness::{Case, Client, Origin, Program, Request, Setup, until};

use super::{SITE, site};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("workers::connections_are_spread_evenly", evenly),
        Case::new("workers::a_connection_to_an_rs_is_taken_over", taken_over),
        Case::new("workers::a_huge_transfer_holds_up_nobody", huge),
        Case::new("workers::what_every_worker_has_begun_is_finished_in_the_drain", drained),
    ]
}

/// A connection to an RS that one worker does not need any more serves another.
fn taken_over() {
    let origin = Origin::named("rs");
    let program = with_workers(&origin);
    let mut clients = Vec::new();
    for round in 0..2 {
        // Those before are still open: this one goes to another worker.
        let mut client = program.connect("http");
        assert_eq!(client.ask(&Request::get("a.test", "/")).text(), "rs");
        clients.push(client);
        assert_eq!(origin.connections(), 1, "{round}");
        program.wait_metric("ingre_upstream_connections_parked", 1);
    }
}

const WORKERS: u64 = 4;
const CONNECTIONS: u64 = 64;

fn with_workers(origin: &Origin) -> Program {
    let text = SITE.replace("workers: 1", &format!("workers: {WORKERS}"));
    Setup::new(&text).put("rs", origin.address()).put("listener", "").put("pool", "").put("more", "").start()
}

fn evenly() {
    let origin = Origin::named("rs");
    let program = with_workers(&origin);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = program.connect("http");
            assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
            client
        })
        .collect();
    let open = |worker: u64| {
        program.metric(&format!("ingre_worker_connections_open{{worker=\"{worker}\"}}")).unwrap()
    };
    let counts: Vec<_> = (0..WORKERS).map(open).collect();
    let share = CONNECTIONS / WORKERS;
    assert!(counts.iter().all(|count| (share / 2..=share * 2).contains(count)), "{counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), CONNECTIONS);
    drop(clients);
    until("the end of all connections", || ((0..WORKERS).map(open).sum::<u64>() == 0).then_some(()));
}

/// A response without end that its client takes as fast as it can, and small ones beside it on the only worker.
fn huge() {
    let origin = Origin::scripted(|peer| {
        while let Ok(head) = peer.head() {
            if head.part(1) != "/huge" {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
                continue;
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
            let piece = vec![b'x'; 1 << 20];
            while peer.send(&piece).is_ok() {}
        }
        Ok(())
    });
    let program = site(&origin).start();
    let over = Arc::new(AtomicBool::new(false));
    let read = Arc::new(Mutex::new(0_u64));
    let mut greedy = Client::connect_tls(program.listener("https"), &program.tls());
    greedy.send(Request::get("localhost", "/huge").head());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                *read.lock().unwrap() += greedy.exactly(1 << 16).len() as u64;
            }
        });
        let taken = || *read.lock().unwrap();
        until("the huge response", || (taken() > 8 << 20).then_some(()));
        for _ in 0..100 {
            assert_eq!(program.ask("http", &Request::get("a.test", "/")).text(), "ok");
        }
        // It went on meanwhile.
        let before = taken();
        until("more of the huge response", || (taken() > before).then_some(()));
        over.store(true, Ordering::Relaxed);
    });
}

fn drained() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&gate);
    let origin = Origin::serving(move |_| {
        let (open, changed) = &*opened;
        let mut open = open.lock().unwrap();
        while !*open {
            open = changed.wait(open).unwrap();
        }
        crate::harness::origin::response("200 OK", &[], "late")
    });
    let mut program = with_workers(&origin);
    let mut clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut client = program.connect("http");
            client.send(Request::get("a.test", "/").head());
            client
        })
        .collect();
    until("all requests", || (origin.received().len() as u64 == CONNECTIONS).then_some(()));
    program.signal(Signal::TERM);
    program.said("draining");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for client in &mut clients {
        assert_eq!(client.response().text(), "late");
    }
    drop(clients);
    assert!(program.wait_exit().success());
}
