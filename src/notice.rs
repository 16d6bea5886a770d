//! What the program says to its operator: one line each, to standard error.

use std::io::Write as _;

/// Says one line.
pub(crate) fn say(line: &str) {
    // Nobody is left to hear it when standard error is closed.
    let _ = writeln!(std::io::stderr(), "ingre: {line}");
}

/// Says why a command has failed. A report of the configuration names its places itself.
pub(crate) fn complain(error: &anyhow::Error) {
    if error.is::<yaml::Report>() {
        let _ = writeln!(std::io::stderr(), "{error}");
    } else {
        say(&chain(error));
    }
}

/// An error with everything that led to it; what led to a report is in the report.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    if error.is::<yaml::Report>() { error.to_string() } else { format!("{error:#}") }
}
