//! Who may come, and how often: of a rule, and of a listener.

use std::path::Path;
use std::sync::Arc;

use yaml::{ByteSize, Position, Reader, Setting};

use super::file::{
    AccessFile, BasicAuthFile, ForwardAuthFile, JwtFile, KeyValue, LimitFile, ListenerFile, Networks,
    RuleFile,
};
use super::rule::{FindPool, check_name};
use super::{Auth, BasicAuth, ForwardAuth};
use crate::auth::{Jwt, TokenSource, Users};
use crate::h1;
use crate::limit::{Access, AccessList, Key, Limit, Rate};

/// Most of what may be counted.
const MOST: u32 = 1_000_000;

pub(super) fn read_access(files: &[AccessFile], at: Position, reader: &mut Reader<'_>) -> AccessList {
    let mut entries = Vec::new();
    for file in files {
        let (allow, settings) = match (file.allow.as_slice(), file.deny.as_slice()) {
            (allow @ [_, ..], []) => (true, allow),
            ([], deny @ [_, ..]) => (false, deny),
            _ => {
                let help = "write `- allow: [10.0.0.0/8]` or `- deny: [all]`, one of them in each entry";
                reader.problem(at, "an entry of `access` either allows or denies", Some(help.into()));
                continue;
            }
        };
        let mut networks = Vec::new();
        for value in reader.read_all(settings) {
            match value {
                Networks::One(network) => networks.push(network),
                Networks::All if settings.len() > 1 => {
                    let help = "`all` stands alone: the rest of the list means nothing beside it";
                    reader.problem(settings[0].at(), "`all` among networks", Some(help.into()));
                }
                Networks::All => {}
            }
        }
        entries.push(Access { allow, networks });
    }
    AccessList(entries)
}

/// The limits of a rule, added to those of all rules; their numbers there. `name` tells the rule from others.
pub(super) fn read_limits(
    files: &[LimitFile],
    (name, at): (&str, Position),
    limits: &mut Vec<Limit>,
    reader: &mut Reader<'_>,
) -> Vec<usize> {
    let mut numbers = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let KeyValue(per) = reader.read_or(file.per.as_ref(), KeyValue(Key::Client));
        let rate = file.rate.as_ref().and_then(|rate| reader.read(rate)).map(|rate| {
            let seconds = u32::try_from(rate.period.as_secs()).unwrap_or(1);
            let second = (rate.count / seconds).clamp(1, MOST);
            let burst = reader.read_within(file.burst.as_ref(), 1..=MOST, u32::to_string, second);
            Rate::new(rate.count, rate.period, burst)
        });
        let in_flight = file.in_flight.as_ref();
        let in_flight = in_flight.map(|most| reader.read_within(Some(most), 1..=MOST, u32::to_string, 1));
        if let Some(at) = file.burst.as_ref().map(Setting::at).filter(|_| file.rate.is_none()) {
            reader.problem(at, "`burst` needs a `rate`", Some("write `rate: 10/s` beside it".into()));
        }
        if rate.is_none() && in_flight.is_none() {
            let help = "write `rate: 10/s`, `in_flight: 100` or both";
            reader.problem(at, "a limit without `rate` and `in_flight`", Some(help.into()));
        }
        numbers.push(limits.len());
        limits.push(Limit { name: format!("{name} {index}"), per, rate, in_flight });
    }
    numbers
}

/// At most so many connections of one client.
pub(super) fn read_per_client(file: &ListenerFile, name: &str, reader: &mut Reader<'_>) -> Option<Limit> {
    let setting = file.max_connections_per_client.as_ref()?;
    let most = reader.read_within(Some(setting), 1..=MOST, u32::to_string, 1);
    Some(Limit { name: format!("listener {name}"), per: Key::Client, rate: None, in_flight: Some(most) })
}

/// The size of a body that a rule takes.
pub(super) fn read_body_size(setting: Option<&Setting<ByteSize>>, reader: &mut Reader<'_>) -> Option<u64> {
    let size = reader.read(setting?)?.0;
    (size > 0).then_some(size)
}

/// Everybody who has to agree before a request passes.
pub(super) fn read_auth(
    file: &RuleFile,
    base: &Path,
    find_pool: &mut FindPool<'_>,
    reader: &mut Reader<'_>,
) -> Option<Box<Auth>> {
    if file.basic_auth.is_none() && file.jwt.is_none() && file.forward_auth.is_none() {
        return None;
    }
    Some(Box::new(Auth {
        basic: file.basic_auth.as_ref().and_then(|basic| read_basic(basic, base, reader)),
        jwt: file.jwt.as_ref().and_then(|jwt| read_jwt(jwt, base, reader)),
        forward: file.forward_auth.as_ref().and_then(|forward| read_forward(forward, find_pool, reader)),
    }))
}

fn read_basic(file: &BasicAuthFile, base: &Path, reader: &mut Reader<'_>) -> Option<BasicAuth> {
    let text = reader.read_file(&file.users, base)?;
    let realm = reader.read_or(file.realm.as_ref(), "restricted".to_owned());
    if let Some(at) = file.realm.as_ref().map(Setting::at)
        && (realm.contains(['"', '\\']) || !h1::valid_value(realm.as_bytes()))
    {
        reader.problem(at, "quotes, backslashes and control characters cannot stand here", None);
    }
    match Users::parse(&text) {
        Ok(users) => Some(BasicAuth { realm, users: Arc::new(users) }),
        Err(error) => {
            reader.problem(file.users.at(), format!("this file cannot be used: {error}"), None);
            None
        }
    }
}

fn read_jwt(file: &JwtFile, base: &Path, reader: &mut Reader<'_>) -> Option<Arc<Jwt>> {
    let text = reader.read_file(&file.keys, base)?;
    let mut jwt = match Jwt::new(&text) {
        Ok(jwt) => jwt,
        Err(error) => {
            reader.problem(file.keys.at(), format!("this file {error}"), None);
            return None;
        }
    };
    if let Some(cookie) = file.cookie.as_ref().and_then(|cookie| reader.read(cookie)) {
        jwt.source = TokenSource::Cookie(cookie);
    }
    jwt.issuer = file.issuer.as_ref().and_then(|issuer| reader.read(issuer));
    jwt.audiences = reader.read_all(&file.audiences);
    for (name, claim) in file.claims.iter() {
        check_name(name, claim.at(), reader);
        jwt.claims.extend(reader.read(claim).map(|claim| (name.to_owned(), claim)));
    }
    Some(Arc::new(jwt))
}

fn read_forward(
    file: &ForwardAuthFile,
    find_pool: &mut FindPool<'_>,
    reader: &mut Reader<'_>,
) -> Option<ForwardAuth> {
    let path = reader.read_or(file.path.as_ref(), "/".to_owned());
    if let Some(at) = file.path.as_ref().map(Setting::at)
        && !(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        reader.problem(at, format!("`{path}` is no path"), Some("begin with `/`, no spaces".into()));
    }
    let mut copy_headers = Vec::new();
    for setting in &file.copy_headers {
        let Some(name) = reader.read(setting) else { continue };
        check_name(&name, setting.at(), reader);
        copy_headers.push(name);
    }
    Some(ForwardAuth { pool: find_pool(&file.pool, reader)?, path, copy_headers })
}
