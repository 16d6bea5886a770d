//! Turns settings into values and collects what is wrong with them.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::interpolate::{Sources, interpolate};
use crate::problem::{Position, Problem};
use crate::setting::Setting;
use crate::value::Value;

/// Reads settings one after the other; problems add up and are shown together at the end.
pub struct Reader<'a> {
    sources: Sources<'a>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader without problems.
    pub fn new(sources: Sources<'a>) -> Self {
        Self { sources, problems: Vec::new() }
    }

    /// The value of a setting; a problem and `None` where the text is no `T`.
    pub fn read<T: Value>(&mut self, setting: &Setting<T>) -> Option<T> {
        let text = match interpolate(&setting.text, &self.sources) {
            Ok(text) => text,
            Err((message, help)) => {
                self.problem(setting.at(), message, Some(help));
                return None;
            }
        };
        let value = T::parse(&text);
        if value.is_none() {
            self.problem(setting.at(), format!("`{text}` is not {}", T::WHAT), None);
        }
        value
    }

    /// The value of a setting that may be absent. `default` also where the text is no `T`: the problem is
    /// noted, and nothing starts.
    pub fn read_or<T: Value>(&mut self, setting: Option<&Setting<T>>, default: T) -> T {
        setting.and_then(|setting| self.read(setting)).unwrap_or(default)
    }

    /// The value of a setting that may be absent, inside `range`.
    pub fn read_within<T>(
        &mut self,
        setting: Option<&Setting<T>>,
        range: std::ops::RangeInclusive<T>,
        show: impl Fn(&T) -> String,
        default: T,
    ) -> T
    where
        T: Value + PartialOrd,
    {
        let Some((setting, value)) = setting.and_then(|s| Some((s, self.read(s)?))) else { return default };
        if !range.contains(&value) {
            let message =
                format!("{} is out of range: {} to {}", show(&value), show(range.start()), show(range.end()));
            self.problem(setting.at(), message, None);
        }
        value
    }

    /// Every value of a list that can be read.
    pub fn read_all<T: Value>(&mut self, settings: &[Setting<T>]) -> Vec<T> {
        settings.iter().filter_map(|setting| self.read(setting)).collect()
    }

    /// The text of the file that a setting names, relative to `base`; a problem where it cannot be read.
    pub fn read_file(&mut self, setting: &Setting<PathBuf>, base: &Path) -> Option<String> {
        let path = base.join(self.read(setting)?);
        match (self.sources.file)(&path.to_string_lossy()) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(setting.at(), format!("cannot read `{}`: {error}", path.display()), None);
                None
            }
        }
    }

    /// The text of a file that no setting names, if it can be read.
    pub fn try_file(&self, path: &str) -> Option<String> {
        (self.sources.file)(path).ok()
    }

    /// Notes a problem. `help` says what to write instead.
    pub fn problem(&mut self, at: Position, message: impl Display, help: Option<String>) {
        self.problems.push(Problem { at, message: message.to_string(), help });
    }

    /// Notes that `name`, at `at`, refers to nothing; proposes the nearest of `known`.
    pub fn unknown<'n>(
        &mut self,
        at: Position,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str> + Clone,
    ) {
        let help = match crate::nearest(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => match known.into_iter().take(10).collect::<Vec<_>>() {
                names if names.is_empty() => format!("define a {what} of this name"),
                names => format!("known are: {}", names.join(", ")),
            },
        };
        self.problem(at, format!("there is no {what} named `{name}`"), Some(help));
    }

    /// Whether nothing was wrong so far.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Everything that was wrong.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
