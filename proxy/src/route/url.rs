//! Path -> URL rule within one domain, in the order of nginx's `location`.
//!
//! It decides which rule a path belongs to and whether only a slash is missing, and refuses patterns that
//! cannot work. It never looks at host, query or method. The precedence is in the [parent](super).

use std::collections::HashMap;

use super::tree::Tree;
use super::{Regexes, RouteError, RuleMatch, RuleSpec, normalise_path, parse_regex};

/// Longest pattern in bytes. Tencent CLB allows 200.
const MAX_PATTERN: usize = 1024;

/// Every rule of one domain.
#[derive(Debug)]
pub(super) struct Rules {
    /// The target of `/` where that is the only rule, as most domains have it: with thousands of them each walk
    /// down a tree would be one through cold memory.
    everything: Option<usize>,
    paths: Tree<Slot>,
    regexes: Regexes,
    targets: Box<[usize]>,
}

/// The rules that stand at one path.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    exact: Option<u32>,
    prefix: Option<Prefix>,
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    rule: u32,
    /// Whether it is `^~`.
    is_final: bool,
}

/// The rule a path belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RuleHit {
    pub(super) rule: usize,
    pub(super) matched: RuleMatch,
    pub(super) target: usize,
    /// The rule matches only after a slash has been added to the path.
    pub(super) add_slash: bool,
}

impl Rules {
    /// Compiles the rules of the domain with this index, adding what is wrong to `errors`.
    pub(super) fn build(domain: usize, rules: &[RuleSpec], errors: &mut Vec<RouteError>) -> Self {
        let mut slots: HashMap<String, Slot> = HashMap::new();
        let mut regexes = Vec::new();
        let mut seen = HashMap::new();
        for (index, RuleSpec { pattern: text, .. }) in rules.iter().enumerate() {
            let pattern = match Pattern::parse(text) {
                Ok(pattern) => pattern,
                Err(why) => {
                    errors.push(RouteError::BadRule { domain, rule: index, text: text.clone(), why });
                    continue;
                }
            };
            let first = *seen.entry(pattern.identity()).or_insert(index);
            if first != index {
                errors.push(RouteError::DuplicateRule { domain, text: text.clone(), first, second: index });
                continue;
            }
            let rule = index as u32;
            match pattern {
                Pattern::Exact(path) => slots.entry(path).or_default().exact = Some(rule),
                Pattern::Prefix { path, is_final } => {
                    slots.entry(path).or_default().prefix = Some(Prefix { rule, is_final });
                }
                Pattern::Regex(regex) => regexes.push((regex, rule)),
            }
        }
        let regexes = Regexes::build(regexes, || format!("domain {}", domain + 1)).unwrap_or_else(|error| {
            errors.push(error);
            Regexes::default()
        });
        let everything = match rules {
            [only]
                if slots.get("/").is_some_and(|slot| slot.prefix.is_some_and(|prefix| !prefix.is_final)) =>
            {
                Some(only.target)
            }
            _ => None,
        };
        Self {
            everything,
            paths: Tree::new(slots.into_iter().map(|(path, slot)| (path.into_bytes(), slot)).collect()),
            regexes,
            targets: rules.iter().map(|rule| rule.target).collect(),
        }
    }

    /// The targets in file order.
    pub(super) fn targets(&self) -> &[usize] {
        &self.targets
    }

    /// The rule of a normal path, among those whose targets are accepted.
    pub(super) fn find(&self, path: &str, accepted: impl Fn(usize) -> bool) -> Option<RuleHit> {
        if let Some(target) = self.everything {
            let hit = RuleHit { rule: 0, matched: RuleMatch::Prefix, target, add_slash: false };
            return accepted(target).then_some(hit);
        }
        let usable = |rule: u32| self.targets.get(rule as usize).is_some_and(|target| accepted(*target));
        let (mut here, mut with_slash) = (Slot::default(), Slot::default());
        let mut longest = None;
        // One walk answers three questions: what stands at the path, what is its longest prefix, and what
        // would stand there with a slash added.
        let slash = if path.ends_with('/') { None } else { Some(b'/') };
        self.paths.walk(path.bytes().chain(slash), |slot, depth| {
            if depth > path.len() {
                with_slash = slot;
                return;
            }
            if depth == path.len() {
                here = slot;
            }
            longest = slot.prefix.filter(|prefix| usable(prefix.rule)).or(longest);
        });
        if let Some(rule) = here.exact.filter(|rule| usable(*rule)) {
            return self.hit(rule as usize, RuleMatch::Exact, false);
        }
        if here.prefix.is_none() && here.exact.is_none() {
            if let Some(rule) = with_slash.exact.filter(|rule| usable(*rule)) {
                return self.hit(rule as usize, RuleMatch::Exact, true);
            }
            if let Some(prefix) = with_slash.prefix.filter(|prefix| usable(prefix.rule)) {
                return self.hit(prefix.rule as usize, prefix.matched(), true);
            }
        }
        if let Some(prefix) = longest.filter(|prefix| prefix.is_final) {
            return self.hit(prefix.rule as usize, RuleMatch::FinalPrefix, false);
        }
        if let Some(rule) = self.regexes.first_accepted(path, |rule| usable(rule as u32)) {
            return self.hit(rule, RuleMatch::Regex, false);
        }
        self.hit(longest?.rule as usize, RuleMatch::Prefix, false)
    }

    fn hit(&self, rule: usize, matched: RuleMatch, add_slash: bool) -> Option<RuleHit> {
        Some(RuleHit { rule, matched, target: *self.targets.get(rule)?, add_slash })
    }
}

impl Prefix {
    fn matched(self) -> RuleMatch {
        if self.is_final { RuleMatch::FinalPrefix } else { RuleMatch::Prefix }
    }
}

/// One pattern, read.
#[derive(Debug)]
enum Pattern {
    Exact(String),
    Prefix { path: String, is_final: bool },
    Regex(String),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN {
            return Err(format!("it has {} characters and at most {MAX_PATTERN} are allowed", text.len()));
        }
        let text = text.trim();
        if let Some(path) = text.strip_prefix('=') {
            return Ok(Self::Exact(check_exact(path.trim_start())?));
        }
        if let Some(path) = text.strip_prefix("^~") {
            return Ok(Self::Prefix { path: check_prefix(path.trim_start())?, is_final: true });
        }
        if let Some(regex) = text.strip_prefix("~*") {
            return parse_regex(regex.trim_start(), true).map(Self::Regex);
        }
        if let Some(regex) = text.strip_prefix('~') {
            return parse_regex(regex.trim_start(), false).map(Self::Regex);
        }
        Ok(Self::Prefix { path: check_prefix(text)?, is_final: false })
    }

    /// What two patterns must not have in common: of `/a` and `^~ /a` one could never match.
    fn identity(&self) -> (char, String) {
        match self {
            Self::Exact(path) => ('=', path.clone()),
            Self::Prefix { path, .. } => ('/', path.clone()),
            Self::Regex(regex) => ('~', regex.clone()),
        }
    }
}

fn check_exact(path: &str) -> Result<String, String> {
    check_characters(path)?;
    let normal = normalise_path(path).map_err(|error| error.to_string())?;
    check_normal(path, normal.as_str())
}

/// A prefix may end in the middle of a segment: `/.` is a good one although the path `/.` has another normal
/// form.
fn check_prefix(path: &str) -> Result<String, String> {
    check_characters(path)?;
    let whole = format!("{path}x");
    let normal = normalise_path(&whole).map_err(|error| error.to_string())?;
    check_normal(path, normal.as_str().strip_suffix('x').unwrap_or(path))
}

fn check_normal(path: &str, normal: &str) -> Result<String, String> {
    if path == normal {
        Ok(path.to_owned())
    } else {
        Err(format!("no request has this path, because paths are normalised before: write `{normal}`"))
    }
}

fn check_characters(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("it starts neither with `/` nor with `= /`, `^~ /`, `~` or `~*`: write it like `/path`"
            .to_owned());
    }
    match path.chars().find(|c| !c.is_ascii_graphic() || "?#".contains(*c)) {
        Some(bad @ ('?' | '#')) => {
            Err(format!("it holds {bad:?}: rules match the path alone, leave the rest out"))
        }
        Some(bad) => Err(format!("it holds {bad:?}: write it percent-encoded, as it stands in a request")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(patterns: &[&str]) -> Result<Rules, Vec<RouteError>> {
        let specs: Vec<_> = patterns
            .iter()
            .enumerate()
            .map(|(i, pattern)| RuleSpec { pattern: pattern.to_string(), target: 1000 + i })
            .collect();
        let mut errors = Vec::new();
        let rules = Rules::build(3, &specs, &mut errors);
        if errors.is_empty() { Ok(rules) } else { Err(errors) }
    }

    /// Pattern, or pattern and "+/" for a redirect.
    fn find(patterns: &[&str], path: &str) -> Option<String> {
        let hit = build(patterns).unwrap().find(path, |_| true)?;
        assert_eq!(hit.target, 1000 + hit.rule);
        Some(format!("{}{}", patterns[hit.rule], if hit.add_slash { " +/" } else { "" }))
    }

    #[test]
    fn the_examples_of_nginx_and_clb() {
        // nginx, "location": the configurations A to E.
        let nginx = ["= /", "/", "/documents/", "^~ /images/", "~* \\.(gif|jpg|jpeg)$"];
        for (path, wanted) in [
            ("/", "= /"),
            ("/index.html", "/"),
            ("/documents/document.html", "/documents/"),
            ("/images/1.gif", "^~ /images/"),
            ("/documents/1.jpg", "~* \\.(gif|jpg|jpeg)$"),
            ("/documents/1.JPG", "~* \\.(gif|jpg|jpeg)$"),
        ] {
            assert_eq!(find(&nginx, path).as_deref(), Some(wanted), "{path}");
        }
        let clb = ["/", "/test1/image/", "= /test1/image/index1.html"];
        for (path, wanted) in [
            ("/test1/image/index1.html", "= /test1/image/index1.html"),
            ("/test1/image/index2.html", "/test1/image/"),
            ("/test1/index1.html", "/"),
        ] {
            assert_eq!(find(&clb, path).as_deref(), Some(wanted), "{path}");
        }
    }

    #[test]
    fn precedence_in_detail() {
        for (patterns, path, wanted) in [
            (&["/abc"] as &[_], "/abc", Some("/abc")),
            (&["/abc"], "/abc/", Some("/abc")),
            (&["/abc"], "/abcd", Some("/abc")),
            (&["/abc"], "/ab", None),
            (&["= /abc"], "/abc/", None),
            (&["~ b", "~ a"], "/ab", Some("~ b")),
            (&["~ B"], "/ab", None),
            (&["~* B"], "/ab", Some("~* B")),
            (&["~ ^/b"], "/a/b", None),
            // A regular expression beats a longer prefix, but not a `^~` that is the longest.
            (&["/aaaa", "~ a"], "/aaaa", Some("~ a")),
            (&["^~ /aa", "~ a"], "/aaaa", Some("^~ /aa")),
            (&["^~ /aa", "/aaa", "~ a"], "/aaaa", Some("~ a")),
            (&["^~ /aa", "/aaa", "~ b"], "/aaaa", Some("/aaa")),
            (&["~ a"], "/b", None),
            (&[], "/", None),
            (&["/."], "/.well-known/x", Some("/.")),
            (&["/a%20b"], "/a%20bc", Some("/a%20b")),
        ] {
            assert_eq!(find(patterns, path).as_deref(), wanted, "{patterns:?} {path}");
        }
    }

    #[test]
    fn the_missing_slash() {
        for (patterns, path, wanted) in [
            (&["/abc/"] as &[_], "/abc", Some("/abc/ +/")),
            (&["/abc/"], "/abc/", Some("/abc/")),
            (&["/abc/"], "/ab", None),
            (&["/abc/"], "/abcd", None),
            (&["= /abc/"], "/abc", Some("= /abc/ +/")),
            (&["^~ /abc/"], "/abc", Some("^~ /abc/ +/")),
            // Rules for the path itself come first.
            (&["/abc/", "= /abc"], "/abc", Some("= /abc")),
            (&["/abc/", "/abc"], "/abc", Some("/abc")),
            (&["/abc/", "^~ /abc"], "/abc", Some("^~ /abc")),
            // Shorter prefixes and regular expressions do not.
            (&["/abc/", "/"], "/abc", Some("/abc/ +/")),
            (&["/abc/", "^~ /ab"], "/abc", Some("/abc/ +/")),
            (&["/abc/", "~ abc"], "/abc", Some("/abc/ +/")),
            (&["/abc/", "/", "~ abc"], "/abc/", Some("~ abc")),
            // The root has its slash.
            (&["//", "/"], "/", Some("/")),
        ] {
            assert_eq!(find(patterns, path).as_deref(), wanted, "{patterns:?} {path}");
        }
    }

    #[test]
    fn refuses_patterns_that_cannot_work() {
        for (pattern, hint) in [
            ("", "starts neither"),
            ("abc", "starts neither"),
            ("=abc", "starts neither"),
            ("^~", "starts neither"),
            ("^/abc", "starts neither"),
            ("/a b", "percent-encoded"),
            ("/é", "percent-encoded"),
            ("/a?b=c", "leave the rest out"),
            ("/a#b", "leave the rest out"),
            ("/a/../b", "write `/b`"),
            ("= /a/.", "write `/a/`"),
            ("/%7Euser", "write `/~user`"),
            ("/a%2fb", "write `/a%2Fb`"),
            ("/a\\b", "write `/a%5Cb`"),
            ("/a%2", "two hexadecimal digits"),
            ("/..x/../../b", "above the root"),
            ("~", "empty"),
            ("~* ", "empty"),
            ("~ (", "unclosed group"),
            ("~ (?!a)", "look-around"),
            ("~ (a{1000}){1000}", "too large"),
        ] {
            let errors = build(&["/", pattern]).unwrap_err();
            let [RouteError::BadRule { domain: 3, rule: 1, why, .. }] = errors.as_slice() else {
                panic!("{pattern}: {errors:?}")
            };
            assert!(why.contains(hint), "{pattern}: {why}");
        }
        let longest = format!("/{}", "a".repeat(MAX_PATTERN - 1));
        assert!(build(&[&longest]).is_ok());
        assert!(build(&[&format!("{longest}a")]).is_err());
    }

    #[test]
    fn duplicates_name_both_rules() {
        for (again, first) in
            [("= /a", 0), ("=/a", 0), ("/b", 1), ("^~ /b", 1), ("~ c", 2), ("~c", 2), ("~* c", 3)]
        {
            let errors = build(&["= /a", "/b", "~ c", "~* c", "/a", again]).unwrap_err();
            assert_eq!(
                errors,
                [RouteError::DuplicateRule { domain: 3, text: again.into(), first, second: 5 }]
            );
        }
    }

    #[test]
    fn ten_thousand_rules_cost_what_ten_do() {
        let visits = |count: usize| {
            let patterns: Vec<_> = (0..count)
                .flat_map(|n| [format!("/api/v1/service{n:05}/"), format!("= /page{n:05}.html")])
                .collect();
            let rules = build(&patterns.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            let path = "/api/v1/service00007/things";
            assert_eq!(rules.find(path, |_| true).unwrap().rule, 14);
            rules.paths.walk(path.bytes(), |_, _| {})
        };
        assert!(visits(10) <= 8);
        assert!(visits(10_000) <= 8);
    }

    /// What nginx documents, by looking at every rule. Those refused are as good as not there, except that where one
    /// stands at the very path no slash is added.
    fn scan(patterns: &[String], refused: &[bool], path: &str) -> Option<(usize, bool)> {
        let all = || patterns.iter().map(|p| p.split_once(' ').unwrap()).enumerate();
        let rules = || all().filter(|(i, _)| !refused[*i]);
        let exact = |path: &str| rules().find(|(_, (op, p))| *op == "=" && *p == path).map(|(i, _)| i);
        let prefix =
            |path: &str| rules().find(|(_, (op, p))| op.starts_with('^') && *p == path).map(|(i, _)| i);
        if let Some(rule) = exact(path) {
            return Some((rule, false));
        }
        let slash = format!("{path}/");
        if !path.ends_with('/')
            && !all().any(|(_, (op, p))| op != "~" && p == path)
            && let Some(rule) = exact(&slash).or(prefix(&slash))
        {
            return Some((rule, true));
        }
        let longest = rules()
            .filter(|(_, (op, p))| op.starts_with('^') && path.starts_with(p))
            .max_by_key(|(_, (_, p))| p.len());
        if let Some((rule, ("^~", _))) = longest {
            return Some((rule, false));
        }
        rules()
            .find(|(_, (op, p))| *op == "~" && regex::Regex::new(p).unwrap().is_match(path))
            .or(longest)
            .map(|(rule, _)| (rule, false))
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            // `^` alone stands for the plain prefix, so that every pattern has an operator.
            patterns in prop::collection::btree_map(
                (prop::bool::ANY, "/[ab/]{0,4}"), prop_oneof![Just("^"), Just("^~")], 0..12,
            ),
            regexes in prop::collection::btree_set("~ (\\^/)?[ab]{1,3}\\$?", 0..3),
            paths in prop::collection::vec("/[ab/]{0,6}", 1..20),
            refused in prop::collection::vec(prop::bool::weighted(0.3), 15),
        ) {
            let mut all: Vec<String> = patterns.iter()
                .map(|((exact, path), op)| format!("{} {path}", if *exact { "=" } else { op }))
                .collect();
            all.extend(regexes);
            let written: Vec<_> = all.iter().map(|p| p.strip_prefix("^ ").unwrap_or(p)).collect();
            let rules = build(&written).unwrap();
            for path in paths {
                let found = rules.find(&path, |target| !refused[target - 1000]);
                prop_assert_eq!(found.map(|hit| (hit.rule, hit.add_slash)), scan(&all, &refused, &path), "{}", path);
            }
        }
    }
}
