//! The HTTP/2 codec (RFC 9113) of the server side.
//!
//! It turns bytes of a connection into requests, content and windows, and responses into bytes. It never does
//! I/O, waits, or reads a clock, and it holds no content: what arrives stays in the caller's input, what leaves is
//! appended to the caller's output. It decides what is an error of the connection (RFC 9113 5.4.1), of a stream (5.4.2)
//! or a request that gets an ordinary answer, and bounds everything that a client could make it keep or do.

mod connection;
mod error;
mod flow;
mod frame;
mod head;
pub mod hpack;
mod receive;
mod settings;
mod streams;
#[cfg(test)]
mod tests;

pub use self::connection::{Connection, DATA_HEAD, Limits};
pub use self::error::{Code, ConnectionError};
pub use self::receive::Event;
pub use self::streams::Slot;
