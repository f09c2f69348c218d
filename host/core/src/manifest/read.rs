//! Bytes of a manifest in, a checked [`ScaleSet`] or all problems out.

use super::decode;
use super::node::{self, Node, Value};
use super::problem::{Problem, Problems};
use super::report::{Report, child, item, problem};
use super::source::{Place, Source};
use super::types::{PolicyLimits, ScaleSet};

/// Largest manifest.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// A manifest that has been read.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// What it says.
    pub set: ScaleSet,
    /// Where it says it.
    pub source: ManifestSource,
}

/// The text of a manifest, so that problems found later (by the policy, by the
/// file system) can be shown at their place.
#[derive(Debug, Clone)]
pub struct ManifestSource {
    source: Source,
    tree: Node,
}

/// Reads a manifest.
///
/// `file` is the name that problems are shown with. `base_dir` is the absolute
/// directory that relative paths count from. Pure: no file is looked at.
///
/// # Errors
/// All problems, each with its place.
pub fn read_manifest(bytes: &[u8], file: &str, base_dir: &str) -> Result<Manifest, Problems> {
    let text = if bytes.len() > MAX_MANIFEST_BYTES { Ok("") } else { str::from_utf8(bytes) };
    let (text, not_utf8) = match text {
        Ok(text) => (text, None),
        Err(error) => {
            // What comes before the broken byte is enough to show the place.
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            (str::from_utf8(valid).unwrap_or_default(), Some(error.valid_up_to()))
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source { name: file.to_owned(), text: text.to_owned() };
    let report = Report::new(&source);
    let read = if bytes.len() > MAX_MANIFEST_BYTES {
        let message = format!("must not be larger than {MAX_MANIFEST_BYTES} bytes, has {}", bytes.len());
        report.push(String::new(), Place::START, message, None);
        None
    } else if not_utf8.is_some() {
        let place = source.place_of_byte(source.text.len());
        report.push(String::new(), place, "must be UTF-8; the byte after this place is not".into(), None);
        None
    } else {
        node::parse(&source, &report).map(|tree| (decode::scale_set(&report, &tree, base_dir), tree))
    };
    match (report.into_problems(), read) {
        (None, Some((Ok(set), tree))) => Ok(Manifest { set, source: ManifestSource { source, tree } }),
        (Some(problems), _) => Err(problems),
        // A value that could not be read without a problem having been reported
        // is a mistake in this crate; the manifest is refused all the same.
        (None, _) => {
            let message = "cannot be read, for a reason that was not recorded".to_owned();
            let problem = problem(&source, Place::START, String::new(), message, None);
            Err(Problems { file: source.name.clone(), problems: vec![problem], total: 1 })
        }
    }
}

/// The limits of a policy on one line, under the names of the manifest's `policy.limits`: `fuel=200000000,memory=128MiB`.
/// Those that are not given have the manifest's defaults.
///
/// # Errors
/// All problems, on one line.
pub fn read_limits(text: &str) -> Result<PolicyLimits, String> {
    let mut fields = Vec::new();
    for given in text.split(',') {
        let plain = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        match given.split_once('=') {
            Some((name, value)) if plain(name) && plain(value) => fields.push(format!("{name}: {value}")),
            _ => return Err(format!("`{given}` is not NAME=VALUE, such as fuel=200000000")),
        }
    }
    // One reader for both: what a manifest refuses is refused here. Its tick is the longest, as that bounds the deadline.
    let manifest = format!(
        "version: regatta/v1\nname: x\ntick: 10s\ncapacity: {{ min: 0, max: 1 }}\nimage: {{ kernel: k }}\nnetwork: {{ mode: none }}\n\
         policy: {{ module: m, limits: {{ {} }} }}",
        fields.join(", ")
    );
    let problems = match read_manifest(manifest.as_bytes(), "limits", "/") {
        Ok(manifest) => match manifest.set.policies.first() {
            Some(policy) => return Ok(policy.limits),
            None => "it has no policy".to_owned(),
        },
        Err(problems) => {
            let told = problems.problems.iter().map(|problem| {
                let field = problem.path.strip_prefix("policy.limits.").unwrap_or("limits");
                let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{field}: {}{hint}", problem.message)
            });
            told.collect::<Vec<_>>().join("; ")
        }
    };
    Err(problems)
}

impl ManifestSource {
    /// A problem at the place of a JSON pointer (RFC 6901), for example
    /// `/policy/params/target`. When there is nothing at the pointer, the problem
    /// is shown at the nearest thing around it.
    #[must_use]
    pub fn problem_at(&self, pointer: &str, message: impl Into<String>, hint: Option<String>) -> Problem {
        let (path, place) = self.locate(pointer);
        problem(&self.source, place, path, message.into(), hint)
    }

    /// A problem of the policy number `index` (from 0): at the place of a JSON pointer into its `params`, as the
    /// policy's own `validate` reports it, or of its `module`.
    #[must_use]
    pub fn problem_in_policy(
        &self,
        index: usize,
        in_params: Option<&str>,
        message: impl Into<String>,
    ) -> Problem {
        let policy = match self.tree.get("policies") {
            Some(_) => format!("/policies/{index}"),
            None => "/policy".to_owned(),
        };
        let within = match in_params {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => format!("/params{pointer}"),
            Some(pointer) => format!("/params/{pointer}"),
            None => "/module".to_owned(),
        };
        self.problem_at(&format!("{policy}{within}"), message, None)
    }

    /// Whether the manifest gives the policy number `index` (from 0) a name.
    #[must_use]
    pub fn names_policy(&self, index: usize) -> bool {
        let policy = match self.tree.get("policies").map(|entry| &entry.node.value) {
            Some(Value::List(policies)) => policies.get(index),
            _ => self.tree.get("policy").map(|entry| &entry.node),
        };
        policy.is_some_and(|policy| policy.get("name").is_some())
    }

    /// All of these as one error.
    #[must_use]
    pub fn problems(&self, mut problems: Vec<Problem>) -> Problems {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        let total = problems.len();
        problems.truncate(super::MAX_PROBLEMS);
        Problems { file: self.source.name.clone(), problems, total }
    }

    /// Name of the file, for people.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.name
    }

    fn locate(&self, pointer: &str) -> (String, Place) {
        let (mut node, mut path, mut place) = (Some(&self.tree), String::new(), Place::START);
        for step in pointer.split('/').skip(1).take(64) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let index = step.parse::<usize>().ok();
            match (node.map(|node| &node.value), index) {
                (Some(Value::List(nodes)), Some(index)) => {
                    path = item(&path, index);
                    node = nodes.get(index);
                    if let Some(node) = node {
                        place = node.place;
                    }
                }
                _ => {
                    let entry = node.and_then(|node| node.get(&step));
                    path = child(&path, &step);
                    node = entry.map(|entry| &entry.node);
                    if let Some(entry) = entry {
                        let inner = matches!(entry.node.value, Value::Map(_) | Value::List(_) | Value::Null);
                        place = if inner { entry.key_place } else { entry.node.place };
                    }
                }
            }
        }
        (path, place)
    }
}
