//! A child process without a program of its own: the same code, forked while there is one thread.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use rustix::process::Pid;

/// Where the child finds its socket; everything above is closed.
const SOCKET: RawFd = 3;

/// Number of threads of this process; `None` where `/proc` is not mounted.
pub fn thread_count() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// Forks. The child closes every descriptor but the standard ones and `socket`, runs `body` with it, and exits
/// with the code it returned, or with 101 after a panic; no destructor of the parent's values runs in it.
/// `body` must not use descriptors that it captured.
///
/// # Errors
/// When the process has more than one thread, where a child could find locks held forever, or fork fails.
pub fn fork(socket: OwnedFd, body: impl FnOnce(OwnedFd) -> i32) -> io::Result<Pid> {
    let mut patience = 50;
    while thread_count() != Some(1) {
        // A thread that has been joined can still be listed for a moment.
        if patience == 0 {
            return Err(io::Error::other("a process with more than one thread cannot be forked safely"));
        }
        patience -= 1;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // SAFETY: there is one thread, so memory and locks of the child are in a consistent state.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(AssertUnwindSafe(|| body(keep_only(socket))));
            // SAFETY: ends the process; nothing runs after it.
            unsafe { libc::_exit(code.unwrap_or(101)) }
        }
        pid => Pid::from_raw(pid).ok_or_else(io::Error::last_os_error),
    }
}

/// Closes everything above standard error except `socket`, which becomes number 3.
fn keep_only(socket: OwnedFd) -> OwnedFd {
    let number = socket.as_raw_fd();
    std::mem::forget(socket);
    // SAFETY: only system calls on numbers. In the forked child no other code holds descriptors it will use
    // again (condition of `fork`), and the socket's old owner is forgotten.
    unsafe {
        if number != SOCKET {
            libc::dup2(number, SOCKET);
        }
        libc::fcntl(SOCKET, libc::F_SETFD, libc::FD_CLOEXEC);
        let from = (SOCKET + 1) as libc::c_uint;
        // close_range exists since Linux 5.9.
        if libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) < 0 {
            let end = libc::sysconf(libc::_SC_OPEN_MAX).clamp(0, 65_536) as RawFd;
            for other in SOCKET + 1..end {
                libc::close(other);
            }
        }
        OwnedFd::from_raw_fd(SOCKET)
    }
}
