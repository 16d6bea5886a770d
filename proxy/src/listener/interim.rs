//! Interim responses (RFC 9110 15.2): the way from the RS to a client that waits for the final one.
//!
//! Clients of HTTP/2 and HTTP/3 get all of them. HTTP/1.1 clients get all but 103, which some of them take for the final one
//! (RFC 8297 3), and HTTP/1.0 clients none. 100 is not forwarded here: the listener sends it as soon as the RS wants the
//! content, and only to a client that waits for it.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Context;

use http::StatusCode;

use super::h1::Client;
use super::h3;
use crate::h2::{Server, Slot};
use crate::message::ResponseHead;
use crate::multiplex::Shared;

/// The client of one request.
pub(crate) enum Interim {
    /// It does not know them.
    Nobody,
    /// The other end of this connection.
    Http1(Rc<RefCell<Client>>),
    /// The other end of this stream.
    Http2(Rc<Shared<Server>>, Slot),
    /// The other end of this stream.
    Http3(Rc<RefCell<h3::Sender>>),
}

impl Interim {
    /// Passes an interim response on. One that the client is too slow to take is left out: it can do without.
    pub(crate) fn pass_on(&self, cx: &mut Context<'_>, head: &ResponseHead) {
        match self {
            Self::Http1(client) if head.status != StatusCode::EARLY_HINTS => {
                client.borrow_mut().send_interim(cx, head);
            }
            Self::Http2(shared, slot) => shared.borrow().send_interim(*slot, head),
            Self::Http3(sender) => sender.borrow_mut().send_interim(cx, head),
            Self::Nobody | Self::Http1(_) => {}
        }
    }
}
