//! How a pool shares requests out: the options of `pools:` beyond weights and health.

use std::time::Duration;

use yaml::{Position, Reader, Setting};

use super::file::{BalanceFile, EjectionFile, PoolFile, QueueFile, StickyFile};
use super::read::show_duration;
use super::{Balancing, Ejection, HashKey, Method, Named, Queue, Server, Sticky};

/// Most requests in flight that can be asked for.
const MOST: u32 = 1_000_000;

/// What is not plain weighted round robin; `None` where everything is.
pub(super) fn read(
    file: &PoolFile,
    servers: &[Server],
    named: &[Named],
    reader: &mut Reader<'_>,
) -> Option<Balancing> {
    let method = read_method(file, reader);
    let mut all = servers.iter().chain(named.iter().map(|named| &named.server));
    let capped = all.any(|server| server.max_connections.is_some());
    let balancing = Balancing {
        sticky: file.sticky.as_ref().map(|sticky| read_sticky(sticky, &method, file.name.at(), reader)),
        method,
        max_requests: file
            .max_requests
            .as_ref()
            .map(|most| reader.read_within(Some(most), 1..=MOST, u32::to_string, MOST)),
        queue: file.queue.as_ref().map(|queue| read_queue(queue, capped, file.name.at(), reader)),
        slow_start: reader.read_within(
            file.slow_start.as_ref(),
            Duration::ZERO..=Duration::from_secs(900),
            show_duration,
            Duration::ZERO,
        ),
        ejection: file.ejection.as_ref().map(|ejection| read_ejection(ejection, reader)),
    };
    let plain = matches!(balancing.method, Method::WeightedRoundRobin)
        && !capped
        && balancing.max_requests.is_none()
        && balancing.sticky.is_none()
        && balancing.slow_start.is_zero()
        && balancing.ejection.is_none();
    (!plain).then_some(balancing)
}

/// The cap of an RS, by its own setting or that of its pool.
pub(super) fn read_cap(setting: Option<&Setting<u32>>, reader: &mut Reader<'_>) -> Option<u32> {
    setting.map(|most| reader.read_within(Some(most), 1..=MOST, u32::to_string, MOST))
}

fn read_method(file: &PoolFile, reader: &mut Reader<'_>) -> Method {
    let key = file.hash_key.as_ref().and_then(|setting| read_key(setting, reader));
    let by_key = |method: fn(HashKey) -> Method| method(key.clone().unwrap_or(HashKey::Client));
    let method = match file.balance.unwrap_or(BalanceFile::WeightedRoundRobin) {
        BalanceFile::WeightedRoundRobin => Method::WeightedRoundRobin,
        BalanceFile::LeastConnections => Method::LeastConnections,
        BalanceFile::IpHash => Method::IpHash,
        BalanceFile::PeakEwma => Method::PeakEwma,
        BalanceFile::Maglev => by_key(Method::Maglev),
        BalanceFile::RingHash => by_key(Method::RingHash),
    };
    if let Some(setting) = &file.hash_key
        && !matches!(method, Method::Maglev(_) | Method::RingHash(_))
    {
        let help = Some("set `balance` to maglev or ring_hash, or remove `hash_key`".into());
        reader.problem(setting.at(), "this method of balancing hashes no key", help);
    }
    method
}

fn read_key(setting: &Setting<String>, reader: &mut Reader<'_>) -> Option<HashKey> {
    let text = reader.read(setting)?;
    let (kind, name) = text.split_once(':').unwrap_or((&text, ""));
    let key = match kind {
        "client" => HashKey::Client,
        "host" => HashKey::Host,
        "path" => HashKey::Path,
        "uri" => HashKey::Uri,
        "header" => HashKey::Header(name.to_owned()),
        "cookie" => HashKey::Cookie(name.to_owned()),
        "query" => HashKey::Query(name.to_owned()),
        _ => return bad_key(setting, &text, reader),
    };
    let right = match &key {
        HashKey::Header(name) | HashKey::Cookie(name) => crate::h1::valid_name(name.as_bytes()),
        HashKey::Query(name) => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()),
        _ => !text.contains(':'),
    };
    if right { Some(key) } else { bad_key(setting, &text, reader) }
}

fn bad_key(setting: &Setting<String>, text: &str, reader: &mut Reader<'_>) -> Option<HashKey> {
    let help = "write client, host, path, uri, header:NAME, cookie:NAME or query:NAME";
    reader.problem(setting.at(), format!("`{text}` is no key to hash"), Some(help.into()));
    None
}

fn read_queue(file: &QueueFile, capped: bool, at: Position, reader: &mut Reader<'_>) -> Queue {
    let queue = Queue {
        size: reader.read_within(file.size.as_ref(), 0..=65_536, usize::to_string, 0),
        timeout: reader.read_within(
            file.timeout.as_ref(),
            Duration::from_millis(10)..=Duration::from_secs(60),
            show_duration,
            Duration::from_secs(5),
        ),
    };
    if !capped {
        let at = file.size.as_ref().map_or(at, Setting::at);
        let help = Some("set `max_connections` of the pool or of its servers".into());
        reader.problem(at, "nobody ever waits: no server of this pool is ever full", help);
    }
    queue
}

fn read_sticky(file: &StickyFile, method: &Method, pool: Position, reader: &mut Reader<'_>) -> Sticky {
    let at = file.cookie.as_ref().map_or(pool, Setting::at);
    if matches!(method, Method::IpHash | Method::LeastConnections) {
        let help = Some("use weighted_round_robin, or remove `sticky`".into());
        reader.problem(at, "sticky cookies do not go together with this method of balancing", help);
    }
    let cookie = reader.read_or(file.cookie.as_ref(), "ingre".to_owned());
    if !crate::h1::valid_name(cookie.as_bytes()) {
        let help = Some("letters, digits, `-` and `_`".into());
        reader.problem(at, format!("`{}` is no name of a cookie", cookie.escape_default()), help);
    }
    let secret = file.secret.as_ref().and_then(|setting| Some((reader.read(setting)?, setting.at())));
    if let Some((secret, at)) = &secret
        && secret.len() < 16
    {
        let help = Some("at least 16 characters, best 32 random ones: ${file:/run/secrets/sticky}".into());
        reader.problem(*at, "this secret is too short", help);
    }
    Sticky {
        cookie,
        max_age: reader.read_within(
            file.max_age.as_ref(),
            Duration::from_secs(30)..=Duration::from_secs(3600),
            show_duration,
            Duration::from_secs(3600),
        ),
        secret: secret.map(|(secret, _)| secret),
    }
}

fn read_ejection(file: &EjectionFile, reader: &mut Reader<'_>) -> Ejection {
    let hour = Duration::from_secs(3600);
    let mut duration = |setting: Option<&Setting<Duration>>, default| {
        reader.read_within(
            setting,
            Duration::from_secs(1)..=hour,
            show_duration,
            Duration::from_secs(default),
        )
    };
    let interval = duration(file.interval.as_ref(), 10);
    let base_time = duration(file.base_time.as_ref(), 30);
    Ejection {
        failures: reader.read_within(file.failures.as_ref(), 1..=1000, u32::to_string, 5),
        interval,
        base_time,
        max_percent: reader.read_within(file.max_percent.as_ref(), 1..=100, u8::to_string, 50),
    }
}
