//! What a client sees instead of an error.

use http::StatusCode;

use super::redirect::{Fixed, Redirect};

/// The error pages of a rule.
#[derive(Debug, Clone, Default)]
pub struct ErrorPages {
    /// The first that is for a status counts.
    pub pages: Vec<ErrorPage>,
    /// Whether they also replace errors that an RS answers with.
    pub intercept: bool,
}

/// One page.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    /// Which errors it is for.
    pub statuses: Statuses,
    /// What is shown.
    pub shown: Shown,
}

/// What is shown instead of an error.
#[derive(Debug, Clone)]
pub enum Shown {
    /// This body, with the status of the error or with this one.
    Body {
        /// The body; its own status counts only where `keep_status` is not set.
        fixed: Fixed,
        /// Whether the status of the error stays.
        keep_status: bool,
    },
    /// Another address.
    Redirect(Redirect),
}

/// A set of statuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Hundreds digits.
    pub classes: Vec<u16>,
    /// Single ones.
    pub codes: Vec<u16>,
}

impl Statuses {
    /// Reads `404` or `5xx` into the set; whether it is one of these.
    pub fn add(&mut self, text: &str) -> bool {
        if let Some(class) = text.strip_suffix("xx").and_then(|class| class.parse().ok()) {
            self.classes.push(class);
            return (1..=5).contains(&class);
        }
        match text.parse() {
            Ok(code) if (100..=599).contains(&code) => self.codes.push(code),
            _ => return false,
        }
        true
    }

    /// Whether a status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.codes.contains(&status) || self.classes.contains(&(status / 100))
    }
}

impl ErrorPages {
    /// The page for a status.
    pub fn find(&self, status: StatusCode) -> Option<&Shown> {
        let page = self.pages.iter().find(|page| page.statuses.contains(status.as_u16()));
        page.map(|page| &page.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_single_or_whole_classes() {
        let mut statuses = Statuses::default();
        assert!(statuses.add("404") && statuses.add("5xx"));
        assert!(!statuses.add("6xx") && !statuses.add("99") && !statuses.add("x") && !statuses.add("600"));
        for (status, is_in) in [(404, true), (403, false), (500, true), (599, true), (200, false)] {
            assert_eq!(statuses.contains(status), is_in, "{status}");
        }
    }
}
