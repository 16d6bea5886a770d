//! What the two processes say to each other: one JSON object a message, with at most one descriptor. Neither side trusts the
//! other's bytes: what does not decode whole, or comes out of turn, ends the exchange.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Another exchange has another number.
pub(super) const VERSION: u32 = 1;
/// Most sockets and ways of one exchange.
pub(super) const MOST: usize = 65_536;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Connections of a listener.
    Tcp,
    /// HTTP/3 of a listener.
    Quic,
    /// The admin pages.
    Admin,
    /// The built-in real server.
    Demo,
}

/// From the process that takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// Asks for everything.
    Hello { version: u32 },
    /// Is ready to serve, from the sockets with these numbers, which count from 0 in the order they came.
    Ready { taken: Vec<usize> },
}

/// From the process that hands over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Reply {
    /// What QUIC is spoken with.
    Keys { reset: [u8; 32], token: [u8; 32], process: [u8; 4], earlier: Vec<[u8; 4]> },
    /// A socket, with its descriptor.
    Socket { kind: Kind, name: String, address: SocketAddr, tunnel: Option<String> },
    /// A process that has handed over before, with a descriptor that it lives as long as; or, without one, the one that
    /// speaks.
    Past { process: [u8; 4] },
    /// The way to the process that was named last, for a listener, with its descriptor.
    Way { listener: String },
    /// That was all.
    End,
    /// The sockets are no longer read from here.
    Go,
    /// Nothing comes of it.
    Refused { reason: String },
}

/// A message as bytes.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(io::Error::other)
}

/// A message of these bytes.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("not a message: {error}")))
}

/// A message that has its place elsewhere.
pub(super) fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message out of turn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back_and_nothing_else_does() {
        let replies = [
            Reply::Keys { reset: [1; 32], token: [2; 32], process: [3; 4], earlier: vec![[4; 4]; 16] },
            Reply::Socket {
                kind: Kind::Quic,
                name: "ä".into(),
                address: "[fe80::1%3]:443".parse().unwrap(),
                tunnel: None,
            },
            Reply::Past { process: [0; 4] },
            Reply::Way { listener: String::new() },
            Reply::End,
            Reply::Go,
            Reply::Refused { reason: "\n".into() },
        ];
        for reply in replies {
            let bytes = encode(&reply).unwrap();
            assert_eq!(decode::<Reply>(&bytes).unwrap(), reply);
            for cut in 0..bytes.len() {
                assert!(decode::<Reply>(&bytes[..cut]).is_err());
            }
        }
        for wrong in [
            "",
            "{}",
            "[]",
            "\"hello\"",
            "{\"ready\":{\"taken\":[-1]}}",
            "{\"hello\":{\"version\":1,\"a\":1}}",
        ] {
            assert!(decode::<Request>(wrong.as_bytes()).is_err(), "{wrong}");
        }
        // As many sockets as there can be fit into one message.
        let most = encode(&Request::Ready { taken: (0..16_384).collect() }).unwrap();
        assert!(most.len() < encap::linux::channel::MAX_BYTES);
    }
}
