//! What the program says to its operator: one line each, to standard error.

use std::io::Write as _;

/// Says one line.
pub(crate) fn say(line: &str) {
    // Nobody is left to hear it when standard error is closed.
    let _ = writeln!(std::io::stderr(), "ingre: {line}");
}

/// An error with everything that led to it. A report of the configuration names its places itself.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    if let Some(report) = error.downcast_ref::<yaml::Report>() {
        return report.to_string();
    }
    format!("ingre: {error:#}")
}
