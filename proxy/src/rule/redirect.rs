//! Answers that need no RS.

use http::StatusCode;
use regex::Regex;

use super::template::{Escape, Facts, Template};

/// A redirect.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where to.
    pub to: Template,
    /// What the captures in `to` are of; matched against the normalised path.
    pub regex: Option<Regex>,
}

impl Redirect {
    /// The value of Location.
    pub fn location(&self, facts: &Facts<'_>) -> Vec<u8> {
        let captures = self.regex.as_ref().and_then(|regex| regex.captures(facts.path));
        self.to.render(facts, captures.as_ref(), Escape::Url)
    }
}

/// A response that stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// 200 to 599.
    pub status: StatusCode,
    /// Content-Type of the body.
    pub content_type: String,
    /// The body.
    pub body: Template,
}

impl Fixed {
    /// The body. Variables in HTML are escaped.
    pub fn body(&self, facts: &Facts<'_>) -> Vec<u8> {
        let is_html = self.content_type.to_ascii_lowercase().contains("html");
        self.body.render(facts, None, if is_html { Escape::Html } else { Escape::Controls })
    }
}
