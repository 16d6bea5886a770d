//! What the tasks of one HTTP/2 connection share, toward clients as toward RS: the codec, the output, and a port for each
//! stream. A stream's task appends its frames to the output and takes its content from its port, both without a channel;
//! the connection's own task reads, and writes what all of them have appended.

mod output;
mod port;

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub(crate) use self::output::Output;
pub(crate) use self::port::{Piece, Port};
use crate::body::Moved;
use crate::error::Error;
use crate::h2::{Connection, Role, Server, Slot};
use crate::message::ResponseHead;
use crate::net::{self, PIECE};

/// Bytes of output from which on no stream appends content.
pub(crate) const HIGH_WATER: usize = 64 << 10;
/// Bytes of output from which on nothing more is read: answers to control frames have to be bounded too.
pub(crate) const FULL: usize = 4 * HIGH_WATER;

/// The state of a connection and its streams; borrowed for the length of a step, never across an await.
pub(crate) struct Shared<R>(RefCell<State<R>>);

pub(crate) struct State<R> {
    pub(crate) connection: Connection<R>,
    /// Frames on their way to the other side.
    pub(crate) out: net::Output,
    /// The content of the next frame, for a moment.
    part: net::Output,
    ports: Vec<Port>,
    /// Streams that wait for room in the output or the connection's window; the first is next.
    blocked: VecDeque<Slot>,
    /// The connection's own task, unless it is to run anyway.
    task: Option<Waker>,
}

impl<R: Role> Shared<R> {
    pub(crate) fn new(connection: Connection<R>, out: net::Output) -> Rc<Self> {
        Rc::new(Self(RefCell::new(State {
            connection,
            out,
            part: net::Output::default(),
            ports: Vec::new(),
            blocked: VecDeque::new(),
            task: None,
        })))
    }

    pub(crate) fn borrow(&self) -> RefMut<'_, State<R>> {
        self.0.borrow_mut()
    }
}

impl State<Server> {
    /// Appends an interim response, unless the client is slow to take what waits for it.
    pub(crate) fn send_interim(&mut self, slot: Slot, head: &ResponseHead) {
        if self.out.len() < HIGH_WATER && self.port(slot).reset.is_none() {
            let Self { connection, out, .. } = self;
            connection.send_interim(slot, head, out.tail());
            self.appended();
        }
    }
}

/// A frame that was appended.
pub(crate) struct Step {
    /// Bytes of content.
    pub(crate) bytes: u64,
    /// Whether nothing follows.
    pub(crate) end: bool,
}

impl<R: Role> Shared<R> {
    /// Appends a frame of the content that `next` moves into an empty output, at most so many bytes, or waits until there is
    /// some and it may be sent.
    pub(crate) fn poll_send(
        &self,
        slot: Slot,
        cx: &mut Context<'_>,
        next: impl FnOnce(&mut Context<'_>, &mut net::Output, usize) -> Poll<Result<Moved, Error>>,
    ) -> Poll<Result<Step, Error>> {
        let mut state = self.borrow();
        if let Some(error) = state.listen(slot, cx) {
            return Poll::Ready(Err(error));
        }
        let room = state.connection.room(slot);
        if state.connection.stream_window(slot) == 0 {
            // The other side tells when this stream may go on; the others need not wait for that.
            state.pass_turn();
            return Poll::Pending;
        }
        if room == 0 || state.out.len() >= HIGH_WATER {
            state.block(slot);
        }
        if state.port(slot).is_blocked() {
            return Poll::Pending;
        }
        let mut part = std::mem::take(&mut state.part);
        // Without the state: a response may move its request's body along, which reads from it.
        drop(state);
        let moved = next(cx, &mut part, room.min(PIECE));
        let state = &mut *self.borrow();
        let step = state.append(slot, moved, &mut part);
        part.clear();
        state.part = part;
        if !state.out.is_empty() {
            state.appended();
        }
        if state.has_blocked() {
            // Everybody a frame in turn.
            state.pass_turn();
            if let Poll::Ready(Ok(Step { end: false, .. })) = step {
                state.block(slot);
            }
        }
        step
    }
}

impl<R: Role> State<R> {
    /// Appends a frame of what was moved into `part`.
    fn append(
        &mut self,
        slot: Slot,
        moved: Poll<Result<Moved, Error>>,
        part: &mut net::Output,
    ) -> Poll<Result<Step, Error>> {
        let (bytes, end) = match moved {
            Poll::Ready(Ok(Moved::Data(bytes))) => (bytes, false),
            Poll::Ready(Ok(Moved::Last(bytes))) => (bytes, true),
            Poll::Ready(Ok(Moved::Trailers(trailers))) => {
                self.connection.send_trailers(slot, &trailers, self.out.tail());
                return Poll::Ready(Ok(Step { bytes: 0, end: true }));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        self.connection.send_data(slot, part.len(), end, self.out.tail());
        self.out.append(part);
        Poll::Ready(Ok(Step { bytes, end }))
    }

    /// The port of a stream; a new one where there was none.
    pub(crate) fn port(&mut self, slot: Slot) -> &mut Port {
        let index = slot.index();
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, Port::default);
        }
        &mut self.ports[index]
    }

    /// The task that polls this is woken when something changes for the stream; why the stream is over, where it is.
    pub(crate) fn listen(&mut self, slot: Slot, cx: &Context<'_>) -> Option<Error> {
        let port = self.port(slot);
        match &mut port.task {
            Some(task) if task.will_wake(cx.waker()) => {}
            task => *task = Some(cx.waker().clone()),
        }
        port.reset
    }

    /// Gives the buffers back, while nothing waits to be written.
    pub(crate) fn release_output(&mut self) {
        self.out.release();
        self.part.release();
    }

    /// Remembers the connection's task, which is about to wait.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.task = Some(cx.waker().clone());
    }

    /// Something was appended: makes the connection's task run, once.
    pub(crate) fn appended(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Lines a stream up for room in the output.
    pub(crate) fn block(&mut self, slot: Slot) {
        let port = self.port(slot);
        if !std::mem::replace(&mut port.blocked, true) {
            self.blocked.push_back(slot);
        }
    }

    /// Whether other streams wait for room.
    pub(crate) fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Lets the next stream try, if there is room; it passes its turn on whatever it does with it.
    pub(crate) fn pass_turn(&mut self) {
        while self.out.len() < HIGH_WATER
            && self.connection.window() > 0
            && let Some(slot) = self.blocked.pop_front()
        {
            let port = self.port(slot);
            if std::mem::take(&mut port.blocked) {
                port.wake();
                return;
            }
        }
    }

    /// The other side takes more on every stream. Those that stand in line stay there.
    pub(crate) fn wake_all(&mut self) {
        for port in &self.ports {
            port.wake();
        }
    }

    /// Forgets a stream whose task ends.
    pub(crate) fn release(&mut self, slot: Slot) {
        if self.port(slot).is_blocked() {
            self.blocked.retain(|&other| other != slot);
        }
        let unread = self.port(slot).waiting();
        let Self { connection, out, .. } = self;
        connection.passed_on(slot, unread, 0, out.tail());
        connection.release(slot, out.tail());
        *self.port(slot) = Port::default();
        self.pass_turn();
        self.appended();
    }

    /// Takes what comes next of a message off the port of its stream, at most `most` bytes of content, for which the
    /// other side may send more then. `None` while nothing is there.
    pub(crate) fn receive(&mut self, slot: Slot, most: usize) -> Option<Piece> {
        let port = self.port(slot);
        let Some(data) = port.pop(most) else {
            return port.ended.then(|| Piece::End(port.trailers.take()));
        };
        let waiting = port.waiting();
        let last = port.ended && waiting == 0 && port.trailers.is_none();
        let before = self.out.len();
        self.connection.passed_on(slot, data.len(), waiting, self.out.tail());
        if self.out.len() > before {
            self.appended();
        }
        Some(Piece::Data(data, last))
    }

    /// Tells every stream why the connection is gone.
    pub(crate) fn reset_all(&mut self, error: Error) {
        for port in &mut self.ports {
            port.reset.get_or_insert(error);
            port.wake();
        }
    }
}
