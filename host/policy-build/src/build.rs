//! Runs the programs and lays the module out.

use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus};
use std::{fs, io};

use crate::error::BuildError;
use crate::language::Language;
use crate::steps;
use crate::tools::Tools;

/// A folder with one policy.
#[derive(Debug, Clone, Copy)]
pub struct Project<'a> {
    /// The folder.
    pub dir: &'a Path,
    /// Its language.
    pub language: Language,
    /// The policy's name, as in `policy.yaml`.
    pub name: &'a str,
    /// What builds it, for [`Language::Other`]: run by `sh` in the folder, it writes the module to `$OUT`.
    pub command: Option<&'a str>,
}

/// Builds the module and puts it at `out`, at once and whole: who watches never sees half of it.
///
/// `run` starts each program, with its folder and surroundings set, and waits for it; what the programs print is
/// its affair.
///
/// # Errors
/// When a program is missing (with the way to it), or failed.
pub fn build(
    project: &Project<'_>,
    out: &Path,
    tools: &Tools,
    run: &mut dyn FnMut(&mut Command) -> io::Result<ExitStatus>,
) -> Result<(), BuildError> {
    let dir = fs::canonicalize(project.dir).map_err(BuildError::file("read", project.dir))?;
    let project = Project { dir: &dir, ..*project };
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(BuildError::file("make", folder))?;
    let folder = fs::canonicalize(folder).map_err(BuildError::file("read", folder))?;
    let scratch = Scratch::new(&folder)?;
    let to = scratch.0.join(format!("{}.wasm", project.name));

    let bytes = match steps::plan(&project, &to, tools)? {
        Some(plan) => {
            for step in &plan.steps {
                let mut command = Command::new(&step.program);
                command
                    .args(&step.args)
                    .envs(step.env.iter().cloned())
                    .env("PATH", tools.path())
                    .current_dir(&dir);
                execute(&mut command, run)?;
            }
            fs::read(&plan.made).map_err(BuildError::file("read", &plan.made))?
        }
        None => assemble(&dir.join("policy.wat"))?,
    };
    if !bytes.starts_with(b"\0asm") {
        return Err(BuildError::NotWasm { path: out.to_owned() });
    }
    // Read and written anew, as what a program made may lie on another file system.
    let whole = scratch.0.join("whole");
    fs::write(&whole, bytes).map_err(BuildError::file("write", &whole))?;
    fs::rename(&whole, out).map_err(BuildError::file("write", out))
}

/// Installs the language's tools into the project's folder with the language's package manager; does nothing for
/// a language whose tools are the machine's.
///
/// # Errors
/// When the package manager is missing, or failed.
pub fn install(
    project: &Project<'_>,
    tools: &Tools,
    run: &mut dyn FnMut(&mut Command) -> io::Result<ExitStatus>,
) -> Result<(), BuildError> {
    let dir = fs::canonicalize(project.dir).map_err(BuildError::file("read", project.dir))?;
    for line in project.language.installs() {
        let [program, args @ ..] = line else { continue };
        let program = match program.contains('/') {
            true => dir.join(program),
            false => tools.find(project.language, &[program])?,
        };
        execute(Command::new(program).args(args).current_dir(&dir), run)?;
    }
    Ok(())
}

fn execute(
    command: &mut Command,
    run: &mut dyn FnMut(&mut Command) -> io::Result<ExitStatus>,
) -> Result<(), BuildError> {
    let status = run(command);
    let program = PathBuf::from(command.get_program());
    let status = status.map_err(|source| BuildError::Start { program: program.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    let command = std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ");
    Err(BuildError::Failed { command, status: status.to_string() })
}

/// WebAssembly text to a module, with its error as `file:line:column`.
fn assemble(path: &Path) -> Result<Vec<u8>, BuildError> {
    let text = fs::read_to_string(path).map_err(BuildError::file("read", path))?;
    wat::Parser::new()
        .parse_str(Some(path), text)
        .map_err(|error| BuildError::Wat { message: error.to_string() })
}

/// A folder beside the module, gone when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> Result<Self, BuildError> {
        let path = folder.join(format!(".regatta-build.{}", process::id()));
        fs::create_dir_all(&path).map_err(BuildError::file("make", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing more can be done about a folder that does not go.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn never(_: &mut Command) -> io::Result<ExitStatus> {
        panic!("nothing is to be run")
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn text_is_assembled_without_any_program() {
        let dir = tempfile::tempdir().expect("a folder");
        let project = Project { dir: dir.path(), language: Language::Wat, name: "x", command: None };
        fs::write(dir.path().join("policy.wat"), "(module)").expect("written");
        let tools = Tools::new(dir.path(), None);
        let out = dir.path().join("out/x.wasm");
        build(&project, &out, &tools, &mut never).expect("built");
        assert!(fs::read(&out).expect("a module").starts_with(b"\0asm"));
        assert_eq!(names(&dir.path().join("out")), ["x.wasm"], "nothing is left beside it");

        fs::write(dir.path().join("policy.wat"), "(module\n  (fun))").expect("written");
        let error = build(&project, &out, &tools, &mut never).expect_err("no text of a module").to_string();
        assert!(error.contains("policy.wat:2:4"), "{error}");
        assert!(fs::read(&out).is_ok(), "the old one stays");
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_arguments_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let bin = dir.path().join("node_modules/.bin");
        fs::create_dir_all(&bin).expect("made");
        fs::copy("/bin/true", bin.join("componentize-qjs")).expect("a program");
        let project = Project { dir: dir.path(), language: Language::JavaScript, name: "x", command: None };
        let tools = Tools::new(dir.path(), None);
        let out = dir.path().join("out/x.wasm");
        let error = build(&project, &out, &tools, &mut |_| Ok(ExitStatus::from_raw(3 << 8)));
        let error = error.expect_err("failed").to_string();
        assert!(error.starts_with("`componentize-qjs --wit wit"), "{error}");
        assert!(error.ends_with("failed (exit status: 3)"), "{error}");
        let error = build(&project, &out, &tools, &mut |command| {
            let to = command.get_args().last().expect("an output");
            fs::write(to, "#!/bin/sh")?;
            command.status()
        });
        assert!(matches!(error, Err(BuildError::NotWasm { .. })), "{error:?}");
        assert_eq!(names(&dir.path().join("out")), Vec::<String>::new());
    }
}
