//! The top of the file: its sections, and what belongs to the process as a whole.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy::config::file::{
    AccessLogFile, AcmeFile, AdminFile, DrainFile, ListenerFile, PoolFile, ResolverFile, RouteFile,
    TrustedProxiesFile,
};
use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use yaml::{Reader, Setting, Value};

use super::{Config, Handover, Process, links};

/// Bytes of the path of a socket (unix(7)), less what is put behind it while the socket is made.
const LONGEST_PATH: usize = 95;

/// Configuration of ingre.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    /// Threads that serve requests: `auto` (one per CPU that may be used) or 1 to 1024. Default: auto.
    workers: Option<Setting<Workers>>,
    /// Threads that carry packets, 1 to 64. Default: 1.
    engine_threads: Option<Setting<usize>>,
    /// `auto` (pin where whole cores are ours), `off`, or CPUs for the workers, such as 0,2-3. Default: auto.
    cpu_affinity: Option<Setting<CpuAffinity>>,
    /// Networks of proxies in front whose X-Forwarded-For is believed. Default: nobody.
    trusted_proxies: TrustedProxiesFile,
    /// The access log.
    access_log: AccessLogFile,
    /// Who knows the names of real servers.
    resolver: ResolverFile,
    /// The admin listener; none when absent.
    admin: Option<AdminFile>,
    /// How the program leaves.
    drain: DrainFile,
    /// How a new process takes over from a running one; not at all when absent.
    handover: Option<HandoverFile>,
    /// The account with a certificate authority that speaks ACME; none when absent.
    acme: Option<AcmeFile>,
    /// A built-in real server that answers with what reached it; none when absent.
    demo: Option<DemoFile>,
    /// Where clients connect.
    listeners: Vec<ListenerFile>,
    /// GRE toward L4 tiers.
    tunnels: Vec<encap::config::file::TunnelFile>,
    /// Named sets of real servers.
    pools: Vec<PoolFile>,
    /// Domains and URL rules.
    routes: Vec<RouteFile>,
}

/// The built-in real server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DemoFile {
    /// Where it listens.
    address: Setting<SocketAddr>,
}

/// How a new process takes over from a running one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HandoverFile {
    /// Where the running process is found: a socket that is made here, in a directory that exists and that this user alone
    /// may write to.
    path: Setting<PathBuf>,
    /// How long a new process may take to become ready; then the running one goes on. Default: 60s, at most 1h.
    timeout: Option<Setting<Duration>>,
}

impl HandoverFile {
    fn read(&self, base: &Path, reader: &mut Reader<'_>) -> Option<Handover> {
        let path = base.join(reader.read(&self.path)?);
        if path.as_os_str().len() > LONGEST_PATH {
            let message =
                format!("`{}` is too long for a socket: at most {LONGEST_PATH} bytes", path.display());
            reader.problem(self.path.at(), message, None);
        }
        let second = Duration::from_secs;
        let timeout = reader.read_within(
            self.timeout.as_ref(),
            second(1)..=second(3600),
            |timeout| format!("{}s", timeout.as_secs_f64()),
            second(60),
        );
        Some(Handover { path, timeout })
    }
}

impl File {
    /// The configuration this stands for; problems are noted in `reader`.
    pub(crate) fn read(&self, base: &Path, reader: &mut Reader<'_>) -> Config {
        let sections = proxy::config::Sections {
            listeners: &self.listeners,
            pools: &self.pools,
            routes: &self.routes,
            trusted_proxies: &self.trusted_proxies,
            access_log: &self.access_log,
            resolver: &self.resolver,
            admin: self.admin.as_ref(),
            drain: &self.drain,
            acme: self.acme.as_ref(),
        };
        let proxy = proxy::config::read(&sections, base, reader);
        let mut tunnels = encap::config::read(&self.tunnels, reader);
        links::check(&self.listeners, &self.pools, &proxy, &mut tunnels, reader);
        let process = Process {
            workers: reader.read_or(self.workers.as_ref(), Workers::Auto),
            engine_threads: reader.read_within(self.engine_threads.as_ref(), 1..=64, usize::to_string, 1),
            cpu_affinity: reader.read_or(self.cpu_affinity.as_ref(), CpuAffinity::Auto),
            demo: self.demo.as_ref().and_then(|demo| reader.read(&demo.address)),
            handover: self.handover.as_ref().and_then(|handover| handover.read(base, reader)),
        };
        Config { process, tunnels, proxy }
    }
}

/// Number of worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workers {
    /// One per CPU that may be used.
    Auto,
    /// That many.
    Count(usize),
}

impl Value for Workers {
    const NAME: &'static str = "workers";
    const WHAT: &'static str = "`auto` or a number from 1 to 1024";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            _ => text.parse().ok().filter(|count| (1..=1024).contains(count)).map(Self::Count),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}

/// Which CPUs the workers run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CpuAffinity {
    /// Pinned where whole cores are ours.
    Auto,
    /// Wherever the kernel puts them.
    Off,
    /// Worker by worker in this order, over and over.
    List(Vec<usize>),
}

impl Value for CpuAffinity {
    const NAME: &'static str = "cpu_affinity";
    const WHAT: &'static str = "`auto`, `off` or a list of CPUs such as 0,2-3";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => return Some(Self::Auto),
            "off" | "false" | "no" => return Some(Self::Off),
            _ => {}
        }
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || last >= 4096 {
                return None;
            }
            cpus.extend(first..=last);
        }
        Some(Self::List(cpus))
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read() {
        assert_eq!(CpuAffinity::parse("0,2-4"), Some(CpuAffinity::List(vec![0, 2, 3, 4])));
        for wrong in ["", "a", "3-1", "1,", "99999"] {
            assert_eq!(CpuAffinity::parse(wrong), None, "{wrong}");
        }
    }
}
