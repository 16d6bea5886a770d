//! Bytes to and from sockets: what both sides of the proxy share.

pub(crate) mod clock;
mod io;
mod output;
mod stream;
mod tls;
mod watchdog;

pub(crate) use self::io::Io;
pub(crate) use self::output::Output;
pub(crate) use self::stream::{Resting, Stream};
pub(crate) use self::tls::TlsStream;
pub(crate) use self::watchdog::Watchdog;
