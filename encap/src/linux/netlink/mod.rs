//! Routing netlink: links, addresses, routes and rules, without running another program.
//!
//! A [`Netlink`] belongs to the network namespace in which it was opened. Every request waits for the kernel's
//! acknowledgement, and a refusal carries the error number, what was attempted and the kernel's own words
//! (extended acknowledgement). A [`Watch`] is told of changes instead of asking.

mod address;
mod family;
mod link;
mod message;
mod neighbour;
mod netfilter;
mod route;
mod rule;
mod watch;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use message::{Answer, Message};

pub use address::Address;
pub use family::Family;
pub use link::{Ipv4Setting, Link};
pub use neighbour::Neighbour;
pub use netfilter::{drop_before_routing, drop_own_sources, hand_on};
pub use route::{Route, RouteKind, RouteTo};
pub use rule::{Rule, RuleAction};
pub use watch::{Event, Watch};

/// Longest wait for the kernel, which answers within the system call unless it is very busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// Kernel dumps arrive in pieces of at most 32 KiB.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often a list is asked for that changes meanwhile.
const MOST_DUMPS: usize = 50;

const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;
/// Attribute of an extended acknowledgement that holds a text (linux/netlink.h, enum nlmsgerr_attrs).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request the kernel refused, or a socket that failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {source}{}", reason.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct NetlinkError {
    attempt: String,
    reason: Option<String>,
    source: io::Error,
}

impl NetlinkError {
    /// What the kernel returned.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    fn new(attempt: &str, source: impl Into<io::Error>) -> Self {
        Self { attempt: attempt.to_owned(), reason: None, source: source.into() }
    }

    fn refused(attempt: &str, errno: i32, reason: Option<String>) -> Self {
        Self { attempt: attempt.to_owned(), reason, source: io::Error::from_raw_os_error(errno) }
    }

    fn malformed(attempt: &str) -> Self {
        Self::new(attempt, io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed"))
    }
}

/// Result of a netlink request.
pub type Result<T> = std::result::Result<T, NetlinkError>;

/// A routing netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
    /// The last list has changed while the kernel went through it.
    has_changed: bool,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread. Needs no privilege.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> Result<Self> {
        let attempt = "open a routing netlink socket";
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )
        .map_err(|error| NetlinkError::new(attempt, error))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))
            .map_err(|error| NetlinkError::new(attempt, error))?;
        // Kernels before 4.12 (texts, short errors) and 4.20 (filters in dumps) lack these; all work without.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let one: libc::c_int = 1;
            // SAFETY: the descriptor is open, and `one` outlives the call that reads its four bytes.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const one).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
        }
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES], has_changed: false })
    }

    /// Sends a request and waits for its acknowledgement.
    fn request(&mut self, attempt: &str, message: Message) -> Result<()> {
        self.exchange(attempt, message, |_| {})
    }

    /// Asks for a list of one family; see [`Netlink::list`]. Where IPv6 is off its lists are empty.
    fn list_of<T>(
        &mut self,
        attempt: &str,
        family: Family,
        (kind, header): (u16, &[u8]),
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        // A kernel without the family answers with what others have.
        let is_of_family = |payload: &[u8]| payload.first() == Some(&family.number());
        let result =
            self.list(attempt, (kind, header), |payload| parse(payload).filter(|_| is_of_family(payload)));
        match result {
            Err(error)
                if family == Family::Ipv6
                    && matches!(error.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) =>
            {
                Ok(Vec::new())
            }
            result => result,
        }
    }

    /// Asks for a list, and for what `parse` makes of the payload of each entry; once more where the list has changed
    /// while the kernel went through it, for then something may be missing.
    fn list<T>(
        &mut self,
        attempt: &str,
        (kind, header): (u16, &[u8]),
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..MOST_DUMPS {
            let message = Message::new(kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, header);
            let mut entries = Vec::new();
            self.exchange(attempt, message, |answer| entries.extend(parse(answer.payload)))?;
            if !self.has_changed {
                return Ok(entries);
            }
        }
        Err(NetlinkError::new(attempt, io::Error::new(io::ErrorKind::Interrupted, "it changes all the time")))
    }

    /// Sends a request and hands every message of its answer to `each`, until the end of the dump or the
    /// acknowledgement.
    fn exchange(
        &mut self,
        attempt: &str,
        mut message: Message,
        mut each: impl FnMut(Answer<'_>),
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.has_changed = false;
        let bytes = message.finish(self.sequence);
        rustix::net::send(&self.socket, bytes, SendFlags::empty())
            .map_err(|error| NetlinkError::new(attempt, error))?;
        loop {
            // With TRUNC the length is that of the datagram, even where it did not fit.
            let received = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC);
            let len = match received {
                Ok((_, len)) => len,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(NetlinkError::new(attempt, error)),
            };
            let datagram = self.buffer.get(..len).ok_or_else(|| NetlinkError::malformed(attempt))?;
            for answer in message::answers(datagram).filter(|answer| answer.sequence == self.sequence) {
                self.has_changed |= i32::from(answer.flags) & libc::NLM_F_DUMP_INTR != 0;
                match answer.kind {
                    NLMSG_ERROR | NLMSG_DONE => return finish(attempt, answer),
                    _ => each(answer),
                }
            }
        }
    }
}

/// Reads the error number that ends every exchange; zero means success.
fn finish(attempt: &str, answer: Answer<'_>) -> Result<()> {
    let errno = match message::u32_at(answer.payload, 0) {
        Some(number) => (number as i32).wrapping_neg(),
        // A dump may end without a number.
        None if answer.kind == NLMSG_DONE => 0,
        None => return Err(NetlinkError::malformed(attempt)),
    };
    if errno == 0 {
        return Ok(());
    }
    // nlmsgerr: error number (4), then the header of the request (16); attributes only where the flag says
    // so, behind the whole request unless it was capped.
    let mut at = if answer.kind == NLMSG_DONE { 4 } else { 20 };
    if answer.kind == NLMSG_ERROR && i32::from(answer.flags) & libc::NLM_F_CAPPED == 0 {
        at = 4 + message::u32_at(answer.payload, 4).map_or(16, |len| len as usize);
    }
    let has_text = i32::from(answer.flags) & libc::NLM_F_ACK_TLVS != 0;
    let text = message::attributes_after(answer.payload, at)
        .find(|(kind, _)| has_text && *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, value)| message::string(value));
    Err(NetlinkError::refused(attempt, errno, text))
}
