//! What a request costs in the pure modules: `cargo bench -p proxy --bench micro`.
//!
//! Sockets, TLS and the runtime are not in here; `benches/compare.py` measures the whole program.

#[path = "../../benches/timing/mod.rs"]
mod timing;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use proxy::h1::{Limits, parse_request, write_request};
use proxy::message::{Headers, Known, RequestHead};
use proxy::pool::{AllDown, Excluded, HealthCell, Maglev, Pool, RealServer, Rendezvous, Ring, hash, least};
use proxy::route::{DomainSpec, Outcome, RouteTable, RuleSpec, normalise_host, normalise_path};
use timing::measure;

/// Hosts, or URL rules of one domain.
const ROUTES: usize = 10_000;
/// Has no factor in common with `ROUTES`: every one is asked for, and neighbours are not asked for in a row.
const STRIDE: usize = 7919;

/// As a browser sends it for a page it has been to before.
const BROWSER: &[u8] = b"GET /account/orders?page=2&sort=date HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/account\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; consent=1\r\n\
    \r\n";

fn main() {
    hosts();
    urls();
    head();
    pick();
}

/// From the Host field and the path as they came to a rule: 10 000 exact names with one rule each.
fn hosts() {
    let domains: Vec<_> =
        (0..ROUTES).map(|n| domain(format!("h{n}.example.com"), [rule("/".into(), n)])).collect();
    let table = RouteTable::build(&domains).expect("the domains are valid");
    let asked: Vec<_> = strided(|n| format!("h{n}.example.com:8443")).collect();
    let mut turn = asked.iter().cycle();
    measure("route: one of 10 000 hosts", || {
        let host = turn.next().expect("the list is not empty");
        find(&table, black_box(host), black_box("/account/orders"))
    });
}

/// The same for one domain with 10 000 prefixes.
fn urls() {
    let rules = (0..ROUTES).map(|n| rule(format!("/shop/{n}/"), n));
    let table = RouteTable::build(&[domain("www.example.com".into(), rules)]).expect("the rules are valid");
    let asked: Vec<_> = strided(|n| format!("/shop/{n}/cart")).collect();
    let mut turn = asked.iter().cycle();
    measure("route: one of 10 000 URLs of one domain", || {
        let path = turn.next().expect("the list is not empty");
        find(&table, black_box("www.example.com"), black_box(path))
    });
}

/// A head as it comes from a browser to the one for the RS, with memory that has been used before.
fn head() {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let mut out = Vec::new();
    measure("head of a browser: parse", || parse_request(black_box(BROWSER), &limits, &mut head).is_ok());
    measure("head of a browser: parse, rewrite, write", || {
        let parsed = parse_request(black_box(BROWSER), &limits, &mut head).expect("the head is valid");
        let meta = parsed.expect("the head is complete");
        rewrite(&mut head.headers);
        out.clear();
        write_request(&head, meta.framing, &mut out);
        black_box(&out).len()
    });
}

/// Stands in for the rules of `forward`, which are not public: as many fields go and come, with fewer questions.
fn rewrite(headers: &mut Headers) {
    headers.retain(|known, _, _| !matches!(known, Known::Connection | Known::Upgrade));
    headers.append("X-Forwarded-For", "192.0.2.1");
    headers.append("X-Forwarded-Proto", "https");
    headers.append("X-Real-IP", "192.0.2.1");
}

/// Whose turn it is among 16 RS that are not checked, with the weights 10, 20, 30 and 40.
fn pick() {
    let servers = (1..=16_u8).map(|n| {
        let address = SocketAddr::from(([10, 0, 0, n], 80));
        (RealServer { address, weight: 10 + n % 4 * 10, backup: false }, Arc::new(HealthCell::unchecked()))
    });
    let pool = Pool::new(servers, AllDown::UseAll);
    let mut turns = pool.turns(0);
    measure("weighted round robin: one of 16 RS", || pool.pick(&mut turns, &Excluded::default()));
    let tried = Excluded::default();
    let share = |index: usize| pool.candidates(&tried).next().map_or(0, |among| among.share(index));
    measure("least connections: one of 16 RS", || least(&mut turns, |index| index as u32, share));
    let servers: Vec<_> = pool.servers().map(|(server, _)| *server).collect();
    let (lots, table, ring) = (
        Rendezvous::new(servers.iter().map(|server| server.address)),
        Maglev::new(&servers),
        Ring::new(&servers),
    );
    let mut keys = (0u64..).map(|key| hash(&key.to_ne_bytes()));
    measure("IP hash: one of 16 RS", || lots.pick(keys.next()?, share));
    let mut keys = (0u64..).map(|key| hash(&key.to_ne_bytes()));
    measure("Maglev: one of 16 RS", || table.pick(keys.next()?, share));
    let mut keys = (0u64..).map(|key| hash(&key.to_ne_bytes()));
    measure("ring hash: one of 16 RS", || ring.pick(keys.next()?, share));
}

fn find(table: &RouteTable, host: &str, path: &str) -> usize {
    let host = normalise_host(host).expect("the host is valid");
    let path = normalise_path(path).expect("the path is valid");
    match table.find(&host, path.as_str(), |_| true) {
        Outcome::Rule(found) => found.target,
        other => panic!("no rule for {host}: {other:?}"),
    }
}

fn strided(text: impl Fn(usize) -> String) -> impl Iterator<Item = String> {
    (0..ROUTES).map(move |n| text(n * STRIDE % ROUTES))
}

fn domain(name: String, rules: impl IntoIterator<Item = RuleSpec>) -> DomainSpec {
    DomainSpec { names: vec![name], default: false, rules: rules.into_iter().collect() }
}

fn rule(pattern: String, target: usize) -> RuleSpec {
    RuleSpec { pattern, target }
}
