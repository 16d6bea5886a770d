//! Header fields that a rule removes, sets and adds, in this order.

use super::template::{Escape, Facts, Template};
use crate::message::Headers;

/// The edits of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Every field of these names goes.
    pub remove: Vec<String>,
    /// These stand once and with this value; an empty value removes.
    pub set: Vec<(String, Template)>,
    /// These are added to what is there; nothing is added for an empty value.
    pub add: Vec<(String, Template)>,
}

impl Edits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The fields that [`Edits::apply`] will set and add, with their values: what they say about the request is what
    /// it was before any edit.
    pub fn values(&self, facts: &Facts<'_>) -> Values {
        let render = |fields: &[(String, Template)]| {
            fields.iter().map(|(_, value)| value.render(facts, None, Escape::Controls)).collect()
        };
        Values { set: render(&self.set), add: render(&self.add) }
    }

    /// Edits these fields.
    pub fn apply(&self, headers: &mut Headers, values: &Values) {
        for name in &self.remove {
            headers.remove(name);
        }
        for ((name, _), value) in self.set.iter().zip(&values.set) {
            headers.remove(name);
            if !value.is_empty() {
                headers.append(name, value);
            }
        }
        for ((name, _), value) in self.add.iter().zip(&values.add).filter(|(_, value)| !value.is_empty()) {
            headers.append(name, value);
        }
    }
}

/// Values of the fields of [`Edits`], for one request.
#[derive(Debug)]
pub struct Values {
    set: Vec<Vec<u8>>,
    add: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::conditions::tests::head;

    #[test]
    fn removed_set_and_added() {
        let template = |text| Template::parse(text, 0).unwrap();
        let edits = Edits {
            remove: vec!["x-gone".into()],
            set: vec![("X-Set".into(), template("$http_x_old!")), ("X-Empty".into(), template("$arg_none"))],
            add: vec![("X-More".into(), template("2")), ("X-None".into(), template("$arg_none"))],
        };
        let request = head("GET", "/", "X-Gone: 1\nx-set: a\nX-SET: b\nX-Old: o\nX-Empty: e\nX-More: 1");
        let facts = Facts {
            head: &request,
            asked: "/",
            host: "a",
            path: "/",
            client: [127, 0, 0, 1].into(),
            peer: ([127, 0, 0, 1], 1).into(),
            https: false,
            sni: None,
            certificate: None,
            user: None,
            answered: None,
        };
        let mut headers = request.headers.clone();
        edits.apply(&mut headers, &edits.values(&facts));
        assert_eq!(headers, head("GET", "/", "X-Old: o\nX-More: 1\nX-Set: o!\nX-More: 2").headers);
        assert!(!edits.is_empty() && Edits::default().is_empty());
    }
}
