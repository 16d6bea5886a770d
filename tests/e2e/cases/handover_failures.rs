//! What goes wrong when a new process takes over: the running one goes on.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use encap::linux::channel::Channel;
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::{Case, Need, Origin, Program, Request, Setup, until};

use super::handover::{ends, succeed, text};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("handover_failures::a_bad_configuration_changes_nothing", bad),
        Case::new("handover_failures::a_process_that_dies_changes_nothing", dies),
        Case::new("handover_failures::a_process_that_is_not_ready_in_time_changes_nothing", late),
        Case::new("handover_failures::nonsense_changes_nothing", nonsense),
        Case::new("handover_failures::a_third_takes_over_where_the_second_has_died", third),
        Case::new("handover_failures::what_lies_at_the_path", place),
        Case::new("handover_failures::after_term_nobody_takes_over", term),
        Case::new("handover_failures::tunnels_cannot_be_handed_over", tunnels),
        Case::needing("handover_failures::another_user_is_refused", &[Need::Root, Need::Setpriv], user),
    ]
}

/// It serves as if nothing had been.
fn serves(program: &Program) {
    assert_eq!(program.ask("http", &Request::get("localhost", "/")).text(), "rs");
    assert_eq!(program.page("/readyz").0, 200);
}

fn bad() {
    let origin = Origin::named("rs");
    let old = Setup::new(&text(&origin, 2)).start();
    let ran = Setup::beside(&old, &format!("{}wrong: 1\n", text(&origin, 2))).fail();
    assert_eq!(ran.code, 1, "{ran:?}");
    serves(&old);
    // What shows only once the sockets are there.
    let log = text(&origin, 2).replace("{output: off}", "{output: no/such/directory/log}");
    let ran = Setup::beside(&old, &log).fail();
    assert!(ran.code == 1 && ran.stderr.contains("the access log cannot be opened"), "{ran:?}");
    old.said("has not taken over, this one goes on: it has ended, or given up");
    serves(&old);
    // A port that the old one holds under another address.
    let at = old.listener("http");
    let other = text(&origin, 2).replace(
        "{name: http, address: \"127.0.0.1:0\"}",
        &format!("{{name: http, address: \"0.0.0.0:{}\"}}", at.port()),
    );
    let ran = Setup::beside(&old, &other).fail();
    assert!(ran.code == 1 && ran.stderr.contains("another program has this port"), "{ran:?}");
    serves(&old);
    let new = succeed(&old, &text(&origin, 2));
    ends(old);
    serves(&new);
}

fn dies() {
    let origin = Origin::named("rs");
    let old = Setup::new(&text(&origin, 2)).start();
    hang(&old);
    let new = Setup::beside(&old, &text(&origin, 2).replace("{output: off}", "{output: fifo}")).spawn("run");
    new.said("listener https serves");
    serves(&old);
    new.signal(Signal::KILL);
    old.said(&format!("process {} has not taken over, this one goes on", new.pid()));
    for _ in 0..20 {
        serves(&old);
    }
    // Nothing of it is left.
    let names = std::fs::read_dir(old.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.starts_with("ingre.sock")).collect();
    assert_eq!(left, ["ingre.sock"]);
    let new = succeed(&old, &text(&origin, 1));
    ends(old);
    serves(&new);
}

/// A log that a process beside this one hangs at when it opens it, with all sockets in its hands.
fn hang(program: &Program) -> PathBuf {
    let fifo = program.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fifo
}

fn late() {
    let origin = Origin::named("rs");
    let short = text(&origin, 1).replace("path: ingre.sock", "path: ingre.sock, timeout: 1s");
    let old = Setup::new(&short).start();
    let channel = speak(&old);
    channel.send(b"{\"hello\":{\"version\":1}}", &[]).unwrap();
    old.said("has not taken over, this one goes on: it was not ready within 1s (handover.timeout)");
    // It is told so, behind all that it was given.
    let told = until("what it is told", || {
        let (bytes, _) = channel.receive(Duration::from_secs(5)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        text.contains("refused").then_some(text)
    });
    assert!(told.contains("not ready within 1s"), "{told}");
    serves(&old);
    // One that becomes ready after that hears it as well: it does not take the other one for dead.
    let fifo = hang(&old);
    let new = Setup::beside(&old, &short.replace("{output: off}", "{output: fifo}")).spawn("run");
    new.said("listener https serves");
    old.said(&format!("process {} has not taken over, this one goes on: it was not ready", new.pid()));
    let _reader = std::fs::File::open(fifo).unwrap();
    let ran = new.ran();
    assert!(ran.code == 1 && ran.stderr.contains("not ready within 1s"), "{ran:?}");
    serves(&old);
    ends_with(old, &text(&origin, 1));
}

/// Another one takes over.
fn ends_with(old: Program, text: &str) {
    let new = succeed(&old, text);
    ends(old);
    serves(&new);
}

/// A connection to where a program is found.
fn speak(program: &Program) -> Channel {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    socket.connect(&SockAddr::unix(program.path().join("ingre.sock")).unwrap()).unwrap();
    Channel::new(socket.into())
}

fn descriptors(program: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count()
}

fn nonsense() {
    let origin = Origin::named("rs");
    let old = Setup::new(&text(&origin, 2)).start();
    serves(&old);
    let before = descriptors(&old);
    let hello = "{\"hello\":{\"version\":1}}";
    let many = |count: usize| format!("{{\"ready\":{{\"taken\":[{}0]}}}}", "0,".repeat(count));
    let (twice, too_long) = (many(60_000), many(70_000));
    for messages in [
        vec!["nonsense"],
        vec![""],
        vec!["{\"hello\":{\"version\":2}}"],
        vec!["{\"ready\":{\"taken\":[0]}}"],
        vec![hello, hello],
        vec![hello, "{\"ready\":{\"taken\":[99]}}"],
        vec![hello, "{\"ready\":{\"taken\":[-1]}}"],
        vec![hello, &twice],
        vec![hello, &too_long],
        vec![hello, "\u{0}\u{1}"],
    ] {
        let channel = speak(&old);
        for message in &messages {
            // With descriptors that nobody asked for. It may have hung up.
            let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
            if channel.send(message.as_bytes(), &[one.as_fd(), two.as_fd()]).is_err() {
                break;
            }
        }
        until("a refusal", || match channel.receive(Duration::from_secs(20)) {
            Ok((bytes, _)) => String::from_utf8_lossy(&bytes).contains("refused").then_some(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(()),
            Err(error) => panic!("{messages:?}: {error}"),
        });
        serves(&old);
    }
    // Who comes and goes.
    for _ in 0..20 {
        drop(speak(&old));
        let channel = speak(&old);
        channel.send(hello.as_bytes(), &[]).unwrap();
    }
    // Nothing is kept of all that.
    until("descriptors are closed", || (descriptors(&old) <= before + 2).then_some(()));
    ends_with(old, &text(&origin, 2));
}

fn third() {
    let origin = Origin::named("rs");
    // An idle connection keeps the old one from its end.
    let old = Setup::new(&text(&origin, 2)).start();
    let mut idle = old.connect("http");
    assert_eq!(idle.ask(&Request::get("localhost", "/")).text(), "rs");
    let second = succeed(&old, &text(&origin, 2));
    second.signal(Signal::KILL);
    old.said(&format!("process {}, which has taken over, has ended", second.pid()));
    // Who connects now waits for somebody, and is not refused.
    let mut waiting = old.connect("http");
    waiting.send(Request::get("localhost", "/").head());
    until("the old one is found again", || {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(old.path().join("ingre.sock")).unwrap()).ok()
    });
    let third = succeed(&old, &text(&origin, 1));
    assert_eq!(waiting.response().text(), "rs");
    assert_eq!(idle.ask(&Request::get("localhost", "/")).text(), "rs");
    ends(old);
    serves(&third);
}

fn place() {
    let origin = Origin::named("rs");
    let setup = || Setup::new(&text(&origin, 1));
    let ran = setup().file("ingre.sock", "precious").fail();
    assert!(ran.code == 1 && ran.stderr.contains("`ingre.sock` is not a socket: remove it"), "{ran:?}");
    // Of a process that is gone.
    let stale = setup();
    drop(UnixListener::bind(stale.path().join("ingre.sock")).unwrap());
    let mut program = stale.start();
    let mode = |program: &Program| {
        let file = std::fs::symlink_metadata(program.path().join("ingre.sock"));
        file.map(|file| file.permissions().mode() & 0o777)
    };
    assert_eq!(mode(&program).unwrap(), 0o600);
    // At its end nothing is left.
    program.signal(Signal::TERM);
    assert_eq!(program.wait_exit().code(), Some(0));
    assert!(mode(&program).is_err());
    // Another program listens there.
    let taken = setup();
    let _other = UnixListener::bind(taken.path().join("ingre.sock")).unwrap();
    let ran = taken.fail();
    assert!(ran.code == 1 && ran.stderr.contains("is it an ingre?"), "{ran:?}");
    // One that speaks no such language.
    let taken = setup();
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    socket.bind(&SockAddr::unix(taken.path().join("ingre.sock")).unwrap()).unwrap();
    socket.listen(1).unwrap();
    let speaking = std::thread::spawn(move || {
        let (other, _) = socket.accept().unwrap();
        let other = OwnedFd::from(other);
        rustix::net::sendmsg(
            &other,
            &[IoSlice::new(b"220 ready")],
            &mut rustix::net::SendAncillaryBuffer::default(),
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        other
    });
    let ran = taken.fail();
    drop(speaking.join().unwrap());
    assert!(ran.code == 1 && ran.stderr.contains("cannot take over from process"), "{ran:?}");
    let ran = Setup::new(&text(&origin, 1).replace("path: ingre.sock", "path: no/such/ingre.sock")).fail();
    assert!(ran.code == 1 && ran.stderr.contains("its directory `no/such` has to exist"), "{ran:?}");
    let long = "x".repeat(100);
    let ran = Setup::new(&text(&origin, 1).replace("path: ingre.sock", &format!("path: {long}"))).validate();
    assert!(ran.code == 1 && ran.stderr.contains("too long for a socket"), "{ran:?}");
}

fn term() {
    let (origin, go) = super::handover::halves(vec![1; 1000]);
    let mut old = Setup::new(&text(&origin, 1)).start();
    let mut busy = old.connect("http");
    busy.send(Request::get("localhost", "/halves").head());
    until("the request at the RS", || (origin.received().len() == 1).then_some(()));
    old.signal(Signal::TERM);
    old.said("draining for at most");
    let at = old.listener("http");
    until("new connections are refused", || std::net::TcpStream::connect(at).is_err().then_some(()));
    // The next one begins for itself.
    let new = Setup::beside(&old, &text(&origin, 1)).start();
    assert!(!new.stderr().contains("took over"), "{}", new.stderr());
    serves(&new);
    go.send(()).unwrap();
    assert_eq!(busy.response().status, 200);
    drop(busy);
    assert_eq!(old.wait_exit().code(), Some(0));
    // Its end leaves the place of the other one alone.
    ends_with(new, &text(&origin, 1));
}

fn tunnels() {
    let origin = Origin::named("rs");
    let tunnel = "tunnels: [{name: a, local: 192.0.2.1, peers: [192.0.2.2], networks: [10.0.0.0/24]}]\n";
    let ran = Setup::new(&format!("{}{tunnel}", text(&origin, 1))).fail();
    assert!(
        ran.code == 1 && ran.stderr.contains("handover: the devices of tunnels end with their process"),
        "{ran:?}"
    );
}

fn user() {
    let origin = Origin::named("rs");
    let old = Setup::new(&text(&origin, 1)).start();
    let path = old.path();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    // To see who connects is the program's own business, should the file let others in.
    std::fs::set_permissions(path.join("ingre.sock"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let copy = path.join("ingre");
    std::fs::copy(crate::harness::program::BINARY, &copy).unwrap();
    for file in std::fs::read_dir(path.join("certs")).unwrap() {
        std::fs::set_permissions(file.unwrap().path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let ran = Setup::beside(&old, &text(&origin, 1)).binary(&copy).under(&nobody).fail();
    assert!(ran.code == 1 && ran.stderr.contains("belongs to user"), "{ran:?}");
    serves(&old);
    old.said("a process has not taken over, this one goes on: process");
    drop(old);
    // Nor does root take anything from a user.
    let theirs = Setup::new(&text(&origin, 1));
    std::fs::set_permissions(theirs.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let copy = theirs.path().join("ingre");
    std::fs::copy(crate::harness::program::BINARY, &copy).unwrap();
    let theirs = theirs.binary(&copy).under(&nobody).start();
    let ran = Setup::beside(&theirs, &text(&origin, 1)).fail();
    assert!(ran.code == 1 && ran.stderr.contains("belongs to user 65534"), "{ran:?}");
    serves(&theirs);
}
