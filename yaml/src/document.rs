//! The file as a whole: its text, its structure, its problems.

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

use crate::problem::{Position, Problem, Report};
use crate::suggest::nearest;

/// A configuration file: the name it is shown by and its text.
pub struct Document<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Document<'a> {
    /// A file called `name` with this text.
    pub fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// The structure of the file.
    ///
    /// # Errors
    /// The first error of syntax or structure (unknown key, missing key, list where a scalar belongs).
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Report> {
        // Ten thousand routes have more nodes than the parser allows by default (250 000 events): the
        // file is the operator's own, so only runaway aliases are worth stopping.
        let options = serde_saphyr::options! {
            strict_booleans: true,
            budget: serde_saphyr::budget! { max_events: 20_000_000, max_nodes: 20_000_000 },
        };
        serde_saphyr::from_str_with_options(self.text, options)
            .map_err(|error| self.report(vec![problem(error.without_snippet())]))
    }

    /// These problems, shown in this file.
    pub fn report(&self, problems: Vec<Problem>) -> Report {
        Report::new(self.name, self.text, problems)
    }
}

fn problem(error: &Error) -> Problem {
    let at = error.location().map(Position::from).unwrap_or_default();
    let (message, help) = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), Some(one_of(field, expected)))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value `{variant}`"), Some(one_of(variant, expected)))
        }
        Error::SerdeMissingField { field, .. } => (format!("the key `{field}` is missing here"), None),
        Error::DuplicateMappingKey { key, .. } => (
            format!("the key `{}` stands here a second time", key.as_deref().unwrap_or("?")),
            Some("keep one of them".into()),
        ),
        Error::Unexpected { expected, .. } => (format!("wrong type: {}", wanted(expected)), None),
        other => {
            let text = other.to_string();
            let cut = text.rfind(" at line ").unwrap_or(text.len());
            (text.get(..cut).unwrap_or(&text).to_owned(), None)
        }
    };
    Problem { at, message, help }
}

fn one_of(given: &str, expected: &[&'static str]) -> String {
    match nearest(given, expected.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", expected.join(", ")),
    }
}

fn wanted(expected: &str) -> String {
    match expected {
        "string scalar" => "a single value belongs here, not a list or a map".into(),
        "sequence start" => "a list belongs here (`- ...` or `[...]`)".into(),
        "mapping start" => "a map of keys belongs here (`key: value`)".into(),
        other => format!("expected {other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{Reader, Setting, Sources};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        workers: Option<Setting<u16>>,
        #[serde(default)]
        names: Vec<Setting<String>>,
    }

    fn shown(text: &str) -> String {
        Document::new("c.yaml", text).parse::<File>().expect_err("must be refused").to_string()
    }

    #[test]
    fn structural_errors_show_the_line_and_a_remedy() {
        assert_eq!(
            shown("workers: 1\nwrokers: 2\n"),
            "c.yaml:2:1: unknown key `wrokers`\n  |\n2 | wrokers: 2\n  | ^\n  help: did you mean `workers`?"
        );
        assert!(shown("workers: 1\nworkers: 2\n").starts_with("c.yaml:2:1: the key `workers` stands here"));
        assert!(shown("names: x\n").contains("a list belongs here"));
        assert!(shown("workers: {a: 1}\n").contains("a single value belongs here"));
        assert!(shown("workers: \"1\n").starts_with("c.yaml:"));
    }

    #[test]
    fn values_are_read_with_variables_and_all_problems_together() {
        let text = "workers: ${N}\nnames: [a, 7, \"${M:-c}\"]\n";
        let file: File = Document::new("c.yaml", text).parse().expect("sound structure");
        let variable = |name: &str| (name == "N").then(|| "70000".to_owned());
        let mut reader =
            Reader::new(Sources { variable: &variable, file: &|_| Err(std::io::ErrorKind::NotFound.into()) });
        assert_eq!(reader.read_or(file.workers.as_ref(), 4), 4);
        assert_eq!(reader.read_all(&file.names), ["a", "7", "c"]);
        let problems = reader.into_problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "`70000` is not a whole number from 0 to 65535");
        assert_eq!(problems[0].at, Position { line: 1, column: 10 });
    }
}
