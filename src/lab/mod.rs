//! `ingre lab`: a small data centre out of network namespaces, with the whole job running on it.

/// What the lab can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> anyhow::Result<()> {
    anyhow::bail!("the lab is not there yet")
}
