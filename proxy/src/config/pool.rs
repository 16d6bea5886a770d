//! The `pools:` section.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use http::Method;
use yaml::{Reader, Setting};

use super::file::{AllDownFile, HealthCheckFile, HealthKindFile, MethodFile, PoolFile};
use super::names::MOST_SERVERS;
use super::read::show_duration;
use super::upstream::{self, Protocol};
use super::{HealthCheck, Named, Pool, Probe, Server, ServerAddress};

pub(super) fn read(files: &[PoolFile], base: &Path, reader: &mut Reader<'_>) -> Vec<Pool> {
    let mut names = HashMap::new();
    files.iter().map(|file| read_pool(file, &mut names, base, reader)).collect()
}

fn read_pool(
    file: &PoolFile,
    names: &mut HashMap<String, yaml::Position>,
    base: &Path,
    reader: &mut Reader<'_>,
) -> Pool {
    let millis = Duration::from_millis;
    let second = Duration::from_secs;
    let name = reader.read_or(Some(&file.name), String::new());
    super::read::unique(reader, names, "pool", &name, file.name.at());
    if file.servers.is_empty() || file.servers.len() > MOST_SERVERS {
        let help = Some("list 1 to 1000, such as `- address: 10.0.0.10:8080`".into());
        reader.problem(file.name.at(), format!("the pool `{name}` has {} servers", file.servers.len()), help);
    }
    let (servers, named) = read_servers(file, reader);
    let (protocol, tls) = upstream::read(file, (&servers, &named), base, reader);
    Pool {
        protocol,
        tls,
        balancing: super::balance::read(file, &servers, &named, reader),
        tunnel: file.tunnel.as_ref().and_then(|tunnel| reader.read(tunnel)),
        servers,
        named,
        health_check: read_health_check(file, protocol, reader),
        refuse_when_down: matches!(file.all_down, Some(AllDownFile::Refuse)),
        connect_timeout: reader.read_within(
            file.connect_timeout.as_ref(),
            millis(100)..=second(120),
            show_duration,
            second(4),
        ),
        read_timeout: reader.read_within(
            file.read_timeout.as_ref(),
            second(1)..=second(3600),
            show_duration,
            second(60),
        ),
        send_timeout: reader.read_within(
            file.send_timeout.as_ref(),
            second(1)..=second(3600),
            show_duration,
            second(60),
        ),
        retries: file.retries.as_ref().map(|retries| Box::new(super::retries::read(retries, reader))),
        keepalive: reader.read_within(file.keepalive.as_ref(), 0..=65_536, usize::to_string, 256),
        keepalive_timeout: reader.read_within(
            file.keepalive_timeout.as_ref(),
            second(1)..=second(3600),
            show_duration,
            second(60),
        ),
        name,
    }
}

/// Those with an address, and those with a name.
fn read_servers(file: &PoolFile, reader: &mut Reader<'_>) -> (Vec<Server>, Vec<Named>) {
    let mut seen = HashSet::new();
    let (mut servers, mut named) = (Vec::new(), Vec::new());
    let pool_cap = super::balance::read_cap(file.max_connections.as_ref(), reader);
    for entry in &file.servers {
        let server = Server {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            weight: reader.read_within(entry.weight.as_ref(), 0..=100, u8::to_string, 10),
            backup: reader.read_or(entry.backup.as_ref(), false),
            max_connections: super::balance::read_cap(entry.max_connections.as_ref(), reader).or(pool_cap),
        };
        let Some(address) = reader.read(&entry.address) else { continue };
        let at = entry.address.at();
        if address.port() == 0 {
            let help = Some("write the port the real server listens on".into());
            reader.problem(at, "port 0 is no port to connect to", help);
        }
        if !seen.insert(address.clone()) {
            let help = Some("keep one; its `weight` says how much it gets".into());
            reader.problem(at, format!("{address} stands in this pool already"), help);
        }
        match address {
            ServerAddress::Ip(address) => servers.push(Server { address, ..server }),
            ServerAddress::Name(name, port) => {
                if file.tunnel.is_some() {
                    let help = Some("write its address inside the tunnel".into());
                    reader.problem(at, "a server behind a tunnel is not looked up by name", help);
                }
                named.push(Named { name, port, server });
            }
        }
    }
    let mut all = servers.iter().chain(named.iter().map(|named| &named.server)).peekable();
    if all.peek().is_some() && all.all(|server| server.backup) {
        let help = Some("remove `backup` of at least one".into());
        reader.problem(file.name.at(), "every server of this pool is a backup", help);
    }
    (servers, named)
}

fn read_health_check(pool: &PoolFile, protocol: Protocol, reader: &mut Reader<'_>) -> Option<HealthCheck> {
    let second = Duration::from_secs;
    let file = &pool.health_check;
    let usual = if protocol == Protocol::Grpc { HealthKindFile::Grpc } else { HealthKindFile::Http };
    let probe = match file.kind.unwrap_or(usual) {
        HealthKindFile::Off => return None,
        HealthKindFile::Tcp => Probe::Tcp,
        HealthKindFile::Http => read_http_probe(file, reader),
        HealthKindFile::Grpc => {
            if protocol == Protocol::Http1 {
                let help = "write `protocol: grpc`, or check by another `type`";
                reader.problem(pool.name.at(), "a check of type grpc needs HTTP/2", Some(help.into()));
            }
            Probe::Grpc {
                service: file.service.as_ref().and_then(|service| reader.read(service)),
                host: read_host(file, reader),
            }
        }
    };
    let interval =
        reader.read_within(file.interval.as_ref(), second(2)..=second(300), show_duration, second(5));
    let timeout = reader.read_within(
        file.timeout.as_ref(),
        Duration::from_millis(100)..=second(60),
        show_duration,
        second(2).min(interval / 2),
    );
    if timeout >= interval
        && let Some(at) = file.timeout.as_ref().map(Setting::at).or(file.interval.as_ref().map(Setting::at))
    {
        reader.problem(
            at,
            format!(
                "a check's timeout ({}) must be shorter than its interval ({})",
                show_duration(&timeout),
                show_duration(&interval)
            ),
            None,
        );
    }
    Some(HealthCheck {
        probe,
        interval,
        timeout,
        healthy_threshold: reader.read_within(file.healthy_threshold.as_ref(), 1..=10, u8::to_string, 3),
        unhealthy_threshold: reader.read_within(file.unhealthy_threshold.as_ref(), 1..=10, u8::to_string, 3),
    })
}

fn read_http_probe(file: &HealthCheckFile, reader: &mut Reader<'_>) -> Probe {
    let path = reader.read_or(file.path.as_ref(), "/".to_owned());
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let at = file.path.as_ref().map(Setting::at).unwrap_or_default();
        reader.problem(at, format!("`{path}` is no path"), Some("begin with `/`, no spaces".into()));
    }
    Probe::Http {
        method: match file.method {
            Some(MethodFile::Head) => Method::HEAD,
            Some(MethodFile::Get) | None => Method::GET,
        },
        path,
        host: read_host(file, reader),
        status: match &file.status {
            None => vec![200..=399],
            Some(settings) => settings.iter().filter_map(|setting| read_status(setting, reader)).collect(),
        },
    }
}

fn read_host(file: &HealthCheckFile, reader: &mut Reader<'_>) -> Option<String> {
    let setting = file.host.as_ref()?;
    let host = reader.read(setting)?;
    if !crate::h1::valid_value(host.as_bytes()) {
        reader.problem(setting.at(), format!("`{}` is no host", host.escape_default()), None);
    }
    Some(host)
}

/// `2xx` or `404`.
fn read_status(setting: &Setting<String>, reader: &mut Reader<'_>) -> Option<RangeInclusive<u16>> {
    let text = reader.read(setting)?;
    let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
    let range = match class {
        Some(class @ 2..=5) => Some(class * 100..=class * 100 + 99),
        Some(_) => None,
        None => text.parse().ok().filter(|number| (200..600).contains(number)).map(|number| number..=number),
    };
    if range.is_none() {
        let help = Some("write a class such as 2xx or a number such as 404".into());
        reader.problem(setting.at(), format!("`{text}` is no status"), help);
    }
    range
}
