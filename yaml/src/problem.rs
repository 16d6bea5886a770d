//! What is wrong with a file, where, and what to write instead.

use std::fmt;

/// Where something stands in the file; lines and columns count from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line, from 1; 0 when the place is not known.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl From<serde_saphyr::Location> for Position {
    fn from(location: serde_saphyr::Location) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(0);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

/// One thing wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Position,
    /// What is wrong, beginning in lower case and without a full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// All problems of one file, shown with the lines they stand on. The order is that of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    name: String,
    entries: Vec<(Problem, String)>,
}

impl Report {
    pub(crate) fn new(name: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at);
        let source = |line: usize| text.lines().nth(line.saturating_sub(1)).unwrap_or_default().to_owned();
        let entries = problems
            .into_iter()
            .map(|problem| {
                let line = source(problem.at.line);
                (problem, line)
            })
            .collect();
        Self { name: name.to_owned(), entries }
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.entries.iter().map(|(problem, _)| problem)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (Problem { at, message, help }, source)) in self.entries.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            if at.line == 0 {
                write!(f, "{}: {message}", self.name)?;
            } else {
                let gutter = at.line.to_string().len();
                let source = source.trim_end();
                write!(f, "{}:{}:{}: {message}", self.name, at.line, at.column)?;
                write!(f, "\n{:gutter$} |\n{} | {source}\n{:gutter$} | ", "", at.line, "")?;
                write!(f, "{:1$}^", "", at.column.saturating_sub(1))?;
            }
            if let Some(help) = help {
                write!(f, "\n  help: {}", help.replace('\n', "\n        "))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
