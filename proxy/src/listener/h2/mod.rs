//! HTTP/2 toward clients: one task reads and writes the connection, each stream has one of its own.

mod body;
mod driver;
mod stream;
mod websocket;

use std::rc::Rc;

use super::handler::Handler;
use crate::drain::Draining;
use crate::h2::{Connection, Limits as Codec};
use crate::multiplex::Shared;
use crate::net::{Output, Stream};
use crate::state::Limits;

use self::driver::Driver;
use self::stream::Streams;

/// Streams a client may have open at a time.
const STREAMS: u32 = 128;
/// Window of a stream at first; it doubles while its reader keeps up.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of a connection at first: the most that is kept of the uploads of one client, until it has shown that they are
/// read.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Largest window: fills a link of 1 Gbit/s at 100 ms.
const LARGEST_WINDOW: u32 = 16 << 20;

/// Serves a connection until it ends.
pub(super) async fn serve<H: Handler + 'static>(
    stream: Stream,
    limits: &Limits,
    handler: Rc<H>,
    connection: Rc<H::Connection>,
    draining: Draining,
) where
    H::Connection: 'static,
{
    let codec = Codec {
        streams: STREAMS,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        largest_window: LARGEST_WINDOW,
        head: limits.codec.clone(),
    };
    let mut out = Output::default();
    let codec = Connection::new(codec, out.tail());
    let shared = Shared::new(codec, out);
    let streams =
        Streams { handler, connection, shared: Rc::clone(&shared), limits: Rc::new(limits.clone()) };
    Driver::new(stream, shared, limits, draining).run(&streams).await;
}
