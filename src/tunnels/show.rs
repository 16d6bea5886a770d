//! `ingre tunnels`: the tunnels of a running ingre, with rates.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::commands::{fetch, print};
use crate::table::{aligned, list, text};

/// Between the two looks that a rate is made of.
const PERIOD: Duration = Duration::from_secs(1);

/// How they are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Admin address to ask, instead of the one in the configuration.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Print what the page /tunnels says, once.
    #[arg(long)]
    json: bool,
    /// Show them again every second.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// Asks the admin listener and prints what it says.
///
/// # Errors
/// When it does not answer, or its answer is none of ours.
pub(crate) fn run(admin: SocketAddr, options: &Options) -> anyhow::Result<()> {
    if options.json {
        return print(&page(admin)?.0);
    }
    let mut before = page(admin)?.1;
    loop {
        std::thread::sleep(PERIOD);
        let now = page(admin)?.1;
        let clear = if options.watch { "\x1b[H\x1b[J" } else { "" };
        print(&format!("{clear}{}", table(&before, &now)))?;
        if !options.watch {
            return Ok(());
        }
        before = now;
    }
}

fn page(admin: SocketAddr) -> anyhow::Result<(String, Value)> {
    let (status, text) =
        fetch(admin, "/tunnels").with_context(|| format!("no answer from the admin listener on {admin}"))?;
    anyhow::ensure!(status == 200, "{admin} has no tunnels: /tunnels answers {status}");
    let value =
        serde_json::from_str(&text).with_context(|| format!("{admin} is no admin listener of ingre"))?;
    Ok((text, value))
}

fn table(before: &Value, now: &Value) -> String {
    let time = |page: &Value| page["uptime_ms"].as_u64().unwrap_or(0);
    let elapsed = time(now).saturating_sub(time(before)).max(1);
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let mut lost = String::new();
    for tunnel in list(&now["tunnels"]) {
        let name = text(&tunnel["name"]);
        let old = list(&before["tunnels"]).find(|old| old["name"] == tunnel["name"]);
        let label = match tunnel["key"].as_u64() {
            Some(key) => format!("{name} ({} key {key})", text(&tunnel["kind"])),
            None => format!("{name} ({})", text(&tunnel["kind"])),
        };
        for (index, peer) in list(&tunnel["peers"]).enumerate() {
            let old = old.and_then(|old| list(&old["peers"]).find(|old| old["address"] == peer["address"]));
            let rate = |counter: &str| {
                let (new, old) = (&peer[counter], old.map_or(&Value::Null, |old| &old[counter]));
                let more = new.as_u64().unwrap_or(0).saturating_sub(old.as_u64().unwrap_or(0));
                more.saturating_mul(1000) / elapsed
            };
            rows.push(vec![
                if index == 0 { label.clone() } else { String::new() },
                text(&peer["address"]),
                text(&peer["state"]),
                number(&peer["path_mtu"]),
                bits(rate("bytes_out")),
                short(rate("packets_out")),
                bits(rate("bytes_in")),
                short(rate("packets_in")),
                heard(&peer["heard_seconds_ago"]),
                if index == 0 { number(&tunnel["flows"]) } else { String::new() },
            ]);
        }
        note_drops(&mut lost, &name, &tunnel["drops"], old.map(|old| &old["drops"]));
    }
    note_drops(&mut lost, "no tunnel", &now["unmatched"], Some(&before["unmatched"]));
    note_drops(&mut lost, "edges", &now["edges"], Some(&before["edges"]));
    let mut out = aligned(&rows);
    if !lost.is_empty() {
        let _ = write!(out, "\ndropped, and how many per second now\n{lost}");
    }
    out
}

const HEAD: [&str; 10] =
    ["TUNNEL", "PEER", "STATE", "PATH MTU", "OUT b/s", "OUT p/s", "IN b/s", "IN p/s", "HEARD", "FLOWS"];

fn note_drops(out: &mut String, whose: &str, now: &Value, before: Option<&Value>) {
    for (reason, count) in now.as_object().into_iter().flatten() {
        let old = before.and_then(|before| before[reason].as_u64()).unwrap_or(0);
        let more = count.as_u64().unwrap_or(0).saturating_sub(old);
        let _ = writeln!(out, "  {whose}: {reason} {count} ({more}/s)");
    }
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn heard(value: &Value) -> String {
    value.as_u64().map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago"))
}

fn bits(bytes: u64) -> String {
    short(bytes.saturating_mul(8))
}

/// Three digits and a unit of 1000.
fn short(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["", "k", "M", "G"] {
        if value < 1000.0 {
            return if unit.is_empty() || value >= 99.95 {
                format!("{value:.0}{unit}")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1}T")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_are_what_was_added_per_second() {
        let page = |uptime: u64, bytes: u64, spoofed: u64| {
            json!({
                "uptime_ms": uptime,
                "tunnels": [{
                    "name": "a", "kind": "gre", "key": 7, "flows": 3,
                    "drops": {"spoofed_inner": spoofed},
                    "peers": [{"address": "192.0.2.2", "state": "up", "path_mtu": 1500, "bytes_out": bytes,
                               "packets_out": 1, "bytes_in": 0, "packets_in": 0, "heard_seconds_ago": 2}],
                }],
                "unmatched": {},
            })
        };
        let shown = table(&page(1000, 500, 1), &page(1500, 1500, 3));
        let line = shown.lines().nth(1).unwrap_or_default();
        for part in ["a (gre key 7)", "192.0.2.2", "up", "1500", "16.0k", "2 s ago"] {
            assert!(line.contains(part), "{part}: {shown}");
        }
        assert!(shown.contains("a: spoofed_inner 3 (2/s)"), "{shown}");
    }

    #[test]
    fn numbers_are_short() {
        for (number, shown) in
            [(0, "0"), (999, "999"), (1000, "1.0k"), (123_456, "123k"), (9_960_000_000, "10.0G")]
        {
            assert_eq!(short(number), shown);
        }
    }
}
