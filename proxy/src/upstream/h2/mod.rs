//! HTTP/2 toward RS: a few connections per RS and worker, each with as many requests at a time as the RS takes.
//!
//! One task reads and writes a connection; an exchange, inside its request's own task, appends its frames to what the
//! connection sends and takes its content from a port. So a request waits for nobody but its RS and its client.

mod ask;
mod driver;
mod exchange;
mod replay;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

pub(super) use self::ask::{Answer, ask};
use self::driver::Driver;
pub(super) use self::exchange::Exchange;
use crate::error::Error;
use crate::h1;
use crate::h2::{Client, Connection, Limits};
use crate::multiplex::Shared;
use crate::net::{Io, Output, Stream};

/// Requests at a time on one connection, where the RS takes so many.
const STREAMS: u32 = 100;
/// Window of a stream at first; it doubles while its reader keeps up.
const STREAM_WINDOW: u32 = 256 << 10;
/// Largest window of a stream: the most that is kept of a response whose client is slow.
const LARGEST_WINDOW: u32 = 1 << 20;
/// Window of a connection. It is granted again as content comes: a client that does not read stops nobody else.
const CONNECTION_WINDOW: u32 = 8 << 20;

fn limits() -> Limits {
    Limits {
        streams: STREAMS,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        largest_window: LARGEST_WINDOW,
        head: h1::Limits::default(),
    }
}

/// A connection to an RS, with room for requests or without.
pub(crate) struct Link {
    shared: Rc<Shared<Client>>,
    /// What `:scheme` says.
    scheme: &'static str,
    /// Whether the connection has ended.
    gone: Cell<bool>,
    /// Whether no further request is to begin on it.
    retired: Cell<bool>,
    /// Counts what the RS says, whatever it says.
    heard: Cell<u64>,
    /// Where the connection depends on a tunnel: its socket, to ask whether that is still there.
    socket: Option<socket2::Socket>,
}

impl Link {
    fn has_room(&self) -> bool {
        let leads_somewhere = || self.socket.as_ref().is_none_or(|socket| socket.device().is_ok());
        !self.gone.get()
            && !self.retired.get()
            && self.shared.borrow().connection.can_open()
            && leads_somewhere()
    }

    /// Begins no further request; the connection ends behind the last one.
    fn retire(&self) {
        if !self.retired.replace(true) {
            self.shared.borrow().appended();
        }
    }
}

/// The connections of one worker, by the slot of their RS.
#[derive(Default)]
pub(super) struct Links(RefCell<Vec<Server>>);

/// What leads to one RS.
#[derive(Default)]
struct Server {
    links: Vec<Rc<Link>>,
    dialling: Option<Rc<Dialling>>,
}

/// A connection on its way, for which all requests wait that find no other.
#[derive(Default)]
struct Dialling {
    over: Notify,
    /// Why there is none.
    failed: Cell<Option<Error>>,
}

/// What a new connection is to be.
pub(super) struct Wanted {
    pub(super) slot: usize,
    pub(super) in_tunnel: bool,
    pub(super) keepalive: Duration,
}

impl Links {
    /// A connection that is there and has room.
    pub(super) fn take(&self, slot: usize) -> Option<Rc<Link>> {
        let servers = self.0.borrow();
        servers.get(slot)?.links.iter().find(|link| link.has_room()).map(Rc::clone)
    }

    /// A connection with room: the one that somebody else is waiting for already, or a new one.
    pub(super) async fn connect(
        &self,
        wanted: Wanted,
        dial: impl Future<Output = Result<Stream, Error>>,
    ) -> Result<Rc<Link>, Error> {
        let dialling = loop {
            let Some(dialling) = self.dialling(wanted.slot) else {
                break Announced { links: self, slot: wanted.slot, dialling: self.announce(wanted.slot) };
            };
            dialling.over.notified().await;
            if let Some(error) = dialling.failed.get() {
                return Err(error);
            }
            if let Some(link) = self.take(wanted.slot) {
                return Ok(link);
            }
        };
        let stream = dial.await.inspect_err(|&error| dialling.dialling.failed.set(Some(error)))?;
        let link = begin(stream, &wanted);
        self.server(wanted.slot, |server| {
            server.links.retain(|link| !link.gone.get());
            server.links.push(Rc::clone(&link));
        });
        Ok(link)
    }

    /// Lets connections end behind their last request that lead to an RS that is gone.
    pub(super) fn sweep(&self, has_slot: impl Fn(usize) -> bool) {
        for (slot, server) in self.0.borrow_mut().iter_mut().enumerate() {
            if !has_slot(slot) {
                server.links.iter().for_each(|link| link.retire());
            }
            server.links.retain(|link| !link.gone.get());
        }
    }

    fn dialling(&self, slot: usize) -> Option<Rc<Dialling>> {
        self.server(slot, |server| server.dialling.clone())
    }

    fn announce(&self, slot: usize) -> Rc<Dialling> {
        self.server(slot, |server| Rc::clone(server.dialling.insert(Rc::default())))
    }

    fn server<T>(&self, slot: usize, with: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = self.0.borrow_mut();
        if servers.len() <= slot {
            servers.resize_with(slot + 1, Server::default);
        }
        with(&mut servers[slot])
    }
}

/// Tells those who wait for a connection that it is there, failed, or was given up.
struct Announced<'a> {
    links: &'a Links,
    slot: usize,
    dialling: Rc<Dialling>,
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.links.server(self.slot, |server| server.dialling = None);
        self.dialling.over.notify_waiters();
    }
}

/// Begins HTTP/2 on a connection, which lives by itself from now on.
fn begin(stream: Stream, wanted: &Wanted) -> Rc<Link> {
    let scheme = match &stream {
        Stream::Plain(_) => "http",
        Stream::Tls(_) => "https",
    };
    // Without a copy of the socket nobody can tell, and the connection is used as if there were no tunnel.
    let socket = wanted.in_tunnel.then(|| socket2::SockRef::from(stream.tcp()).try_clone().ok()).flatten();
    let mut out = Output::default();
    let connection = Connection::connect(limits(), out.tail());
    let link = Rc::new(Link {
        shared: Shared::new(connection, out),
        scheme,
        gone: Cell::new(false),
        retired: Cell::new(false),
        heard: Cell::new(0),
        socket,
    });
    let driver = Driver::new(Io::new(stream), Rc::clone(&link), wanted.keepalive);
    tokio::task::spawn_local(driver.run());
    link
}
