//! What a case needs beyond an ordinary user's rights, and whether it is there.

use std::process::{Command, Stdio};

/// Something a case cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// User 0.
    Root,
    /// `/dev/net/tun`, open to this user.
    Tun,
    /// The program curl.
    Curl,
    /// A Docker engine that answers.
    Docker,
}

/// What is missing, in words; `None` when everything is there.
pub(crate) fn missing(needs: &[Need]) -> Option<String> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).map(|need| need.name()).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Tun => std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok(),
            Self::Curl => succeeds("curl", &["--version"]),
            Self::Docker => succeeds("docker", &["version"]),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Tun => "a TUN device (/dev/net/tun)",
            Self::Curl => "curl",
            Self::Docker => "a Docker engine",
        }
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
