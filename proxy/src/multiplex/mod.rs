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
use crate::h2::{Connection, DATA_HEAD, Role, Server, Slot};
use crate::message::ResponseHead;

/// Bytes of output from which on no stream appends content.
pub(crate) const HIGH_WATER: usize = 64 << 10;
/// Bytes of output from which on nothing more is read: answers to control frames have to be bounded too.
pub(crate) const FULL: usize = 4 * HIGH_WATER;

/// The state of a connection and its streams; borrowed for the length of a step, never across an await.
pub(crate) struct Shared<R>(RefCell<State<R>>);

pub(crate) struct State<R> {
    pub(crate) connection: Connection<R>,
    /// Frames on their way to the other side.
    pub(crate) out: Vec<u8>,
    ports: Vec<Port>,
    /// Streams that wait for room in the output or the connection's window; the first is next.
    blocked: VecDeque<Slot>,
    /// The connection's own task, unless it is to run anyway.
    task: Option<Waker>,
}

impl<R: Role> Shared<R> {
    pub(crate) fn new(connection: Connection<R>, out: Vec<u8>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(State {
            connection,
            out,
            ports: Vec::new(),
            blocked: VecDeque::new(),
            task: None,
        })))
    }

    pub(crate) fn borrow(&self) -> RefMut<'_, State<R>> {
        self.0.borrow_mut()
    }

    /// Takes the output out of the state for a moment.
    fn take_output(&self) -> TakenOutput<'_, R> {
        let out = std::mem::take(&mut self.borrow().out);
        TakenOutput { shared: self, keep: out.len(), out }
    }
}

impl State<Server> {
    /// Appends an interim response, unless the client is slow to take what waits for it.
    pub(crate) fn send_interim(&mut self, slot: Slot, head: &ResponseHead) {
        if self.out.len() < HIGH_WATER && self.port(slot).reset.is_none() {
            let Self { connection, out, .. } = self;
            connection.send_interim(slot, head, out);
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
    /// Appends a frame of the content that `copy` puts behind the output, at most so many bytes, or waits until there is
    /// some and it may be sent.
    pub(crate) fn poll_send(
        &self,
        slot: Slot,
        cx: &mut Context<'_>,
        copy: impl FnOnce(&mut Context<'_>, &mut Vec<u8>, usize) -> Poll<Result<Moved, Error>>,
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
        // Without the state: a response may move its request's body along, which reads from it.
        drop(state);
        let mut taken = self.take_output();
        let start = taken.out.len();
        taken.out.extend_from_slice(&[0; DATA_HEAD]);
        let moved = copy(cx, &mut taken.out, room);
        let out = &mut taken.out;
        let mut state = self.borrow();
        let connection = &mut state.connection;
        let step = match moved {
            Poll::Ready(Ok(Moved::Data(bytes))) => {
                connection.send_data(slot, bytes as usize, false, out);
                Poll::Ready(Ok(Step { bytes, end: false }))
            }
            Poll::Ready(Ok(Moved::Last(bytes))) => {
                connection.send_data(slot, bytes as usize, true, out);
                Poll::Ready(Ok(Step { bytes, end: true }))
            }
            Poll::Ready(Ok(Moved::Trailers(trailers))) => {
                out.truncate(start);
                connection.send_trailers(slot, &trailers, out);
                Poll::Ready(Ok(Step { bytes: 0, end: true }))
            }
            Poll::Ready(Err(error)) => {
                out.truncate(start);
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                out.truncate(start);
                Poll::Pending
            }
        };
        taken.keep = taken.out.len();
        drop(state);
        drop(taken);
        let state = &mut *self.borrow();
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

/// The output while something is appended that may want the state meanwhile. It comes back in any case, with what
/// was complete in it: the compression of everything behind it depends on that.
struct TakenOutput<'a, R: Role> {
    shared: &'a Shared<R>,
    out: Vec<u8>,
    /// Bytes to keep of it.
    keep: usize,
}

impl<R: Role> Drop for TakenOutput<'_, R> {
    fn drop(&mut self) {
        self.out.truncate(self.keep);
        let state = &mut *self.shared.borrow();
        self.out.append(&mut state.out);
        state.out = std::mem::take(&mut self.out);
    }
}

impl<R: Role> State<R> {
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
        connection.passed_on(slot, unread, 0, out);
        connection.release(slot, out);
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
        self.connection.passed_on(slot, data.len(), waiting, &mut self.out);
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
