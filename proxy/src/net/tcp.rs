//! Reading and writing on a TCP connection by system calls of our own: in a program with threads libc makes each of its
//! calls a point where the thread may be cancelled, at 2 % of the time of a request.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads what is there; ready with 0 at the end of the stream.
pub(super) fn poll_read(tcp: &TcpStream, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_read_ready(cx))?;
        let read = attempt(tcp, Interest::READABLE, buf.len(), || {
            Ok(rustix::net::recv(tcp, &mut *buf, RecvFlags::empty())?.0)
        });
        if let Some(read) = read {
            return Poll::Ready(read);
        }
    }
}

/// Writes as much as the socket takes.
pub(super) fn poll_write(tcp: &TcpStream, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        let written = attempt(tcp, Interest::WRITABLE, buf.len(), || {
            Ok(rustix::net::send(tcp, buf, SendFlags::NOSIGNAL)?)
        });
        if let Some(written) = written {
            return Poll::Ready(written);
        }
    }
}

/// Writes as much of several pieces as the socket takes.
pub(super) fn poll_write_vectored(
    tcp: &TcpStream,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let wanted = bufs.iter().map(|buf| buf.len()).sum();
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        let written = attempt(tcp, Interest::WRITABLE, wanted, || Ok(rustix::io::writev(tcp, bufs)?));
        if let Some(written) = written {
            return Poll::Ready(written);
        }
    }
}

/// Makes a call for so many bytes; nothing where the socket was not ready after all. Fewer bytes mean that the socket has
/// none left, or no room: it counts as not ready until the kernel says otherwise, without a call that only finds that out.
fn attempt(
    tcp: &TcpStream,
    interest: Interest,
    wanted: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    let mut moved = None;
    let tried = tcp.try_io(interest, || {
        let bytes = call()?;
        moved = Some(bytes);
        match (1..wanted).contains(&bytes) {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(()),
        }
    });
    match (moved, tried) {
        (Some(bytes), _) => Some(Ok(bytes)),
        (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
        (None, tried) => Some(tried.map(|()| 0)),
    }
}
