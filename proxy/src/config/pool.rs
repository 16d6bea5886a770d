//! The `pools:` section.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::Method;
use yaml::Reader;

use super::file::{AllDownFile, HealthCheckFile, HealthKindFile, MethodFile, PoolFile, StatusClassFile};
use super::read::show_duration;
use super::{HealthCheck, Pool, Probe, Server};

pub(super) fn read(files: &[PoolFile], reader: &mut Reader<'_>) -> Vec<Pool> {
    let mut names = HashMap::new();
    files.iter().map(|file| read_pool(file, &mut names, reader)).collect()
}

fn read_pool(file: &PoolFile, names: &mut HashMap<String, yaml::Position>, reader: &mut Reader<'_>) -> Pool {
    let millis = Duration::from_millis;
    let second = Duration::from_secs;
    let name = reader.read_or(Some(&file.name), String::new());
    super::read::unique(reader, names, "pool", &name, file.name.at());
    if file.servers.is_empty() || file.servers.len() > 1000 {
        let help = Some("list 1 to 1000, such as `- address: 10.0.0.10:8080`".into());
        reader.problem(file.name.at(), format!("the pool `{name}` has {} servers", file.servers.len()), help);
    }
    Pool {
        tunnel: file.tunnel.as_ref().and_then(|tunnel| reader.read(tunnel)),
        servers: read_servers(file, reader),
        health_check: read_health_check(&file.health_check, reader),
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

fn read_servers(file: &PoolFile, reader: &mut Reader<'_>) -> Vec<Server> {
    let mut seen = HashSet::new();
    let mut servers = Vec::new();
    for server in &file.servers {
        let weight = reader.read_within(server.weight.as_ref(), 0..=100, u8::to_string, 10);
        let Some(address) = reader.read(&server.address) else { continue };
        if address.port() == 0 {
            let help = Some("write the port the real server listens on".into());
            reader.problem(server.address.at(), "port 0 is no port to connect to", help);
        }
        if !seen.insert(address) {
            let help = Some("keep one; its `weight` says how much it gets".into());
            reader.problem(server.address.at(), format!("{address} stands in this pool already"), help);
        }
        servers.push(Server { address, weight });
    }
    servers
}

fn read_health_check(file: &HealthCheckFile, reader: &mut Reader<'_>) -> Option<HealthCheck> {
    let second = Duration::from_secs;
    let probe = match file.kind.unwrap_or(HealthKindFile::Http) {
        HealthKindFile::Off => return None,
        HealthKindFile::Tcp => Probe::Tcp,
        HealthKindFile::Http => read_http_probe(file, reader),
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
        && let Some(at) =
            file.timeout.as_ref().map(yaml::Setting::at).or(file.interval.as_ref().map(yaml::Setting::at))
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
        let at = file.path.as_ref().map(yaml::Setting::at).unwrap_or_default();
        reader.problem(at, format!("`{path}` is no path"), Some("begin with `/`, no spaces".into()));
    }
    let host = file.host.as_ref().and_then(|host| Some((reader.read(host)?, host.at())));
    if let Some((host, at)) = &host
        && !crate::h1::valid_value(host.as_bytes())
    {
        reader.problem(*at, format!("`{}` is no host", host.escape_default()), None);
    }
    Probe::Http {
        method: match file.method {
            Some(MethodFile::Head) => Method::HEAD,
            Some(MethodFile::Get) | None => Method::GET,
        },
        path,
        host: host.map(|(host, _)| host),
        classes: match &file.status {
            None => vec![2, 3],
            Some(classes) => classes
                .iter()
                .map(|class| match class {
                    StatusClassFile::Success => 2,
                    StatusClassFile::Redirection => 3,
                    StatusClassFile::ClientError => 4,
                    StatusClassFile::ServerError => 5,
                })
                .collect(),
        },
    }
}
