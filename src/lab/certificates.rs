//! Where the lab's certificates are kept: `certs/` where it can be written, else a private directory that ends with
//! the lab.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{Access, access};

/// Where a plain `ingre run` keeps its own.
const USUAL: &str = "certs";
const AUTHORITY: &str = "dev-ca.pem";
/// Names to try for a directory of our own.
const ATTEMPTS: u32 = 100;

/// A directory for certificates.
pub(super) struct Certificates {
    directory: PathBuf,
    temporary: bool,
}

impl Certificates {
    /// Finds or makes it.
    pub(super) fn place() -> anyhow::Result<Self> {
        if is_usable(Path::new(USUAL)) {
            return Ok(Self { directory: USUAL.into(), temporary: false });
        }
        let base = std::env::temp_dir();
        for attempt in 0..ATTEMPTS {
            let directory = base.join(format!("ingre-lab-{}-{attempt}", std::process::id()));
            // Fails where somebody else has put something there.
            match DirBuilder::new().mode(0o700).create(&directory) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    made.with_context(|| format!("cannot make a directory in {}", base.display()))?;
                    return Ok(Self { directory, temporary: true });
                }
            }
        }
        anyhow::bail!("cannot make a directory in {}: all names are taken", base.display())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file that clients have to trust; the ingre node makes it.
    pub(super) fn authority(&self) -> PathBuf {
        self.directory.join(AUTHORITY)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing more can be done about what cannot be removed.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Whether certificates can be made in `directory`, which need not exist, and those there can be used.
fn is_usable(directory: &Path) -> bool {
    if std::fs::create_dir(directory).is_err()
        && access(directory, Access::WRITE_OK | Access::EXEC_OK).is_err()
    {
        return false;
    }
    let key = directory.join("dev-ca.key");
    !key.exists() || access(key, Access::READ_OK).is_ok()
}
