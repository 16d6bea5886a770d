//! What the tasks of one connection share: the codec, the output, and a port for each stream.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};

use crate::h2::{Connection, Slot};
use crate::message::Headers;

/// Bytes of output from which on no stream appends content.
pub(super) const HIGH_WATER: usize = 64 << 10;
/// Content below this size is copied: otherwise it would keep everything that came in one read with it.
const COPY_BELOW: usize = 4096;
/// Pieces that were copied are put together up to this size.
const GATHERED: usize = 64 << 10;

/// The state of a connection and its streams; borrowed for the length of a step, never across an await.
pub(super) struct Shared(RefCell<State>);

pub(super) struct State {
    pub(super) connection: Connection,
    /// Frames on their way to the client.
    pub(super) out: Vec<u8>,
    ports: Vec<Port>,
    /// Streams that wait for room in the output or the connection's window; the first is next.
    blocked: VecDeque<Slot>,
    /// The connection's own task, unless it is to run anyway.
    task: Option<Waker>,
}

/// What one stream's task is told.
#[derive(Default)]
pub(super) struct Port {
    task: Option<Waker>,
    /// Content that has come and was not passed on.
    content: VecDeque<Bytes>,
    /// Small pieces behind it.
    gathered: Vec<u8>,
    pub(super) trailers: Option<Headers>,
    /// Nothing more comes.
    pub(super) ended: bool,
    /// The client does not want the stream any more, or is gone.
    pub(super) reset: bool,
    /// What comes is thrown away, up to so many bytes.
    pub(super) discard: Option<usize>,
    blocked: bool,
}

impl Port {
    /// Takes content in.
    pub(super) fn push(&mut self, data: BytesMut) {
        if data.len() < COPY_BELOW {
            self.gathered.extend_from_slice(&data);
        }
        if data.len() >= COPY_BELOW || self.gathered.len() >= GATHERED {
            self.settle();
        }
        if data.len() >= COPY_BELOW {
            self.content.push_back(data.freeze());
        }
    }

    /// The next content that has come.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.content.is_empty() {
            self.settle();
        }
        self.content.pop_front()
    }

    /// Forgets all content; how much it was.
    pub(super) fn clear(&mut self) -> usize {
        let waiting = self.waiting();
        self.content.clear();
        self.gathered.clear();
        waiting
    }

    fn settle(&mut self) {
        if !self.gathered.is_empty() {
            self.content.push_back(std::mem::take(&mut self.gathered).into());
        }
    }

    /// Bytes of content that wait.
    pub(super) fn waiting(&self) -> usize {
        self.content.iter().map(Bytes::len).sum::<usize>() + self.gathered.len()
    }

    /// Whether the stream stands in line for room.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Wakes the stream's task.
    pub(super) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

impl Shared {
    pub(super) fn new(connection: Connection, out: Vec<u8>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(State {
            connection,
            out,
            ports: Vec::new(),
            blocked: VecDeque::new(),
            task: None,
        })))
    }

    pub(super) fn borrow(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Takes the output out of the state for a moment.
    pub(super) fn take_output(&self) -> TakenOutput<'_> {
        let out = std::mem::take(&mut self.borrow().out);
        TakenOutput { shared: self, keep: out.len(), out }
    }
}

/// The output while something is appended that may want the state meanwhile. It comes back in any case, with what
/// was complete in it: the compression of all responses depends on that.
pub(super) struct TakenOutput<'a> {
    shared: &'a Shared,
    pub(super) out: Vec<u8>,
    /// Bytes to keep of it.
    pub(super) keep: usize,
}

impl Drop for TakenOutput<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.keep);
        let state = &mut *self.shared.borrow();
        self.out.append(&mut state.out);
        state.out = std::mem::take(&mut self.out);
    }
}

impl State {
    /// The port of a stream; a new one where there was none.
    pub(super) fn port(&mut self, slot: Slot) -> &mut Port {
        let index = slot.index();
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, Port::default);
        }
        &mut self.ports[index]
    }

    /// The task that polls this is woken when something changes for the stream; whether the stream is over.
    pub(super) fn listen(&mut self, slot: Slot, cx: &Context<'_>) -> bool {
        let port = self.port(slot);
        match &mut port.task {
            Some(task) if task.will_wake(cx.waker()) => {}
            task => *task = Some(cx.waker().clone()),
        }
        port.reset
    }

    /// Remembers the connection's task, which is about to wait.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        self.task = Some(cx.waker().clone());
    }

    /// Something was appended: makes the connection's task run, once.
    pub(super) fn appended(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Lines a stream up for room in the output.
    pub(super) fn block(&mut self, slot: Slot) {
        let port = self.port(slot);
        if !std::mem::replace(&mut port.blocked, true) {
            self.blocked.push_back(slot);
        }
    }

    /// Whether other streams wait for room.
    pub(super) fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Lets the next stream try, if there is room; it passes its turn on whatever it does with it.
    pub(super) fn pass_turn(&mut self) {
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

    /// The client takes more on every stream. Those that stand in line stay there.
    pub(super) fn wake_all(&mut self) {
        for port in &self.ports {
            port.wake();
        }
    }

    /// Forgets a stream whose task ends.
    pub(super) fn release(&mut self, slot: Slot) {
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

    /// Tells every stream that the connection is gone.
    pub(super) fn reset_all(&mut self) {
        for port in &mut self.ports {
            port.reset = true;
            port.wake();
        }
    }
}
