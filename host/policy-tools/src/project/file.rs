//! `policy.yaml`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use regatta_policy_build::Language;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use thiserror::Error;

use super::rename::check_name;

/// Name of the file.
pub(super) const FILE_NAME: &str = "policy.yaml";

/// What `policy.yaml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectFile {
    /// The language, which decides how it is built.
    pub language: Language,
    /// The policy's name.
    pub name: String,
    /// Where the module goes, relative to the project's folder.
    pub output: PathBuf,
    /// What builds it, when the language is another one.
    pub command: Option<String>,
}

/// A folder that is not a project.
#[derive(Debug, Error)]
pub enum ProjectError {
    /// There is no `policy.yaml`, or it cannot be read.
    #[error("cannot read {}; `regatta policy new` makes a project", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It says something else than it should; with line and column.
    #[error("{}{place}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// `:line:column`; empty when it is about the whole.
        place: String,
        /// What.
        message: String,
    },
}

/// The parser's words with their place in front instead of behind.
fn mistake(error: &serde_saphyr::Error) -> (String, String) {
    let mut text = error.without_snippet().to_string();
    let place = error.location().map(|place| format!(":{}:{}", place.line(), place.column()));
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    (place.unwrap_or_default(), text)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    language: Spanned<String>,
    name: Spanned<String>,
    output: Option<PathBuf>,
    command: Option<Spanned<String>>,
}

impl ProjectFile {
    /// Reads that of a folder.
    ///
    /// # Errors
    /// When it is not there, or not as it should be.
    pub fn read(dir: &Path) -> Result<Self, ProjectError> {
        let path = dir.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ProjectError::Read { path, source }),
        };
        Self::parse(&text).map_err(|(place, message)| ProjectError::Invalid { path, place, message })
    }

    /// The error is a place and what is wrong there.
    fn parse(text: &str) -> Result<Self, (String, String)> {
        let fields: Fields = serde_saphyr::from_str(text).map_err(|error| mistake(&error))?;
        let written = fields.language;
        let at = |place: &Location| format!(":{}:{}", place.line(), place.column());
        let language = written
            .value
            .parse()
            .map_err(|error| (at(&written.referenced), format!("`language`: {error}")))?;
        match (language, &fields.command) {
            (Language::Other, None) => {
                let message = "`language: other` needs a `command` that writes the module to $OUT";
                return Err((at(&written.referenced), message.to_owned()));
            }
            (Language::Other, Some(_)) | (_, None) => {}
            (_, Some(command)) => {
                let message = format!("`command` is for `language: other`; {language} has its own");
                return Err((at(&command.referenced), message));
            }
        }
        let name = fields.name;
        check_name(&name.value).map_err(|error| (at(&name.referenced), format!("`name`: {error}")))?;
        let name = name.value;
        let output = fields.output.unwrap_or_else(|| PathBuf::from(format!("{name}.wasm")));
        let command = fields.command.map(|command| command.value);
        Ok(Self { language, name, output, command })
    }

    /// The text of the file.
    pub(super) fn text(language: Language, name: &str) -> String {
        format!("language: {language}\nname: {name}\noutput: {name}.wasm\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let read = ProjectFile::parse(&ProjectFile::text(Language::Zig, "my-policy")).expect("valid");
        let output = PathBuf::from("my-policy.wasm");
        let name = "my-policy".to_owned();
        assert_eq!(read, ProjectFile { language: Language::Zig, name, output, command: None });
        let read = ProjectFile::parse("{ language: wat, name: x }").expect("valid");
        assert_eq!(read.output, PathBuf::from("x.wasm"));
        let read = ProjectFile::parse("language: other\nname: x\ncommand: |\n  make x\n  cp x.wasm $OUT\n")
            .expect("valid");
        assert_eq!(read.command.as_deref(), Some("make x\ncp x.wasm $OUT\n"));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, at, told) in [
            ("language: go\nname: x\nouput: y.wasm\n", ":3:1", "unknown field `ouput`"),
            ("language: go\n", ":1:1", "missing field `name`"),
            ("language: go\nname: [x]\n", ":2:7", ""),
            ("language: cobol\nname: x\n", ":1:11", "unknown language `cobol`; known are rust"),
            ("language: go\nname: X\n", ":2:7", "`name`: \"X\" is not"),
            ("language: other\nname: x\n", ":1:11", "needs a `command`"),
            ("language: go\nname: x\ncommand: make\n", ":3:10", "go has its own"),
            ("language: [", ":1:", ""),
        ] {
            let (place, message) = ProjectFile::parse(text).expect_err(text);
            assert!(place.starts_with(at) && message.contains(told), "{text:?}: {place} {message}");
            assert!(!message.contains(" at line "), "{message}");
        }
    }
}
