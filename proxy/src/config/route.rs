//! The `routes:` section: compiled once per listener, so that whatever can be wrong shows before anything
//! starts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use yaml::{Position, Reader, Setting};

use super::file::RouteFile;
use super::{Listener, Pool, Routes, Rule};
use crate::route::{DomainSpec, RouteError, RouteTable, RuleSpec};

/// Where things stand in the file, by the index of the domain and of what is inside it.
struct Places<'a>(&'a [RouteFile]);

pub(super) fn read(
    files: &[RouteFile],
    listeners: &[Listener],
    pools: &[Pool],
    reader: &mut Reader<'_>,
) -> Routes {
    let by_name: HashMap<&str, usize> = pools.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let mut rules = Vec::new();
    let mut domains = Vec::new();
    let mut specs = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let names = reader.read_all(&file.domains);
        domains.push(names.join(", "));
        let mut spec = DomainSpec { names, default: false, rules: Vec::new() };
        for rule in &file.rules {
            let url = reader.read_or(Some(&rule.url), String::new());
            // Whatever stands for a pool that is not there: nothing starts, and later rules keep their places.
            let pool = pool(&rule.pool, &by_name, pools, reader).unwrap_or(0);
            spec.rules.push(RuleSpec { pattern: url.clone(), target: rules.len() });
            rules.push(Rule { domain: index, url, pool });
        }
        specs.push((spec, on_listeners(file, listeners, reader)));
    }
    let tables = compile(&specs, listeners.len(), &Places(files), reader);
    Routes { domains, rules, tables }
}

fn pool(
    setting: &Setting<String>,
    by_name: &HashMap<&str, usize>,
    pools: &[Pool],
    reader: &mut Reader<'_>,
) -> Option<usize> {
    let name = reader.read(setting)?;
    let found = by_name.get(name.as_str()).copied();
    if found.is_none() {
        reader.unknown(setting.at(), "pool", &name, pools.iter().map(|pool| pool.name.as_str()));
    }
    found
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
        self.0.get(domain).and_then(|file| file.domains.get(name)).map(Setting::at).unwrap_or_default()
    }

    fn rule(&self, domain: usize, rule: usize) -> Position {
        self.0.get(domain).and_then(|file| file.rules.get(rule)).map(|rule| rule.url.at()).unwrap_or_default()
    }
}
