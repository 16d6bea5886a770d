//! curl, as a user has it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// What curl did.
#[derive(Debug)]
pub(crate) struct Curled {
    /// Exit code.
    pub(crate) code: i32,
    /// What was received.
    pub(crate) body: Vec<u8>,
    /// What it said.
    pub(crate) stderr: String,
}

/// Runs curl against a host that is really at `address`.
pub(crate) fn curl(host: &str, address: SocketAddr, path: &str, arguments: &[&str]) -> Curled {
    let url = format!("https://{host}:{}{path}", address.port());
    let resolve = format!("{host}:{}:{}", address.port(), address.ip());
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--resolve", &resolve])
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Curled {
        code: output.status.code().unwrap_or(-1),
        body: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
