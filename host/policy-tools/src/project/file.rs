//! `policy.yaml`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use regatta_policy_build::Language;
use serde::Deserialize;
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
}

/// A folder that is no project.
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
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What, and where.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    language: String,
    name: String,
    output: Option<PathBuf>,
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
        Self::parse(&text).map_err(|message| ProjectError::Invalid { path, message })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! { with_snippet: false };
        let fields: Fields =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
        let language = fields.language.parse().map_err(|error| format!("`language`: {error}"))?;
        check_name(&fields.name).map_err(|error| format!("`name`: {error}"))?;
        let output = fields.output.unwrap_or_else(|| PathBuf::from(format!("{}.wasm", fields.name)));
        Ok(Self { language, name: fields.name, output })
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
        assert_eq!(read, ProjectFile { language: Language::Zig, name: "my-policy".to_owned(), output });
        let read = ProjectFile::parse("{ language: wat, name: x }").expect("valid");
        assert_eq!(read.output, PathBuf::from("x.wasm"));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, told) in [
            ("language: go\nname: x\nouput: y.wasm\n", "line 3"),
            ("language: go\n", "`name`"),
            ("language: go\nname: [x]\n", "line 2"),
            ("language: cobol\nname: x\n", "unknown language `cobol`; known are rust"),
            ("language: go\nname: X\n", "`name`: \"X\" is not"),
            ("language: [", "line 1"),
        ] {
            let error = ProjectFile::parse(text).expect_err(text);
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
