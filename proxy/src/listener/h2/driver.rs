//! The task of the connection itself: reads frames, gives their content to the streams, writes what they append, and
//! watches the time.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;

use super::super::handler::Handler;
use super::stream::{Content, Streams};
use crate::drain::Draining;
use crate::error::Error;
use crate::h2::{Asked, Event, Server, Slot};
use crate::multiplex::{FULL, Output, Shared, State};
use crate::net::{Io, Stream, clock};
use crate::state::Limits;

/// Interval of questions to a silent client, and its time to answer.
const PING: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);
/// Time for a client to confirm that it opens no further streams, and to take the last bytes.
const GRACE: Duration = Duration::from_secs(1);
/// What is read and thrown away behind the end.
const LINGER_BYTES: usize = 256 << 10;

pub(super) struct Driver<'a> {
    io: Io,
    shared: Rc<Shared<Server>>,
    limits: &'a Limits,
    draining: Draining,
    output: Output,
    waiting: Waiting,
    /// Requests that this connection may still bring.
    requests_left: u32,
    left: bool,
}

/// What the connection waits for; each has a patience of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// A moment ago something came or left.
    Nothing,
    /// The client is to take what is written.
    Room,
    /// The rest of a head or of another frame.
    Head,
    /// A request, with none under way.
    Request,
    /// A sign of life while requests are under way.
    Sign,
    /// The answer to the question for one.
    Answer,
    /// Confirmation that no further stream comes.
    Goodbye,
}

/// How the connection has ended.
struct Over;

impl<'a> Driver<'a> {
    pub(super) fn new(
        stream: Stream,
        shared: Rc<Shared<Server>>,
        limits: &'a Limits,
        draining: Draining,
    ) -> Self {
        Self {
            io: Io::new(stream),
            shared,
            limits,
            draining,
            output: Output::default(),
            waiting: Waiting::Nothing,
            requests_left: limits.keepalive_requests,
            left: false,
        }
    }

    /// Runs until the connection has ended.
    pub(super) async fn run<H: Handler + 'static>(mut self, streams: &Streams<H>)
    where
        H::Connection: 'static,
    {
        poll_fn(|cx| self.poll(cx, streams)).await;
        self.shared.borrow().reset_all(Error::ClientGone);
        let last = async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            self.io.shutdown().await?;
            // What comes meanwhile is read: a reset could cost the client what it has not read yet.
            let mut left = LINGER_BYTES;
            while left > 0 {
                self.io.input.clear();
                let read = poll_fn(|cx| self.io.poll_read_head(cx)).await?;
                left = if read == 0 { 0 } else { left.saturating_sub(read) };
            }
            Ok::<_, io::Error>(())
        };
        let _ = tokio::time::timeout(GRACE, last).await;
    }

    fn poll<H: Handler + 'static>(&mut self, cx: &mut Context<'_>, streams: &Streams<H>) -> Poll<()>
    where
        H::Connection: 'static,
    {
        if !self.left && (self.requests_left == 0 || self.draining.poll_started(cx).is_ready()) {
            self.leave();
        }
        let mut drained = false;
        // Frames that were taken in while there was no room for answers come first.
        while self.shared.borrow().out.len() < FULL {
            match self.take_frames(streams) {
                Err(Over) => return Poll::Ready(()),
                Ok(()) if self.shared.borrow().out.len() >= FULL => break,
                Ok(()) => {}
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => self.has_heard(),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Pending => {
                    drained = true;
                    break;
                }
            }
        }
        let written = self.poll_output(cx);
        let over = matches!(written, Poll::Ready(Err(_)));
        if over || (written.is_ready() && self.has_left()) {
            return Poll::Ready(());
        }
        if written.is_ready() && !drained {
            // There is room again, and nobody else tells that there is something to read.
            cx.waker().wake_by_ref();
        }
        if !self.output.is_writing() {
            self.release();
        }
        self.shared.borrow().wait(cx);
        self.poll_patience(cx)
    }

    /// Gives back what an idle connection needs no buffer for.
    fn release(&mut self) {
        self.io.release();
        let state = &mut *self.shared.borrow();
        if state.connection.open_streams() == 0 && state.out.is_empty() {
            state.release_output();
            self.output.release();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let receives_content = self.shared.borrow().connection.receives_content();
        self.io.poll_read(cx, receives_content)
    }

    /// Takes every frame off the input that is there.
    fn take_frames<H: Handler + 'static>(&mut self, streams: &Streams<H>) -> Result<(), Over>
    where
        H::Connection: 'static,
    {
        let input = &mut self.io.input;
        loop {
            let state = &mut *self.shared.borrow();
            let State { connection, out, .. } = state;
            if out.len() >= FULL {
                return Ok(());
            }
            match connection.receive(input, out.tail()) {
                Ok(Event::NeedMore) => return Ok(()),
                Ok(Event::Head(Asked::Request { slot, head, ended, length, expects })) => {
                    self.requests_left = self.requests_left.saturating_sub(1);
                    state.port(slot).ended = ended;
                    streams.serve(slot, head, Content { ended, length, expects });
                }
                Ok(Event::Head(Asked::Refused { slot, head, ended, error })) => {
                    state.port(slot).ended = ended;
                    streams.refuse(slot, head, error);
                }
                Ok(Event::Data { slot, bytes }) => content(state, slot, input, bytes),
                Ok(Event::Ended { slot, trailers }) => {
                    let port = state.port(slot);
                    port.trailers = trailers;
                    port.ended = true;
                    port.wake();
                }
                Ok(Event::Reset { slot, .. }) => {
                    let port = state.port(slot);
                    port.reset = Some(Error::ClientGone);
                    port.wake();
                }
                Ok(Event::Window { slot }) => state.port(slot).wake(),
                Ok(Event::Windows) => state.wake_all(),
                Ok(Event::ConnectionWindow) => state.pass_turn(),
                Ok(Event::Alive) => {}
                Err(error) => {
                    connection.fail(error, out.tail());
                    return Err(Over);
                }
            }
            // What was awaited is there, whatever has begun behind it.
            if self.waiting == Waiting::Head && !state.connection.awaits_head() {
                self.waiting = Waiting::Nothing;
            }
        }
    }

    /// Writes what the streams have appended.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut progress = false;
        let written = self.output.poll(&mut self.io.stream, &self.shared, cx, &mut progress);
        self.has_written(progress);
        written
    }

    /// Writes everything, however many are about to append more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut progress = false;
        let written = self.output.poll_write(&mut self.io.stream, &self.shared, cx, &mut progress);
        self.has_written(progress);
        written
    }

    fn has_written(&mut self, progress: bool) {
        if progress && self.waiting == Waiting::Room {
            self.waiting = Waiting::Nothing;
        }
    }

    /// Bytes have come: a sign of life, but neither a whole head nor room for what is written.
    fn has_heard(&mut self) {
        if matches!(self.waiting, Waiting::Request | Waiting::Sign | Waiting::Answer) {
            self.waiting = Waiting::Nothing;
        }
    }

    fn leave(&mut self) {
        self.left = true;
        self.waiting = Waiting::Nothing;
        let State { connection, out, .. } = &mut *self.shared.borrow();
        connection.leave(out.tail());
    }

    fn has_left(&self) -> bool {
        let state = self.shared.borrow();
        state.connection.has_left() && state.connection.open_streams() == 0 && state.out.is_empty()
    }

    /// Nothing can be done now: what happens when that lasts too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (waiting, patience) = self.waits_for();
            if waiting != self.waiting {
                self.waiting = waiting;
                self.io.watchdog.feed(clock::now(), patience);
            }
            ready!(self.io.watchdog.poll_expired(cx));
            let State { connection, out, .. } = &mut *self.shared.borrow();
            match waiting {
                Waiting::Sign => {
                    connection.ask_alive(out.tail());
                    self.waiting = Waiting::Answer;
                    self.io.watchdog.feed(clock::now(), ANSWER);
                }
                Waiting::Request if !self.left => {
                    self.left = true;
                    connection.leave(out.tail());
                }
                Waiting::Goodbye => connection.leave_now(out.tail()),
                Waiting::Nothing | Waiting::Room | Waiting::Head | Waiting::Request | Waiting::Answer => {
                    return Poll::Ready(());
                }
            }
            // What was appended is written by the next poll.
            cx.waker().wake_by_ref();
        }
    }

    fn waits_for(&self) -> (Waiting, Duration) {
        let connection = &self.shared.borrow().connection;
        if self.output.is_busy() {
            (Waiting::Room, self.limits.send_timeout)
        } else if connection.awaits_head() || !(self.io.input.is_empty() || connection.receives_content()) {
            (Waiting::Head, self.limits.header_timeout)
        } else if self.left && !connection.has_left() {
            (Waiting::Goodbye, GRACE)
        } else if connection.open_streams() == 0 {
            (Waiting::Request, self.limits.keepalive_timeout)
        } else if self.waiting == Waiting::Answer {
            (Waiting::Answer, ANSWER)
        } else {
            (Waiting::Sign, PING)
        }
    }
}

/// Content for a stream: kept until its reader asks, or thrown away where the response is complete already.
fn content(state: &mut State<Server>, slot: Slot, input: &mut BytesMut, bytes: usize) {
    let data = input.split_to(bytes);
    let port = state.port(slot);
    match &mut port.discard {
        None => port.push(data),
        Some(left) => {
            *left = left.saturating_sub(bytes);
            let State { connection, out, .. } = state;
            connection.passed_on(slot, bytes, 0, out.tail());
        }
    }
    state.port(slot).wake();
}
