//! What an import will do, after a look at every file and before anything is copied.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use regatta_core::catalogue::name_from;
use regatta_core::manifest::{cmdline_problem, name_problem};
use regatta_vmm::{FileContent, ImageError, look_at, look_at_any, look_at_kernel, one_line};

use super::layout::{self, Cmdline, Layout, MANIFEST, Said};
use crate::api::image_types::ImportImageRequest;
use crate::api::types::{ApiError, Problem};
use crate::named_file;
use regatta_util::chain;

/// Most files of a directory that holds an image.
const ENTRIES_MAX: usize = 1_000;
/// Largest `image.yaml` and `cmdline`.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// Longest description.
const DESCRIPTION_BYTES_MAX: usize = 500;
/// The path of a route; an image of this name could not be asked for.
const NAME_OF_A_ROUTE: &str = "gc";

/// An image that can be imported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ImportPlan {
    /// Its name.
    pub(crate) name: String,
    /// One line about it.
    pub(crate) description: String,
    /// The golden disk.
    pub(crate) disk: Option<PlannedFile>,
    /// Kernel.
    pub(crate) kernel: Option<PlannedFile>,
    /// Initial RAM disk.
    pub(crate) initramfs: Option<PlannedFile>,
    /// Firmware.
    pub(crate) firmware: Option<PlannedFile>,
    /// Command line of the kernel.
    pub(crate) cmdline: String,
}

/// A file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its length when it was looked at.
    pub(crate) size_bytes: u64,
}

impl ImportPlan {
    /// Length of all files.
    pub(crate) fn total_bytes(&self) -> u64 {
        let files = [&self.disk, &self.kernel, &self.initramfs, &self.firmware];
        files.into_iter().flatten().map(|file| file.size_bytes).sum()
    }
}

/// Looks at everything that a request names. Blocking.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn plan(request: &ImportImageRequest) -> Result<ImportPlan, ApiError> {
    try_plan(request).map_err(|problems| refused(Path::new(&request.path), &problems))
}

#[expect(clippy::disallowed_methods, reason = "only looked at; what is read of it goes through the one door")]
fn try_plan(request: &ImportImageRequest) -> Result<ImportPlan, Vec<String>> {
    let source = Path::new(&request.path);
    let options = options(request)?;
    let name = name(request, source)?;
    let metadata = fs::metadata(source).map_err(|error| vec![unreadable(source, error)])?;
    let layout = if metadata.is_dir() { of_directory(source, options)? } else { of_file(source, options)? };

    let mut problems = Vec::new();
    let mut check = |path: Option<PathBuf>, look: fn(&Path) -> Result<u64, String>| {
        let path = path?;
        match look(&path) {
            Ok(size_bytes) => Some(PlannedFile { path, size_bytes }),
            Err(why) => {
                problems.push(why);
                None
            }
        }
    };
    let disk = check(layout.disk, disk_size);
    let kernel =
        check(layout.kernel, |path| look_at_kernel(path).map(|(_, size)| size).map_err(|e| chain(&e)));
    let initramfs = check(layout.initramfs, |path| look_at_any(path).map_err(|e| chain(&e)));
    let firmware = check(layout.firmware, |path| look_at_any(path).map_err(|e| chain(&e)));
    let cmdline = match layout.cmdline {
        None => Ok(String::new()),
        Some(Cmdline::Text(text)) => Ok(text),
        Some(Cmdline::File(path)) => read_text(&path).map(|text| text.trim().to_owned()),
    };
    let cmdline = cmdline.and_then(|text| match cmdline_problem(&text) {
        Some(problem) => Err(format!("the command line {problem}")),
        None => Ok(text),
    });
    let description = one_line_of(&layout.description);
    if description.len() > DESCRIPTION_BYTES_MAX {
        let len = description.len();
        problems.push(format!(
            "the description must not be longer than {DESCRIPTION_BYTES_MAX} bytes, has {len}"
        ));
    }
    match cmdline {
        Ok(cmdline) if problems.is_empty() => {
            Ok(ImportPlan { name, description, disk, kernel, initramfs, firmware, cmdline })
        }
        Ok(_) => Err(problems),
        Err(problem) => {
            problems.push(problem);
            Err(problems)
        }
    }
}

/// What the options of the request say. They may lead anywhere on the host.
fn options(request: &ImportImageRequest) -> Result<Said, Vec<String>> {
    let mut problems = Vec::new();
    let mut absolute = |what: &str, path: Option<&String>| {
        let path = PathBuf::from(path?);
        if !path.is_absolute() {
            problems.push(format!("{what} must be an absolute path of the daemon's host, is {path:?}"));
        }
        Some(path)
    };
    absolute("path", Some(&request.path));
    let said = Said {
        disk: None,
        kernel: absolute("kernel", request.kernel.as_ref()),
        initramfs: absolute("initramfs", request.initramfs.as_ref()),
        firmware: absolute("firmware", request.firmware.as_ref()),
        cmdline: request.cmdline.clone(),
        description: request.description.clone(),
    };
    if problems.is_empty() { Ok(said) } else { Err(problems) }
}

fn name(request: &ImportImageRequest, source: &Path) -> Result<String, Vec<String>> {
    let name = match &request.name {
        Some(name) => name.clone(),
        None => source
            .file_name()
            .and_then(|name| name_from(&name.to_string_lossy()))
            .ok_or_else(|| vec!["no name can be made from that of the file; give one (--name)".to_owned()])?,
    };
    match name_problem(&name) {
        Some(problem) => Err(vec![format!("the name {name:?} {problem}")]),
        None if name == NAME_OF_A_ROUTE => {
            Err(vec![format!("the name {name:?} is reserved; give another (--name)")])
        }
        None => Ok(name),
    }
}

fn of_directory(dir: &Path, options: Said) -> Result<Layout, Vec<String>> {
    let mut names = Vec::new();
    let unreadable = |error| vec![unreadable(dir, error)];
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // What is not a file, or leads to one outside, plays no part: whoever made the directory need not be who may read that.
        if let Ok(name) = entry.file_name().into_string()
            && named_file::beneath(dir, Path::new(&name)).is_ok_and(|path| path.is_file())
        {
            names.push(name);
        }
        if names.len() > ENTRIES_MAX {
            return Err(vec![format!(
                "the directory has more than {ENTRIES_MAX} files: an image has one of its own"
            )]);
        }
    }
    let said = if names.iter().any(|name| name == MANIFEST) {
        let text = read_text(&dir.join(MANIFEST)).map_err(|problem| vec![problem])?;
        options.or(parse(&text)?.within(dir)?)
    } else {
        options
    };
    names.sort();
    resolved(layout::of_directory(dir, &names, said)?, dir)
}

/// Without links on the way, so that what is copied is what was looked at.
fn resolved(mut layout: Layout, dir: &Path) -> Result<Layout, Vec<String>> {
    let Layout { disk, kernel, initramfs, firmware, cmdline, .. } = &mut layout;
    let cmdline = match cmdline {
        Some(Cmdline::File(path)) => Some(path),
        _ => None,
    };
    let files = [disk.as_mut(), kernel.as_mut(), initramfs.as_mut(), firmware.as_mut(), cmdline];
    let mut problems = Vec::new();
    for path in files.into_iter().flatten() {
        // What an operator names by an option may lie anywhere.
        let Ok(within) = path.strip_prefix(dir) else { continue };
        match named_file::beneath(dir, within) {
            Ok(found) => *path = found,
            // Whoever reads it tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => problems.push(unreadable(path, error)),
        }
    }
    if problems.is_empty() { Ok(layout) } else { Err(problems) }
}

fn parse(text: &str) -> Result<Said, Vec<String>> {
    if text.trim().is_empty() {
        return Ok(Said::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        vec![format!("{MANIFEST}: {}", text.lines().next().unwrap_or_default())]
    })
}

/// A single file is a disk or a kernel, by its contents.
fn of_file(file: &Path, options: Said) -> Result<Layout, Vec<String>> {
    if file.extension().is_some_and(|ending| ending == "fd") {
        let hint = "it is a firmware by its name; import the disk that it starts, with --firmware";
        return Err(vec![hint.to_owned()]);
    }
    let (content, _) = look_at(file).map_err(|error| vec![chain(&error)])?;
    let Said { kernel, initramfs, firmware, cmdline, description, .. } = options;
    let (disk, kernel) = match (content, kernel) {
        (FileContent::Disk { .. }, kernel) => (Some(file.to_owned()), kernel),
        (FileContent::Kernel(_), None) => (None, Some(file.to_owned())),
        (FileContent::Kernel(kind), Some(_)) => {
            return Err(vec![format!("{} is a kernel itself ({kind}), beside --kernel", one_line(file))]);
        }
    };
    let cmdline = cmdline.map(Cmdline::Text);
    let description = description.unwrap_or_default();
    let layout = Layout { disk, kernel, initramfs, firmware, cmdline, description };
    layout::complete(&layout).map(|()| layout)
}

fn disk_size(path: &Path) -> Result<u64, String> {
    match look_at(path).map_err(|error| chain(&error))? {
        (FileContent::Disk { .. }, size_bytes) => Ok(size_bytes),
        (FileContent::Kernel(kind), _) => {
            Err(format!("{} cannot be the disk: it is a kernel ({kind})", one_line(path)))
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        named_file::open(path)?.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(format!("{} is larger than {} KiB", one_line(path), TEXT_BYTES_MAX >> 10));
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", one_line(path)))
}

fn unreadable(path: &Path, source: io::Error) -> String {
    let path = path.to_owned();
    chain(&match source.kind() {
        io::ErrorKind::NotFound => ImageError::Missing { path },
        _ => ImageError::Read { path, source },
    })
}

fn one_line_of(text: &str) -> String {
    text.split(|c: char| c.is_control())
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn refused(source: &Path, problems: &[String]) -> ApiError {
    let source = one_line(source);
    match problems {
        // Some name the file themselves.
        [problem] if problem.starts_with(&source) => ApiError::invalid(problem, Vec::new()),
        [problem] => ApiError::invalid(format!("{source} cannot be imported: {problem}"), Vec::new()),
        problems => {
            let told = problems.iter().map(|problem| Problem {
                path: String::new(),
                line: 0,
                column: 0,
                message: problem.clone(),
                hint: None,
                rendered: problem.clone(),
            });
            let message = format!("{source} cannot be imported: {} problems", problems.len());
            ApiError::invalid(message, told.collect())
        }
    }
}
