//! Signals of a process that reads them from a descriptor.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use rustix::process::Signal;

/// Blocks `signals` for the calling thread and returns a descriptor that becomes readable when one arrives.
///
/// # Errors
/// When the kernel refuses it.
pub fn read_instead(signals: &[Signal]) -> io::Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: `set` is initialised and outlives both calls; the old mask is not asked for.
    let descriptor = unsafe {
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd has just returned it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Blocks `signals` for the calling thread.
///
/// # Errors
/// When the kernel refuses it.
pub fn block(signals: &[Signal]) -> io::Result<()> {
    let set = set_of(signals);
    // SAFETY: `set` is initialised and outlives the call; the old mask is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set; sigaddset then only changes bits of it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        set.assume_init()
    }
}
