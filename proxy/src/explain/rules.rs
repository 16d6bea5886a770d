//! Which rule it is, and which ones are passed on the way.

use super::{Explained, Page};
use crate::config::Rule;
use crate::error::Error;
use crate::route::{DomainMatch, Found, Outcome, RouteTable, RuleMatch};
use crate::rule::Facts;

impl Explained<'_> {
    /// The rule, and whether only a slash is missing; told are all rules that come before it.
    pub(super) fn find(&self, page: &mut Page, facts: &Facts<'_>) -> Result<(&Rule, bool), Error> {
        let routes = &self.config.routes;
        let table = routes.tables.get(self.index).ok_or(Error::Internal)?;
        let mut told = Vec::new();
        loop {
            let accepted = |target: usize| !told.contains(&target);
            let (found, adds_slash) = match table.find(facts.host, facts.path, accepted) {
                Outcome::Rule(found) => (found, false),
                Outcome::RedirectToSlash(found) => (found, true),
                Outcome::NoRule { domain, domain_match } => {
                    if told.is_empty() {
                        self.tell_domain(page, table, domain, domain_match);
                    }
                    self.tell_others(page, table, domain, told.len());
                    return Err(Error::NoRoute);
                }
                Outcome::NoDomain => {
                    page.line("domain", format!("none is for `{}`, and there is no default `*`", facts.host));
                    return Err(Error::NoRoute);
                }
            };
            if told.is_empty() {
                self.tell_domain(page, table, found.domain, found.domain_match);
            }
            if let Some(rule) = self.choose(page, &found, facts) {
                self.tell_others(page, table, found.domain, told.len() + 1);
                return Ok((rule, adds_slash));
            }
            told.push(found.target);
        }
    }

    fn tell_domain(&self, page: &mut Page, table: &RouteTable, domain: usize, matched: DomainMatch) {
        let routes = &self.config.routes;
        let rule = table.targets(domain).first().and_then(|target| routes.rules.get(*target));
        let names = rule.and_then(|rule| routes.domains.get(rule.domain)).map_or("", String::as_str);
        let how = match matched {
            DomainMatch::Exact => "exact name",
            DomainMatch::LeadingWildcard => "longest name with a wildcard in front",
            DomainMatch::TrailingWildcard => "longest name with a wildcard behind",
            DomainMatch::Regex => "first regular expression that matches",
            DomainMatch::Default => "default: no other domain has this name",
        };
        page.line("domain", format!("{names} ({how})"));
    }

    fn tell_others(&self, page: &mut Page, table: &RouteTable, domain: usize, told: usize) {
        let others = table.targets(domain).len().saturating_sub(told);
        if others > 0 {
            page.below(format!("{others} more URLs of this domain are for other paths, or come later"));
        }
    }

    /// The first of the rules with this URL whose conditions hold.
    fn choose(&self, page: &mut Page, found: &Found, facts: &Facts<'_>) -> Option<&Rule> {
        let how = match found.rule_match {
            RuleMatch::Exact => "exact path",
            RuleMatch::FinalPrefix => "longest prefix, before regular expressions",
            RuleMatch::Prefix => "longest prefix",
            RuleMatch::Regex => "first regular expression that matches",
        };
        let mut next = Some(found.target);
        while let Some(rule) = next.and_then(|number| self.config.routes.rules.get(number)) {
            let unmet = rule.when.as_ref().and_then(|when| when.first_unmet(facts.head, facts.client));
            let Some(unmet) = unmet else {
                let conditions = rule.when.as_ref().map_or(0, |when| when.count());
                let when = if conditions > 0 { ", and its conditions hold" } else { "" };
                page.line("rule", format!("{} ({how}{when})", rule.url));
                return Some(rule);
            };
            page.line("not", format!("{} ({how}): {unmet}", rule.url));
            next = rule.next;
        }
        None
    }
}
