//! `ingre certs`: the certificates of a running ingre, or what the files of its configuration hold.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::commands::{fetch, print, reachable};
use crate::table::{aligned, list, text};
use crate::{cli::ConfigArgument, config, development};

const HEAD: [&str; 9] =
    ["NAMES", "LISTENERS", "ISSUER", "NOT AFTER", "LEFT", "KEY", "SOURCE", "STAPLE", "PROBLEM"];
/// Names and listeners that are shown of one certificate; the page has all.
const SHOWN: usize = 2;

/// How they are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    config: ConfigArgument,
    /// Admin address to ask, instead of the one in the configuration.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Print what the page /certificates says.
    #[arg(long)]
    json: bool,
}

/// Prints them.
///
/// # Errors
/// Where one of them has a problem, after all were printed, and where nothing can be found out about them.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let page = match options.admin {
        Some(admin) => running(admin)?,
        None => running_or_files(&options.config.path)?,
    };
    let shown = if options.json { format!("{page:#}\n") } else { table(&page) };
    print(&shown)?;
    let all = list(&page["certificates"]).count();
    match list(&page["certificates"]).filter(|entry| !entry["problem"].is_null()).count() {
        0 => Ok(()),
        count => bail!("{count} of {all} certificates need attention"),
    }
}

fn running(admin: SocketAddr) -> anyhow::Result<Value> {
    let admin = reachable(admin);
    let (status, text) = fetch(admin, "/certificates")
        .with_context(|| format!("no answer from the admin listener on {admin}"))?;
    anyhow::ensure!(status == 200, "{admin} has no certificates: /certificates answers {status}");
    serde_json::from_str(&text).with_context(|| format!("{admin} is no admin listener of ingre"))
}

fn running_or_files(path: &str) -> anyhow::Result<Value> {
    // A file beside which a certificate is damaged still says where to ask.
    let text = config::Text::find(path)?;
    let why = match text.admin()? {
        None => "the configuration has no admin listener to ask".to_owned(),
        Some(admin) => match running(admin) {
            Ok(page) => return Ok(page),
            Err(error) => crate::notice::chain(&error),
        },
    };
    crate::notice::say(&format!("{why}; this is what the files hold"));
    let mut config = text.parse()?.proxy;
    development::find(&mut config);
    Ok(proxy::describe_certificates(&config))
}

fn table(page: &Value) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    for entry in list(&page["certificates"]) {
        let source = match entry["files"].get(0) {
            Some(file) => text(file),
            None => text(&entry["source"]),
        };
        rows.push(vec![
            several(&entry["names"]),
            several(&entry["listeners"]),
            common_name(&text(&entry["issuer"])),
            text(&entry["not_after"]).chars().take(10).collect(),
            left(entry["seconds_left"].as_i64()),
            text(&entry["key"]),
            source,
            text(&entry["staple"]["state"]),
            text(&entry["problem"]),
        ]);
    }
    aligned(&rows)
}

/// The first of them, and how many more there are.
fn several(names: &Value) -> String {
    let all: Vec<_> = list(names).map(text).collect();
    let (shown, rest) = all.split_at(all.len().min(SHOWN));
    match (shown, rest) {
        ([], _) => "-".to_owned(),
        (shown, []) => shown.join(", "),
        (shown, rest) => format!("{} and {} more", shown.join(", "), rest.len()),
    }
}

/// The common name of a distinguished name; all of it where there is none.
fn common_name(name: &str) -> String {
    name.rsplit_once("CN=").map_or(name, |(_, common)| common).to_owned()
}

fn left(seconds: Option<i64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(..0) => "expired".to_owned(),
        Some(seconds @ 172_800..) => format!("{} days", seconds / 86_400),
        Some(seconds) => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_certificate_is_a_row() {
        let page = json!({"certificates": [
            {
                "names": ["a.test", "b.test", "c.test", "d.test"], "listeners": ["web"], "issuer": "O=X, CN=Y Z",
                "not_after": "2027-01-02T03:04:05Z", "seconds_left": 86_400 * 9 + 5, "key": "EC P-256",
                "source": "files", "files": ["a.pem", "a.key"], "staple": {"state": "good"}, "problem": null,
            },
            {"listeners": ["web"], "source": "development", "problem": "no\u{1b}[31m certificate"},
            {"names": [], "seconds_left": -1},
        ]});
        let shown = table(&page);
        let rows: Vec<_> = shown.lines().collect();
        assert_eq!(
            rows[1].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>(),
            [
                "a.test, b.test and 2 more",
                "web",
                "Y Z",
                "2027-01-02",
                "9 days",
                "EC P-256",
                "a.pem",
                "good",
                "-"
            ]
        );
        assert!(rows[2].ends_with("no[31m certificate"), "{shown}");
        assert!(rows[3].contains("expired"), "{shown}");
        assert_eq!([Some(172_799), Some(0), None].map(left), ["47 h", "0 h", "-"]);
    }
}
