//! Whatever an RS sends to four requests under way means the same in one piece and cut anywhere, and never more than a
//! bounded answer.

use http::Method;
use proxy::{
    h2::{Client, Connection},
    message::RequestHead,
};

use super::h2::{both_ways, limits};

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const REQUESTS: [(Method, bool); 4] =
    [(Method::GET, true), (Method::HEAD, true), (Method::POST, false), (Method::PUT, true)];

/// Panics where that does not hold.
pub fn check(input: &[u8]) {
    both_ways(SETTINGS, input, |out| {
        let mut connection = Connection::<Client>::connect(limits(), out);
        for (method, end) in REQUESTS {
            let head =
                RequestHead { method, target: "/".into(), authority: "a".into(), ..RequestHead::default() };
            connection.open(&head, "https", None, end, out);
        }
        connection
    });
}
