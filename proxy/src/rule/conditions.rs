//! What a rule asks of a request beyond domain and URL: all of it must hold.

use std::net::IpAddr;

use http::Method;
use ipnet::IpNet;

use super::template::{cookie, parameter};
use crate::message::RequestHead;

/// The conditions of one rule.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// One of these methods; empty is any.
    pub methods: Vec<Method>,
    /// Each of these fields.
    pub headers: Vec<Field>,
    /// Each of these parameters of the query.
    pub query: Vec<Field>,
    /// Each of these cookies.
    pub cookies: Vec<Field>,
    /// The client is in one of these networks; empty is anywhere.
    pub clients: Vec<IpNet>,
}

/// A named value, and what is asked of it.
#[derive(Debug, Clone)]
pub struct Field {
    /// Name of the field, parameter or cookie.
    pub name: String,
    /// What its value must be.
    pub test: Test,
}

/// What is asked of a value.
#[derive(Debug, Clone)]
pub enum Test {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It is there and equals this.
    Is(Vec<u8>),
    /// It is there and this matches somewhere in it.
    Matches(regex::bytes::Regex),
}

impl Conditions {
    /// How many there are: of two rules for one URL the one with more is asked first.
    pub fn count(&self) -> usize {
        usize::from(!self.methods.is_empty())
            + usize::from(!self.clients.is_empty())
            + self.headers.len()
            + self.query.len()
            + self.cookies.len()
    }

    /// Whether the request meets them all. Of a field that comes several times one value is enough.
    pub fn hold(&self, head: &RequestHead, client: IpAddr) -> bool {
        self.first_unmet(head, client).is_none()
    }

    /// The first condition that is not met, in words; for people who ask why a rule was passed over.
    pub fn first_unmet(&self, head: &RequestHead, client: IpAddr) -> Option<Unmet<'_>> {
        if !self.methods.is_empty() && !self.methods.contains(&head.method) {
            return Some(Unmet::Method);
        }
        if !self.clients.is_empty() && !self.clients.iter().any(|network| network.contains(&client)) {
            return Some(Unmet::Client);
        }
        let unmet = |fields: &'static str, field| Unmet::Field(fields, field);
        let header = |field: &&Field| !field.test.holds_for(head.headers.get_all(&field.name));
        let query = |field: &&Field| {
            !field.test.holds_for(parameter(&head.target, &field.name).map(str::as_bytes).into_iter())
        };
        let cookie = |field: &&Field| !field.test.holds_for(cookie(head, &field.name).into_iter());
        (self.headers.iter().find(header).map(|field| unmet("header", field)))
            .or_else(|| self.query.iter().find(query).map(|field| unmet("query parameter", field)))
            .or_else(|| self.cookies.iter().find(cookie).map(|field| unmet("cookie", field)))
    }
}

impl Test {
    fn holds_for<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Is(wanted) => values.any(|value| value == wanted),
            Self::Matches(regex) => values.any(|value| regex.is_match(value)),
        }
    }
}

/// A condition that a request does not meet.
#[derive(Debug, Clone, Copy)]
pub enum Unmet<'a> {
    /// Another method.
    Method,
    /// Another network.
    Client,
    /// What kind of field, and which.
    Field(&'static str, &'a Field),
}

impl std::fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Method => f.write_str("it is for other methods"),
            Self::Client => f.write_str("it is for other clients"),
            Self::Field(kind, field) => match &field.test {
                Test::Present => write!(f, "there is no {kind} `{}`", field.name),
                Test::Absent => write!(f, "there is a {kind} `{}`", field.name),
                Test::Is(value) => {
                    write!(f, "the {kind} `{}` is not `{}`", field.name, value.escape_ascii())
                }
                Test::Matches(regex) => {
                    write!(f, "the {kind} `{}` does not match `{}`", field.name, regex.as_str())
                }
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request with these lines of fields.
    pub(in crate::rule) fn head(method: &str, target: &str, lines: &str) -> RequestHead {
        let mut head = RequestHead {
            method: method.parse().unwrap(),
            target: target.to_owned(),
            ..RequestHead::default()
        };
        for line in lines.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            head.headers.append(name, value);
        }
        head
    }

    fn field(name: &str, test: Test) -> Vec<Field> {
        vec![Field { name: name.into(), test }]
    }

    #[test]
    fn each_condition_is_met_or_says_why_not() {
        let regex = |text| Test::Matches(regex::bytes::Regex::new(text).unwrap());
        let request = head("GET", "/a?v=2&flag", "X-A: 1\nX-A: 2\nCookie: s=x; t=y");
        let client: IpAddr = "10.1.2.3".parse().unwrap();
        for (conditions, unmet) in [
            (Conditions::default(), None),
            (Conditions { methods: vec![Method::GET, Method::PUT], ..Conditions::default() }, None),
            (
                Conditions { methods: vec![Method::PUT], ..Conditions::default() },
                Some("it is for other methods"),
            ),
            (Conditions { clients: vec!["10.0.0.0/8".parse().unwrap()], ..Conditions::default() }, None),
            (
                Conditions { clients: vec!["192.0.2.0/24".parse().unwrap()], ..Conditions::default() },
                Some("it is for other clients"),
            ),
            (Conditions { headers: field("x-a", Test::Is(b"2".into())), ..Conditions::default() }, None),
            (
                Conditions { headers: field("X-A", Test::Is(b"3".into())), ..Conditions::default() },
                Some("the header `X-A` is not `3`"),
            ),
            (
                Conditions { headers: field("X-B", Test::Present), ..Conditions::default() },
                Some("there is no header `X-B`"),
            ),
            (
                Conditions { headers: field("X-A", Test::Absent), ..Conditions::default() },
                Some("there is a header `X-A`"),
            ),
            (Conditions { query: field("v", Test::Is(b"2".into())), ..Conditions::default() }, None),
            (Conditions { query: field("flag", Test::Present), ..Conditions::default() }, None),
            (
                Conditions { query: field("v", regex("^3$")), ..Conditions::default() },
                Some("the query parameter `v` does not match `^3$`"),
            ),
            (Conditions { cookies: field("t", regex("^y$")), ..Conditions::default() }, None),
            (
                Conditions { cookies: field("u", Test::Present), ..Conditions::default() },
                Some("there is no cookie `u`"),
            ),
        ] {
            let found = conditions.first_unmet(&request, client).map(|unmet| unmet.to_string());
            assert_eq!(found.as_deref(), unmet, "{conditions:?}");
            assert_eq!(conditions.hold(&request, client), unmet.is_none());
        }
    }

    #[test]
    fn conditions_are_counted_one_by_one() {
        let conditions = Conditions {
            methods: vec![Method::GET, Method::PUT],
            clients: vec!["10.0.0.0/8".parse().unwrap()],
            headers: field("a", Test::Present),
            query: [field("a", Test::Present), field("b", Test::Present)].concat(),
            cookies: Vec::new(),
        };
        assert_eq!((Conditions::default().count(), conditions.count()), (0, 5));
    }
}
