//! Conformance: what a real `cloud-hypervisor` v53 answered is what the stand-in answers.
//!
//! The same recordings are replayed against a real binary when `CLOUD_HYPERVISOR` names one; those that boot a VM need
//! KVM and a kernel that boots, named by `CLOUD_HYPERVISOR_KERNEL`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::space::Space;
use crate::support::{Answer, Client, Launch, Vmm, directory, eventually, kernel, qcow2};

/// Recordings, and whether they need a kernel that boots.
const RECORDINGS: [(&str, &str, bool); 5] = [
    ("endpoints-no-vm", include_str!("../../../../tests/conformance/captures/endpoints-no-vm.txt"), false),
    ("endpoints-vm", include_str!("../../../../tests/conformance/captures/endpoints-vm.txt"), true),
    ("qcow2", include_str!("../../../../tests/conformance/captures/qcow2.txt"), true),
    ("disks-net-vsock", include_str!("../../../../tests/conformance/captures/disks-net-vsock.txt"), true),
    ("mistakes", include_str!("../../../../tests/conformance/captures/mistakes.txt"), true),
];

struct Stage<'a> {
    launch: &'a Launch,
    kernel: Option<&'a Path>,
    directory: tempfile::TempDir,
    vmms: BTreeMap<String, (Vmm, Client)>,
    /// The stand-in's addresses are those of the machine of the recording; another machine's may differ.
    exact_addresses: bool,
}

impl Stage<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn direct(&mut self, directive: &str) {
        let words: Vec<&str> = directive.split_whitespace().collect();
        match words.as_slice() {
            ["file", name, bytes] => {
                std::fs::write(self.path(name), vec![0; bytes.parse().unwrap()]).unwrap()
            }
            ["kernel", name] => {
                let kernel = self.kernel.map(Path::to_owned).unwrap_or_else(|| kernel(self.directory.path()));
                std::fs::copy(kernel, self.path(name)).map(drop).unwrap();
            }
            ["qcow2", name, bytes @ ..] => {
                let mut image = qcow2(None);
                for byte in bytes {
                    let (offset, value) = byte.split_once('=').unwrap();
                    image[offset.parse::<usize>().unwrap()] = value.parse().unwrap();
                }
                std::fs::write(self.path(name), image).unwrap();
            }
            ["overlay", name, backing] => {
                let backing = self.localise(backing);
                std::fs::write(self.path(name), qcow2(Some(&backing))).unwrap();
            }
            ["dir", name] => std::fs::create_dir(self.path(name)).unwrap(),
            ["start", name] => {
                let vmm = self.launch.start(self.directory.path(), name);
                let client = vmm.connect();
                self.vmms.insert((*name).to_owned(), (vmm, client));
            }
            ["events", name, expected @ ..] => {
                let vmm = &self.vmms[*name].0;
                eventually("the events", || match vmm.vm_events() {
                    events if events == expected => Ok(()),
                    events => Err(format!("{events:?}")),
                });
            }
            ["exit", name, code] => {
                let (mut vmm, _) = self.vmms.remove(*name).unwrap();
                assert_eq!(vmm.wait().code(), Some(code.parse().unwrap()), "{name}");
                assert!(!vmm.socket.exists(), "the socket is removed at a clean end");
            }
            _ => panic!("unknown directive {directive:?}"),
        }
    }

    fn localise(&self, text: &str) -> String {
        text.replace("/vm/", &format!("{}/", self.directory.path().display()))
    }

    fn generalise(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.directory.path().display()), "/vm/")
    }

    /// Replays one exchange; a difference is returned, not panicked with, so that one run shows them all.
    fn exchange(&mut self, request: &str, response: &str) -> Result<(), String> {
        let (process, request) = request.split_once(' ').unwrap();
        let (name, request) = request.split_once(": ").unwrap();
        let mut parts = request.splitn(3, ' ');
        let (method, call) = (parts.next().unwrap(), parts.next().unwrap());
        let body = parts.next().map(|body| self.localise(body));
        let (vmm, client) = self.vmms.get_mut(process).unwrap();
        let Answer { status, body, .. } = client.call(method, call, body.as_deref());
        let pid = vmm.pid().to_string();
        let body = self.generalise(&body).replace(&format!("\"pid\":{pid},"), "\"pid\":9123,");

        let (expected_status, expected) = response.split_once(' ').unwrap_or((response, ""));
        let expected = expected.replace("\\n", "\n");
        let found = (status.to_string(), self.normalise(call, &body));
        if found == (expected_status.to_owned(), self.normalise(call, &expected)) {
            return Ok(());
        }
        Err(format!(
            "{name}: {method} {call}\n  expected {expected_status} {expected}\n  found    {status} {body}"
        ))
    }

    /// Leaves what must match byte for byte as text, and what upstream keeps in hash maps as values.
    fn normalise(&self, call: &str, body: &str) -> (String, Value) {
        let mut text = body.to_owned();
        // Random, counted by the host, and told by how a binary was built.
        for before in ["\"host_mac\":\"", "/dev/pts/", "\"build_version\":\""] {
            if let Some(at) = text.find(before).map(|at| at + before.len()) {
                let end = text[at..].find('"').map_or(text.len(), |length| at + length);
                text.replace_range(at..end, "*");
            }
        }
        if call == "vm.counters" {
            return (String::new(), serde_json::from_str(&text).unwrap_or(Value::String(text)));
        }
        let Some(at) = text.find(",\"device_tree\":") else {
            return (text, Value::Null);
        };
        let mut tree: Value = serde_json::from_str(&format!("{{{}", &text[at + 1..])).unwrap();
        if !self.exact_addresses {
            clear_addresses(&mut tree);
        }
        text.truncate(at);
        (text, tree)
    }
}

fn clear_addresses(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(base) = map.get_mut("base") {
                *base = Value::Null;
            }
            map.values_mut().for_each(clear_addresses);
        }
        Value::Array(values) => values.iter_mut().for_each(clear_addresses),
        _ => {}
    }
}

fn replay(name: &str, recording: &str, launch: &Launch, kernel: Option<&Path>, exact_addresses: bool) {
    let mut stage = Stage { launch, kernel, directory: directory(), vmms: BTreeMap::new(), exact_addresses };
    let mut lines = recording.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut count, mut differences) = (0, Vec::new());
    while let Some(line) = lines.next() {
        if let Some(directive) = line.strip_prefix('!') {
            stage.direct(directive);
            continue;
        }
        let response = lines.next().unwrap_or_else(|| panic!("no response to {line}"));
        // Recorded where there was no pool of huge pages.
        if line.contains(" huge-boot:") && Path::new("/dev/hugepages").exists() {
            continue;
        }
        count += 1;
        if let Err(difference) = stage.exchange(line, response) {
            differences.push(difference);
        }
    }
    assert!(
        differences.is_empty(),
        "{name}: {} of {count} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
    println!("{name}: {count} exchanges agree");
}

#[test]
fn the_stand_in_answers_as_recorded() {
    // Modelled time stands still: nothing happens in the guest between two calls.
    let launch = Launch::stand_in().env("REGATTA_CHSIM_CLOCK", "explicit");
    let replay_all = |launch: &Launch| {
        for (name, recording, _) in RECORDINGS {
            replay(name, recording, launch, None, true);
        }
    };
    // The recorded machine had no taps: the VMM, which was privileged, made them. So does the stand-in, where that leaves
    // nothing behind.
    match Space::new() {
        Ok(space) => {
            space.run(|| replay_all(&launch));
            assert!(space.links().is_empty(), "{:?}", space.links());
        }
        Err(problem) => {
            eprintln!("left out: opening taps, they are only taken note of: {problem}");
            replay_all(&launch.env("REGATTA_CHSIM_TAPS", "record"));
        }
    }
}

#[test]
fn a_real_binary_answers_as_recorded() {
    let Some(binary) = std::env::var_os("CLOUD_HYPERVISOR") else {
        eprintln!("skipped: CLOUD_HYPERVISOR does not name a real cloud-hypervisor");
        return;
    };
    let launch = Launch::program(binary.into());
    let kernel = std::env::var_os("CLOUD_HYPERVISOR_KERNEL").map(PathBuf::from);
    for (name, recording, needs_kernel) in RECORDINGS {
        if needs_kernel && kernel.is_none() {
            eprintln!("left out: {name} boots a VM, and CLOUD_HYPERVISOR_KERNEL names no kernel");
            continue;
        }
        replay(name, recording, &launch, kernel.as_deref(), false);
    }
}
