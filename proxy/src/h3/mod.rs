//! The HTTP/3 codec (RFC 9114) of the server's side.
//!
//! It turns the bytes of streams into heads and content, and messages into bytes; QUIC below it is somebody else's. It
//! never does I/O, waits, or reads a clock. It decides what is an error of the connection (RFC 9114 8), of a stream, or a
//! request that gets an ordinary answer, and bounds everything that the client could make it keep or skip.

mod control;
mod error;
mod frame;
pub mod qpack;
mod request;
#[cfg(test)]
mod tests;
mod unidirectional;
mod varint;
mod write;

pub use self::control::ControlStream;
pub use self::error::{Code, ConnectionError};
pub use self::request::{Asked, Event, RequestError, RequestStream};
pub use self::unidirectional::{Beginning, Kind, Unidirectional};
pub use self::write::{data_head, goaway, interim, keep_alive, opening, response, trailers};
