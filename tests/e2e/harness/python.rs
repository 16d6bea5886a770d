//! Helpers in Python, for what must not be judged by code of our own: scapy reads and writes packets, aioquic speaks
//! HTTP/3.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::network::Host;
use super::program::Program;
use super::requirements::succeeds;

/// The first Python that has scapy: `INGRE_PYTHON`, the virtual environment below `target`, the one of the system.
pub(crate) fn interpreter() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
        let named = std::env::var("INGRE_PYTHON").ok();
        let known = [own.to_string_lossy().into_owned(), "python3".to_owned()];
        named.into_iter().chain(known).find(|python| succeeds(python, &["-c", "import scapy.layers.inet"]))
    };
    FOUND.get_or_init(look).as_deref()
}

/// Whether it has this module.
pub(crate) fn has(module: &str) -> bool {
    interpreter().is_some_and(|python| succeeds(python, &["-c", &format!("import {module}")]))
}

/// A Python that has sslyze: `INGRE_SSLYZE`, or the virtual environment below `target` that is for it alone.
pub(crate) fn scanner() -> Option<String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/scanners/bin/python");
    let known = std::env::var("INGRE_SSLYZE").ok().into_iter().chain([own.to_string_lossy().into_owned()]);
    known.into_iter().find(|python| succeeds(python, &["-c", "import sslyze"]))
}

/// Starts a script of `tests/e2e/python` on a host; its standard input is open until it is ended.
pub(crate) fn start(host: &Host, script: &str, arguments: &[&str]) -> Program {
    start_on(Some(host), script, arguments)
}

/// The same on the test's own host.
pub(crate) fn here(script: &str, arguments: &[&str]) -> Program {
    start_on(None, script, arguments)
}

fn start_on(host: Option<&Host>, script: &str, arguments: &[&str]) -> Program {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/python").join(script);
    let mut command = Command::new(interpreter().unwrap());
    command.arg(path).args(arguments).stdin(Stdio::piped());
    Program::spawn_on(host, command, None)
}

/// Runs a script on a host; what it prints last is JSON.
pub(crate) fn run(host: &Host, script: &str, arguments: &[&str]) -> Value {
    result(start(host, script, arguments))
}

/// Ends a script and returns the JSON that it prints last.
pub(crate) fn result(mut script: Program) -> Value {
    script.end_input();
    let ran = script.ran();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(ran.stdout.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{ran:?}"))
}
