//! The task of the connection itself: takes streams in, leaves when it is time, and watches whether the client is there.

use std::rc::Rc;
use std::time::Duration;

use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::Instant;

use super::super::handler::Handler;
use super::code;
use super::connection::Link;
use super::stream::Stream;
use super::unidirectional;
use crate::drain::Draining;
use crate::h3::{self, Code};
use crate::net::clock;

/// While requests are under way, how often a client that says nothing is asked for a sign of life, and how often without
/// one before it counts as gone.
const PING: Duration = Duration::from_secs(10);
const SILENT: u32 = 5;
/// Most time for a client to learn that it is to open no further streams.
const GRACE: Duration = Duration::from_secs(1);
/// Requests of one connection at most, whatever the configuration says: their streams' numbers stay small enough for
/// every integer that names them.
const MOST_REQUESTS: u32 = 1 << 25;
/// Number of the last stream there can be: GOAWAY with it announces that one follows (RFC 9114 5.2).
const LAST_STREAM: u64 = (1 << 62) - 4;

pub(super) struct Driver<H: Handler> {
    link: Rc<Link>,
    handler: Rc<H>,
    connection: Rc<H::Connection>,
    draining: Draining,
    control: SendStream,
    /// Requests that this connection may still bring.
    requests_left: u32,
    /// Number of the stream behind the last one that was taken in.
    next: u64,
    leaving: Leaving,
    /// When what is waited for is over.
    deadline: Instant,
    /// There were requests under way when that was set.
    busy: bool,
    /// Datagrams that had come when the client was last asked, and how often it has not answered.
    heard: u64,
    silent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Announced; streams that are on their way already are served until then.
    Announced(Instant),
    /// No stream from this one on is served.
    Final(u64),
}

/// What happens next.
enum Step {
    Request((SendStream, RecvStream)),
    Unidirectional(RecvStream),
    Ended,
    Drain,
    Deadline,
    Gone,
}

impl<H: Handler + 'static> Driver<H>
where
    H::Connection: 'static,
{
    /// Opens the control stream; nothing where the connection has ended.
    pub(super) async fn begin(
        link: Rc<Link>,
        handler: Rc<H>,
        connection: Rc<H::Connection>,
        draining: Draining,
    ) -> Option<Self> {
        let mut control = link.quic.open_uni().await.ok()?;
        // What is said there concerns everything else.
        let _ = control.set_priority(1);
        control.write_all(&h3::opening(link.limits.codec.head_bytes)).await.ok()?;
        let requests_left = link.limits.keepalive_requests.min(MOST_REQUESTS);
        let deadline = clock::now() + link.limits.keepalive_timeout;
        Some(Self {
            link,
            handler,
            connection,
            draining,
            control,
            requests_left,
            next: 0,
            leaving: Leaving::No,
            deadline,
            busy: false,
            heard: 0,
            silent: 0,
        })
    }

    /// Runs until the connection has ended.
    pub(super) async fn run(mut self) {
        loop {
            self.watch();
            match self.step().await {
                Step::Request(stream) => self.request(stream).await,
                Step::Unidirectional(stream) => {
                    tokio::task::spawn_local(unidirectional::serve(Rc::clone(&self.link), stream));
                }
                Step::Ended => {}
                Step::Drain => self.leave().await,
                Step::Deadline => self.overdue().await,
                Step::Gone => return,
            }
            if matches!(self.leaving, Leaving::Final(_)) && self.link.open_streams() == 0 {
                self.link.quic.close(code(Code::NoError), b"");
                return;
            }
        }
    }

    async fn step(&mut self) -> Step {
        let deadline = match self.leaving {
            Leaving::Announced(until) => until.min(self.deadline),
            Leaving::No | Leaving::Final(_) => self.deadline,
        };
        let quic = &self.link.quic;
        tokio::select! {
            biased;
            stream = quic.accept_bi() => stream.map_or(Step::Gone, Step::Request),
            stream = quic.accept_uni() => stream.map_or(Step::Gone, Step::Unidirectional),
            () = self.link.ended.notified() => Step::Ended,
            () = self.draining.started(), if self.leaving == Leaving::No => Step::Drain,
            () = tokio::time::sleep_until(deadline) => Step::Deadline,
        }
    }

    /// Sets the deadline anew where something else is waited for.
    fn watch(&mut self) {
        let busy = self.link.open_streams() > 0;
        if busy != self.busy {
            self.busy = busy;
            self.silent = 0;
            let patience = if busy { PING } else { self.link.limits.keepalive_timeout };
            self.deadline = clock::now() + patience;
        }
    }

    async fn request(&mut self, (mut send, mut receive): (SendStream, RecvStream)) {
        let number = VarInt::from(send.id()).into_inner();
        if matches!(self.leaving, Leaving::Final(first) if number >= first) {
            let _ = send.reset(code(Code::RequestRejected));
            let _ = receive.stop(code(Code::RequestRejected));
            return;
        }
        self.next = number + 4;
        let stream =
            Stream::new(&self.link, Rc::clone(&self.handler), Rc::clone(&self.connection), (send, receive));
        tokio::task::spawn_local(stream.serve());
        self.requests_left = self.requests_left.saturating_sub(1);
        if self.requests_left == 0 {
            self.leave().await;
        }
    }

    /// Announces that this side leaves.
    async fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.tell(&h3::goaway(LAST_STREAM)).await;
            let grace = (self.link.quic.rtt() * 3).min(GRACE);
            self.leaving = Leaving::Announced(clock::now() + grace);
        }
    }

    async fn overdue(&mut self) {
        let now = Instant::now();
        if matches!(self.leaving, Leaving::Announced(until) if until <= now) {
            self.tell(&h3::goaway(self.next)).await;
            self.leaving = Leaving::Final(self.next);
        } else if self.deadline > now {
            // A clock that is a little behind.
        } else if self.busy {
            self.ask().await;
        } else {
            self.leave().await;
            self.deadline = now + GRACE;
        }
    }

    /// Asks for a sign of life; a client that has given none for long is gone.
    async fn ask(&mut self) {
        let heard = self.link.quic.stats().udp_rx.datagrams;
        self.silent = if heard == self.heard { self.silent + 1 } else { 0 };
        self.heard = heard;
        self.deadline = clock::now() + PING;
        if self.silent >= SILENT {
            self.link.quic.close(code(Code::NoError), b"no sign of life");
        } else {
            self.tell(&h3::keep_alive()).await;
        }
    }

    /// Says something on the control stream. A client that takes none of it, short as it is, is not waited for.
    async fn tell(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(GRACE, self.control.write_all(bytes)).await;
    }
}
