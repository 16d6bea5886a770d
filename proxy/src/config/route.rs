//! The `routes:` section: compiled once per listener, so that whatever can be wrong shows before anything
//! starts.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use yaml::{Position, Reader, Setting};

use super::chain::{self, Chain};
use super::file::{RouteFile, RuleFile};
use super::{Listener, Pool, Routes, Rule, rule};
use crate::message::RequestHead;
use crate::route::{DomainSpec, RouteError, RouteTable, RuleSpec};

impl Routes {
    /// The first rule, from this one on, whose conditions hold.
    pub fn choose(&self, first: usize, head: &RequestHead, client: IpAddr) -> Option<usize> {
        let mut candidate = Some(first);
        while let Some(number) = candidate {
            let rule = self.rules.get(number)?;
            match &rule.when {
                Some(when) if !when.hold(head, client) => candidate = rule.next,
                _ => return Some(number),
            }
        }
        None
    }
}

/// Where things stand in the file, by the index of the domain and of what is inside it.
struct Places<'a> {
    files: &'a [RouteFile],
    /// By domain and by rule of its table: the rule of the file.
    first: Vec<Vec<usize>>,
}

pub(super) fn read(
    files: &[RouteFile],
    listeners: &[Listener],
    pools: &[Pool],
    base: &Path,
    reader: &mut Reader<'_>,
) -> Routes {
    let by_name: HashMap<&str, usize> = pools.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let mut find_pool = |setting: &Setting<String>, reader: &mut Reader<'_>| {
        let name = reader.read(setting)?;
        let found = by_name.get(name.as_str()).copied();
        if found.is_none() {
            reader.unknown(setting.at(), "pool", &name, pools.iter().map(|pool| pool.name.as_str()));
        }
        found
    };
    let mut routes = Routes::default();
    let mut specs = Vec::new();
    let mut places = Places { files, first: Vec::new() };
    for (index, file) in files.iter().enumerate() {
        let names = reader.read_all(&file.domains);
        routes.domains.push(names.join(", "));
        let first = routes.rules.len();
        for rule in &file.rules {
            let url = rule.url.as_ref().and_then(|url| reader.read(url)).unwrap_or_else(|| "/".into());
            let at = position(rule, file);
            let action = rule::read_action(rule, at, &mut routes.splits, &mut find_pool, reader);
            let name = format!("{} {url} {}", routes.domains[index], routes.rules.len() - first);
            let place = rule::Place { url: &url, name: &name, at, base };
            let more = rule::read_more(rule, place, &mut routes, &mut find_pool, reader);
            let when = rule.when.as_ref().map(|when| Box::new(rule::read_when(when, reader)));
            let when = when.filter(|when| when.count() > 0);
            routes.rules.push(Rule { domain: index, url, when, next: None, action, more });
        }
        let (rules, groups) = group(&mut routes.rules, first);
        specs.push((DomainSpec { names, default: false, rules }, on_listeners(file, listeners, reader)));
        places.first.push(groups);
    }
    routes.tables = compile(&specs, listeners.len(), &places, reader);
    if reader.is_clean() {
        refuse_chains(&routes, listeners, &specs, files, reader);
    }
    routes
}

fn refuse_chains(
    routes: &Routes,
    listeners: &[Listener],
    specs: &[(DomainSpec, HashSet<usize>)],
    files: &[RouteFile],
    reader: &mut Reader<'_>,
) {
    let stands = |domain: usize, listener: usize| specs[domain].1.contains(&listener);
    let at = |rule: usize| {
        let domain = routes.rules[rule].domain;
        let first = routes.rules.iter().position(|rule| rule.domain == domain).unwrap_or(rule);
        position(&files[domain].rules[rule - first], &files[domain])
    };
    for Chain { from, to } in chain::find(routes, listeners, stands) {
        let (message, help) = match from == to {
            true => ("this redirect leads back to itself".to_owned(), "let it lead to another address"),
            false => (
                format!("this redirect leads to the one in line {}", at(to).line),
                "let it lead to where that one does",
            ),
        };
        reader.problem(at(from), message, Some(help.into()));
    }
}

/// Joins the rules from `first` on that have the same URL: those with most conditions first, otherwise in the order of
/// the file. Of each group the table learns the first; also returned is that one's index within the domain.
fn group(rules: &mut [Rule], first: usize) -> (Vec<RuleSpec>, Vec<usize>) {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (index, rule) in rules.iter().enumerate().skip(first) {
        // Two without conditions stay apart, and the table says that one of them is too many.
        let key: String = rule.url.split_whitespace().collect();
        let place = known.entry(key).or_insert(groups.len());
        let has_plain = |group: &[usize]| group.iter().any(|other| rules[*other].when.is_none());
        match groups.get_mut(*place) {
            Some((_, group)) if rule.when.is_some() || !has_plain(group) => group.push(index),
            _ => groups.push((rule.url.clone(), vec![index])),
        }
    }
    let mut specs = Vec::new();
    let mut firsts = Vec::new();
    for (pattern, mut group) in groups {
        group.sort_by_key(|index| {
            std::cmp::Reverse(rules[*index].when.as_ref().map_or(0, |when| when.count()))
        });
        for pair in group.windows(2) {
            rules[pair[0]].next = Some(pair[1]);
        }
        specs.push(RuleSpec { pattern, target: group[0] });
        firsts.push(group.iter().min().map_or(0, |index| index - first));
    }
    (specs, firsts)
}

fn on_listeners(file: &RouteFile, listeners: &[Listener], reader: &mut Reader<'_>) -> HashSet<usize> {
    let Some(names) = &file.listeners else { return (0..listeners.len()).collect() };
    let known = || listeners.iter().map(|listener| listener.name.as_str());
    let mut found = HashSet::new();
    for setting in names {
        let Some(name) = reader.read(setting) else { continue };
        match known().position(|candidate| candidate == name) {
            Some(index) => drop(found.insert(index)),
            None => reader.unknown(setting.at(), "listener", &name, known().collect::<Vec<_>>()),
        }
    }
    found
}

/// One table per listener. A problem on several listeners is told once.
fn compile(
    specs: &[(DomainSpec, HashSet<usize>)],
    listeners: usize,
    places: &Places<'_>,
    reader: &mut Reader<'_>,
) -> Vec<Arc<RouteTable>> {
    let mut tables: Vec<Arc<RouteTable>> = Vec::new();
    let mut told = HashSet::new();
    let mut compiled: HashMap<Vec<usize>, Arc<RouteTable>> = HashMap::new();
    for listener in 0..listeners {
        let standing: Vec<usize> =
            (0..specs.len()).filter(|&domain| specs[domain].1.contains(&listener)).collect();
        if let Some(table) = compiled.get(&standing) {
            tables.push(Arc::clone(table));
            continue;
        }
        let here: Vec<DomainSpec> = standing.iter().map(|&domain| specs[domain].0.clone()).collect();
        match RouteTable::build(&here) {
            Ok(table) => {
                let table = Arc::new(table);
                compiled.insert(standing, Arc::clone(&table));
                tables.push(table);
            }
            Err(errors) => {
                for error in errors {
                    let (at, message, help) = places.explain(&error, &standing);
                    if told.insert((at, message.clone())) {
                        reader.problem(at, message, help);
                    }
                }
            }
        }
    }
    tables
}

impl Places<'_> {
    /// Position, message and remedy of an error; `standing` maps the table's domains to those of the file.
    fn explain(&self, error: &RouteError, standing: &[usize]) -> (Position, String, Option<String>) {
        let global = |domain: usize| standing.get(domain).copied().unwrap_or(domain);
        let line = |at: Position| format!("the first stands in line {}; keep one of them", at.line);
        match error {
            RouteError::BadName { domain, name, text, why } => (
                self.name(global(*domain), *name),
                format!("the domain `{text}` cannot be used"),
                Some(why.clone()),
            ),
            RouteError::DuplicateName { text, first, second } => (
                self.name(global(second.0), second.1),
                format!("the domain `{text}` stands here a second time"),
                Some(line(self.name(global(first.0), first.1))),
            ),
            RouteError::TwoDefaults { first, second } => (
                self.name(global(*second), 0),
                "a second default domain `*`".into(),
                Some(line(self.name(global(*first), 0))),
            ),
            RouteError::NoName { domain } => (
                self.rule(global(*domain), 0),
                "these rules have no domain".into(),
                Some("list one under `domains:`, or `\"*\"` for every other domain".into()),
            ),
            RouteError::BadRule { domain, rule, text, why } => (
                self.rule(global(*domain), *rule),
                format!("the URL `{text}` cannot be used"),
                Some(why.clone()),
            ),
            RouteError::DuplicateRule { domain, text, first, second } => (
                self.rule(global(*domain), *second),
                format!("the URL `{text}` stands here a second time"),
                Some(line(self.rule(global(*domain), *first))),
            ),
            RouteError::RegexesTooLarge { .. } => (Position::default(), error.to_string(), None),
        }
    }

    fn name(&self, domain: usize, name: usize) -> Position {
        self.files.get(domain).and_then(|file| file.domains.get(name)).map(Setting::at).unwrap_or_default()
    }

    fn rule(&self, domain: usize, rule: usize) -> Position {
        let number = self.first.get(domain).and_then(|first| first.get(rule)).copied().unwrap_or(rule);
        let file = self.files.get(domain);
        let rule = file.and_then(|file| Some((file.rules.get(number)?, file)));
        rule.map(|(rule, file)| position(rule, file)).unwrap_or_default()
    }
}

/// Where a rule stands: at its URL, or whatever else it has.
fn position(rule: &RuleFile, file: &RouteFile) -> Position {
    let mut settings = [
        rule.url.as_ref(),
        rule.pool.as_ref(),
        rule.split.as_ref().and_then(|shares| shares.first()).map(|share| &share.pool),
        rule.redirect.as_ref().map(|redirect| &redirect.to),
        file.domains.first(),
    ]
    .into_iter();
    settings.find_map(|setting| setting.map(Setting::at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use yaml::{Document, Sources};

    use super::*;
    use crate::config::file::ListenerFile;
    use crate::config::listener;
    use crate::route::Outcome;

    const URLS: [&str; 5] = ["= /ab", "^~ /a", "/", "/ab", "~ b$"];
    /// As YAML, and whether it holds for the request that is asked about.
    const CONDITIONS: [(&str, bool); 4] = [
        ("methods: [GET]", true),
        ("headers: {X-A: \"1\"}", true),
        ("query: {q: \"*\"}", false),
        ("clients: [192.0.2.0/24]", false),
    ];

    /// A rule: which URL, and which of the conditions it has.
    type Spec = (usize, [bool; 4]);

    fn matches(url: &str, path: &str) -> bool {
        match url {
            "= /ab" => path == "/ab",
            "~ b$" => path.ends_with('b'),
            prefix => path.starts_with(prefix.trim_start_matches("^~ ")),
        }
    }

    /// What the table in docs/routing.md says, by looking at every rule.
    fn scan(specs: &[Spec], path: &str) -> Option<usize> {
        let holding = |url: &str| {
            let rules =
                specs.iter().enumerate().filter(|(_, (of, _))| URLS[*of] == url && matches(url, path));
            let holds = |has: &[bool; 4]| has.iter().zip(CONDITIONS).all(|(has, (_, holds))| !has || holds);
            let count = |has: &[bool; 4]| has.iter().filter(|has| **has).count();
            // Of equals `max_by_key` takes the last, and the first of the file is wanted.
            rules
                .filter(|(_, (_, has))| holds(has))
                .rev()
                .max_by_key(|(_, (_, has))| count(has))
                .map(|(rule, _)| rule)
        };
        let prefix = ["/ab", "^~ /a", "/"].into_iter().find(|url| holding(url).is_some());
        let before_regexes = prefix.filter(|url| url.starts_with("^~"));
        let order = [Some("= /ab"), before_regexes, Some("~ b$"), prefix];
        order.into_iter().flatten().find_map(holding)
    }

    fn read_routes(specs: &[Spec]) -> Routes {
        let mut text = String::from("- domains: [\"*\"]\n  rules:\n");
        for (url, has) in specs {
            let when: Vec<_> =
                has.iter().zip(CONDITIONS).filter(|(has, _)| **has).map(|(_, (yaml, _))| yaml).collect();
            text += &format!("  - {{url: '{}', respond: {{}}, when: {{{}}}}}\n", URLS[*url], when.join(", "));
        }
        let files: Vec<RouteFile> = Document::new("test", &text).parse().unwrap_or_else(|_| panic!("{text}"));
        let none = |_: &str| None;
        let no_file = |_: &str| Err(std::io::ErrorKind::NotFound.into());
        let mut reader = Reader::new(Sources { variable: &none, file: &no_file });
        let one: Vec<ListenerFile> = Document::new("test", "[{name: a, address: \"127.0.0.1:80\"}]")
            .parse()
            .unwrap_or_else(|_| panic!("a listener"));
        let listeners = listener::read(&one, Path::new(""), &mut reader);
        let routes = read(&files, &listeners, &[], Path::new(""), &mut reader);
        assert!(reader.is_clean(), "{text}");
        routes
    }

    proptest! {
        #[test]
        fn conditions_choose_as_the_table_says(
            specs in prop::collection::vec((0..URLS.len(), any::<[bool; 4]>()), 1..12),
            path in prop_oneof![Just("/"), Just("/a"), Just("/b"), Just("/ab"), Just("/abb"), Just("/abc")],
        ) {
            // Two rules for one URL without conditions are refused.
            let mut plain = HashSet::new();
            let specs: Vec<Spec> =
                specs.into_iter().filter(|(url, has)| has.contains(&true) || plain.insert(*url)).collect();
            let routes = read_routes(&specs);
            let mut head = RequestHead { target: path.to_owned(), ..RequestHead::default() };
            head.headers.append("X-A", "1");
            let client = IpAddr::from([127, 0, 0, 1]);
            let chosen = |target| routes.choose(target, &head, client);
            let found = match routes.tables[0].find("a.test", path, |target| chosen(target).is_some()) {
                Outcome::Rule(found) => chosen(found.target),
                _ => None,
            };
            prop_assert_eq!(found, scan(&specs, path), "{:?} {}", specs, path);
        }
    }
}
