//! Which side of a connection this is, and what that changes.

use super::connection::Connection;
use super::receive::{Event, Received};

/// A side of a connection.
pub trait Role: Sized {
    /// Whether this side opens the streams.
    const IS_CLIENT: bool;
    /// What this side is told of by field blocks.
    type Head;

    /// A whole field block, with which the other side has `ended` its part of the stream or not.
    ///
    /// # Errors
    /// Those of the connection.
    fn block(
        connection: &mut Connection<Self>,
        id: u32,
        ended: bool,
        block: &[u8],
        out: &mut Vec<u8>,
    ) -> Received<Self>;

    /// The other side takes no streams behind this one any more (RFC 9113 6.8).
    fn goaway(connection: &mut Connection<Self>, last: u32) -> Option<Event<Self::Head>>;
}

/// Answers requests.
#[derive(Debug)]
pub enum Server {}

/// Makes requests.
#[derive(Debug)]
pub enum Client {}
