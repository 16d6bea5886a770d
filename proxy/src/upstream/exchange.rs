//! One request and one response, in whatever is spoken to the RS.

use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use super::{Upstreams, h2, http1};
use crate::body::Body;
use crate::error::Error;
use crate::message::{RequestHead, ResponseHead};
use crate::net::Io;
use crate::state::{Grant, View};

/// Where an exchange takes place.
pub(crate) struct Place {
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) view: Rc<View>,
    pub(crate) pool: usize,
    pub(crate) server: usize,
    /// Its room there, until the response has ended.
    pub(crate) grant: Option<Grant>,
}

/// What is done with an interim response.
pub(crate) type OnInterim<'a> = dyn FnMut(&mut Context<'_>, &mut ResponseHead) + 'a;

/// A connection to an RS that has room for a request.
pub(crate) enum Link {
    /// HTTP/1.1: for this request alone.
    Http1(Box<Io>),
    /// HTTP/2: shared with others.
    Http2(Rc<h2::Link>),
}

/// The exchange. Dropped before its end, it tells the RS that nobody wants the rest.
pub(crate) enum Exchange {
    /// On a connection of its own.
    Http1(Box<http1::Exchange>),
    /// On a stream.
    Http2(Box<h2::Exchange>),
}

impl Exchange {
    /// Begins.
    pub(crate) fn new(
        link: Link,
        place: Place,
        head: &RequestHead,
        body: Body,
        client_timeout: Duration,
    ) -> Self {
        match link {
            Link::Http1(io) => Self::Http1(http1::Exchange::new(io, place, head, body, client_timeout)),
            Link::Http2(link) => Self::Http2(h2::Exchange::new(link, place, head, body, client_timeout)),
        }
    }

    /// The head of the final response, or 101. Of interim ones, 100 is for the exchange itself and all others are
    /// handed to `interim`.
    pub(crate) async fn head(&mut self, interim: &mut OnInterim<'_>) -> Result<Box<ResponseHead>, Error> {
        match self {
            Self::Http1(exchange) => exchange.head(interim).await,
            Self::Http2(exchange) => exchange.head(interim).await,
        }
    }

    /// Whether any byte of a response has come.
    pub(crate) fn received(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.received(),
            Self::Http2(exchange) => exchange.received(),
        }
    }

    /// The body of the request, where it can be sent once more.
    pub(crate) fn reclaim(self) -> Option<Body> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(exchange) => exchange.reclaim(),
        }
    }

    /// The connection, with whatever came behind the head of a 101, and its room at the RS. None while the RS has not got
    /// all of the request: the rest would reach it as the other protocol.
    pub(crate) fn into_upgraded(self) -> Option<(Box<Io>, Option<Grant>)> {
        match self {
            Self::Http1(exchange) => exchange.into_upgraded(),
            Self::Http2(_) => None,
        }
    }

    /// The body of the response.
    pub(crate) fn into_body(self) -> Body {
        match self {
            Self::Http1(exchange) => exchange.into_body(),
            Self::Http2(exchange) => exchange.into_body(),
        }
    }
}
