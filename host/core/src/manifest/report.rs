//! Collects problems while a manifest is read.

use std::cell::RefCell;

use super::problem::{MAX_PROBLEMS, Problem, Problems};
use super::source::{Place, Source};

/// Stands for a value that could not be read; the problem has been reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid;

/// The problems found so far.
pub(crate) struct Report<'s> {
    source: &'s Source,
    found: RefCell<Vec<(Place, Found)>>,
}

struct Found {
    path: String,
    message: String,
    hint: Option<String>,
}

impl<'s> Report<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        Self { source, found: RefCell::default() }
    }

    /// The text that is being read.
    pub(crate) fn source(&self) -> &'s Source {
        self.source
    }

    /// Whether there are so many problems that hints for more are not worth
    /// their time: hardly any of them will be shown.
    pub(crate) fn is_crowded(&self) -> bool {
        self.found.borrow().len() >= 10 * MAX_PROBLEMS
    }

    /// Adds a problem.
    pub(crate) fn push(&self, path: String, place: Place, message: String, hint: Option<String>) -> Invalid {
        self.found.borrow_mut().push((place, Found { path, message, hint }));
        Invalid
    }

    /// All problems in the order of their places; none when there is none.
    pub(crate) fn into_problems(self) -> Option<Problems> {
        let mut found = self.found.into_inner();
        // Stable: problems of one place stay in the order in which they were found.
        found.sort_by_key(|(place, _)| (place.line, place.column));
        let total = found.len();
        let problems: Vec<Problem> = found
            .into_iter()
            .take(MAX_PROBLEMS)
            .map(|(place, found)| problem(self.source, place, found.path, found.message, found.hint))
            .collect();
        (total > 0).then(|| Problems { file: self.source.name.clone(), problems, total })
    }
}

/// A problem with the line that it is about.
pub(crate) fn problem(
    source: &Source,
    place: Place,
    path: String,
    message: String,
    hint: Option<String>,
) -> Problem {
    let excerpt = source.excerpt(place);
    Problem {
        path,
        line: place.line,
        column: place.column,
        message,
        hint,
        excerpt: excerpt.text,
        mark_start: excerpt.start,
        mark_len: excerpt.len,
    }
}

/// The path of a field: `capacity.min`; keys that are not plain words are quoted.
pub(crate) fn child(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if plain { key.to_owned() } else { format!("{:?}", key.chars().take(80).collect::<String>()) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The path of an element: `metrics[0]`.
pub(crate) fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}
