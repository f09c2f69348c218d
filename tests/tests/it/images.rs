//! Golden images by name: imported, used, replaced, and never removed while something stands on them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use regatta_tests::{CommandOutput, Daemon, IDLE, wait_for};
use serde_json::{Value, json};

/// The start of a bzImage, as much of it as tells one: the stand-in boots nothing.
fn kernel() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image
}

fn disk(content: &str) -> Vec<u8> {
    let mut disk = content.as_bytes().to_vec();
    disk.resize(1 << 20, 0);
    disk
}

/// A directory with disk, kernel, command line and description.
fn image_dir(daemon: &Daemon, name: &str, content: &str) -> PathBuf {
    let dir = daemon.home().join(name);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("disk.raw"), disk(content)).expect("a disk");
    fs::write(dir.join("vmlinuz"), kernel()).expect("a kernel");
    fs::write(dir.join("cmdline"), "console=ttyS0 sim.boot=30ms from.the=catalogue\n")
        .expect("a command line");
    fs::write(dir.join("image.yaml"), "description: for a test\n").expect("a description");
    dir
}

/// The manifest of a set on a named image. Made once: every call has another address pool.
fn manifest(daemon: &Daemon, set: &str, image: &str) -> String {
    let files = daemon.manifest(set, "{ min: 1, max: 5, initial: 2 }", "", IDLE);
    let lines = files.lines().map(|line| match line.starts_with("image: ") {
        true => format!("image: {{ name: {image} }}\n"),
        false => format!("{line}\n"),
    });
    lines.collect()
}

fn ok(output: CommandOutput) -> String {
    assert_eq!(output.code, 0, "{}{}", output.out, output.err);
    output.out
}

/// Names of the stored files.
fn stored(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.data().join("images")).expect("the image store");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".json"))
        .collect();
    names.sort();
    names
}

fn file_name(digest: &Value) -> String {
    digest.as_str().expect("a digest").replace(':', "-")
}

/// What the overlay of an instance lies on.
fn backing_of(daemon: &Daemon, set: &str, id: u64) -> String {
    let overlay = daemon.data().join("instances").join(set).join(id.to_string()).join("root.qcow2");
    let head = fs::read(&overlay).expect("an overlay");
    let text = String::from_utf8_lossy(&head[..4096]).into_owned();
    let at = text.find("/sha256-").expect("a backing file of the store");
    text[at + 1..][.."sha256-".len() + 64].to_owned()
}

/// What the VMM of an instance says of its VM.
fn vm_info(daemon: &Daemon, set: &str, id: u64) -> String {
    let socket = daemon.data().join("instances").join(set).join(id.to_string()).join("api.sock");
    let mut stream = UnixStream::connect(socket).expect("a VMM");
    stream.write_all(b"GET /api/v1/vm.info HTTP/1.1\r\nHost: x\r\n\r\n").expect("asked");
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("cmdline") {
        let read = stream.read(&mut piece).expect("an answer");
        assert!(read > 0, "no command line in {}", String::from_utf8_lossy(&answer));
        answer.extend(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn an_image_has_its_name_again_when_a_set_on_it_is_recovered() {
    let mut daemon = Daemon::start();
    image_dir(&daemon, "debian", "the disk");
    ok(daemon.run(&["image", "import", "debian"]));
    daemon.apply_ok(&manifest(&daemon, "web", "debian"));
    daemon.wait_in_service("web", 2);
    let before = daemon.json(&["image", "list"]);
    assert!(daemon.stop().success());
    fs::remove_file(daemon.data().join("state.redb")).expect("the state is lost");
    daemon.launch();
    assert_eq!(daemon.json(&["image", "list"]), json!([]));
    let told = "image debian is in the catalogue again";
    let would = daemon.run(&["recover", "--dry-run"]);
    assert!(would.out.contains(told) || would.err.contains(told), "{}{}", would.out, would.err);
    assert_eq!(daemon.json(&["image", "list"]), json!([]), "only told");
    ok(daemon.run(&["recover"]));
    let after = daemon.json(&["image", "list"]);
    for field in ["name", "disk", "kernel", "cmdline", "size_bytes", "used_by"] {
        assert_eq!(after[0][field], before[0][field], "{field}");
    }
    daemon.wait_in_service("web", 2);
    ok(daemon.run(&["scale", "web", "3", "--wait"]));
    assert_eq!(backing_of(&daemon, "web", 3), file_name(&before[0]["disk"]["digest"]));
}

#[test]
fn an_image_lives_from_its_import_to_the_last_instance_on_it() {
    let mut daemon = Daemon::start();
    let dir = image_dir(&daemon, "Debian 13", "the first one");
    let printed = ok(daemon.run(&["image", "import", "Debian 13"]));
    assert!(printed.starts_with("debian-13 imported, 1.0 MiB\n"), "{printed}");
    let first = daemon.json(&["image", "list"])[0].clone();
    assert_eq!((&first["name"], &first["description"]), (&json!("debian-13"), &json!("for a test")));
    assert_eq!(first["source"], json!(dir));
    assert_eq!(
        daemon.json(&["image", "show", &first["kernel"]["digest"].as_str().expect("text")[..20]]),
        first
    );

    let manifest = manifest(&daemon, "web", "debian-13");
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.json(&["image", "show", "debian-13"])["used_by"], json!(["web"]));
    let info = vm_info(&daemon, "web", 1);
    assert!(info.contains("from.the=catalogue ip="), "the command line of the catalogue: {info}");
    assert_eq!(daemon.json(&["image", "gc"])["removed"], json!([]));

    // Another image under the same name: only a new apply takes it, and only new instances get it.
    fs::write(dir.join("disk.raw"), disk("the second one")).expect("a disk");
    fs::write(dir.join("vmlinuz"), [kernel(), b"newer".to_vec()].concat()).expect("a kernel");
    let taken = daemon.run(&["image", "import", "Debian 13"]);
    assert_eq!(taken.code, 6, "{}", taken.err);
    assert!(taken.err.contains("--replace"), "{}", taken.err);
    ok(daemon.run(&["image", "import", "Debian 13", "--replace"]));
    let second = daemon.json(&["image", "show", "debian-13"]);
    assert_ne!(second["disk"]["digest"], first["disk"]["digest"]);
    let pids = daemon.vm_pids("web");
    assert_eq!(daemon.json(&["describe", "web"])["summary"]["generation"], 1);
    let difference = ok(daemon.run(&["diff", "-f", "set.yaml"]));
    assert!(difference.contains("generation 2") && difference.contains("image.disk"), "{difference}");
    daemon.apply_ok(&manifest);
    assert_eq!(daemon.json(&["describe", "web"])["summary"]["generation"], 2);
    ok(daemon.run(&["scale", "web", "3"]));
    daemon.wait_in_service("web", 3);
    assert_eq!(daemon.vm_pids("web")[..2], pids[..], "what runs runs on");
    assert_eq!(backing_of(&daemon, "web", 1), file_name(&first["disk"]["digest"]));
    assert_eq!(backing_of(&daemon, "web", 3), file_name(&second["disk"]["digest"]));
    assert!(ok(daemon.run(&["apply", "-f", "set.yaml"])).starts_with("web unchanged"));

    // Neither the catalogue nor the set knows the first disk and kernel any more. Two instances stand on it, also for a daemon
    // that was killed and has started none of them.
    assert_eq!(daemon.json(&["image", "gc"])["removed"], json!([]));
    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 3);
    assert_eq!(daemon.vm_pids("web")[..2], pids[..]);
    assert_eq!(daemon.json(&["image", "gc"])["removed"], json!([]));
    for file in ["disk", "kernel"] {
        assert!(stored(&daemon).contains(&file_name(&first[file]["digest"])), "{file}");
    }

    // The name goes, the set goes on, also with new instances.
    let said = ok(daemon.run(&["image", "remove", "debian-13"]));
    assert!(said.contains("set web keeps using its files"), "{said}");
    assert_eq!(daemon.json(&["image", "gc"])["removed"], json!([]));
    ok(daemon.run(&["scale", "web", "4"]));
    daemon.wait_in_service("web", 4);
    let again = daemon.run(&["apply", "-f", "set.yaml"]);
    assert_eq!(again.code, 3, "{}", again.err);
    assert!(again.err.contains("there is none yet"), "{}", again.err);

    ok(daemon.run(&["delete", "web", "--yes", "--wait"]));
    wait_for("the directories of the instances to go", || {
        let left = fs::read_dir(daemon.data().join("instances")).map_or(0, Iterator::count);
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    });
    let would = daemon.json(&["image", "gc", "--dry-run"]);
    assert_eq!((would["dry_run"].clone(), would["removed"].as_array().map(Vec::len)), (json!(true), Some(4)));
    assert_eq!(stored(&daemon).len(), 4, "a dry run removes nothing");
    let removed = daemon.json(&["image", "gc"]);
    assert_eq!(removed["removed"], would["removed"]);
    assert!(removed["freed_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{removed}");
    assert_eq!(stored(&daemon), Vec::<String>::new());
}

#[test]
fn what_cannot_be_imported_is_told_in_one_line_and_leaves_nothing() {
    let daemon = Daemon::start();
    let home = daemon.home();
    let two = image_dir(&daemon, "two", "x");
    fs::write(two.join("disk.img"), disk("y")).expect("another disk");
    let text_kernel = image_dir(&daemon, "text-kernel", "x");
    fs::write(text_kernel.join("vmlinuz"), "stands for a kernel\n").expect("no kernel");
    let outside = image_dir(&daemon, "outside", "x");
    fs::write(outside.join("image.yaml"), "disk: ../golden.raw\n").expect("a file");
    let slip = image_dir(&daemon, "slip", "x");
    fs::write(slip.join("image.yaml"), "dsik: disk.raw\n").expect("a file");
    let half = image_dir(&daemon, "half", "x");
    fs::write(half.join("disk.raw"), vec![1; 700]).expect("half a disk");
    fs::write(half.join("cmdline"), "a -- b").expect("a command line");
    fs::create_dir(home.join("nothing")).expect("a directory");
    fs::write(home.join("line\nbreak.raw"), vec![1; 700]).expect("a file");
    fs::write(home.join("vmlinuz"), kernel()).expect("a kernel");
    fs::write(home.join("a.fd"), "firmware").expect("a firmware");
    let cases: [(&[&str], &str); 15] = [
        (&["nowhere"], "nowhere does not exist"),
        (&["two"], "several files could be the disk: disk.img, disk.raw; say which in image.yaml"),
        (&["text-kernel"], "vmlinuz cannot be a kernel: it is neither an ELF file nor a bzImage"),
        (&["outside"], "disk must be the path of a file within the directory"),
        (&["slip"], "image.yaml:"),
        (&["half"], "2 problems"),
        (&["nothing"], "the directory holds no image: it is empty"),
        (&["golden.raw"], "needs a kernel (--kernel"),
        (&["golden.raw", "--kernel", "nowhere"], "nowhere does not exist"),
        (&["golden.raw", "--kernel", "golden.raw"], "golden.raw cannot be a kernel"),
        (&["vmlinuz", "--kernel", "vmlinuz"], "is a kernel itself (bzImage)"),
        (&["a.fd"], "it is a firmware by its name"),
        (&["golden.raw", "--firmware", "nothing"], "nothing is a directory, not a regular file"),
        (
            &["line\nbreak.raw", "--kernel", "vmlinuz"],
            r"line\nbreak.raw cannot be a golden image: its length of 700",
        ),
        (&["/dev/null", "--name", "null"], "/dev/null is a character device"),
    ];
    for (args, part) in cases {
        let args = [&["image", "import"], args].concat();
        let output = daemon.run(&args);
        assert_eq!(output.code, 3, "{args:?}: {}", output.err);
        assert!(output.err.contains(part), "{part:?} is not in: {}", output.err);
        if !part.ends_with("problems") {
            assert_eq!(output.err.trim_end().lines().count(), 1, "{}", output.err);
        }
        assert_eq!(stored(&daemon), Vec::<String>::new(), "{args:?}");
    }
    let reserved = daemon.run(&["image", "import", "vmlinuz", "--name", "gc"]);
    assert!(reserved.code == 3 && reserved.err.contains("reserved"), "{}", reserved.err);
    assert_eq!(daemon.json(&["image", "list"]), json!([]));
    ok(daemon.run(&["image", "import", "vmlinuz"]));

    let unknown = daemon.apply(&manifest(&daemon, "web", "vmlinux"));
    assert_eq!(unknown.code, 3, "{}", unknown.err);
    for part in
        ["no image of the catalogue is named `vmlinux`", "did you mean vmlinuz?", "image: { name: vmlinux }"]
    {
        assert!(unknown.err.contains(part), "{part} is not in:\n{}", unknown.err);
    }
    assert_eq!(daemon.json(&["get"]), json!([]));
}

#[test]
fn an_import_cut_off_by_a_crash_leaves_nothing() {
    let mut daemon = Daemon::start();
    image_dir(&daemon, "huge", "x");
    let disk = fs::File::options().write(true).open(daemon.home().join("huge/disk.raw")).expect("the disk");
    // All holes: nothing of it takes space, but reading it takes far longer than this test looks away.
    disk.set_len(64 << 30).expect("a sparse file");
    let mut import = daemon.command(&["image", "import", "huge"]).spawn().expect("regatta runs");
    let images = daemon.data().join("images");
    let half_made = || {
        let names = fs::read_dir(&images).expect("the store").flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".import-")).count()
    };
    wait_for("the copy to begin", || if half_made() > 0 { Ok(()) } else { Err("not yet".into()) });
    daemon.kill();
    assert!(!import.wait().expect("it ends").success());
    assert_eq!(half_made(), 1, "the crash left it");
    daemon.launch();
    assert_eq!(half_made(), 0);
    assert_eq!(stored(&daemon), Vec::<String>::new());
    assert_eq!(daemon.json(&["image", "list"]), json!([]));
    disk.set_len(1 << 20).expect("a small file");
    ok(daemon.run(&["image", "import", "huge"]));
}

#[test]
fn a_stored_image_that_has_rotted_is_a_problem_of_its_set_and_what_runs_runs_on() {
    let mut daemon = Daemon::start();
    image_dir(&daemon, "web", "sound");
    ok(daemon.run(&["image", "import", "web"]));
    let web = manifest(&daemon, "web", "web");
    daemon.apply_ok(&web);
    daemon.wait_in_service("web", 2);
    let pids = daemon.vm_pids("web");
    let image = daemon.json(&["image", "show", "web"]);
    let path = daemon.data().join("images").join(file_name(&image["disk"]["digest"]));
    assert_eq!(mode(&path), 0o444);

    // A restart hashes nothing again whose stamp is as it was.
    daemon.kill();
    let rotten = fs::read(&path).expect("the disk").iter().map(|byte| byte ^ 1).collect::<Vec<u8>>();
    daemon.launch();
    assert_eq!(problems_after_a_tick(&daemon), "[]");

    daemon.kill();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::write(&path, rotten).expect("rot");
    daemon.launch();
    let problems = problems_after_a_tick(&daemon);
    assert!(problems.contains("is corrupt") && problems.contains("nothing is launched"), "{problems}");
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.vm_pids("web"), pids);
    let applied = daemon.apply(&manifest(&daemon, "other", "web"));
    assert_eq!(applied.code, 3, "{}", applied.err);
    assert!(
        applied.err.contains("is corrupt") && applied.err.contains("image: { name: web }"),
        "{}",
        applied.err
    );

    // The same files imported again mend it; an apply looks at it again.
    ok(daemon.run(&["image", "import", "web", "--replace"]));
    daemon.apply_ok(&web);
    ok(daemon.run(&["scale", "web", "3"]));
    daemon.wait_in_service("web", 3);
    assert_eq!(daemon.vm_pids("web")[..2], pids[..]);
    assert_eq!(problems_after_a_tick(&daemon), "[]");
}

/// What a set says of itself once it has ticked again.
fn problems_after_a_tick(daemon: &Daemon) -> String {
    let summary = || daemon.json(&["describe", "web"])["summary"].clone();
    let before = summary()["last_tick"].as_u64();
    wait_for("a tick", || {
        let now = summary();
        if now["last_tick"].as_u64() > before {
            Ok(now["problems"].to_string())
        } else {
            Err(now.to_string())
        }
    })
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").permissions().mode() & 0o777
}
