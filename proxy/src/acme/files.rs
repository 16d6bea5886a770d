//! Files that are written whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::error::AcmeError;

/// Largest file that is read; a chain or a key has some thousand bytes.
const LARGEST: u64 = 1 << 20;

/// Which state of a file somebody has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// A directory that its owner alone may look into; it may be there already.
pub(super) fn directory(path: &Path) -> Result<(), AcmeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| storage("cannot make the directory", path, error))
}

/// The text of a file; none where there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, AcmeError> {
    let text = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
        Ok(text)
    };
    match text() {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(storage("cannot read", path, error)),
    }
}

/// Writes a file that its owner alone may read: whoever opens it sees the old one or the new one, also after the power
/// has failed.
pub(super) fn write(path: &Path, text: &str) -> Result<(), AcmeError> {
    let wrap = |error| storage("cannot write", path, error);
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(wrap)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrap)?;
    rename(Path::new(&part), path)
}

/// Gives a file another name, on the disk as well.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), AcmeError> {
    let renamed = std::fs::rename(from, to).and_then(|()| match to.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    renamed.map_err(|error| storage("cannot write", to, error))
}

/// Makes a file that nobody else has made; false where somebody has.
pub(super) fn create_new(path: &Path, text: &str) -> Result<bool, AcmeError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(storage("cannot make", path, error)),
    }
}

/// Removes a file; it may be gone already, and where it cannot be removed it is harmless.
pub(super) fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// The present state of a file; none where there is no such file.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    Some(Stamp { inode: metadata.ino(), seconds, nanoseconds })
}

fn storage(what: &str, path: &Path, error: io::Error) -> AcmeError {
    AcmeError::Storage { what: format!("{what} `{}`", path.display()), error }
}
