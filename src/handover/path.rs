//! The place where a process that serves is found: a socket that its user alone may connect to.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use encap::linux::channel::{Channel, Peer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// Who may wait to be answered.
const BACKLOG: i32 = 8;
/// How long nobody is answered while descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Refuses another user than ours, unless it is root.
fn check(peer: Peer) -> anyhow::Result<Peer> {
    let ours = rustix::process::geteuid().as_raw();
    if peer.uid != ours && peer.uid != 0 {
        bail!("{peer} belongs to user {}, this one to user {ours}: both need the same", peer.uid);
    }
    Ok(peer)
}

/// The process that serves at this path, if there is one.
///
/// # Errors
/// Where something else is there, or it belongs to somebody else.
pub(super) fn find(path: &Path) -> anyhow::Result<Option<(Channel, Peer)>> {
    let place = || format!("handover: `{}`", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(place),
        Ok(file) if !file.file_type().is_socket() => {
            bail!("{} is not a socket: remove it, or name another path", place());
        }
        Ok(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    // Who has no room for another one says so at once.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path).with_context(place)?) {
        Ok(()) => {}
        // Left behind by a process that is gone.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| {
                format!("{}: cannot connect to the process that listens there; is it an ingre?", place())
            });
        }
    }
    socket.set_nonblocking(false)?;
    let channel = Channel::new(socket.into());
    let peer = check(channel.peer()?).with_context(place)?;
    Ok(Some((channel, peer)))
}

/// A socket that is to be found at a path.
pub(crate) struct Claim {
    path: PathBuf,
    /// Where it is made.
    aside: PathBuf,
    /// Device and inode; zero where it is not ours to remove.
    file: (u64, u64),
    socket: OwnedFd,
}

impl Claim {
    /// A socket beside the path, where nobody looks for it.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(crate) fn beside(path: &Path) -> anyhow::Result<Self> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        // Of a process that had our number.
        if fs::symlink_metadata(&aside).is_ok_and(|file| file.file_type().is_socket()) {
            let _ = fs::remove_file(&aside);
        }
        let bind = || {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
            socket.set_cloexec(true)?;
            socket.bind(&SockAddr::unix(&aside)?)?;
            let file = fs::symlink_metadata(&aside)?;
            let claim = Self {
                path: path.to_owned(),
                aside: aside.clone(),
                file: (file.dev(), file.ino()),
                socket: socket.into(),
            };
            // Nobody can connect before it listens.
            fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
            rustix::net::listen(&claim.socket, BACKLOG)?;
            io::Result::Ok(claim)
        };
        bind().with_context(|| {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new("."));
            format!(
                "handover: cannot make the socket `{}`; its directory `{}` has to exist and to be writable for this user",
                path.display(),
                directory.display()
            )
        })
    }

    /// A socket that is found at the path from now on, in the place of what was there.
    ///
    /// # Errors
    /// As [`Claim::beside`].
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
        let claim = Self::beside(path)?;
        fs::rename(&claim.aside, path)
            .with_context(|| format!("handover: cannot make the socket `{}`", path.display()))?;
        Ok(claim)
    }

    /// Leaves the place to another process.
    pub(super) fn leave(mut self) {
        self.file = (0, 0);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Others may be accepted from now on, on the runtime of this thread.
    ///
    /// # Errors
    /// Where descriptors have run out.
    pub(super) fn open(&self) -> io::Result<UnixListener> {
        // The library knows no kind of socket but streams, and treats them all alike.
        UnixListener::from_std(std::os::unix::net::UnixListener::from(self.socket.try_clone()?))
    }
}

/// The next process that connects, and who it is.
pub(super) async fn accept(
    listener: &UnixListener,
) -> io::Result<(Channel<UnixStream>, anyhow::Result<Peer>)> {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let channel = Channel::new(socket);
                let peer = check(channel.peer()?);
                return Ok((channel, peer));
            }
            Err(_) => tokio::time::sleep(EXHAUSTED).await,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Another process may have put its own there.
        for place in [&self.aside, &self.path] {
            let ours = fs::symlink_metadata(place).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
            if ours {
                let _ = fs::remove_file(place);
            }
        }
    }
}
