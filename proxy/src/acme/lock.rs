//! Which of several nodes gets certificates, where they share a directory.
//!
//! The file says who, and changes every few seconds. It needs nothing of the file system but what NFS does as well: making
//! a file that is not there, giving one another name, and reading what was written before. Clocks of different nodes
//! are never compared: a lock is stale when this node has not seen it change for a while. Two nodes that take over the
//! same lock write it both, and the one whose writing is still there a little later has it. Where a node sleeps in
//! the middle of that, two may get certificates for a moment: that costs an order too many, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::AcmeError;
use super::files;

/// How often the holder writes, and everybody looks.
pub(super) const BEAT: Duration = Duration::from_secs(5);
/// A lock that has not changed for so long is nobody's.
const STALE: Duration = Duration::from_secs(30);
/// How long what was taken over must stay untouched.
const SETTLE: Duration = Duration::from_secs(5);

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// Different for each process.
    id: String,
    /// For people.
    host: String,
    pid: u32,
    /// Within which `pid` means something: this boot, this namespace.
    place: String,
    /// Grows.
    beat: u64,
}

/// One node's view of the lock.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    me: Holder,
    held: bool,
    /// It was given away for good.
    released: bool,
    /// Since when we wait whether somebody else takes it over as well.
    settling: Option<Duration>,
    /// What was seen last, and since when.
    seen: Option<(Holder, Duration)>,
    /// Whether a process of this place is there.
    is_alive: fn(u32) -> bool,
}

/// Whether a process of this place runs; one that has ended may be there until somebody takes notice.
fn is_alive(pid: u32) -> bool {
    // The state stands behind the name, which may have any character (proc(5)).
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"ZX".contains(state))
}

impl Lock {
    /// A lock that is not held.
    pub(super) fn new(path: PathBuf, random: u64) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let me = Holder {
            id: format!("{random:016x}"),
            host: read("/proc/sys/kernel/hostname"),
            pid: std::process::id(),
            place: format!("{} {}", read("/proc/sys/kernel/random/boot_id"), namespace.display()),
            beat: 0,
        };
        Self { path, me, held: false, released: false, settling: None, seen: None, is_alive }
    }

    /// Whether this node has the lock, as far as it knows.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Who else has it: host and process.
    pub(super) fn other(&self) -> Option<String> {
        let (holder, _) = self.seen.as_ref()?;
        Some(format!("{}, process {}", holder.host, holder.pid))
    }

    /// Writes or looks; to be called every [`BEAT`]. `now` is a clock that never goes back.
    ///
    /// # Errors
    /// Where the file cannot be read or written; then the lock is not held.
    pub(super) fn beat(&mut self, now: Duration) -> Result<(), AcmeError> {
        if self.released {
            return Ok(());
        }
        let looked = self.look(now);
        self.held &= looked.is_ok();
        looked
    }

    fn look(&mut self, now: Duration) -> Result<(), AcmeError> {
        let Some(text) = files::read(&self.path)? else {
            // Whoever made it first has it.
            self.held = files::create_new(&self.path, &self.text())?;
            return Ok(());
        };
        let unknown =
            Holder { id: text.clone(), beat: 0, pid: 0, host: "unknown".into(), place: String::new() };
        let holder: Holder = serde_json::from_str(&text).unwrap_or(unknown);
        if holder.id == self.me.id {
            self.seen = None;
            if self.settling.is_none_or(|since| now.saturating_sub(since) >= SETTLE) {
                (self.held, self.settling) = (true, None);
                return self.write();
            }
            return Ok(());
        }
        (self.held, self.settling) = (false, None);
        let since = match &self.seen {
            Some((seen, since)) if *seen == holder => *since,
            _ => now,
        };
        let is_dead = holder.place == self.me.place && !(self.is_alive)(holder.pid);
        self.seen = Some((holder, since));
        if is_dead || now.saturating_sub(since) >= STALE {
            self.write()?;
            self.settling = Some(now);
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), AcmeError> {
        self.me.beat += 1;
        files::write(&self.path, &self.text())
    }

    fn text(&self) -> String {
        serde_json::to_string(&self.me).unwrap_or_default() + "\n"
    }
}

impl Lock {
    /// Gives it away for good: another node need not wait until it is stale.
    pub(super) fn release(&mut self) {
        let holder = files::read(&self.path).ok().flatten();
        let holder = holder.and_then(|text| serde_json::from_str::<Holder>(&text).ok());
        if self.held && holder.is_some_and(|holder| holder.id == self.me.id) {
            files::remove(&self.path);
        }
        (self.held, self.released) = (false, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ingre-lock-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A node; the others of the test are of another place, so that only the file counts.
        fn node(&self, id: u64) -> Lock {
            let mut lock = Lock::new(self.0.join("lock"), id);
            lock.me.place = id.to_string();
            lock
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// The nodes beat at these seconds; who has it afterwards.
    fn run(nodes: &mut [Lock], seconds: impl IntoIterator<Item = u64>) -> Vec<bool> {
        for second in seconds {
            for node in &mut *nodes {
                node.beat(Duration::from_secs(second)).unwrap();
            }
        }
        nodes.iter().map(Lock::is_held).collect()
    }

    #[test]
    fn one_of_several_has_it_and_another_takes_over() {
        let directory = Directory::new("several");
        let mut nodes = [1, 2, 3].map(|id| directory.node(id));
        assert_eq!(run(&mut nodes, (0..100).step_by(5)), [true, false, false]);
        // The first one stands still: both others see that it does, and one takes over.
        assert_eq!(run(&mut nodes[1..], (100..125).step_by(5)), [false, false]);
        let held = run(&mut nodes[1..], (125..160).step_by(5));
        assert_eq!(held.iter().filter(|held| **held).count(), 1, "{held:?}");
        // It comes back and sees that it has lost it.
        let held = run(&mut nodes, (160..200).step_by(5));
        assert!(!held[0] && held.iter().filter(|held| **held).count() == 1, "{held:?}");
    }

    #[test]
    fn what_is_given_up_or_of_a_dead_process_is_taken_at_once() {
        let directory = Directory::new("dead");
        let mut first = directory.node(1);
        let mut second = [directory.node(2)];
        first.beat(Duration::ZERO).unwrap();
        assert_eq!(run(&mut second, [0]), [false]);
        first.release();
        assert_eq!(run(&mut second, [1]), [true]);
        let mut third = [directory.node(2)];
        third[0].me.id = "third".into();
        third[0].is_alive = |_| false;
        // It is of the same place, and its process is gone.
        assert_eq!(run(&mut third, [2]), [false]);
        assert_eq!(run(&mut third, [7]), [true]);
        assert_eq!(run(&mut second, [8]), [false]);
    }

    #[test]
    fn a_damaged_file_is_stale_after_a_while() {
        let directory = Directory::new("damaged");
        std::fs::write(directory.0.join("lock"), "{").unwrap();
        let mut node = [directory.node(1)];
        assert_eq!(run(&mut node, (0..30).step_by(5)), [false]);
        assert_eq!(run(&mut node, (30..40).step_by(5)), [true]);
    }
}
