//! From the ingre node's access log and counters to lines for a person.
//!
//! The log says what became of a request; the admin page /tunnels says how many GRE packets each tunnel has carried.
//! What clients send stands in the log: it is shown without control characters and cut where it is long.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::{client, plan};

/// Longest text of a client in a line, in characters.
const LONGEST: usize = 60;
/// Most samples of the counters.
const SAMPLES: usize = 256;
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

/// GRE packets out and in, by tunnel.
type Packets = HashMap<String, (u64, u64)>;

/// What the tunnels had carried at a time, in seconds since 1970.
struct Sample {
    at: f64,
    packets: Packets,
}

/// Shows requests, with what the tunnels have carried for them.
pub(super) struct Watch {
    admin: SocketAddrV4,
    /// Since the last request that was shown, the oldest first.
    samples: VecDeque<Sample>,
}

impl Watch {
    /// Counts from now on.
    pub(super) async fn new(admin: SocketAddrV4) -> Self {
        let mut watch = Self { admin, samples: VecDeque::new() };
        watch.sample().await;
        watch
    }

    /// Notes the counters: from time to time, so that a request is not shown with what came long before it.
    pub(super) async fn sample(&mut self) {
        if self.samples.len() >= SAMPLES {
            // Of a long wait every other one will do.
            let mut kept = false;
            self.samples.retain(|_| {
                kept = !kept;
                kept
            });
        }
        self.samples.extend(self.read().await);
    }

    /// The lines for these requests.
    pub(super) async fn show(&mut self, requests: &[Value]) -> String {
        let began = |request: &Value| number(request, "ts") - number(request, "duration_ms") / 1e3;
        let began = requests.iter().map(began).fold(f64::INFINITY, f64::min);
        let mut carried = Packets::new();
        if let Some(now) = self.read().await {
            let before = self.samples.iter().rev().find(|sample| sample.at <= began);
            if let Some(before) = before.or(self.samples.front()) {
                carried = since(before, &now);
            }
            self.samples = VecDeque::from([now]);
        }
        // From the last one on: it stands for all packets of its tunnel, for they cannot be told apart.
        let mut blocks: Vec<_> =
            requests.iter().rev().map(|request| describe(request, &mut carried)).collect();
        blocks.reverse();
        blocks.concat()
    }

    async fn read(&self) -> Option<Sample> {
        let page = client::page(self.admin, "/tunnels").await.ok()?;
        let page: Value = serde_json::from_slice(&page).ok()?;
        #[expect(clippy::disallowed_methods, reason = "compared with the times of the log")]
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let packets = page["tunnels"].as_array()?.iter().map(|tunnel| {
            let [out, back] = ["packets_out", "packets_in"].map(|key| tunnel[key].as_u64().unwrap_or(0));
            (text(tunnel, "name"), (out, back))
        });
        Some(Sample { at, packets: packets.collect() })
    }
}

fn since(before: &Sample, now: &Sample) -> Packets {
    let difference = |(name, &(out, back)): (&String, &(u64, u64))| {
        let (out_before, back_before) = before.packets.get(name).copied().unwrap_or((0, 0));
        (name.clone(), (out.saturating_sub(out_before), back.saturating_sub(back_before)))
    };
    now.packets.iter().map(difference).collect()
}

fn describe(request: &Value, carried: &mut Packets) -> String {
    let mut lines = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        lines,
        "{}  {} {}://{}{}  {}  {}  {:.1} ms  in {}, out {}",
        time_of_day(number(request, "ts")),
        text(request, "method"),
        text(request, "scheme"),
        text(request, "host"),
        text(request, "target"),
        text(request, "protocol"),
        match &request["status"] {
            // Nothing was sent before the client left.
            Value::Number(status) if status.as_u64() == Some(0) => "no answer, client left".to_owned(),
            status => status.to_string(),
        },
        number(request, "duration_ms"),
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

fn describe_tunnel(name: &str, carried: &mut Packets) -> String {
    let key = plan::tunnel(name).map_or(0, |tunnel| tunnel.key);
    match carried.remove(name) {
        // Another request's line has been written after these packets, but before this one's.
        Some((0, 0)) => format!("{name}, key {key}: GRE counted above"),
        Some((out, back)) => format!("{name}, key {key}: GRE {out} out, {back} in"),
        None => format!("{name}, key {key}: GRE counted below"),
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(0.0)
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
        let mut carried = Packets::from([("tenant-a".to_owned(), (6, 5)), ("front".to_owned(), (9, 8))]);
        assert_eq!(
            describe(&request, &mut carried),
            "22:13:20  GET https://a.localhost/api/x  HTTP/2  200  1.3 ms  in 3 B, out 50 MB\n          \
             a.localhost ^~ /api/ -> pool a-api -> RS 10.0.0.11:8080 -> tenant-a, key 1001: GRE 6 out, 5 in\n          \
             client 203.0.113.2 came through front, key 7: GRE 9 out, 8 in\n"
        );
        assert!(describe(&request, &mut carried).contains("GRE counted below"));
    }

    #[test]
    fn only_new_packets_are_shown() {
        let at = |at, out| Sample { at, packets: Packets::from([("front".to_owned(), (out, 7))]) };
        assert_eq!(since(&at(1.0, 40), &at(2.0, 43)), Packets::from([("front".to_owned(), (3, 0))]));
        let none = Sample { at: 0.0, packets: Packets::new() };
        assert_eq!(since(&none, &at(2.0, 43)), Packets::from([("front".to_owned(), (43, 7))]));
    }

    #[test]
    fn clients_cannot_write_on_the_terminal() {
        let request = json!({ "target": format!("/\u{1b}[2J\u{9b}{}", "x".repeat(100)), "host": "a\nb" });
        let shown = describe(&request, &mut Packets::new());
        assert!(shown.contains("a?b/?[2J?xxx") && shown.contains("xxx..."), "{shown}");
        assert_eq!(shown.lines().count(), 2);
    }
}
