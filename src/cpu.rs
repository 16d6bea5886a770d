//! How many threads, and on which CPUs.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::{CpuAffinity, Workers};

/// Where each worker runs.
pub(crate) struct Plan {
    /// Number of workers.
    pub(crate) workers: usize,
    /// CPUs to pin to, over and over; none: not pinned.
    cpus: Vec<usize>,
}

impl Plan {
    /// A plan that respects the affinity mask and the cgroup's quota.
    pub(crate) fn new(workers: Workers, affinity: &CpuAffinity) -> Self {
        let allowed = allowed();
        // Counts the affinity mask and the cgroup quota.
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = match workers {
            Workers::Count(count) => count,
            Workers::Auto => usable,
        };
        let cpus = match affinity {
            CpuAffinity::Off => Vec::new(),
            CpuAffinity::List(cpus) => cpus.clone(),
            // Pinning several workers to one core, or where a quota lets them run elsewhere, only hurts.
            CpuAffinity::Auto if workers <= allowed.len() && usable == allowed.len() && workers > 1 => {
                allowed
            }
            CpuAffinity::Auto => Vec::new(),
        };
        Self { workers, cpus }
    }

    /// Pins the calling thread as the worker with this number.
    pub(crate) fn pin(&self, worker: usize) -> io::Result<()> {
        if self.cpus.is_empty() {
            return Ok(());
        }
        let mut set = CpuSet::new();
        set.set(self.cpus[worker % self.cpus.len()]);
        Ok(sched_setaffinity(None, &set)?)
    }
}

fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}
