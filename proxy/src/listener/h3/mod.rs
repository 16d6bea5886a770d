//! HTTP/3 toward clients: an endpoint of QUIC for each worker and listener, a task for each connection, one for each of
//! its streams.

mod body;
mod connection;
mod driver;
mod endpoint;
mod receiver;
mod sender;
mod stream;
mod unidirectional;
mod websocket;

pub(crate) use self::endpoint::{Endpoint, Socket};
pub(super) use self::sender::Sender;
use quinn::VarInt;

use crate::h3::Code;

/// Requests a client may have open at a time.
const STREAMS: u32 = 128;
/// Streams of the client's own at a time: three are needed, browsers try one more now and then.
const UNIDIRECTIONAL: u32 = 8;
/// Window of a stream: the most that is kept of one upload.
const STREAM_WINDOW: u32 = 1 << 20;
/// Window of a connection: the most that is kept of the uploads of one client.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The most of its responses that is kept until one client has confirmed that they have come.
const SEND_WINDOW: u64 = 4 << 20;

/// A code as QUIC wants it.
fn code(code: Code) -> VarInt {
    VarInt::from_u32(code as u32)
}
