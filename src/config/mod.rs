//! The configuration file as a whole: read, checked across the two libraries, shown when wrong.

mod file;
mod links;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use yaml::{Document, Reader, Sources};

pub(crate) use self::file::{CpuAffinity, File, Workers};

/// Everything the program needs.
pub(crate) struct Config {
    pub(crate) process: Process,
    pub(crate) tunnels: Vec<encap::config::Tunnel>,
    pub(crate) proxy: proxy::config::Config,
}

/// What holds for the life of the process: a reload cannot change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) workers: Workers,
    pub(crate) engine_threads: usize,
    pub(crate) cpu_affinity: CpuAffinity,
    pub(crate) demo: Option<std::net::SocketAddr>,
}

/// The file at `path`, or standard input for `-`.
///
/// # Errors
/// Where it cannot be read, and with a report of everything that is wrong with it.
pub(crate) fn load(path: &str) -> anyhow::Result<Config> {
    let (name, text, base) = if path == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the configuration from standard input")?;
        ("standard input", text, PathBuf::new())
    } else {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("cannot read the configuration `{path}` (name another one with -c FILE)")
        })?;
        (path, text, Path::new(path).parent().unwrap_or(Path::new("")).to_owned())
    };
    Ok(parse(name, &text, &base)?)
}

/// The configuration in a text; relative paths start at `base`.
pub(crate) fn parse(name: &str, text: &str, base: &Path) -> Result<Config, yaml::Report> {
    let document = Document::new(name, text);
    let file: File = document.parse()?;
    let variable = |name: &str| std::env::var(name).ok();
    let read_file = |path: &str| std::fs::read_to_string(path);
    let mut reader = Reader::new(Sources { variable: &variable, file: &read_file });
    let config = file.read(base, &mut reader);
    if reader.is_clean() { Ok(config) } else { Err(document.report(reader.into_problems())) }
}
