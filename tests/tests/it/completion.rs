//! What a Tab gives in a shell.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::Command;

use regatta_tests::{Daemon, IDLE, bin_dir};

/// Calls the function that bash would call for `words`, of which the last one is completed.
const PRESS_TAB: &str = r#"
    source "$1"; shift
    function=$(complete -p regatta | sed -n 's/.* -F \([^ ]*\) .*/\1/p')
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
    "$function" regatta "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn names_of_sets_complete_in_bash() {
    let mut daemon = Daemon::start();
    for set in ["web", "worker", "db"] {
        daemon.apply_ok(&daemon.manifest(set, "{ min: 1, max: 1 }", "", IDLE));
    }
    let script = daemon.home().join("completion.bash");
    fs::write(&script, daemon.run(&["completions", "bash"]).out).expect("the script");
    let data = daemon.data();
    let tab = |words: &[&str], data: Option<OsString>| -> BTreeSet<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin_dir()).chain(std::env::split_paths(&path)));
        let mut bash = Command::new("bash");
        bash.args(["-c", PRESS_TAB, "bash"]).arg(&script).arg("regatta").args(words);
        bash.env("PATH", path.expect("a PATH")).env_remove("REGATTA_SOCKET").env_remove("REGATTA_DATA");
        let output = bash.envs(data.map(|data| ("REGATTA_DATA", data))).output().expect("bash runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.trim().to_owned())
            .collect()
    };
    let ours = || Some(data.clone().into_os_string());
    let sets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    for command in [&["describe"][..], &["policy", "swap"], &["recover", "db"], &["-o", "json", "why"]] {
        assert_eq!(tab(&[command, &["w"]].concat(), ours()), sets(&["web", "worker"]), "{command:?}");
    }
    assert!(tab(&["logs", ""], ours()).is_superset(&sets(&["db", "web", "worker"])));
    let option = data.to_str().expect("text");
    assert_eq!(tab(&["--data", option, "describe", "d"], None), sets(&["db"]));
    assert_eq!(tab(&["desc"], None), sets(&["describe"]), "commands need no daemon");

    assert!(daemon.stop().success());
    assert_eq!(tab(&["describe", "w"], ours()), sets(&[]), "nobody to ask");
}
