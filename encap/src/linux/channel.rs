//! Messages with descriptors between two processes of ours.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Most descriptors of one message: a receiver per engine thread, and a few more.
pub const MAX_DESCRIPTORS: usize = 72;
/// Most bytes of one message: room for the description of a tunnel with 1024 networks.
pub const MAX_BYTES: usize = 128 << 10;

/// A process at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its number; none where it cannot be seen from here, as in another container.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(formatter, "process {pid}"),
            None => formatter.write_str("a process of another container"),
        }
    }
}

/// One end of a connected SOCK_SEQPACKET socket, in whatever form it is held.
#[derive(Debug)]
pub struct Channel<S = OwnedFd> {
    socket: S,
}

impl<S: AsFd> Channel<S> {
    /// For this socket.
    pub fn new(socket: S) -> Self {
        Self { socket }
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Who is at the other end, as the kernel knows it.
    ///
    /// # Errors
    /// Where this is no unix socket.
    pub fn peer(&self) -> io::Result<Peer> {
        let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the pointers are to values of this size that live through the call, and any bytes are a `ucred`.
        let status = unsafe {
            let to = (&raw mut peer).cast();
            libc::getsockopt(
                self.socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                to,
                &raw mut length,
            )
        };
        match status {
            0 => Ok(Peer { pid: u32::try_from(peer.pid).ok().filter(|&pid| pid != 0), uid: peer.uid }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends one message; the other side gets copies of the descriptors.
    ///
    /// # Errors
    /// `WouldBlock` where the socket does not wait and has no room; where the other side is gone.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one message, waiting `patience` at most.
    ///
    /// # Errors
    /// `TimedOut`; `UnexpectedEof` when the other side is gone.
    pub fn receive(&self, patience: Duration) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        match rustix::event::poll(&mut ready, Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            // A signal shortens the wait; the caller's patience starts again, which stays bounded in practice.
            Err(rustix::io::Errno::INTR) => return self.receive(patience),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        self.try_receive()
    }

    /// Receives one message, if one is there.
    ///
    /// # Errors
    /// `WouldBlock`; `UnexpectedEof` when the other side is gone.
    pub fn try_receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut bytes = vec![0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message =
            rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        let descriptors = control
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .collect();
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message was cut: too long, or this process may open no more files (ulimit -n)",
            ));
        }
        bytes.truncate(message.bytes);
        Ok((bytes, descriptors))
    }
}

impl<S: AsFd> AsFd for Channel<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_cross_the_pair() {
        let (one, two) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let (one, two) = (Channel::new(one), Channel::new(two));
        let own = Peer { pid: Some(std::process::id()), uid: rustix::process::getuid().as_raw() };
        assert_eq!((one.peer().unwrap(), own.to_string()), (own, format!("process {}", std::process::id())));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        one.send(b"ready", &vec![theirs.as_fd(); MAX_DESCRIPTORS]).unwrap();
        let (bytes, descriptors) = two.receive(Duration::from_secs(1)).unwrap();
        assert_eq!((&bytes[..], descriptors.len()), (&b"ready"[..], MAX_DESCRIPTORS));
        rustix::io::write(&ours, b"through").unwrap();
        let mut buffer = [0; 7];
        rustix::io::read(&descriptors[1], &mut buffer).unwrap();
        assert_eq!(&buffer, b"through");
        let nothing = two.receive(Duration::from_millis(1)).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::TimedOut);
        drop(one);
        let gone = two.receive(Duration::from_secs(1)).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
    }
}
