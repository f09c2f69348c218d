//! `regatta doctor`: what this host lacks, without a daemon.

use std::path::PathBuf;

use regatta_api::paths;
use serde::Serialize;

use super::Io;
use super::args::{DoctorArgs, Output};
use super::exit::{Exit, Outcome};
use super::render::{BOLD, Columns, json, paint, plain_line, text};

/// How a check ended. The worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Something works less well, or less safely, than it could.
    Warn,
    /// Real VMs with isolated networks cannot run.
    Fail,
}

impl CheckStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found about one thing that the daemon needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, such as `kvm`.
    pub name: &'static str,
    /// How it ended.
    pub status: CheckStatus,
    /// What was seen, in a few words.
    pub seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What to examine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The daemon's data directory; need not exist.
    pub data: PathBuf,
    /// The VMM program; else `cloud-hypervisor` on PATH.
    pub vmm: Option<PathBuf>,
    /// Only what keeps guests and users from what is not theirs.
    pub security: bool,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// The worst of the checks.
    status: CheckStatus,
    checks: &'a [Check],
}

pub(super) fn doctor(
    args: &DoctorArgs,
    data: Option<PathBuf>,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome<Exit> {
    let data = data.map_or_else(paths::default_data_dir, Ok)?;
    let headings = if args.security { WALLS } else { HOST };
    report(
        &(io.doctor)(&Examination { data, vmm: args.vmm.clone(), security: args.security }),
        headings,
        output,
        io,
    )
}

/// Above the fixes of what fails, and of what warns.
type Headings = [&'static str; 2];
const HOST: Headings = ["To run real VMs with isolated networks:", "To run them better, or more safely:"];
const WALLS: Headings = ["Missing walls:", "Weakened walls:"];

fn report(checks: &[Check], headings: Headings, output: Output, io: &mut Io<'_>) -> Outcome<Exit> {
    let status = checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Ok);
    match output {
        Output::Json => json(&Report { status, checks }, io)?,
        Output::Table => table(checks, headings, io)?,
    }
    Ok(if status == CheckStatus::Fail { Exit::Failed } else { Exit::Ok })
}

fn table(checks: &[Check], [fail, warn]: Headings, io: &mut Io<'_>) -> Outcome {
    let mut columns = Columns::new(&["CHECK", "STATUS", "FOUND"], io);
    for check in checks {
        columns.row(vec![text(check.name), columns.state(check.status.as_str()), text(&check.seen)]);
    }
    columns.print(0, io)?;
    let colour = io.colour && io.out_terminal;
    for (status, heading) in [(CheckStatus::Fail, fail), (CheckStatus::Warn, warn)] {
        let mut fixes = checks
            .iter()
            .filter(|check| check.status == status)
            .filter_map(|c| Some((c.name, c.fix.as_ref()?)));
        if let Some(first) = fixes.next() {
            writeln!(io.out, "\n{}", paint(colour, BOLD, heading))?;
            for (name, fix) in std::iter::once(first).chain(fixes) {
                writeln!(io.out, "  {name}: {}", plain_line(fix))?;
            }
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    writeln!(
        io.out,
        "\n{} checks: {} ok, {} warn, {} fail",
        checks.len(),
        count(CheckStatus::Ok),
        count(CheckStatus::Warn),
        count(CheckStatus::Fail)
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, status: CheckStatus, fix: Option<&str>) -> Check {
        Check { name, status, seen: "seen".to_owned(), fix: fix.map(str::to_owned) }
    }

    fn printed(checks: &[Check], output: Output) -> (Exit, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = {
            let mut io = Io {
                input: &mut std::io::empty(),
                out: &mut out,
                err: &mut err,
                in_terminal: false,
                out_terminal: false,
                out_width: None,
                err_terminal: false,
                colour: false,
                clock_ms: &|| 0,
                serve: &|_| Ok(()),
                doctor: &|_| Vec::new(),
                restore: &|_, _| anyhow::bail!("not here"),
                engine: &|_| regatta_policy_tools::EngineOptions::default(),
            };
            report(checks, HOST, output, &mut io).expect("reported")
        };
        assert!(err.is_empty());
        (exit, String::from_utf8(out).expect("utf-8"))
    }

    #[test]
    fn the_worst_check_decides_and_each_problem_comes_with_its_remedy() {
        let checks = [
            check("kvm", CheckStatus::Ok, None),
            check("nftables", CheckStatus::Fail, Some("install nftables")),
            check("cgroup", CheckStatus::Warn, Some("boot with v2")),
        ];
        let (exit, text) = printed(&checks, Output::Table);
        assert_eq!(exit, Exit::Failed);
        assert_eq!(
            text,
            "CHECK      STATUS   FOUND\n\
             kvm        ok       seen\n\
             nftables   fail     seen\n\
             cgroup     warn     seen\n\
             \n\
             To run real VMs with isolated networks:\n  nftables: install nftables\n\
             \n\
             To run them better, or more safely:\n  cgroup: boot with v2\n\
             \n\
             3 checks: 1 ok, 1 warn, 1 fail\n"
        );
        let (exit, text) = printed(&checks[..1], Output::Table);
        assert_eq!(exit, Exit::Ok);
        assert!(text.ends_with("seen\n\n1 checks: 1 ok, 0 warn, 0 fail\n"), "{text}");

        let (exit, text) = printed(&checks[1..], Output::Json);
        assert_eq!(exit, Exit::Failed);
        let report: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!(report["status"], "fail");
        assert_eq!(report["checks"][0]["fix"], "install nftables");
        assert_eq!(printed(&checks[2..], Output::Json).0, Exit::Ok, "a warning is not a failure");
    }
}
