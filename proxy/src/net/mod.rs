//! Bytes to and from sockets: what both sides of the proxy share.

pub(crate) mod clock;
mod io;
mod output;
mod spare;
mod stream;
mod tls;
mod watchdog;

pub(crate) use self::io::Io;
pub(crate) use self::output::Output;
pub(crate) use self::stream::{Resting, Stream};
pub(crate) use self::tls::TlsStream;
pub(crate) use self::watchdog::Watchdog;

/// Bytes of a body that are one piece where it is cut: with the head of the next HTTP/2 frame behind it, it fits into a TLS
/// record.
pub(crate) const PIECE: usize = (16 << 10) - 64;

/// Bytes of a body that are read, kept and written at a time: with records, heads and chunk sizes around them they fit
/// into one packet of 64 KiB, the largest that TCP hands down. What exceeds it is a packet of its own, which has to wait
/// where sending is paced (BBR does), and the timer for that costs more than the packet: a quarter of a download.
pub(crate) const BLOCK: usize = 3 * PIECE;

/// Room that is needed to open a TLS record: its content, its type and some padding.
const RECORD_ROOM: usize = (16 << 10) + 64;

/// A read from which on much comes, so that there had better be room for much.
const MUCH: usize = 4 << 10;

/// A byte that nobody can guess, to spread what many do at the same time.
pub(crate) fn random_byte() -> u8 {
    let mut random = [0];
    // Without it there is no jitter.
    let _ = aws_lc_rs::rand::fill(&mut random);
    random[0]
}
