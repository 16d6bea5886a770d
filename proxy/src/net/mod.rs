//! Bytes to and from sockets: what both sides of the proxy share.

mod io;
mod output;
mod stream;
mod watchdog;

pub(crate) use self::io::Io;
pub(crate) use self::output::Output;
pub(crate) use self::stream::Stream;
pub(crate) use self::watchdog::Watchdog;
