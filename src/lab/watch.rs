//! From the ingre node's access log and counters to lines for a person.
//!
//! The log says what became of a request; the admin page /tunnels says how many GRE packets each tunnel has carried.
//! What clients send stands in the log: it is shown without control characters and cut where it is long.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddrV4;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::{client, plan};

/// Longest text of a client in a line, in characters.
const LONGEST: usize = 60;
/// Stands in front of the further lines of a request.
const INDENT: &str = "          ";

/// The log lines of the ingre node.
pub(super) struct Log {
    pipe: pipe::Receiver,
    /// The beginning of a line that has not arrived whole.
    rest: Vec<u8>,
}

impl Log {
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe, rest: Vec::new() }
    }

    /// The requests that have been logged since the last call, at least one; `None` at the end. May be cancelled.
    pub(super) async fn next(&mut self) -> Option<Vec<Value>> {
        let mut block = vec![0; 64 << 10];
        loop {
            let len = self.pipe.read(&mut block).await.ok().filter(|len| *len > 0)?;
            self.rest.extend(block.iter().take(len));
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            let lines =
                whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
            return Some(lines.collect());
        }
    }
}

/// GRE packets out and in.
type Packets = (u64, u64);

/// Shows requests, with what the tunnels have carried since the request before.
pub(super) struct Watch {
    admin: SocketAddrV4,
    before: HashMap<String, Packets>,
}

impl Watch {
    /// Counts from now on.
    pub(super) async fn new(admin: SocketAddrV4) -> Self {
        let mut watch = Self { admin, before: HashMap::new() };
        watch.carried().await;
        watch
    }

    /// The lines for these requests.
    pub(super) async fn show(&mut self, requests: &[Value]) -> String {
        let mut carried = self.carried().await;
        let mut blocks: Vec<String> = Vec::new();
        // From the last one on: it stands for all packets of its tunnel, for they cannot be told apart.
        for request in requests.iter().rev() {
            blocks.push(describe(request, &mut carried));
        }
        blocks.into_iter().rev().collect()
    }

    /// What each tunnel has carried since the last call.
    async fn carried(&mut self) -> HashMap<String, Packets> {
        let Ok(page) = client::page(self.admin, "/tunnels").await else { return HashMap::new() };
        let page: Value = serde_json::from_slice(&page).unwrap_or_default();
        let mut carried = HashMap::new();
        for tunnel in page["tunnels"].as_array().into_iter().flatten() {
            let name = text(tunnel, "name");
            let [out, back] = ["packets_out", "packets_in"].map(|key| tunnel[key].as_u64().unwrap_or(0));
            let (out_before, back_before) = self.before.insert(name.clone(), (out, back)).unwrap_or((0, 0));
            carried.insert(name, (out.saturating_sub(out_before), back.saturating_sub(back_before)));
        }
        carried
    }
}

fn describe(request: &Value, carried: &mut HashMap<String, Packets>) -> String {
    let mut lines = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        lines,
        "{}  {} {}://{}{}  {}  {}  {:.1} ms  in {}, out {}",
        time_of_day(request["ts"].as_f64().unwrap_or(0.0)),
        text(request, "method"),
        text(request, "scheme"),
        text(request, "host"),
        text(request, "target"),
        text(request, "protocol"),
        request["status"],
        request["duration_ms"].as_f64().unwrap_or(0.0),
        size(&request["bytes_in"]),
        size(&request["bytes_out"]),
    );
    lines.push_str(INDENT);
    match request["pool"].as_str() {
        Some(pool) => {
            let _ = write!(lines, "{} {} -> pool {pool}", text(request, "domain"), text(request, "url"));
        }
        None => lines.push_str("no rule for it"),
    }
    if let (Some(server), Some(tunnel)) = (request["rs"].as_str(), request["tunnel"].as_str()) {
        let _ = write!(lines, " -> RS {server} -> {}", describe_tunnel(tunnel, carried));
    }
    if let Some(reason) = request["reason"].as_str() {
        let _ = write!(lines, "; {reason}");
    }
    if request["retries"].as_u64().is_some_and(|retries| retries > 0) {
        lines.push_str("; tried another RS first");
    }
    lines.push('\n');
    if request["listener"] == plan::ON_VIP {
        let front = describe_tunnel(plan::FRONT.name, carried);
        let _ = writeln!(lines, "{INDENT}client {} came through {front}", text(request, "client"));
    }
    lines
}

fn describe_tunnel(name: &str, carried: &mut HashMap<String, Packets>) -> String {
    let key = plan::tunnel(name).map_or(0, |tunnel| tunnel.key);
    match carried.remove(name) {
        // Another request's line has been written after these packets, but before this one's.
        Some((0, 0)) => format!("{name}, key {key}: GRE counted above"),
        Some((out, back)) => format!("{name}, key {key}: GRE {out} out, {back} in"),
        None => format!("{name}, key {key}: GRE counted below"),
    }
}

/// A text of the log that may be a client's.
fn text(value: &Value, key: &str) -> String {
    let whole = value[key].as_str().unwrap_or_default();
    let mut shown: String =
        whole.chars().take(LONGEST).map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    if whole.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

/// `HH:MM:SS` of the seconds since 1970, UTC.
fn time_of_day(seconds: f64) -> String {
    let seconds = seconds as u64 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn size(bytes: &Value) -> String {
    match bytes.as_u64().unwrap_or(0) {
        bytes @ 0..10_000 => format!("{bytes} B"),
        bytes @ 10_000..10_000_000 => format!("{} kB", bytes / 1000),
        bytes => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_shown_with_everything_that_became_of_it() {
        let request = json!({
            "ts": 1_700_000_000.5, "client": "203.0.113.2", "listener": "vip", "scheme": "https", "protocol": "HTTP/2",
            "method": "GET", "host": "a.localhost", "target": "/api/x", "status": 200, "bytes_in": 3,
            "bytes_out": 50_000_000, "duration_ms": 1.26, "domain": "a.localhost", "url": "^~ /api/",
            "pool": "a-api", "rs": "10.0.0.11:8080", "tunnel": "tenant-a", "retries": 0,
        });
        let mut carried = HashMap::from([("tenant-a".to_owned(), (6, 5)), ("front".to_owned(), (9, 8))]);
        assert_eq!(
            describe(&request, &mut carried),
            "22:13:20  GET https://a.localhost/api/x  HTTP/2  200  1.3 ms  in 3 B, out 50 MB\n          \
             a.localhost ^~ /api/ -> pool a-api -> RS 10.0.0.11:8080 -> tenant-a, key 1001: GRE 6 out, 5 in\n          \
             client 203.0.113.2 came through front, key 7: GRE 9 out, 8 in\n"
        );
        assert!(describe(&request, &mut carried).contains("GRE counted below"));
    }

    #[test]
    fn clients_cannot_write_on_the_terminal() {
        let request = json!({ "target": format!("/\u{1b}[2J\u{9b}{}", "x".repeat(100)), "host": "a\nb" });
        let shown = describe(&request, &mut HashMap::new());
        assert!(shown.contains("a?b/?[2J?xxx") && shown.contains("xxx..."), "{shown}");
        assert_eq!(shown.lines().count(), 2);
    }
}
