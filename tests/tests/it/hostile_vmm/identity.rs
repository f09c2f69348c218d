//! Who is taken for whom, and what its user may do.

use std::collections::BTreeMap;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

#[test]
fn a_socket_that_leads_to_a_neighbor_does_the_neighbor_no_harm() {
    let mut daemon = attacked("socket-to-neighbor@2");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 2 }", "", IDLE));
    assert_eq!(daemon.run(&["scale", "web", "2", "--wait"]).code, 0);
    daemon.wait_in_service("web", 2);
    let pids = daemon.vm_pids("web");
    assert_eq!((pids[0].0, pids[1].0), (1, 2));
    assert_eq!(daemon.run(&["protect", "web", "1"]).code, 0);
    // A new daemon has no connection yet.
    assert!(daemon.stop().success());
    go(&daemon, 2);
    daemon.launch();
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.vm_pids("web"), pids, "it is known without its socket");

    assert_eq!(daemon.run(&["scale", "web", "1"]).code, 0);
    daemon.wait_in_service("web", 1);
    assert_eq!(daemon.vm_pids("web"), pids[..1]);
    wait_for("the hostile VMM to end", || match daemon.vmm_processes().as_slice() {
        [left] if *left == pids[0].1 => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert!(events(&daemon, "instance-died").is_empty(), "{}", daemon.log());
}

#[test]
fn a_vmm_without_its_socket_is_known_and_can_be_ended() {
    let mut daemon = attacked("hide-socket");
    let pids = run_set(&daemon, 2);
    go(&daemon, 1);
    wait_for_ticks(&daemon, 5);
    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.vm_pids("web"), pids);
    assert!(events(&daemon, "instance-died").is_empty(), "{}", daemon.log());
    delete(&daemon);
    assert_eq!(daemon.vmm_processes(), Vec::<u32>::new());
}

#[test]
fn a_vmm_with_its_neighbors_command_line_stays_itself() {
    let mut daemon = attacked("arguments-of-neighbor@2");
    let pids = run_set(&daemon, 2);
    let arguments = fs::read(format!("/proc/{}/cmdline", pids[1].1)).expect("a command line");
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    assert!(arguments.contains("/web/1/api.sock"), "the attack took place: {arguments:?}");
    for kill in [true, false] {
        if kill {
            daemon.kill();
        } else {
            assert!(daemon.stop().success());
        }
        daemon.launch();
        daemon.wait_in_service("web", 2);
        assert_eq!(daemon.vm_pids("web"), pids);
    }
    assert!(events(&daemon, "instance-died").is_empty(), "{}", daemon.log());
    // What it claims to be goes, and it does not go with it, nor the other way round.
    let real = Pid::from_raw(i32::try_from(pids[0].1).expect("a pid")).expect("a pid");
    kill_process(real, Signal::KILL).expect("killed");
    wait_for("its end to be seen", || match events(&daemon, "instance-died").as_slice() {
        [event] if event["instance"] == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    daemon.wait_in_service("web", 2);
    let after = daemon.vm_pids("web");
    assert!(after.contains(&pids[1]) && after.iter().all(|(id, _)| *id != 1), "{after:?}");
}

#[test]
fn a_user_id_is_nobody_elses_while_a_process_has_it() {
    if !is_root() {
        return eprintln!("skipped: only root can give VMMs users of their own");
    }
    let daemon = attacked_with("helper", &["--vm-ids", "500700-500703"]);
    let mut helpers = BTreeMap::new();
    for _ in 0..2 {
        let vmm = run_set(&daemon, 1)[0];
        let file = dir_of(&daemon, vmm.0).join("helper");
        wait_for("the helper", || exists(&file));
        let helper: i32 = fs::read_to_string(&file).expect("told").trim().parse().expect("a pid");
        let uid = uid_of(vmm.1);
        if let Some(before) = helpers.insert(uid, helper) {
            panic!("{uid} was {before}'s");
        }
        delete(&daemon);
    }
    // Where nothing ends it with its VMM, it has its user for itself; where something does, it is gone.
    for (uid, helper) in helpers {
        let Some(pid) = Pid::from_raw(helper) else { continue };
        if let Ok(found) = fs::metadata(format!("/proc/{helper}"))
            && found.uid() == uid
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn a_vmms_user_reaches_nothing_of_the_daemon_the_host_and_its_neighbors() {
    if !is_root() {
        return eprintln!("skipped: only root can give VMMs users of their own");
    }
    // The neighbor is there first.
    let mut daemon = attacked("survey@2");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 2 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    daemon.without_replay();
    assert_eq!(daemon.run(&["scale", "web", "2", "--wait"]).code, 0);
    let survey = fs::read_to_string(dir_of(&daemon, 2).join("survey")).expect("it was taken");
    let attempts: Vec<(&str, &str)> = survey.lines().filter_map(|line| line.split_once('\t')).collect();
    assert!(attempts.len() >= 30, "{survey}");
    let through: Vec<_> = attempts.iter().filter(|(_, how)| *how == "ok").collect();
    assert!(through.is_empty(), "{through:?}\n{survey}");
    // Each failed for want of a right, and not because it missed.
    let missed: Vec<_> = attempts.iter().filter(|(_, how)| how.contains("No such file")).collect();
    assert!(missed.is_empty(), "{missed:?}");
    let environment = fs::read_to_string(dir_of(&daemon, 2).join("environment")).expect("it was told");
    assert!(environment.lines().all(|name| name.starts_with("REGATTA_CHSIM_")), "{environment}");
}

#[test]
fn a_root_daemon_launches_no_vmm_as_root_unless_told_so() {
    if !is_root() {
        return eprintln!("skipped: only root can run VMMs as root");
    }
    let mut daemon = Daemon::prepare(&[]);
    let program = daemon.home().join("evil-vmm");
    fs::copy(bin_dir().join("regatta-evil-vmm"), &program).expect("a program");
    let vmm = format!("cloud-hypervisor={}", program.display());
    daemon.run_vmms_by(&["--vmm", &vmm]);
    daemon.launch();
    let status = daemon.json(&["status"]);
    let conditions = status["conditions"].as_array().expect("conditions");
    if !conditions.iter().any(|it| it["kind"] == "root-vmms") {
        // This host can give each VMM a user of its own.
        daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
        daemon.wait_in_service("web", 1);
        return assert_ne!(uid_of(daemon.vm_pids("web")[0].1), 0);
    }
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    assert!(daemon.log().contains("ERROR VMMs that would run as root are not launched"), "{}", daemon.log());
    wait_for("a refused launch", || {
        let events = daemon.json(&["events"]).to_string();
        let refused = events.contains("or start the daemon with --allow-root-vmms");
        if refused { Ok(()) } else { Err(events) }
    });
    assert_eq!(daemon.vmm_processes(), Vec::<u32>::new());
}
