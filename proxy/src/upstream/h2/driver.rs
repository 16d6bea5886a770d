//! The task of one connection to an RS: reads frames, gives their content to the exchanges, writes what they append,
//! and leaves when nobody needs it.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::Link;
use crate::error::Error;
use crate::h2::{Answered, Client, Code, Event};
use crate::multiplex::{FULL, Output, State};
use crate::net::{Io, clock};

/// Most interim (1xx) responses before the final one.
const INTERIM: usize = 16;
/// Time for the RS to take the last bytes.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    io: Io,
    link: Rc<Link>,
    /// How long the connection is kept without a request.
    keepalive: Duration,
    output: Output,
    idle: bool,
}

impl Driver {
    pub(super) fn new(io: Io, link: Rc<Link>, keepalive: Duration) -> Self {
        Self { io, link, keepalive, output: Output::default(), idle: false }
    }

    /// Runs until the connection has ended.
    pub(super) async fn run(mut self) {
        let why = poll_fn(|cx| self.poll(cx)).await;
        self.link.gone.set(true);
        self.link.shared.borrow().reset_all(why);
        let last = async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            self.io.shutdown().await
        };
        // The RS may be gone already.
        let _ = tokio::time::timeout(GOODBYE, last).await;
    }

    /// Ready with what those hear who still wait for something.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut drained = false;
        // Frames that were taken in while there was no room for answers come first.
        while self.link.shared.borrow().out.len() < FULL {
            if let Err(error) = self.take_frames() {
                return Poll::Ready(error);
            }
            if self.link.shared.borrow().out.len() >= FULL {
                break;
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => self.link.heard.set(self.link.heard.get() + 1),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Error::UpstreamClosed),
                Poll::Pending => {
                    drained = true;
                    break;
                }
            }
        }
        let mut progress = false;
        let written = self.output.poll(&mut self.io.stream, &self.link.shared, cx, &mut progress);
        if matches!(written, Poll::Ready(Err(_))) {
            return Poll::Ready(Error::UpstreamClosed);
        }
        if written.is_ready() && !drained {
            // There is room again, and nobody else tells that there is something to read.
            cx.waker().wake_by_ref();
        }
        if !self.output.is_busy() {
            self.release();
        }
        self.link.shared.borrow().wait(cx);
        self.poll_idle(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_write(&mut self.io.stream, &self.link.shared, cx, &mut false)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let receives_content = self.link.shared.borrow().connection.receives_content();
        self.io.poll_read(cx, receives_content)
    }

    /// Takes every frame off the input that is there.
    fn take_frames(&mut self) -> Result<(), Error> {
        let input = &mut self.io.input;
        let state = &mut *self.link.shared.borrow();
        while state.out.len() < FULL {
            match state.connection.receive(input, state.out.tail()) {
                Ok(Event::NeedMore) => return Ok(()),
                Ok(Event::Head(answered)) => take_head(state, answered),
                Ok(Event::Data { slot, bytes }) => {
                    let port = state.port(slot);
                    port.push(input.split_to(bytes));
                    port.wake();
                }
                Ok(Event::Ended { slot, trailers }) => {
                    let port = state.port(slot);
                    port.trailers = trailers;
                    port.ended = true;
                    port.wake();
                }
                Ok(Event::Reset { slot, code }) => {
                    let refused = code == Code::RefusedStream as u32;
                    reset(state, slot, if refused { Error::UpstreamRefused } else { Error::UpstreamReset });
                }
                Ok(Event::Window { slot }) => state.port(slot).wake(),
                Ok(Event::Windows) => state.wake_all(),
                Ok(Event::ConnectionWindow) => state.pass_turn(),
                Ok(Event::Alive) => {}
                Err(error) => {
                    state.connection.fail(error, state.out.tail());
                    return Err(Error::UpstreamH2);
                }
            }
        }
        Ok(())
    }

    /// Gives back what an idle connection needs no buffer for.
    fn release(&mut self) {
        self.io.release();
        let state = &mut *self.link.shared.borrow();
        if state.connection.open_streams() == 0 && state.out.is_empty() {
            state.release_output();
            self.output.release();
        }
    }

    /// Leaves a connection on which there is no request: at once where none may begin, and otherwise after a while.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let (streams, left) = {
            let connection = &self.link.shared.borrow().connection;
            (connection.open_streams(), connection.has_left())
        };
        if streams > 0 {
            self.idle = false;
            return Poll::Pending;
        }
        if !(left || self.link.retired.get()) {
            if !std::mem::replace(&mut self.idle, true) {
                self.io.watchdog.feed(clock::now(), self.keepalive);
            }
            ready!(self.io.watchdog.poll_expired(cx));
        }
        let state = &mut *self.link.shared.borrow();
        state.connection.leave_now(state.out.tail());
        Poll::Ready(Error::UpstreamClosed)
    }
}

fn take_head(state: &mut State<Client>, answered: Answered) {
    match answered {
        Answered::Response { slot, head, ended, length } => {
            let port = state.port(slot);
            port.head = Some((head, length));
            port.ended = ended;
            port.wake();
        }
        Answered::Interim { slot, head } => {
            let port = state.port(slot);
            port.interim.push(*head);
            port.interim_count += 1;
            match port.interim_count > INTERIM {
                true => {
                    state.connection.reset(slot, Code::EnhanceYourCalm, state.out.tail());
                    reset(state, slot, Error::UpstreamInterim);
                }
                false => port.wake(),
            }
        }
        Answered::Malformed { slot, error } => reset(state, slot, Error::UpstreamHead(error)),
        Answered::Leaving { refused } => {
            for slot in refused {
                reset(state, slot, Error::UpstreamRefused);
            }
        }
    }
}

fn reset(state: &mut State<Client>, slot: crate::h2::Slot, error: Error) {
    let port = state.port(slot);
    port.reset.get_or_insert(error);
    port.wake();
}
