//! Host -> domain, in the order of nginx's `server_name`.
//!
//! It decides which domain a host belongs to and refuses names that cannot work. It never looks at a path.
//! The precedence and the spelling of names are in the [parent](super).

use std::collections::HashMap;

use super::tree::Tree;
use super::{DomainHit, DomainMatch, DomainSpec, Regexes, RouteError, normalise_host, parse_regex};

/// Longest name that is not a regular expression, in bytes: the limit of Tencent CLB.
const MAX_NAME: usize = 80;

/// Every name of a listener.
#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<Box<str>, u32>,
    /// `*.example.com` is stored as `moc.elpmaxe.`, so that the host, read backwards, begins with it.
    leading: Tree<u32>,
    /// `www.example.*` is stored as `www.example.`
    trailing: Tree<u32>,
    regexes: Regexes,
    default: Option<u32>,
}

impl Names {
    /// Compiles the names of all domains, adding what is wrong to `errors`.
    pub(super) fn build(domains: &[DomainSpec], errors: &mut Vec<RouteError>) -> Self {
        let mut exact = HashMap::new();
        let (mut leading, mut trailing, mut regexes) = (Vec::new(), Vec::new(), Vec::new());
        let mut default: Option<usize> = None;
        let mut seen = HashMap::new();
        for (index, domain) in domains.iter().enumerate() {
            let value = index as u32;
            let mut is_default = domain.default;
            if domain.names.is_empty() && !is_default {
                errors.push(RouteError::NoName { domain: index });
            }
            for (name, text) in domain.names.iter().enumerate() {
                let parsed = match Name::parse(text) {
                    Ok(Name::Default) => {
                        is_default = true;
                        continue;
                    }
                    Ok(parsed) => parsed,
                    Err(why) => {
                        errors.push(RouteError::BadName { domain: index, name, text: text.clone(), why });
                        continue;
                    }
                };
                if let Some(first) = seen.insert(parsed.clone(), (index, name)) {
                    seen.insert(parsed, first);
                    errors.push(RouteError::DuplicateName {
                        text: text.clone(),
                        first,
                        second: (index, name),
                    });
                    continue;
                }
                match parsed {
                    Name::Exact(name) => drop(exact.insert(name.into_boxed_str(), value)),
                    Name::Leading(rest) => leading.push((rest.bytes().rev().collect(), value)),
                    Name::Trailing(start) => trailing.push((start.into_bytes(), value)),
                    Name::Regex(regex) => regexes.push((regex, value)),
                    Name::Default => {}
                }
            }
            match default {
                Some(first) if is_default => errors.push(RouteError::TwoDefaults { first, second: index }),
                None if is_default => default = Some(index),
                _ => {}
            }
        }
        let regexes = Regexes::build(regexes, || "the domain names".to_owned()).unwrap_or_else(|error| {
            errors.push(error);
            Regexes::default()
        });
        Self {
            exact,
            leading: Tree::new(leading),
            trailing: Tree::new(trailing),
            regexes,
            default: default.map(|index| index as u32),
        }
    }

    /// The domain of a normal host.
    pub(super) fn find(&self, host: &str) -> Option<DomainHit> {
        let hit = |domain: usize, matched| Some(DomainHit { domain, matched });
        if !host.is_empty() {
            if let Some(domain) = self.exact.get(host) {
                return hit(*domain as usize, DomainMatch::Exact);
            }
            if let Some(domain) = longest(&self.leading, host.bytes().rev()) {
                return hit(domain, DomainMatch::LeadingWildcard);
            }
            if let Some(domain) = longest(&self.trailing, host.bytes()) {
                return hit(domain, DomainMatch::TrailingWildcard);
            }
            if let Some(domain) = self.regexes.first_match(host) {
                return hit(domain, DomainMatch::Regex);
            }
        }
        hit(self.default? as usize, DomainMatch::Default)
    }
}

/// The longest key the host begins with. A key ends with a dot and no label of a normal host is empty, so
/// there is always something left for the wildcard.
fn longest(tree: &Tree<u32>, host: impl Iterator<Item = u8>) -> Option<usize> {
    let mut last = None;
    tree.walk(host, |domain, _| last = Some(domain as usize));
    last
}

/// One name, read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Exact(String),
    /// What follows the `*`: `.example.com`
    Leading(String),
    /// What precedes the `*`: `www.example.`
    Trailing(String),
    Regex(String),
    Default,
}

impl Name {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Default);
        }
        if let Some(regex) = text.strip_prefix('~') {
            if regex.starts_with(['~', '*']) {
                return Err("write one `~`; names are case-insensitive without `~*`".to_owned());
            }
            return parse_regex(regex.trim(), true).map(Self::Regex);
        }
        if text.is_empty() {
            return Err("it is empty: write a name, or `*` for the default domain".to_owned());
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > MAX_NAME {
            return Err(format!("it has {} characters and at most {MAX_NAME} are allowed", name.len()));
        }
        if name.starts_with('[') {
            return match normalise_host(&name) {
                Some(host) if name.ends_with(']') => Ok(Self::Exact(host.into_owned())),
                _ => Err("it is no IPv6 address in brackets: write it like `[2001:db8::1]`".to_owned()),
            };
        }
        check_characters(&name)?;
        if let Some(rest) = name.strip_prefix("*.") {
            check_labels(rest)?;
            return Ok(Self::Leading(format!(".{rest}")));
        }
        if let Some(start) = name.strip_suffix(".*") {
            check_labels(start)?;
            return Ok(Self::Trailing(format!("{start}.")));
        }
        check_labels(&name)?;
        Ok(Self::Exact(name))
    }
}

fn check_characters(name: &str) -> Result<(), String> {
    if name.contains(':') {
        return Err(
            "it holds `:`: leave the scheme and the port out, and put an IPv6 address in brackets".to_owned()
        );
    }
    if !name.is_ascii() {
        return Err("it holds letters outside ASCII: write the form with `xn--`".to_owned());
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_*".contains(c);
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "it holds {bad:?}: use letters, digits, `.`, `-` and `_`, or a regular expression after `~`"
        ));
    }
    if name.starts_with('_') {
        return Err("it starts with `_`, which no host name does".to_owned());
    }
    Ok(())
}

/// Checks what is left of a name without its wildcard label.
fn check_labels(name: &str) -> Result<(), String> {
    if name.contains('*') {
        return Err("`*` may stand once, alone as the first or last label: write `*.example.com` or \
                    `www.example.*`, or a regular expression after `~`"
            .to_owned());
    }
    if let Some(rest) = name.strip_prefix('.').filter(|rest| !rest.is_empty()) {
        return Err(format!("it starts with a dot: write both `{rest}` and `*.{rest}`"));
    }
    if name.split('.').any(str::is_empty) {
        return Err("it has an empty label: write one dot between labels".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn specs(domains: &[Vec<String>]) -> Vec<DomainSpec> {
        domains.iter().map(|names| DomainSpec { names: names.clone(), ..DomainSpec::default() }).collect()
    }

    fn build(domains: &[&[&str]]) -> Result<Names, Vec<RouteError>> {
        let domains: Vec<_> =
            domains.iter().map(|names| names.iter().map(|n| n.to_string()).collect()).collect();
        let mut errors = Vec::new();
        let names = Names::build(&specs(&domains), &mut errors);
        if errors.is_empty() { Ok(names) } else { Err(errors) }
    }

    #[test]
    fn the_order_of_nginx() {
        use DomainMatch::*;
        let names = build(&[
            &["*"],
            &["~^mail\\d+\\.example\\.(com|org)$", "~example"],
            &["~^mail1"],
            &["mail.*"],
            &["mail.example.*"],
            &["*.com", "*.example.com"],
            &["*.deep.example.com"],
            &["example.com", "WWW.Example.com", "192.0.2.1", "[2001:DB8::1]"],
            &["mail.example.com"],
        ])
        .unwrap();
        for (host, domain, matched) in [
            ("mail.example.com", 8, Exact),
            ("www.example.com", 7, Exact),
            ("example.com", 7, Exact),
            ("192.0.2.1", 7, Exact),
            ("[2001:db8::1]", 7, Exact),
            ("a.example.com", 5, LeadingWildcard),
            ("a.b.example.com", 5, LeadingWildcard),
            ("deep.example.com", 5, LeadingWildcard),
            ("a.deep.example.com", 6, LeadingWildcard),
            ("a.b.deep.example.com", 6, LeadingWildcard),
            ("other.com", 5, LeadingWildcard),
            // The wildcard in front wins over the longer one behind.
            ("mail.example.co.com", 5, LeadingWildcard),
            ("mail.example.net", 4, TrailingWildcard),
            ("mail.example.co.uk", 4, TrailingWildcard),
            ("mail.net", 3, TrailingWildcard),
            ("mail1.example.org", 1, Regex),
            ("mail1.net", 2, Regex),
            ("myexample.net", 1, Regex),
            ("com", 0, Default),
            ("mail", 0, Default),
            ("xmail.net", 0, Default),
            ("", 0, Default),
        ] {
            assert_eq!(names.find(host), Some(DomainHit { domain, matched }), "{host}");
        }
    }

    #[test]
    fn regexes_ignore_case_and_keep_all_their_alternatives() {
        let names = build(&[&["~^A\\.test$|^B\\.test$"], &["~^\\w+\\.test$"]]).unwrap();
        for (host, domain) in
            [("a.test", Some(0)), ("b.test", Some(0)), ("c.test", Some(1)), ("c.testx", None)]
        {
            assert_eq!(names.find(host).map(|hit| hit.domain), domain, "{host}");
        }
    }

    #[test]
    fn refuses_names_that_cannot_work() {
        for (name, hint) in [
            ("", "empty"),
            (".", "empty label"),
            (".example.com", "write both `example.com` and `*.example.com`"),
            ("a..b", "empty label"),
            ("*.", "once"),
            ("**", "once"),
            ("*.*", "once"),
            ("*.example.*", "once"),
            ("www*.example.com", "once"),
            ("www.*.com", "once"),
            ("*example.com", "once"),
            ("_dmarc.example.com", "starts with `_`"),
            ("example.com:443", "port"),
            ("https://example.com", "scheme"),
            ("2001:db8::1", "brackets"),
            ("[2001:db8::1]:443", "brackets"),
            ("[x]", "brackets"),
            ("a b", "' '"),
            ("bücher.example", "xn--"),
            ("~", "empty"),
            ("~~^a", "one `~`"),
            ("~*^a", "one `~`"),
            ("~(a", "unclosed group"),
            ("~(?=a)", "look-around"),
            ("~(a{1000}){1000}", "too large"),
        ] {
            let errors = build(&[&["ok.test", name]]).unwrap_err();
            let [RouteError::BadName { domain: 0, name: 1, why, .. }] = errors.as_slice() else {
                panic!("{name}: {errors:?}")
            };
            assert!(why.contains(hint), "{name}: {why}");
        }
        let longest = "a".repeat(MAX_NAME);
        assert!(build(&[&[&longest]]).is_ok());
        assert!(build(&[&[&format!("{longest}a")]]).is_err());
    }

    #[test]
    fn duplicates_name_both_places() {
        let errors = build(&[&["a.test", "*.a.test"], &["b.test", "A.test."], &["*.A.test"]]).unwrap_err();
        assert_eq!(
            errors,
            [
                RouteError::DuplicateName { text: "A.test.".into(), first: (0, 0), second: (1, 1) },
                RouteError::DuplicateName { text: "*.A.test".into(), first: (0, 1), second: (2, 0) },
            ]
        );
        assert_eq!(
            errors[0].to_string(),
            "domain name `A.test.` of domain 2 is the same as name 1 of domain 1: keep one of them"
        );
        // The same letters as different kinds are different names.
        assert!(build(&[&["a.test", "~a.test"], &["*.a.test", "a.test.*"]]).is_ok());
    }

    #[test]
    fn ten_thousand_names_cost_what_ten_do() {
        let visits = |count: usize| {
            let keys = (0..count).map(|n| format!("*.tenant{n:05}.example.com")).collect::<Vec<_>>();
            let mut errors = Vec::new();
            let names = Names::build(&specs(&[keys]), &mut errors);
            let host = "www.tenant00007.example.com";
            assert_eq!(names.find(host).unwrap().matched, DomainMatch::LeadingWildcard);
            names.leading.walk(host.bytes().rev(), |_, _| {})
        };
        assert!(visits(10) <= 8);
        assert!(visits(10_000) <= 8);
    }

    /// What nginx documents, by looking at every name.
    fn scan(domains: &[Vec<String>], host: &str) -> Option<usize> {
        let names =
            || domains.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |n| (i, n.as_str())));
        let exact = names().find(|(_, name)| *name == host);
        let leading = names()
            .filter(|(_, n)| {
                n.strip_prefix('*').is_some_and(|rest| host.len() > rest.len() && host.ends_with(rest))
            })
            .max_by_key(|(_, n)| n.len());
        let trailing = names()
            .filter(|(_, n)| n.strip_suffix('*').is_some_and(|s| host.len() > s.len() && host.starts_with(s)))
            .max_by_key(|(_, n)| n.len());
        let regex = names().find(|(_, n)| {
            n.strip_prefix('~').is_some_and(|re| regex::Regex::new(re).unwrap().is_match(host))
        });
        exact.or(leading).or(trailing).or(regex).map(|(domain, _)| domain)
    }

    fn host() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab]{1,2}", 1..5).prop_map(|labels| labels.join("."))
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            names in prop::collection::btree_set(
                prop_oneof![
                    3 => host(),
                    3 => host().prop_map(|h| format!("*.{h}")),
                    3 => host().prop_map(|h| format!("{h}.*")),
                    1 => host().prop_map(|h| format!("~^{h}")),
                    1 => host().prop_map(|h| format!("~{h}$")),
                ],
                0..12,
            ),
            hosts in prop::collection::vec(host(), 1..20),
        ) {
            let domains: Vec<_> = names.into_iter().map(|name| vec![name]).collect();
            let mut errors = Vec::new();
            let table = Names::build(&specs(&domains), &mut errors);
            prop_assert_eq!(errors, []);
            for host in hosts {
                prop_assert_eq!(table.find(&host).map(|hit| hit.domain), scan(&domains, &host), "{}", host);
            }
        }
    }
}
