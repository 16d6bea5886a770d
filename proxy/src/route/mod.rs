//! Which rule a request belongs to: host -> domain, path -> URL rule.
//!
//! A [`RouteTable`] is compiled once from the domains of one listener and asked once per request. It knows no
//! listener, pool or limit: a rule carries a number, its `target`, that means something to the caller only.
//! It reads no headers, changes nothing and allocates nothing unless one of several regular expressions
//! decides. The words and the precedence are those of nginx (`server_name`, `location`) and of Tencent CLB.
//!
//! # Domains
//!
//! | name | matches |
//! |---|---|
//! | `www.example.com`, `192.0.2.1`, `[2001:db8::1]` | that host |
//! | `*.example.com` | one or more labels in front, never `example.com` itself |
//! | `www.example.*` | one or more labels behind |
//! | `~^www\d+\.example\.com$` | a regular expression, case-insensitive, unanchored |
//! | `*`, or the flag `default` | every host that nothing else matches |
//!
//! The first of these decides: exact name, longest name with the wildcard in front, longest name with the
//! wildcard behind, first regular expression in file order, default domain. Inside the domain only its own
//! rules count: a domain without a matching rule answers 404 and never falls back to another domain.
//!
//! # URL rules
//!
//! | pattern | matches |
//! |---|---|
//! | `= /a` | that path |
//! | `^~ /a` | paths that begin so; regular expressions are not tried |
//! | `/a` | paths that begin so: `/a`, `/a/`, `/a/b` and, as in nginx, `/ab` |
//! | `~ re`, `~* re` | a regular expression, unanchored; with `*` case-insensitive |
//!
//! Order: exact; then the longest prefix if it is `^~`; then the first regular expression in file order; then
//! the longest prefix; else 404. Paths are matched as [`normalise_path`] writes them: `%20` stays `%20` also
//! for regular expressions.
//!
//! **Conditions.** The caller may refuse a rule for what else it asks of the request; then the search goes on with
//! the next one in this order.
//!
//! **The missing slash.** A path `/a` that does not end in `/` is redirected (301) to `/a/` if there is a rule
//! `/a/` (exact, `^~` or prefix) and none for `/a` itself (exact, `^~` or prefix). As in nginx this comes
//! before regular expressions and before shorter prefixes, so `/` does not swallow it.
//!
//! # Cost
//!
//! Exact names are found by one keyed hash (SipHash, so clients cannot choose collisions); wildcards, exact
//! paths and prefixes by one walk down a radix tree each. The cost follows the length of host and path and
//! not the number of domains and rules. Regular expressions of one domain are one automaton and take time
//! linear in the path.

mod domain;
mod host;
mod normalise;
mod tree;
mod url;

use regex::bytes::{RegexSet, RegexSetBuilder};

pub use self::host::normalise_host;
pub use self::normalise::{NormalPath, PathError, normalise_path};
use self::{domain::Names, url::Rules};

/// Largest compiled size in bytes of one regular expression a user may write.
pub(crate) const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// One domain as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainSpec {
    /// Its names, see the [module](self). May be empty only for the default domain.
    pub names: Vec<String>,
    /// Whether it also gets every host that nothing matches, like the name `*`.
    pub default: bool,
    /// Its URL rules in file order. Without any, every path is 404.
    pub rules: Vec<RuleSpec>,
}

/// One URL rule as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// The pattern with its operator, see the [module](self).
    pub pattern: String,
    /// Handed back when the rule is found; not looked at here.
    pub target: usize,
}

/// The compiled domains and URL rules of one listener.
#[derive(Debug)]
pub struct RouteTable {
    names: Names,
    /// One for each domain, in file order.
    rules: Box<[Rules]>,
}

impl RouteTable {
    /// Compiles the table from domains in file order.
    ///
    /// # Errors
    ///
    /// Every problem of every domain and rule, in file order where one place is at fault.
    pub fn build(domains: &[DomainSpec]) -> Result<Self, Vec<RouteError>> {
        let mut errors = Vec::new();
        let names = Names::build(domains, &mut errors);
        let rules = domains.iter().enumerate().map(|(i, d)| Rules::build(i, &d.rules, &mut errors)).collect();
        if errors.is_empty() { Ok(Self { names, rules }) } else { Err(errors) }
    }

    /// The rule for a request. `host` as [`normalise_host`] and `path` as [`normalise_path`] wrote them; a
    /// request without a host has the host `""`, which only the default domain takes. A rule whose target is not
    /// `accepted` is as good as not there, but a path that it stands for exactly is still not redirected to one with
    /// a slash.
    pub fn find(&self, host: &str, path: &str, accepted: impl Fn(usize) -> bool) -> Outcome {
        let Some(DomainHit { domain, matched }) = self.find_domain(host) else { return Outcome::NoDomain };
        let found = self.rules.get(domain).and_then(|rules| rules.find(path, accepted));
        let Some(hit) = found else { return Outcome::NoRule { domain, domain_match: matched } };
        let found = Found {
            domain,
            domain_match: matched,
            rule: hit.rule,
            rule_match: hit.matched,
            target: hit.target,
        };
        if hit.add_slash { Outcome::RedirectToSlash(found) } else { Outcome::Rule(found) }
    }

    /// The targets of all rules of a domain, in file order.
    pub fn targets(&self, domain: usize) -> &[usize] {
        self.rules.get(domain).map_or(&[], Rules::targets)
    }

    /// The domain alone, for decisions that are made before a path is known or that concern the whole domain.
    pub fn find_domain(&self, host: &str) -> Option<DomainHit> {
        self.names.find(host)
    }
}

/// The answer of [`RouteTable::find`]. Indices count from 0 in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forward by this rule.
    Rule(Found),
    /// Answer 301 to the same path with `/` appended (and the query, if any); the rule is the one waiting
    /// there.
    RedirectToSlash(Found),
    /// The domain has no rule for the path: 404.
    NoRule {
        /// Index of the domain.
        domain: usize,
        /// How its name matched.
        domain_match: DomainMatch,
    },
    /// No domain takes the host and there is no default: 404, or 421 where the connection was for another
    /// host.
    NoDomain,
}

/// A rule and how it was reached. Indices count from 0 in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of the domain.
    pub domain: usize,
    /// How its name matched.
    pub domain_match: DomainMatch,
    /// Index of the rule within the domain.
    pub rule: usize,
    /// How its pattern matched.
    pub rule_match: RuleMatch,
    /// The rule's [`RuleSpec::target`].
    pub target: usize,
}

/// A domain and how it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainHit {
    /// Index of the domain, from 0 in file order.
    pub domain: usize,
    /// How its name matched.
    pub matched: DomainMatch,
}

/// The kind of name that matched a host, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainMatch {
    /// `www.example.com`
    Exact,
    /// `*.example.com`
    LeadingWildcard,
    /// `www.example.*`
    TrailingWildcard,
    /// `~...`
    Regex,
    /// Nothing matched; this is the default domain.
    Default,
}

/// The kind of pattern that matched a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleMatch {
    /// `= /a`
    Exact,
    /// `^~ /a`
    FinalPrefix,
    /// `/a`
    Prefix,
    /// `~ re` or `~* re`
    Regex,
}

/// What is wrong with the configured domains. Indices count from 0 in file order; messages count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A name that cannot be used.
    #[error("domain name `{text}`: {why}")]
    BadName {
        /// Index of the domain.
        domain: usize,
        /// Index of the name within the domain.
        name: usize,
        /// The name as written.
        text: String,
        /// The reason and what to write instead.
        why: String,
    },
    /// A name that stands twice, in one domain or in two.
    #[error(
        "domain name `{text}` of domain {} is the same as name {} of domain {}: keep one of them",
        second.0 + 1, first.1 + 1, first.0 + 1
    )]
    DuplicateName {
        /// The name as written the second time.
        text: String,
        /// Index of the domain and of the name within it, where it stands first.
        first: (usize, usize),
        /// The same, where it stands again.
        second: (usize, usize),
    },
    /// A second default domain.
    #[error("domain {} is a default domain and so is domain {}: keep `default` or `*` on one of them", second + 1, first + 1)]
    TwoDefaults {
        /// Index of the first.
        first: usize,
        /// Index of the second.
        second: usize,
    },
    /// A domain that no request can reach.
    #[error("domain {} has no name: give it one, or make it the default domain", domain + 1)]
    NoName {
        /// Index of the domain.
        domain: usize,
    },
    /// A URL pattern that cannot be used.
    #[error("URL `{text}`: {why}")]
    BadRule {
        /// Index of the domain.
        domain: usize,
        /// Index of the rule within the domain.
        rule: usize,
        /// The pattern as written.
        text: String,
        /// The reason and what to write instead.
        why: String,
    },
    /// A URL pattern that stands twice in one domain; `/a` and `^~ /a` count as the same.
    #[error("URL `{text}` (rule {}) is the same as rule {} of the domain: keep one of them", second + 1, first + 1)]
    DuplicateRule {
        /// Index of the domain.
        domain: usize,
        /// The pattern as written the second time.
        text: String,
        /// Index of the rule where it stands first.
        first: usize,
        /// Index of the rule where it stands again.
        second: usize,
    },
    /// Regular expressions that compile one by one but not together.
    #[error("the regular expressions of {place} are too large together: use fewer or simpler ones")]
    RegexesTooLarge {
        /// What they belong to, in words.
        place: String,
    },
}

/// Regular expressions in file order, each with the index of what it stands for, matched as one.
#[derive(Debug, Default)]
struct Regexes {
    set: Option<RegexSet>,
    values: Box<[u32]>,
}

impl Regexes {
    /// `patterns` come from [`parse_regex`].
    fn build(patterns: Vec<(String, u32)>, place: impl FnOnce() -> String) -> Result<Self, RouteError> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let texts: Vec<_> = patterns.iter().map(|(text, _)| text.as_str()).collect();
        let set = regex_set(&texts, false).map_err(|_| RouteError::RegexesTooLarge { place: place() })?;
        Ok(Self { set: Some(set), values: patterns.into_iter().map(|(_, value)| value).collect() })
    }

    /// The value of the first that matches.
    fn first_match(&self, text: &str) -> Option<usize> {
        self.first_accepted(text, |_| true)
    }

    /// The value of the first that matches and is accepted.
    fn first_accepted(&self, text: &str, accepted: impl Fn(usize) -> bool) -> Option<usize> {
        let set = self.set.as_ref()?;
        // Which ones match has to be written down somewhere, so ask first whether any does.
        if !set.is_match(text.as_bytes()) {
            return None;
        }
        let value = |index: usize| self.values.get(index).map(|value| *value as usize);
        if set.len() == 1 {
            return value(0).filter(|value| accepted(*value));
        }
        set.matches(text.as_bytes()).iter().filter_map(value).find(|value| accepted(*value))
    }
}

/// Reads one regular expression. What it returns goes into [`Regexes`]; the error says why it cannot be used.
fn parse_regex(pattern: &str, ignore_case: bool) -> Result<String, String> {
    if pattern.is_empty() {
        return Err("the regular expression is empty: write one, or leave the entry out".to_owned());
    }
    match regex_set(&[pattern], ignore_case) {
        // All expressions of a set have the same options, so the one that may differ is written into the
        // pattern.
        Ok(_) => Ok(if ignore_case { format!("(?i){pattern}") } else { pattern.to_owned() }),
        Err(regex::Error::CompiledTooBig(_)) => {
            Err("the regular expression is too large: use smaller repetition counts".to_owned())
        }
        Err(error) if error.to_string().ends_with("not supported") => {
            Err(format!("{error}, because it has no bound on time: write several entries instead"))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn regex_set(patterns: &[&str], ignore_case: bool) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns)
        // Hosts and paths are ASCII here, and without Unicode classes `\d` and `\w` are small.
        .unicode(false)
        .case_insensitive(ignore_case)
        .size_limit(REGEX_SIZE_LIMIT.saturating_mul(patterns.len()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(domains: &[(&[&str], bool, &[&str])]) -> RouteTable {
        let mut target = 100;
        let mut domain = |(names, default, rules): &(&[&str], bool, &[&str])| DomainSpec {
            names: names.iter().map(|n| n.to_string()).collect(),
            default: *default,
            rules: rules
                .iter()
                .map(|pattern| {
                    target += 1;
                    RuleSpec { pattern: pattern.to_string(), target }
                })
                .collect(),
        };
        RouteTable::build(&domains.iter().map(&mut domain).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn says_which_domain_rule_and_target_matched() {
        let table = table(&[
            (&["a.test", "*.a.test"], false, &["/", "= /x", "/dir/"]),
            (&["b.test"], true, &["~* \\.PHP$", "^~ /static/"]),
        ]);
        let found = |domain, domain_match, rule, rule_match, target| Found {
            domain,
            domain_match,
            rule,
            rule_match,
            target,
        };
        use DomainMatch as D;
        use RuleMatch as R;
        for (host, path, wanted) in [
            ("a.test", "/x", Outcome::Rule(found(0, D::Exact, 1, R::Exact, 102))),
            ("w.a.test", "/y", Outcome::Rule(found(0, D::LeadingWildcard, 0, R::Prefix, 101))),
            ("a.test", "/dir", Outcome::RedirectToSlash(found(0, D::Exact, 2, R::Prefix, 103))),
            ("b.test", "/a.php", Outcome::Rule(found(1, D::Exact, 0, R::Regex, 104))),
            ("c.test", "/static/a.php", Outcome::Rule(found(1, D::Default, 1, R::FinalPrefix, 105))),
            // No fallback to another domain or to the default's rules.
            ("b.test", "/", Outcome::NoRule { domain: 1, domain_match: D::Exact }),
            ("", "/a.php", Outcome::Rule(found(1, D::Default, 0, R::Regex, 104))),
        ] {
            assert_eq!(table.find(host, path, |_| true), wanted, "{host}{path}");
        }
    }

    #[test]
    fn without_a_default_an_unknown_host_has_no_domain() {
        let table = table(&[(&["a.test", "~.*"], false, &["/"])]);
        assert_eq!(table.find("", "/", |_| true), Outcome::NoDomain);
        let empty = RouteTable::build(&[]).unwrap();
        assert_eq!(empty.find("a.test", "/", |_| true), Outcome::NoDomain);
    }

    #[test]
    fn all_problems_come_at_once() {
        let rule = |pattern: &str| RuleSpec { pattern: pattern.to_owned(), target: 0 };
        let errors = RouteTable::build(&[
            DomainSpec { names: vec!["bad name".into()], default: true, rules: vec![rule("x")] },
            DomainSpec { names: vec!["*".into()], default: false, rules: vec![rule("/"), rule("^~ /")] },
            DomainSpec::default(),
        ])
        .unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:#?}");
        assert!(matches!(errors[0], RouteError::BadName { domain: 0, name: 0, .. }));
        assert_eq!(errors[1], RouteError::TwoDefaults { first: 0, second: 1 });
        assert_eq!(
            errors[1].to_string(),
            "domain 2 is a default domain and so is domain 1: keep `default` or `*` on one of them"
        );
        assert_eq!(errors[2], RouteError::NoName { domain: 2 });
        assert!(matches!(errors[3], RouteError::BadRule { domain: 0, rule: 0, .. }));
        assert!(matches!(errors[4], RouteError::DuplicateRule { domain: 1, first: 0, second: 1, .. }));
    }
}
