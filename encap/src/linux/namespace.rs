//! Network namespaces without names, and user namespaces.
//!
//! A [`Namespace`] is a descriptor: it lives as long as a descriptor, a device's descriptor or a process keeps
//! it, and nothing of it is ever on disk. Never changes the namespace of a thread that others share, except in
//! [`Namespace::enter`], whose callers are single-threaded.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A namespace that could not be made, opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// A network namespace could not be made or entered.
    #[error("cannot {attempt} a network namespace: {source}; {remedy}")]
    Network {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel returned.
        source: io::Error,
        /// What stands in the way.
        remedy: String,
    },
    /// A user namespace could not be made.
    #[error("cannot make a user namespace: {source}; {remedy}")]
    User {
        /// What the kernel returned.
        source: io::Error,
        /// What stands in the way.
        remedy: String,
    },
    /// The thread that enters the namespace could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// An owned network namespace.
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
}

impl Namespace {
    /// Makes an empty namespace, with only a loopback interface that is down. The caller stays where it is.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or when the kernel allows no more namespaces.
    pub fn new() -> Result<Self, NamespaceError> {
        on_scratch_thread(|| {
            // SAFETY: NEWNET concerns neither the memory nor the descriptors that this thread shares.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|error| refuse("make", error))?;
            Self::current()
        })?
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// Where `/proc` is not mounted.
    pub fn current() -> Result<Self, NamespaceError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
            .map(|descriptor| Self { descriptor })
            .map_err(|error| refuse("open", error))
    }

    /// Runs `task` inside, on a thread of its own, and returns what it returned. Sockets made there belong to
    /// this namespace for good. A panic goes on in the caller.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run_in<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_scratch_thread(|| self.enter().map(|()| task()))?
    }

    /// Moves the calling thread inside. For single-threaded processes: elsewhere use [`Namespace::run_in`].
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> Result<(), NamespaceError> {
        rustix::thread::move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| refuse("enter", error))
    }

    /// Starts `command` inside. It gets the signal `on_parent_death` when the *thread* that called this ends:
    /// call it from a thread that lives as long as the process.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the program cannot be started.
    pub fn spawn(&self, mut command: Command, on_parent_death: Signal) -> io::Result<Child> {
        let namespace = self.descriptor.as_raw_fd();
        let parent = rustix::process::getpid();
        // SAFETY: the closure runs between fork and exec and only makes system calls; the descriptor is open
        // until spawn() below has returned, and the child has a copy.
        unsafe {
            command.pre_exec(move || {
                let inside = BorrowedFd::borrow_raw(namespace);
                rustix::thread::move_into_link_name_space(inside, Some(LinkNameSpaceType::Network))?;
                rustix::process::set_parent_process_death_signal(Some(on_parent_death))?;
                // The parent may have died before the line above.
                if rustix::process::getppid() != Some(parent) {
                    return Err(Errno::SRCH.into());
                }
                Ok(())
            });
        }
        command.spawn()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<OwnedFd> for Namespace {
    /// Takes a descriptor of a network namespace, as opened from `/proc/PID/ns/net`.
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }
}

/// Moves the process into a new user namespace in which it has all capabilities and is uid and gid 0, mapped to
/// what it was outside. The process must be single-threaded.
///
/// # Errors
/// Names the sysctl or the limit that forbids it.
pub fn enter_user_namespace() -> Result<(), NamespaceError> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // SAFETY: NEWUSER concerns neither memory nor descriptors; the kernel refuses it with several threads.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|error| NamespaceError::User { source: error.into(), remedy: remedy(error) })?;
    let map = |path: &str, line: String| {
        std::fs::write(path, line).map_err(|source| {
            // Some switches let it be made and then give it no rights.
            let remedy =
                switched_off().unwrap_or_else(|| format!("writing {path} was refused; run as root instead"));
            NamespaceError::User { source, remedy }
        })
    };
    // Without giving up setgroups an unprivileged process may not map its group (user_namespaces(7)).
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/uid_map", format!("0 {uid} 1"))?;
    map("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Says what forbids a user namespace.
fn remedy(error: Errno) -> String {
    if let Some(remedy) = switched_off() {
        return remedy;
    }
    match error {
        Errno::INVAL => "the process has more than one thread, or the kernel has no user namespaces".into(),
        Errno::NOSPC => "the limit user.max_user_namespaces is reached".into(),
        Errno::PERM => {
            "a container's seccomp profile may forbid it (`docker run --security-opt seccomp=unconfined`), \
                        or run as root"
                .into()
        }
        _ => "run as root instead".into(),
    }
}

/// The known switch that forbids user namespaces or their rights, and how to turn it.
fn switched_off() -> Option<String> {
    let switches = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    ];
    let (_, _, command) = switches.into_iter().find(|(path, forbids, _)| {
        std::fs::read_to_string(path).is_ok_and(|value| value.trim() == *forbids)
    })?;
    Some(format!("user namespaces are off on this host: `{command}`, or run as root"))
}

fn refuse(attempt: &'static str, error: Errno) -> NamespaceError {
    // In a user namespace all capabilities seem to be there, and a security module may still deny their use.
    let is_inside =
        std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"));
    let remedy = is_inside.then(switched_off).flatten().unwrap_or_else(|| {
        "it takes CAP_SYS_ADMIN (`docker run --user 0 --cap-add SYS_ADMIN`) or a user namespace".to_owned()
    });
    NamespaceError::Network { attempt, source: error.into(), remedy }
}

fn on_scratch_thread<T: Send>(task: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".into())
            .spawn_scoped(scope, task)
            .map_err(NamespaceError::Thread)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}
