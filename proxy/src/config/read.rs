//! The sections of the file to a [`Config`], all problems noted.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use yaml::{Position, Reader};

use super::file::{
    AccessLogFile, AcmeFile, AdminFile, DrainFile, ListenerFile, PoolFile, ResolverFile, RouteFile,
    TrustedProxiesFile,
};
use super::{AccessLog, Config, Drain};

/// The sections of the file that are the proxy's.
pub struct Sections<'a> {
    /// `listeners:`
    pub listeners: &'a [ListenerFile],
    /// `pools:`
    pub pools: &'a [PoolFile],
    /// `routes:`
    pub routes: &'a [RouteFile],
    /// `trusted_proxies:`
    pub trusted_proxies: &'a TrustedProxiesFile,
    /// `access_log:`
    pub access_log: &'a AccessLogFile,
    /// `resolver:`
    pub resolver: &'a ResolverFile,
    /// `admin:`
    pub admin: Option<&'a AdminFile>,
    /// `drain:`
    pub drain: &'a DrainFile,
    /// `acme:`
    pub acme: Option<&'a AcmeFile>,
}

/// The configuration these sections stand for; what is wrong with them is noted in `reader`, and then the
/// result is not to be used. Relative paths start at `base`.
pub fn read(sections: &Sections<'_>, base: &Path, reader: &mut Reader<'_>) -> Config {
    let listeners = super::listener::read(sections.listeners, base, reader);
    let acme = sections.acme.and_then(|file| super::acme::read(file, base, reader));
    super::acme::check(sections.acme, acme.as_ref(), sections.listeners, &listeners, reader);
    let pools = super::pool::read(sections.pools, base, reader);
    let routes = super::route::read(sections.routes, &listeners, &pools, base, reader);
    let second = Duration::from_secs;
    Config {
        listeners,
        pools,
        routes,
        acme,
        trusted_proxies: reader.read_all(sections.trusted_proxies),
        access_log: match reader.read_or(sections.access_log.output.as_ref(), "stdout".into()).as_str() {
            "off" => AccessLog::Off,
            "stdout" => AccessLog::Stdout,
            "stderr" => AccessLog::Stderr,
            path => AccessLog::File(base.join(path)),
        },
        resolver: reader.read_all(&sections.resolver.servers),
        admin: sections.admin.and_then(|admin| reader.read(&admin.address)),
        drain: Drain {
            delay: reader.read_within(
                sections.drain.delay.as_ref(),
                second(0)..=second(3600),
                show_duration,
                second(0),
            ),
            timeout: reader.read_within(
                sections.drain.timeout.as_ref(),
                second(0)..=second(3600),
                show_duration,
                second(30),
            ),
        },
    }
}

/// Notes a problem when `name` was there before or is empty.
pub(super) fn unique(
    reader: &mut Reader<'_>,
    seen: &mut HashMap<String, Position>,
    what: &str,
    name: &str,
    at: Position,
) {
    if name.is_empty() {
        reader.problem(at, format!("a {what} needs a name"), None);
    } else if let Some(first) = seen.get(name) {
        let help = format!("the first stands in line {}; give one of them another name", first.line);
        reader.problem(at, format!("a second {what} named `{name}`"), Some(help));
    } else {
        seen.insert(name.to_owned(), at);
    }
}

/// A duration in the notation of the file.
pub(crate) fn show_duration(duration: &Duration) -> String {
    if duration.subsec_millis() != 0 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{}s", duration.as_secs())
    }
}
