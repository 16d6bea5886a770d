//! The HTTP/2 codec (RFC 9113) of either side.
//!
//! It turns bytes of a connection into heads, content and windows, and messages into bytes. A [`Connection`] is that of
//! a [`Server`], toward clients, or of a [`Client`], toward RS. It never does
//! I/O, waits, or reads a clock, and it holds no content: what arrives stays in the caller's input, what leaves is
//! appended to the caller's output. It decides what is an error of the connection (RFC 9113 5.4.1), of a stream (5.4.2)
//! or a request that gets an ordinary answer, and bounds everything that the other side could make it keep or do.

mod client;
mod connection;
mod error;
mod flow;
mod frame;
pub mod hpack;
mod receive;
mod role;
mod settings;
mod streams;
#[cfg(test)]
mod tests;

pub use self::client::Answered;
pub use self::connection::{Connection, Limits};
pub use self::error::{Code, ConnectionError};
pub use self::receive::{Asked, Event};
pub use self::role::{Client, Role, Server};
pub use self::streams::Slot;
