//! What lies where the daemon reads, writes and removes.

use super::*;

#[test]
fn links_in_the_place_of_the_daemons_files_are_not_written_through() {
    let mut daemon = attacked("links");
    let victim = daemon.home().join("victim");
    fs::write(&victim, "untouched").expect("written");
    let pids = run_set(&daemon, 1);
    assert!(dir_of(&daemon, 1).join("started.json").is_symlink(), "the attack took place");

    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 1);
    assert_eq!(daemon.vm_pids("web"), pids);
    // As an orphan, too.
    assert!(daemon.stop().success());
    fs::rename(daemon.data().join("state.redb"), daemon.home().join("lost.redb")).expect("moved away");
    daemon.launch();
    assert_eq!(daemon.json(&["orphans"])[0]["pid"].as_u64(), Some(u64::from(pids[0].1)));
    assert_eq!(daemon.run(&["recover"]).code, 0);
    daemon.wait_in_service("web", 1);
    delete(&daemon);
    assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
    assert_eq!(fs::metadata(&victim).expect("there").uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn pipes_in_the_place_of_files_stop_neither_a_set_nor_the_daemon() {
    let mut daemon = attacked("pipes,pipe-behind-overlay");
    let pids = run_set(&daemon, 2);
    for (id, _) in &pids {
        go(&daemon, *id);
    }
    let gc = daemon.run(&["image", "gc", "--dry-run"]);
    assert!(gc.code != 0 && gc.err.contains("pipe"), "what cannot be read is not unused: {gc:?}");

    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.vm_pids("web"), pids);
    assert_eq!(daemon.run(&["scale", "web", "2", "--wait"]).code, 0);
    assert!(daemon.stop().success());
    daemon.launch();
    delete(&daemon);
}

#[test]
fn what_a_link_leads_to_stays_when_the_instance_goes() {
    let daemon = attacked("link-out,strange-names");
    let precious = daemon.home().join("precious");
    fs::create_dir(&precious).and_then(|()| fs::write(precious.join("kept"), "kept")).expect("a directory");
    run_set(&daemon, 1);
    delete(&daemon);
    assert_eq!(fs::read_to_string(precious.join("kept")).expect("it is there"), "kept");
    let log = daemon.log();
    assert!(!log.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{log}");
}

#[test]
fn a_nest_of_directories_is_removed_with_its_instance() {
    let mut daemon = attacked("deep");
    // Fewer than the nest is deep.
    assert!(daemon.stop().success());
    daemon.limit_open_files(400);
    daemon.launch();
    run_set(&daemon, 1);
    delete(&daemon);
    assert!(!daemon.log().contains("Too many open files"), "{}", daemon.log());
}

#[test]
fn logs_without_end_are_kept_to_their_last_part() {
    let daemon = attacked("sparse-logs");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    let failed = daemon.data().join("failed");
    wait_for("the logs of a failed launch", || exists(&failed.join("web+1/reason.txt")));
    let files = fs::read_dir(&failed).expect("kept").flatten().flat_map(|it| fs::read_dir(it.path()));
    for file in files.flatten().flatten() {
        let length = file.metadata().expect("there").len();
        assert!(length <= 1 << 20, "{}: {length} bytes", file.path().display());
    }
    assert!(peak_bytes(&daemon) < PEAK_BYTES, "{} bytes", peak_bytes(&daemon));
    wait_for("the failed launch to be told", || match events(&daemon, "launch-failed").first() {
        Some(event) if event["text"].as_str().is_some_and(|text| text.contains("code 7")) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_disk_longer_than_the_hosts_is_no_trouble() {
    let mut daemon = attacked("sparse-overlay");
    let pids = run_set(&daemon, 1);
    assert!(daemon.stop().success());
    daemon.launch();
    daemon.wait_in_service("web", 1);
    assert_eq!(daemon.vm_pids("web"), pids);
    assert_eq!(daemon.run(&["image", "gc", "--dry-run"]).code, 0);
    delete(&daemon);
}
