//! The languages that policies are written in.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A language with a folder in `examples/languages`, or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// JavaScript, on QuickJS.
    JavaScript,
    /// Python, on CPython.
    Python,
    /// Go.
    Go,
    /// C, compiled by Zig or clang.
    C,
    /// Zig.
    Zig,
    /// AssemblyScript.
    AssemblyScript,
    /// WebAssembly text by hand.
    Wat,
    /// C++, compiled by Zig.
    Cpp,
    /// Nim, by way of C that Zig compiles.
    Nim,
    /// D without its runtime, linked by Zig.
    D,
    /// Any other: the project says what builds it.
    Other,
}

/// A language that is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown language `{0}`; known are {known}", known = known())]
pub struct UnknownLanguage(pub String);

impl Language {
    /// All that have an example; the ones that are most at home first.
    pub const ALL: [Self; 11] = [
        Self::Rust,
        Self::JavaScript,
        Self::Python,
        Self::Go,
        Self::C,
        Self::Zig,
        Self::AssemblyScript,
        Self::Wat,
        Self::Cpp,
        Self::Nim,
        Self::D,
    ];

    /// Its name in `policy.yaml`, on the command line and of its folder.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Go => "go",
            Self::C => "c",
            Self::Zig => "zig",
            Self::AssemblyScript => "assemblyscript",
            Self::Wat => "wat",
            Self::Cpp => "cpp",
            Self::Nim => "nim",
            Self::D => "d",
            Self::Other => "other",
        }
    }

    /// Its name in a sentence.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::C => "C",
            Self::Zig => "Zig",
            Self::AssemblyScript => "AssemblyScript",
            Self::Wat => "WebAssembly text",
            Self::Cpp => "C++",
            Self::Nim => "Nim",
            Self::D => "D",
            Self::Other => "another language",
        }
    }

    /// What a person must do once in the project's folder so that it builds there, for each program that it needs
    /// beside those of [`installs`](Self::installs).
    #[must_use]
    pub fn hint(self, program: &str) -> &'static str {
        match (self, program) {
            (_, "cargo" | "rustc") => "install Rust: https://rustup.rs",
            (_, "go") => "install Go 1.24 or newer: https://go.dev/dl",
            (_, "nim") => "install Nim 1.6 or newer: https://nim-lang.org (on Debian: apt install nim)",
            (_, "ldc2") => {
                "install LDC 1.30 or newer: https://wiki.dlang.org/LDC (on Debian: apt install ldc)"
            }
            (_, "npm") => "install Node.js 20 or newer, which brings npm: https://nodejs.org",
            (_, "python3") => "install Python 3.10 or newer: https://python.org",
            (Self::JavaScript | Self::AssemblyScript, _) => "npm install",
            (Self::C, _) => {
                "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt \
                 (or on Debian: apt install clang lld wasi-libc libclang-rt-dev-wasm32)"
            }
            (Self::Python | Self::Cpp | Self::Nim | Self::D | Self::Zig, _) => {
                "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
            }
            (Self::Rust | Self::Go | Self::Wat | Self::Other, _) => "install it",
        }
    }

    /// The commands that install its tools into the project's folder and nowhere else, as program and
    /// arguments; none when its tools are the machine's.
    #[must_use]
    pub fn installs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::JavaScript | Self::AssemblyScript => &[&["npm", "install", "--no-audit", "--no-fund"]],
            Self::Python | Self::C | Self::Cpp | Self::Nim | Self::D | Self::Zig => &[
                &["python3", "-m", "venv", ".venv"],
                &[".venv/bin/pip", "install", "--disable-pip-version-check", "-r", "requirements.txt"],
            ],
            Self::Rust | Self::Go | Self::Wat | Self::Other => &[],
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = Self::ALL.into_iter().chain([Self::Other]);
        let found = all.into_iter().find(|language| language.as_str() == text);
        found.ok_or_else(|| UnknownLanguage(text.to_owned()))
    }
}

fn known() -> String {
    format!("{}, {}", Language::ALL.map(Language::as_str).join(", "), Language::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_reads_as_it_is_written() {
        for language in Language::ALL.into_iter().chain([Language::Other]) {
            assert_eq!(language.as_str().parse(), Ok(language));
        }
        let error = "cobol".parse::<Language>().expect_err("not known");
        assert_eq!(
            error.to_string(),
            "unknown language `cobol`; known are rust, javascript, python, go, c, zig, assemblyscript, wat, cpp, nim, d, other"
        );
    }
}
