//! The configuration file as a whole: read, checked across the two libraries, shown when wrong.

mod file;
mod links;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use yaml::{Document, Problem, Reader, Sources};

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
    pub(crate) handover: Option<Handover>,
}

/// How a new process takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handover {
    /// Where the running one is found.
    pub(crate) path: PathBuf,
    /// How long the new one may take.
    pub(crate) timeout: std::time::Duration,
}

/// The file at `path`, or standard input for `-`.
///
/// # Errors
/// Where it cannot be read, and with a report of everything that is wrong with it.
pub(crate) fn load(path: &str) -> anyhow::Result<Config> {
    Ok(Text::find(path)?.parse()?)
}

/// A configuration that was not read yet.
pub(crate) struct Text {
    name: String,
    text: String,
    /// Where relative paths in it start.
    base: PathBuf,
}

impl Text {
    /// The file at `path`, or standard input for `-`.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn find(path: &str) -> anyhow::Result<Self> {
        if path == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the configuration from standard input")?;
            return Ok(Self { name: "standard input".to_owned(), text, base: PathBuf::new() });
        }
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("cannot read the configuration `{path}` (name another one with -c FILE)")
        })?;
        let base = Path::new(path).parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { name: path.to_owned(), text, base })
    }

    /// The whole of it.
    ///
    /// # Errors
    /// With a report of everything that is wrong with it.
    pub(crate) fn parse(&self) -> Result<Config, yaml::Report> {
        parse(&self.name, &self.text, &self.base)
    }

    /// Where the admin listener is, whatever else is wrong.
    ///
    /// # Errors
    /// Where the structure is wrong.
    pub(crate) fn admin(&self) -> Result<Option<std::net::SocketAddr>, yaml::Report> {
        Ok(read(&Document::new(&self.name, &self.text), &self.base)?.0.proxy.admin)
    }
}

/// The configuration in a text; relative paths start at `base`.
pub(crate) fn parse(name: &str, text: &str, base: &Path) -> Result<Config, yaml::Report> {
    let document = Document::new(name, text);
    let (config, problems) = read(&document, base)?;
    if problems.is_empty() { Ok(config) } else { Err(document.report(problems)) }
}

/// What can be made of a document, and what is wrong with it.
fn read(document: &Document<'_>, base: &Path) -> Result<(Config, Vec<Problem>), yaml::Report> {
    let file: File = document.parse()?;
    let variable = |name: &str| std::env::var(name).ok();
    let read_file = |path: &str| std::fs::read_to_string(path);
    let mut reader = Reader::new(Sources { variable: &variable, file: &read_file });
    let config = file.read(base, &mut reader);
    Ok((config, reader.into_problems()))
}
