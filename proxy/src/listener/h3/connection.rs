//! What the tasks of one connection share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use super::code;
use crate::h3::{Code, ConnectionError, ControlStream, Unidirectional};
use crate::state::Limits;

/// How many more requests than were answered a client may give up before the connection ends: they cost an RS far more
/// than the client. Only answers pay back.
const LOSSES: u32 = 500;
/// Streams that are for nothing here, beyond one for each request.
const STRAYS: u32 = 100;
/// Heads that may be incomplete at a time, by their size.
const HEADS: usize = 4;

/// One connection.
pub(super) struct Link {
    pub(super) quic: quinn::Connection,
    pub(super) limits: Limits,
    /// What the client has opened, and said on its control stream.
    pub(super) streams: RefCell<Unidirectional>,
    pub(super) control: RefCell<ControlStream>,
    /// Request streams whose task has not ended.
    open: Cell<usize>,
    losses: Cell<u32>,
    strays: Cell<u32>,
    /// Bytes of heads that are kept until they are complete.
    heads: Cell<usize>,
    /// A request stream has ended.
    pub(super) ended: Notify,
}

impl Link {
    pub(super) fn new(quic: quinn::Connection, limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            quic,
            limits,
            streams: RefCell::default(),
            control: RefCell::default(),
            open: Cell::new(0),
            losses: Cell::new(0),
            strays: Cell::new(0),
            heads: Cell::new(0),
            ended: Notify::new(),
        })
    }

    /// Ends the connection.
    pub(super) fn fail(&self, error: ConnectionError) {
        self.quic.close(code(error.code), error.reason.as_bytes());
    }

    /// Request streams whose task has not ended.
    pub(super) fn open_streams(&self) -> usize {
        self.open.get()
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        self.losses.set(self.losses.get().saturating_sub(1));
        self.strays.set(self.strays.get().saturating_sub(1));
        self.control.borrow_mut().satisfied();
    }

    /// The client has given a request up, or made us do so.
    pub(super) fn lost(&self) {
        self.losses.set(self.losses.get() + 1);
        if self.losses.get() > LOSSES {
            self.quic.close(code(Code::ExcessiveLoad), b"too many requests that are given up");
        }
    }

    /// The client has opened a stream for nothing.
    pub(super) fn strayed(&self) {
        self.strays.set(self.strays.get() + 1);
        if self.strays.get() > STRAYS {
            self.quic.close(code(Code::ExcessiveLoad), b"too many streams that are for nothing");
        }
    }

    /// One stream keeps so many bytes of a head, instead of so many before.
    pub(super) fn keeps(&self, bytes: usize, before: usize) {
        let heads = (self.heads.get() + bytes).saturating_sub(before);
        self.heads.set(heads);
        if heads > HEADS * self.limits.codec.head_bytes {
            self.quic.close(code(Code::ExcessiveLoad), b"too many heads that are not complete");
        }
    }
}

/// Counts a request stream for as long as its task runs.
pub(super) struct Open(Rc<Link>);

impl Open {
    pub(super) fn new(link: &Rc<Link>) -> Self {
        link.open.set(link.open.get() + 1);
        Self(Rc::clone(link))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.ended.notify_one();
    }
}
