//! What the RS is asked for, where that is not what the client asked for.

use regex::Regex;

use super::template::{Escape, Facts, Template};
use crate::route::{PathError, normalise_path};

/// A change of the target.
#[derive(Debug, Clone)]
pub enum Rewrite {
    /// The part of the path that the rule's URL matched is replaced by this.
    Prefix {
        /// Bytes that are replaced.
        length: usize,
        /// What stands there instead.
        with: String,
    },
    /// The whole path, and the query where the text has a `?`. As in nginx the query of the request follows behind it,
    /// unless the text ends in `?`.
    Path {
        /// What the captures are of; matched against the normalised path. Where it does not match, nothing changes.
        regex: Option<Regex>,
        /// The new path.
        to: Template,
    },
}

impl Rewrite {
    /// The new target, normalised; none where nothing changes.
    ///
    /// # Errors
    /// Where the new path is none.
    pub fn target(&self, facts: &Facts<'_>) -> Result<Option<String>, PathError> {
        let asked = facts.asked.split_once('?').map(|(_, query)| query);
        match self {
            Self::Prefix { length, with } => {
                let (matched, rest) = facts.path.split_at_checked(*length).unwrap_or((facts.path, ""));
                let path = match (with.strip_suffix('/'), rest.starts_with('/')) {
                    // One slash where both sides have one, none lost that was replaced.
                    (Some(with), true) => format!("{with}{rest}"),
                    (None, false) if !rest.is_empty() && matched.ends_with('/') => format!("{with}/{rest}"),
                    _ => format!("{with}{rest}"),
                };
                join(&path, asked).map(Some)
            }
            Self::Path { regex, to } => {
                let captures = match regex {
                    None => None,
                    Some(regex) => match regex.captures(facts.path) {
                        None => return Ok(None),
                        found => found,
                    },
                };
                let text = to.render(facts, captures.as_ref(), Escape::Url);
                let text = String::from_utf8(text).map_err(|_| PathError::BadByte)?;
                let (path, query) = match text.split_once('?') {
                    None => (text.as_str(), asked.map(str::to_owned)),
                    Some((path, "")) => (path, None),
                    Some((path, query)) => {
                        let more = asked.map(|asked| format!("&{asked}")).unwrap_or_default();
                        (path, Some(format!("{query}{more}")))
                    }
                };
                join(path, query.as_deref()).map(Some)
            }
        }
    }
}

fn join(path: &str, query: Option<&str>) -> Result<String, PathError> {
    let normal = normalise_path(path)?;
    Ok(match query {
        Some(query) => format!("{}?{query}", normal.forwarded()),
        None => normal.forwarded().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::conditions::tests::head;

    fn target(rewrite: &Rewrite, asked: &str) -> Result<Option<String>, PathError> {
        let head = head("GET", asked, "");
        let facts = Facts {
            head: &head,
            asked,
            host: "a.test",
            path: asked.split('?').next().unwrap(),
            client: [127, 0, 0, 1].into(),
            peer: ([127, 0, 0, 1], 1).into(),
            https: false,
            sni: None,
            certificate: None,
            user: None,
            answered: None,
        };
        rewrite.target(&facts)
    }

    #[test]
    fn a_prefix_is_replaced() {
        for (url, with, asked, expected) in [
            ("/api/", "/", "/api/v1?x=1", "/v1?x=1"),
            ("/api", "/", "/api/v1", "/v1"),
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/apis", "/s"),
            ("/", "/app", "/x", "/app/x"),
            ("/", "/app/", "/x", "/app/x"),
            ("/a/", "/b", "/a/c", "/b/c"),
            ("/a", "/b", "/ac", "/bc"),
            ("/a", "/b", "/a", "/b"),
        ] {
            let rewrite = Rewrite::Prefix { length: url.len(), with: with.into() };
            assert_eq!(target(&rewrite, asked).unwrap().as_deref(), Some(expected), "{url} {with} {asked}");
        }
    }

    #[test]
    fn a_path_is_made_of_captures_and_variables() {
        for (regex, to, asked, expected) in [
            (Some("^/u/([0-9]+)$"), "/users/$1", "/u/7?x=1", Some("/users/7?x=1")),
            (Some("^/u/([0-9]+)$"), "/users?id=$1", "/u/7?x=1", Some("/users?id=7&x=1")),
            (Some("^/u/([0-9]+)$"), "/users?id=$1", "/u/7", Some("/users?id=7")),
            (Some("^/u/([0-9]+)$"), "/users?", "/u/7?x=1", Some("/users")),
            (Some("^/u/([0-9]+)$"), "/users/$1", "/v/7", None),
            (None, "/index.html", "/any/where?q", Some("/index.html?q")),
            (None, "/x/$arg_p", "/?p=../etc", Some("/etc?p=../etc")),
        ] {
            let regex: Option<Regex> = regex.map(|text| Regex::new(text).unwrap());
            let captures = regex.as_ref().map_or(0, |regex| regex.captures_len() - 1);
            let rewrite = Rewrite::Path { to: Template::parse(to, captures).unwrap(), regex };
            assert_eq!(target(&rewrite, asked).unwrap().as_deref(), expected, "{to} {asked}");
        }
        let above = Rewrite::Path { to: Template::parse("/x/$arg_p", 0).unwrap(), regex: None };
        assert_eq!(target(&above, "/?p=../../etc"), Err(PathError::AboveRoot));
    }
}
