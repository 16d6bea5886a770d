//! The command line. Exit codes: 0, 1 (configuration or start failed), 2 (usage).

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::tunnels::ShowOptions;
use crate::{certs, commands, encapsulate, explain, lab, serve};

/// HTTPS ingress that carries its own traffic in GRE.
#[derive(Debug, Parser)]
#[command(name = "ingre", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what the configuration says.
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// The tunnels are served by `ingre encap` with the same file: this process needs no privileges.
        #[arg(long)]
        external_encap: bool,
    },
    /// Check the configuration: 0 if it would start, 1 with every problem shown.
    Validate {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Say what would become of a request, and why: 0 if an RS or a rule would answer it, 1 otherwise.
    Explain(explain::Options),
    /// Build a small data centre out of network namespaces and show the whole job on it.
    Lab(lab::Options),
    /// Serve without a file: HTTPS at one address, one real server behind it.
    Proxy {
        /// Where clients connect, such as 127.0.0.1:8443.
        #[arg(long, value_name = "ADDR")]
        from: SocketAddr,
        /// The real server, such as 127.0.0.1:8000.
        #[arg(long, value_name = "ADDR")]
        to: SocketAddr,
    },
    /// Run the tunnels of the configuration alone: as a sidecar, or with `forward: true` as an L4 node.
    Encap {
        #[command(flatten)]
        config: ConfigArgument,
        /// Where the admin listener is. Default: the one of the configuration if that has no listeners; the one of a
        /// configuration with listeners belongs to `ingre run --external-encap`.
        #[arg(long, value_name = "ADDR")]
        admin: Option<SocketAddr>,
    },
    /// Show the tunnels of a running ingre: peers, rates, drops.
    Tunnels {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(flatten)]
        options: ShowOptions,
    },
    /// Show the certificates of a running ingre, or, where none answers, those in its files: 0 if all is well, 1 if one of
    /// them has expired, is not valid yet, was revoked or could not be renewed.
    Certs(certs::Options),
    /// A real server for first steps: answers with what reached it.
    Demo {
        /// Where it listens.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
        listen: Vec<SocketAddr>,
        /// Name that it answers with.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Ask a running ingre whether it is ready: 0 if so, 1 if not.
    Healthcheck {
        #[command(flatten)]
        config: ConfigArgument,
        /// Admin address to ask, instead of the one in the configuration.
        #[arg(long, value_name = "ADDR")]
        admin: Option<SocketAddr>,
    },
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completion {
        /// bash, elvish, fish, powershell or zsh.
        shell: Shell,
    },
}

/// Which configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgument {
    /// Configuration file; `-` reads standard input.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "config.yaml")]
    pub(crate) path: String,
}

/// Runs the command; failures go to standard error, with everything that led to them.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run { config, external_encap } => serve::run(&config.path, external_encap),
        Command::Validate { config } => commands::validate(&config.path),
        Command::Explain(options) => explain::run(&options),
        Command::Lab(options) => lab::run(&options),
        Command::Proxy { from, to } => serve::proxy(from, to),
        Command::Encap { config, admin } => encapsulate::run(&config.path, admin),
        Command::Tunnels { config, options } => commands::tunnels(&config.path, &options),
        Command::Certs(options) => certs::run(&options),
        Command::Demo { listen, name } => commands::demo(&listen, &name),
        Command::Schema => commands::schema(),
        Command::Healthcheck { config, admin } => commands::healthcheck(&config.path, admin),
        Command::Version => commands::version(),
        Command::Completion { shell } => {
            commands::completion(shell, &mut <Cli as clap::CommandFactory>::command())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::notice::complain(&error);
            ExitCode::from(1)
        }
    }
}
