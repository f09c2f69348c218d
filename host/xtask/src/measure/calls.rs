//! System calls out of the log of `strace -f`, by step and by program. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::figure::rounded;

/// What `xtask-hosts` looks up to tell what comes next.
const MARK: &str = "/regatta-bench-mark/";

/// The program that is traced: what has not started another one is that.
const SELF: &str = "regatta";

/// What the VMM and what `exec` are called for people.
const STAND_IN: &str = "regatta-chsim";

/// Calls of one instance, out of a log of `instances` that came and went one by one: by set-up and tear-down, by step, by program.
pub(crate) fn per_instance(log: &str, instances: u32) -> Value {
    let parents = parents(log);
    let mut programs: BTreeMap<&str, &str> = BTreeMap::new();
    // Nothing is counted before the first mark.
    let (mut phase, mut steps) = ("", Vec::new());
    let mut counted: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for line in log.lines() {
        let Some((pid, call)) = split(line) else { continue };
        if let Some(mark) = marked(call) {
            match mark.split_once('-') {
                Some(("begin", step)) => steps.push(step),
                Some(("end", step)) => steps.retain(|open| *open != step),
                _ => phase = mark,
            }
            continue;
        }
        if !call.starts_with(|first: char| first.is_ascii_lowercase() || first == '_') {
            // The second half of a call, or the end of a process.
            continue;
        }
        let program = program_of(pid, &programs, &parents);
        if !matches!(phase, "" | "end") {
            *counted
                .entry((phase, steps.last().copied().unwrap_or("between the steps"), program))
                .or_default() += 1;
        }
        if let Some(started) = executed(call) {
            programs.insert(pid, started);
        }
    }
    let mut tree = Map::new();
    for ((phase, step, program), calls) in counted {
        let each = rounded(calls as f64 / f64::from(instances));
        let phase = tree.entry(phase).or_insert_with(|| Value::Object(Map::new()));
        let program = if program == STAND_IN { "vmm" } else { program };
        let total = phase["all"].as_f64().unwrap_or(0.0);
        phase["all"] = rounded(total + each).into();
        phase[step][program] = each.into();
    }
    Value::Object(tree)
}

/// Process id and call: `123 read(3, …`, `123 <... read resumed>…`, `123 +++ exited with 0 +++`.
fn split(line: &str) -> Option<(&str, &str)> {
    let (pid, call) = line.split_once(' ')?;
    pid.bytes().all(|byte| byte.is_ascii_digit()).then(|| (pid, call.trim_start()))
}

fn marked(call: &str) -> Option<&str> {
    call.split_once(MARK)?.1.split('"').next()
}

/// Who made whom. Known beforehand, as a child may be seen before the call that made it has returned.
fn parents(log: &str) -> BTreeMap<&str, &str> {
    let made = log.lines().filter_map(|line| {
        let (parent, call) = split(line)?;
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let makes = ["clone", "fork", "vfork"].iter().any(|name| call.starts_with(name));
        let child = makes.then(|| call.rsplit_once(" = ")).flatten()?.1.split(' ').next()?;
        child.bytes().all(|byte| byte.is_ascii_digit()).then_some((child, parent))
    });
    made.collect()
}

/// The program that a process runs: its own, or that of the next ancestor that started one.
fn program_of<'a>(
    mut pid: &'a str,
    programs: &BTreeMap<&str, &'a str>,
    parents: &BTreeMap<&'a str, &'a str>,
) -> &'a str {
    loop {
        match (programs.get(pid), parents.get(pid)) {
            (Some(program), _) => return program,
            (None, Some(parent)) => pid = parent,
            (None, None) => return SELF,
        }
    }
}

/// The program that a call starts. One that fails is followed by one that does not, or by the end.
fn executed(call: &str) -> Option<&str> {
    let path = call.strip_prefix("execve(\"")?.split('"').next()?;
    let name = path.rsplit('/').next()?;
    Some(if name == "xtask-hosts" { SELF } else { name })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LOG: &str = r#"10 execve("/usr/bin/unshare", ["unshare"], 0x7f /* 3 vars */) = 0
10 execve("/b/xtask-hosts", ["xtask-hosts"], 0x7f /* 3 vars */) = 0
10 read(3, "not counted", 100) = 11
10 statx(AT_FDCWD, "/regatta-bench-mark/set-up", 0 <unfinished ...>
10 <... statx resumed>) = -1 ENOENT (No such file or directory)
10 read(3, "x", 100) = 1
10 statx(AT_FDCWD, "/regatta-bench-mark/begin-network", 0) = -1 ENOENT (No such file or directory)
10 clone3({flags=CLONE_VM|CLONE_VFORK}, 88 <unfinished ...>
11 execve("/nowhere/nft", ["nft"], 0x7f) = -1 ENOENT (No such file or directory)
11 execve("/usr/sbin/nft", ["nft"], 0x7f <unfinished ...>
10 <... clone3 resumed>) = 11
11 <... execve resumed>) = 0
11 sendmsg(3, {}, 0) = 20
10 write(4, "", 0 <unfinished ...>
11 +++ exited with 0 +++
10 <... write resumed>) = 0
10 statx(AT_FDCWD, "/regatta-bench-mark/end-network", 0) = -1 ENOENT (No such file or directory)
10 close(3) = 0
10 statx(AT_FDCWD, "/regatta-bench-mark/tear-down", 0) = -1 ENOENT (No such file or directory)
10 unlink("/x") = 0
10 statx(AT_FDCWD, "/regatta-bench-mark/end", 0) = -1 ENOENT (No such file or directory)
10 unlink("/y") = 0
"#;

    #[test]
    fn calls_are_told_apart_by_step_and_program() {
        // Of the child, the first execve is ours still; a failed one that looks for nft counts as nft's search.
        let expected = json!({
            "set-up": {
                "all": 3.5,
                "between the steps": { "regatta": 1.0 },
                "network": { "nft": 1.0, "regatta": 1.5 },
            },
            "tear-down": { "all": 0.5, "between the steps": { "regatta": 0.5 } },
        });
        assert_eq!(per_instance(LOG, 2), expected);
    }

    #[test]
    fn an_empty_log_counts_nothing() {
        assert_eq!(per_instance("", 1), json!({}));
        assert_eq!(per_instance("strace: odd\n", 1), json!({}));
    }
}
