//! Descriptors handed from one program to the next: socket activation as systemd does it (sd_listen_fds(3)).
//!
//! Descriptors are numbered from 3 on; `LISTEN_FDS` holds how many, `LISTEN_FDNAMES` their names. Used at start,
//! before any thread, and when a successor is started.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Number of the first descriptor handed on.
const FIRST: RawFd = 3;
/// More than anybody needs, and a bound for a wrong number.
const MOST: usize = 1024;

/// Handed-on descriptors that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// `LISTEN_FDS` is not a number, or too large.
    #[error("LISTEN_FDS is {0:?}: expected a number from 0 to {MOST}")]
    BadCount(String),
    /// A promised descriptor is not open.
    #[error("LISTEN_FDS promises {count} descriptors from {FIRST} on, but number {number} is not open")]
    NotOpen {
        /// How many were promised.
        count: usize,
        /// The first that is missing.
        number: RawFd,
    },
    /// The descriptors have already been taken.
    #[error("the process has other threads already, so its environment cannot be changed")]
    Threads,
}

/// Takes the descriptors handed to this process, each with its name (`unknown` without one), and removes the
/// variables. Call once at start, before any thread. `LISTEN_PID` may be absent; when present and not this
/// process, the descriptors were meant for another one and none is taken.
///
/// # Errors
/// When the variables are wrong or a descriptor is not open.
pub fn take() -> Result<Vec<(String, OwnedFd)>, InheritedError> {
    let [pid, count, names] =
        ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(|name| std::env::var(name).ok());
    let Some(count) = count else { return Ok(Vec::new()) };
    if super::process::thread_count() != Some(1) {
        return Err(InheritedError::Threads);
    }
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        // SAFETY: the process has a single thread, so nothing reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    if pid.is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return Ok(Vec::new());
    }
    let total = count.parse().ok().filter(|total| *total <= MOST).ok_or(InheritedError::BadCount(count))?;
    let mut names = names.as_deref().unwrap_or_default().split(':');
    let mut taken = Vec::with_capacity(total);
    for number in (FIRST..).take(total) {
        // SAFETY: fcntl reads and sets a flag; a number that is not open gives EBADF.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(InheritedError::NotOpen { count: total, number });
        }
        // SAFETY: it is open, it was handed to this process by number, and the variables that name it are gone,
        // so nobody else takes it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        taken.push((name.to_owned(), descriptor));
    }
    Ok(taken)
}

/// Makes `command` start with these descriptors, as [`take`] expects them. Names must not contain a colon.
/// `LISTEN_PID` is left out, for the process number is not known before it runs.
///
/// # Errors
/// When there are too many, a name has a colon, or descriptors run out.
pub fn hand_on(command: &mut Command, descriptors: Vec<(String, OwnedFd)>) -> io::Result<()> {
    let (names, descriptors): (Vec<_>, Vec<_>) = descriptors.into_iter().unzip();
    if descriptors.len() > MOST || names.iter().any(|name| name.contains(':')) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors, or a colon in a name",
        ));
    }
    let end = FIRST + RawFd::try_from(descriptors.len()).unwrap_or(RawFd::MAX - FIRST);
    // Copies above the range, so that moving one into place never overwrites the next.
    let mut sources = Vec::with_capacity(descriptors.len());
    for descriptor in &descriptors {
        sources.push(rustix::io::fcntl_dupfd_cloexec(descriptor, end)?);
    }
    // Occupies the range, so that what the standard library opens to start the child lies above it too.
    let mut occupied = vec![rustix::io::dup(std::io::stderr())?];
    while occupied.last().is_some_and(|last| last.as_raw_fd() < end) {
        occupied.push(rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), FIRST)?);
    }
    command.env_remove("LISTEN_PID");
    command.env("LISTEN_FDS", sources.len().to_string());
    command.env("LISTEN_FDNAMES", names.join(":"));
    // SAFETY: the closure runs between fork and exec and only calls dup2, which is async-signal-safe; it owns
    // the descriptors it copies.
    unsafe {
        command.pre_exec(move || {
            let _keep_open = &occupied;
            for (number, source) in (FIRST..).zip(&sources) {
                // dup2 leaves the copy open across exec.
                if libc::dup2(source.as_raw_fd(), number) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_child_gets_them_from_three_on() {
        let mut pipes = Vec::new();
        let mut ends = Vec::new();
        for name in ["web", "admin"] {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            pipes.push(ours);
            ends.push((name.to_owned(), OwnedFd::from(theirs)));
        }
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo web $LISTEN_FDS >&3; echo admin $LISTEN_FDNAMES >&4; test -z \"$LISTEN_PID\"",
        ]);
        command.env("LISTEN_PID", "1");
        hand_on(&mut command, ends).unwrap();
        let status = command.spawn().unwrap().wait().unwrap();
        assert!(status.success());
        drop(command);
        let mut said = Vec::new();
        for mut pipe in pipes {
            let mut text = String::new();
            pipe.write_all(b"x").ok();
            pipe.read_to_string(&mut text).unwrap_or_default();
            said.push(text);
        }
        assert_eq!(said, ["web 2\n", "admin web:admin\n"]);
    }

    #[test]
    fn a_missing_program_is_still_an_error() {
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut command = Command::new("/nonexistent/program");
        hand_on(&mut command, vec![("a".into(), theirs.into())]).unwrap();
        assert_eq!(command.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_colon_in_a_name_is_refused() {
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(hand_on(&mut Command::new("true"), vec![("a:b".into(), theirs.into())]).is_err());
    }
}
