//! Where the programs of languages are.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{env, fs};

use regatta_util::program;

use crate::error::BuildError;
use crate::language::Language;

/// Of a script's first line the kernel reads no more.
const LINE_BYTES: u64 = 256;

/// Folders in which programs are looked for, best first.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    folders: Vec<PathBuf>,
    cargo_target: Option<PathBuf>,
}

impl Tools {
    /// Those of a project (`node_modules/.bin`, `.venv/bin`), then those below `tools`, then those on `PATH`.
    ///
    /// Below `tools` a program may lie in `bin`, `usr/bin`, `venv/bin`, `node_modules/.bin` or `usr/lib/go-*/bin`, of the folder
    /// itself or of one in it.
    #[must_use]
    pub fn new(project: &Path, tools: Option<&Path>) -> Self {
        // They are run in the project's folder, where a path from here would mean another file.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (project, tools) = (absolute(project), tools.map(absolute));
        let mut folders = vec![project.join("node_modules/.bin"), project.join(".venv/bin")];
        if let Some(tools) = tools {
            let mut homes: Vec<PathBuf> =
                fs::read_dir(&tools).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            homes.sort();
            homes.insert(0, tools);
            for home in homes {
                folders.extend(go_of_debian(&home.join("usr/lib")));
                folders.extend(
                    ["bin", "usr/bin", "venv/bin", ".venv/bin", "node_modules/.bin"]
                        .map(|end| home.join(end)),
                );
                folders.push(home);
            }
        }
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        folders.extend(go_of_debian(Path::new("/usr/lib")));
        Self { folders, cargo_target: None }
    }

    /// Lets cargo build in this target directory instead of the project's own.
    #[must_use]
    pub fn with_cargo_target(mut self, folder: PathBuf) -> Self {
        self.cargo_target = Some(folder);
        self
    }

    pub(crate) fn cargo_target(&self) -> Option<&Path> {
        self.cargo_target.as_deref()
    }

    /// The first of these programs that is there.
    ///
    /// # Errors
    /// When none is, with what to do.
    pub fn find(&self, language: Language, programs: &[&str]) -> Result<PathBuf, BuildError> {
        let found = programs
            .iter()
            .flat_map(|program| self.folders.iter().map(move |folder| folder.join(program)))
            .find(|path| is_program(path));
        found.ok_or_else(|| {
            let program = programs.first().copied().unwrap_or_default();
            let hint = language.hint(program).to_owned();
            BuildError::Missing { language, program: program.to_owned(), hint }
        })
    }

    /// `PATH` for the programs, as they call one another by name.
    pub(crate) fn path(&self) -> OsString {
        // Folders with a `:` cannot be on it; they come from this machine's own `PATH` and never are.
        env::join_paths(&self.folders).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
    }
}

/// Debian's packages of a certain Go keep it off `PATH`: `/usr/lib/go-1.24/bin`; the newest first.
fn go_of_debian(lib: &Path) -> Vec<PathBuf> {
    let version = |path: &Path| {
        let minor = path.file_name()?.to_str()?.strip_prefix("go-1.")?;
        minor.parse::<u32>().ok()
    };
    let entries = fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter_map(|path| Some((version(&path)?, path.join("bin")))).collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, bin)| bin).collect()
}

fn is_program(path: &Path) -> bool {
    program::is_program(path) && interpreter(path).is_none_or(|program| program.exists())
}

/// What runs a script. Those of a Python environment name it by its whole path, which is gone once the environment has
/// been moved.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    fs::File::open(path).ok()?.take(LINE_BYTES).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(PathBuf::from(std::str::from_utf8(line).ok()?.split_whitespace().next()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, "").expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn the_projects_own_come_first_and_what_cannot_run_is_no_program() {
        let dir = tempfile::tempdir().expect("a folder");
        let (project, tools) = (dir.path().join("project"), dir.path().join("tools"));
        program(&project.join("node_modules/.bin/odd-tool"), 0o644);
        program(&tools.join("javascript/node_modules/.bin/odd-tool"), 0o755);
        let find = || Tools::new(&project, Some(&tools)).find(Language::JavaScript, &["odd-tool"]);
        assert_eq!(find().expect("found"), tools.join("javascript/node_modules/.bin/odd-tool"));
        program(&project.join(".venv/bin/odd-tool"), 0o755);
        assert_eq!(find().expect("found"), project.join(".venv/bin/odd-tool"));
    }

    #[test]
    fn a_script_of_an_environment_that_was_moved_is_no_program() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, line) in
            [("gone-of-this-test", "#!/no/such/venv/bin/python\n"), ("there-of-this-test", "#! /bin/sh -e\n")]
        {
            let path = dir.path().join("venv/bin").join(name);
            program(&path, 0o755);
            fs::write(&path, line).expect("written");
        }
        let tools = Tools::new(Path::new("nowhere"), Some(dir.path()));
        assert!(tools.find(Language::Python, &["gone-of-this-test"]).is_err());
        assert!(tools.find(Language::Python, &["there-of-this-test"]).is_ok());
    }

    #[test]
    fn the_newest_go_of_debian_is_found_where_the_package_puts_it() {
        let dir = tempfile::tempdir().expect("a folder");
        for version in ["go-1.9", "go-1.27", "go-1.24", "go", "gcc"] {
            program(&dir.path().join("go/usr/lib").join(version).join("bin/go-of-this-test"), 0o755);
        }
        let tools = Tools::new(Path::new("nowhere"), Some(dir.path()));
        let found = tools.find(Language::Go, &["go-of-this-test"]).expect("found");
        assert_eq!(found, dir.path().join("go/usr/lib/go-1.27/bin/go-of-this-test"));
    }

    #[test]
    fn a_missing_program_comes_with_the_way_to_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = Tools::new(dir.path(), None).find(Language::Python, &["no-such-program", "nor-this"]);
        assert_eq!(
            error.expect_err("not there").to_string(),
            "`no-such-program`, which builds Python, is not installed; to get it: \
             python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
        );
    }
}
