//! One rule of the `routes:` section, beyond its URL.

use std::path::Path;

use http::{Method, StatusCode};
use yaml::{Entries, Position, Reader, Setting};

use super::file::{
    CorsFile, EditsFile, ErrorPageFile, MethodName, RedirectFile, RespondFile, RewriteFile, RuleFile,
    WhenFile,
};
use super::read::show_duration;
use super::{Action, Mirror, More, Routes, Split, admission, compress};
use crate::h1;
use crate::route::{REGEX_SIZE_LIMIT, normalise_path};
use crate::rule::{
    Conditions, Cors, Edits, ErrorPage, ErrorPages, Field, Fixed, Origin, Redirect, Rewrite, Shown, Statuses,
    Template, Test,
};

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Finds the index of a pool by its name; notes a problem where there is none.
pub(super) type FindPool<'a> = dyn FnMut(&Setting<String>, &mut Reader<'_>) -> Option<usize> + 'a;

pub(super) fn read_when(file: &WhenFile, reader: &mut Reader<'_>) -> Conditions {
    Conditions {
        methods: methods(&file.methods, reader),
        headers: read_fields(&file.headers, "header", reader),
        query: read_fields(&file.query, "query parameter", reader),
        cookies: read_fields(&file.cookies, "cookie", reader),
        clients: reader.read_all(&file.clients),
    }
}

fn methods(settings: &[Setting<MethodName>], reader: &mut Reader<'_>) -> Vec<Method> {
    reader.read_all(settings).into_iter().map(|MethodName(method)| method).collect()
}

fn read_fields(entries: &Entries<String>, what: &str, reader: &mut Reader<'_>) -> Vec<Field> {
    let mut fields = Vec::new();
    for (name, setting) in entries.iter() {
        if what != "query parameter" && !h1::valid_name(name.as_bytes()) {
            reader.problem(setting.at(), format!("`{name}` is no name of a {what}"), None);
        }
        let Some(text) = reader.read(setting) else { continue };
        let test = match text.as_str() {
            "*" => Test::Present,
            "!" => Test::Absent,
            text => match text.strip_prefix('~') {
                None => Test::Is(text.as_bytes().to_vec()),
                Some(pattern) => {
                    let built = regex::bytes::RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT).build();
                    match built {
                        Ok(regex) => Test::Matches(regex),
                        Err(error) => {
                            bad_regex(pattern, &error, setting.at(), reader);
                            continue;
                        }
                    }
                }
            },
        };
        fields.push(Field { name: name.to_owned(), test });
    }
    fields
}

fn bad_regex(pattern: &str, error: &regex::Error, at: Position, reader: &mut Reader<'_>) {
    reader.problem(at, format!("the regular expression `{pattern}` cannot be used"), Some(error.to_string()));
}

fn read_regex(setting: Option<&Setting<String>>, reader: &mut Reader<'_>) -> Option<regex::Regex> {
    let setting = setting?;
    let pattern = reader.read(setting)?;
    match regex::RegexBuilder::new(&pattern).size_limit(REGEX_SIZE_LIMIT).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            bad_regex(&pattern, &error, setting.at(), reader);
            None
        }
    }
}

fn captures(regex: Option<&regex::Regex>) -> usize {
    regex.map_or(0, |regex| regex.captures_len() - 1)
}

/// A text with variables. Bodies may have line ends; elsewhere no control character may stand.
fn read_template(setting: &Setting<String>, captures: usize, reader: &mut Reader<'_>) -> Option<Template> {
    let text = reader.read(setting)?;
    let template = match Template::parse(&text, captures) {
        Ok(template) if text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') => {
            reader.problem(setting.at(), "a control character cannot stand here", None);
            template
        }
        Ok(template) => template,
        Err(error) => {
            let help = "write `$$` for a dollar";
            reader.problem(setting.at(), error, Some(help.into()));
            return None;
        }
    };
    Some(template)
}

fn read_body(setting: Option<&Setting<String>>, reader: &mut Reader<'_>) -> Option<Template> {
    let Some(setting) = setting else { return Template::parse("", 0).ok() };
    match Template::parse(&reader.read(setting)?, 0) {
        Ok(body) => Some(body),
        Err(error) => {
            reader.problem(setting.at(), error, Some("write `$$` for a dollar".into()));
            None
        }
    }
}

/// Who answers; a problem where that is nobody or more than one. `at` is where the rule stands.
pub(super) fn read_action(
    file: &RuleFile,
    at: Position,
    splits: &mut Vec<Vec<u8>>,
    find_pool: &mut FindPool<'_>,
    reader: &mut Reader<'_>,
) -> Action {
    let given = [file.pool.is_some(), file.split.is_some(), file.redirect.is_some(), file.respond.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = match given.contains(&true) {
            true => "more than one of `pool`, `split`, `redirect` and `respond`",
            false => "nobody answers this rule",
        };
        let help = "write exactly one of `pool: NAME`, `split:`, `redirect:` and `respond:`";
        reader.problem(at, message, Some(help.into()));
    }
    if let Some(redirect) = &file.redirect {
        // What stands for something that cannot be read: nothing starts, and later rules keep their places.
        return read_redirect(redirect, reader)
            .map_or(Action::Pool(0), |redirect| Action::Redirect(redirect.into()));
    }
    if let Some(respond) = &file.respond {
        return read_respond(respond, reader).map_or(Action::Pool(0), |fixed| Action::Respond(fixed.into()));
    }
    if let Some(shares) = &file.split {
        let pools: Vec<(usize, u8)> = shares
            .iter()
            .map(|share| {
                let weight = reader.read_within(Some(&share.weight), 0..=100, u8::to_string, 0);
                (find_pool(&share.pool, reader).unwrap_or(0), weight)
            })
            .collect();
        if pools.iter().all(|(_, weight)| *weight == 0) {
            let help = "give at least one of the pools a `weight` from 1 to 100";
            reader.problem(at, "this split has no pool with a share", Some(help.into()));
        }
        splits.push(pools.iter().map(|(_, weight)| *weight).collect());
        return Action::Split(Split { number: splits.len() - 1, pools });
    }
    Action::Pool(file.pool.as_ref().and_then(|pool| find_pool(pool, reader)).unwrap_or(0))
}

fn read_redirect(file: &RedirectFile, reader: &mut Reader<'_>) -> Option<Redirect> {
    let regex = read_regex(file.regex.as_ref(), reader);
    let to = read_template(&file.to, captures(regex.as_ref()), reader)?;
    let status = reader.read_or(file.status.as_ref(), 302);
    if !matches!(status, 301..=303 | 307 | 308) {
        let at = file.status.as_ref().map(Setting::at).unwrap_or_default();
        reader.problem(at, format!("{status} is no redirect"), Some("301, 302, 303, 307 or 308".into()));
    }
    Some(Redirect { status: StatusCode::from_u16(status).ok()?, to, regex })
}

fn read_respond(file: &RespondFile, reader: &mut Reader<'_>) -> Option<Fixed> {
    let status = read_status(file.status.as_ref(), 200, reader)?;
    let body = read_body(file.body.as_ref(), reader)?;
    Some(Fixed { status, body, content_type: read_content_type(file.content_type.as_ref(), PLAIN, reader) })
}

fn read_status(setting: Option<&Setting<u16>>, default: u16, reader: &mut Reader<'_>) -> Option<StatusCode> {
    let status = reader.read_within(setting, 200..=599, u16::to_string, default);
    StatusCode::from_u16(status).ok()
}

fn read_content_type(setting: Option<&Setting<String>>, default: &str, reader: &mut Reader<'_>) -> String {
    let text = reader.read_or(setting, default.to_owned());
    if let Some(setting) = setting
        && !h1::valid_value(text.as_bytes())
    {
        reader.problem(setting.at(), "a control character cannot stand here", None);
    }
    text
}

/// Where a rule stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its pattern.
    pub(super) url: &'a str,
    /// What tells it from every other rule.
    pub(super) name: &'a str,
    /// In the file.
    pub(super) at: Position,
    /// Where relative paths start.
    pub(super) base: &'a Path,
}

/// What the rule does beyond naming who answers; none where that is nothing.
pub(super) fn read_more(
    file: &RuleFile,
    place: Place<'_>,
    all: &mut Routes,
    find_pool: &mut FindPool<'_>,
    reader: &mut Reader<'_>,
) -> Option<Box<More>> {
    let edits = |edits: &Option<Box<EditsFile>>, reader: &mut Reader<'_>| {
        edits.as_ref().map(|edits| read_edits(edits, reader)).unwrap_or_default()
    };
    let is_plain = file.rewrite.is_none()
        && file.mirror.is_none()
        && file.request_headers.is_none()
        && file.response_headers.is_none()
        && file.cors.is_none()
        && file.error_pages.is_none()
        && file.compress.is_none()
        && file.access.is_none()
        && file.limits.is_none()
        && file.client_max_body_size.is_none()
        && file.basic_auth.is_none()
        && file.jwt.is_none()
        && file.forward_auth.is_none();
    if is_plain {
        return None;
    }
    Some(Box::new(More {
        access: admission::read_access(file.access.as_deref().unwrap_or_default(), place.at, reader),
        limits: admission::read_limits(
            file.limits.as_deref().unwrap_or_default(),
            (place.name, place.at),
            &mut all.limits,
            reader,
        ),
        body_size: admission::read_body_size(file.client_max_body_size.as_ref(), reader),
        auth: admission::read_auth(file, place.base, find_pool, reader),
        rewrite: file.rewrite.as_ref().and_then(|rewrite| read_rewrite(rewrite, place.url, reader)),
        host: (file.rewrite.as_ref())
            .and_then(|rewrite| rewrite.host.as_ref())
            .and_then(|host| read_template(host, 0, reader)),
        mirror: file.mirror.as_ref().and_then(|mirror| {
            let percent = reader.read_within(mirror.percent.as_ref(), 1..=100, u8::to_string, 100);
            all.splits.push(vec![percent, 100 - percent]);
            find_pool(&mirror.pool, reader).map(|pool| Mirror { pool, turns: all.splits.len() - 1 })
        }),
        request_headers: edits(&file.request_headers, reader),
        response_headers: edits(&file.response_headers, reader),
        cors: file.cors.as_ref().map(|cors| read_cors(cors, reader)),
        error_pages: ErrorPages {
            pages: (file.error_pages.iter().flatten())
                .filter_map(|page| read_error_page(page, reader))
                .collect(),
            intercept: reader.read_or(file.intercept_errors.as_ref(), false),
        },
        compress: file.compress.as_ref().map(|compress| compress::read(compress, reader)),
    }))
}

fn read_rewrite(file: &RewriteFile, url: &str, reader: &mut Reader<'_>) -> Option<Rewrite> {
    if let Some(prefix) = &file.prefix {
        let with = reader.read(prefix)?;
        let is_path = with.starts_with('/') && normalise_path(&with).is_ok_and(|path| path.as_str() == with);
        if !is_path {
            let help = "write a path such as / or /app, without query";
            reader.problem(prefix.at(), format!("`{with}` is no path"), Some(help.into()));
        }
        let Some(path) = plain_path(url) else {
            let help = "use `path:` with `regex:`, or a rule with a prefix or an exact path";
            reader.problem(prefix.at(), "a regular expression has no prefix to replace", Some(help.into()));
            return None;
        };
        if file.path.is_some() || file.regex.is_some() {
            let help = "keep `prefix`, or `path` and `regex`";
            reader.problem(prefix.at(), "`prefix` and `path` contradict each other", Some(help.into()));
        }
        return Some(Rewrite::Prefix { length: path.len(), with });
    }
    let Some(path) = &file.path else {
        if let Some(regex) = &file.regex {
            reader.problem(regex.at(), "`regex` needs a `path`", Some("write what the path becomes".into()));
        }
        return None;
    };
    let regex = read_regex(file.regex.as_ref(), reader);
    let to = read_template(path, captures(regex.as_ref()), reader)?;
    if !to.beginning().starts_with('/') {
        reader.problem(path.at(), "a path begins with `/`", None);
    }
    Some(Rewrite::Path { regex, to })
}

/// The path of a pattern that is no regular expression.
fn plain_path(url: &str) -> Option<&str> {
    let url = url.trim();
    if url.starts_with('~') {
        return None;
    }
    Some(url.strip_prefix("^~").or(url.strip_prefix('=')).unwrap_or(url).trim_start())
}

fn read_edits(file: &EditsFile, reader: &mut Reader<'_>) -> Edits {
    let mut remove = Vec::new();
    for setting in &file.remove {
        let Some(name) = reader.read(setting) else { continue };
        check_name(&name, setting.at(), reader);
        remove.push(name);
    }
    let mut fields = |entries: &Entries<String>| {
        let mut fields = Vec::new();
        for (name, setting) in entries.iter() {
            check_name(name, setting.at(), reader);
            if let Some(template) = read_template(setting, 0, reader) {
                fields.push((name.to_owned(), template));
            }
        }
        fields
    };
    let (set, add) = (fields(&file.set), fields(&file.add));
    Edits { remove, set, add }
}

/// Framing and connection are the codec's business; an edit could only break them.
pub(super) fn check_name(name: &str, at: Position, reader: &mut Reader<'_>) {
    const OURS: [&str; 8] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    if !h1::valid_name(name.as_bytes()) {
        reader.problem(at, format!("`{}` is no name of a header field", name.escape_default()), None);
    } else if OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
        let help = match name.eq_ignore_ascii_case("host") {
            true => "use `rewrite: {host: ...}`",
            false => "leave it out: it belongs to the connection",
        };
        reader.problem(at, format!("`{name}` cannot be edited"), Some(help.into()));
    }
}

fn read_cors(file: &CorsFile, reader: &mut Reader<'_>) -> Cors {
    let mut origins = Vec::new();
    let mut any = file.origins.is_empty();
    for setting in &file.origins {
        let Some(text) = reader.read(setting) else { continue };
        match text.strip_prefix('~') {
            Some(_) => origins.extend(read_origin_regex(&text, setting.at(), reader)),
            None if text == "*" => any = true,
            None if text == "null" || text.contains("://") && !text.ends_with('/') => {
                origins.push(Origin::Is(text));
            }
            None => {
                let help = "write scheme, host and port if it is not the usual one: https://app.example.com";
                reader.problem(setting.at(), format!("`{text}` is no origin"), Some(help.into()));
            }
        }
    }
    let credentials = reader.read_or(file.credentials.as_ref(), false);
    if credentials && any {
        let at = file.credentials.as_ref().map(Setting::at).unwrap_or_default();
        let help = "list the `origins` that may: with `*` any page could act in the name of your users";
        reader.problem(at, "`credentials` for every origin", Some(help.into()));
    }
    let names = |settings: &[Setting<String>], reader: &mut Reader<'_>| {
        let mut names = Vec::new();
        for setting in settings {
            let Some(name) = reader.read(setting) else { continue };
            if name != "*" && !h1::valid_name(name.as_bytes()) {
                reader.problem(setting.at(), format!("`{name}` is no name of a header field"), None);
            }
            names.push(name);
        }
        (!names.is_empty()).then(|| names.join(", "))
    };
    let methods = methods(&file.methods, reader);
    let day = std::time::Duration::from_secs(86_400);
    Cors {
        origins: (!any).then_some(origins),
        methods: match methods.as_slice() {
            [] => "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned(),
            methods => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "),
        },
        headers: names(&file.headers, reader),
        expose: names(&file.expose, reader),
        credentials,
        max_age: reader
            .read_within(file.max_age.as_ref(), std::time::Duration::ZERO..=day, show_duration, day / 144)
            .as_secs(),
    }
}

fn read_origin_regex(text: &str, at: Position, reader: &mut Reader<'_>) -> Option<Origin> {
    let pattern = text.get(1..)?;
    match regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT).build() {
        Ok(regex) => Some(Origin::Matches(regex)),
        Err(error) => {
            bad_regex(pattern, &error, at, reader);
            None
        }
    }
}

fn read_error_page(file: &ErrorPageFile, reader: &mut Reader<'_>) -> Option<ErrorPage> {
    let mut statuses = Statuses::default();
    let at = file.status.first().map(Setting::at).unwrap_or_default();
    for setting in &file.status {
        let Some(text) = reader.read(setting) else { continue };
        if !statuses.add(&text) {
            let help = "write 404 or 5xx";
            reader.problem(setting.at(), format!("`{text}` is no status"), Some(help.into()));
        }
    }
    let shown = match (&file.body, &file.redirect) {
        (Some(body), None) => Shown::Body {
            fixed: Fixed {
                status: read_status(file.respond_status.as_ref(), 200, reader)?,
                content_type: read_content_type(file.content_type.as_ref(), HTML, reader),
                body: read_body(Some(body), reader)?,
            },
            keep_status: file.respond_status.is_none(),
        },
        (None, Some(to)) => Shown::Redirect(Redirect {
            status: StatusCode::FOUND,
            to: read_template(to, 0, reader)?,
            regex: None,
        }),
        _ => {
            reader.problem(at, "an error page is either a `body` or a `redirect`", None);
            return None;
        }
    };
    Some(ErrorPage { statuses, shown })
}
