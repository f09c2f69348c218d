//! The table against what a real v53.0 said (recorded), and against anything at all.

use proptest::prelude::*;
use regatta_util::Said;

use super::ApiErrorKind as K;
use super::*;

/// (name of the recording, status, body, class).
const RECORDED: &[(&str, u16, &str, K)] = &[
    ("ping-put", 400, r#"["Bad Request"]"#, K::BadRequest),
    ("unknown", 404, r#"["Not Found"]"#, K::UnknownCall),
    (
        "post",
        400,
        "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }",
        K::BadRequest,
    ),
    ("patch", 400, "", K::BadRequest),
    ("11 idle connections", 503, r#"{ "error": "Too many open connections" }"#, K::TryLater),
    (
        ">51200 byte body",
        400,
        "{ \"error\": \"Request payload with size 52026 is larger than the limit of 51200 allowed by server.\nAll previous unanswered requests will be dropped.\" }",
        K::BadRequest,
    ),
    (
        "info-nocreate",
        404,
        r#"["Error from API","The VM info is not available","VM is not created"]"#,
        K::NotCreated,
    ),
    (
        "counters-nocreate",
        500,
        r#"["Error from API","The VM info is not available","VM is not running"]"#,
        K::NotRunning,
    ),
    (
        "boot-nocreate",
        404,
        r#"["Error from API","The VM could not boot","VM config is missing"]"#,
        K::NotCreated,
    ),
    (
        "boot-nocreate on v52",
        500,
        r#"["Error from API","The VM could not boot","VM config is missing"]"#,
        K::NotCreated,
    ),
    (
        "power-nocreate",
        500,
        r#"["Error from API","Error triggering power button","VM is not running"]"#,
        K::NotRunning,
    ),
    ("create-nobody", 400, "", K::BadRequest),
    (
        "create-badjson",
        400,
        r#"["Failed to deserialize JSON","EOF while parsing an object at line 1 column 1"]"#,
        K::BadRequest,
    ),
    (
        "boot-empty",
        500,
        r#"["Error from API","The VM could not boot","Payload configuration is not bootable","No bootitem provided: neither firmware nor kernel"]"#,
        K::Validation,
    ),
    (
        "boot-nokernel",
        500,
        r#"["Error from API","The VM could not boot","Cannot open kernel file","No such file or directory (os error 2)"]"#,
        K::KernelMissing,
    ),
    (
        "boot-nokernel-again",
        500,
        r#"["Error from API","The VM could not boot","VM is already created"]"#,
        K::AlreadyCreated,
    ),
    (
        "boot-nodisk",
        500,
        r#"["Error from API","The VM could not boot","Error from device manager","Cannot open disk path","I/O error (path=/x op=open)","No such file or directory (os error 2)"]"#,
        K::DiskMissing,
    ),
    (
        "boot-maxlow",
        500,
        r#"["Error from API","The VM could not boot","Failed to validate config","Max CPUs (2) lower than boot CPUs (4)"]"#,
        K::Validation,
    ),
    (
        "the same on main",
        400,
        r#"["Error from API","The VM could not boot","Failed to validate config","Max CPUs (2) lower than boot CPUs (4)"]"#,
        K::Validation,
    ),
    (
        "add-net-dupid on main",
        409,
        r#"["Error from API","The network device could not be added to the VM","Failed to validate config","Identifier net-b is not unique"]"#,
        K::Validation,
    ),
    (
        "lock-boot",
        500,
        r#"["Error from API","The VM could not boot","Error locking disk images: Another instance likely holds a lock","Cannot lock images of all block devices","Failed to get Write lock for disk image: /vm/disk.raw","The file is already locked"]"#,
        K::DiskLocked,
    ),
    (
        "add-disk-mismatch",
        500,
        r#"["Error from API","The VM could not boot","Error from device manager","Disk image type does not match expected type: specified = qcow2, detected = raw"]"#,
        K::DiskInvalid,
    ),
    (
        "qc-noflag-boot",
        500,
        r#"["Error from API","The VM could not boot","Error from device manager","Cannot open disk path","Unsupported feature (path=/vm/o1.qcow2 op=open)","Maximum disk nesting depth exceeded"]"#,
        K::DiskInvalid,
    ),
    (
        "tap2-busy-boot",
        500,
        r#"["Error from API","The VM could not boot","Error from device manager","Cannot create virtio-net device","Failed to open taps","Open tap device failed","Unable to configure tap interface","Device or resource busy (os error 16)"]"#,
        K::TapBusy,
    ),
    (
        "huge-boot",
        500,
        r#"["Error from API","The VM could not boot","Memory manager error","Failed to stat filesystem","No such file or directory (os error 2)"]"#,
        K::OutOfMemory,
    ),
    (
        "pause-again",
        500,
        r#"["Error from API","The VM could not be paused","Cannot pause VM","Failed to pause migratable component","Invalid transition: InvalidStateTransition(Paused, Paused)"]"#,
        K::WrongState,
    ),
    (
        "snapshot-running",
        500,
        r#"["Error from API","The VM could not be snapshotted","Cannot snapshot VM","Failed to snapshot migratable component","Trying to snapshot while VM is running"]"#,
        K::WrongState,
    ),
    (
        "remove-missing",
        500,
        r#"["Error from API","The device could not be removed from the VM","Error from device manager","Failed to find device corresponding to the given identifier: nope"]"#,
        K::UnknownDevice,
    ),
    ("vcpu removal pending", 429, r#"["Too Many Requests"]"#, K::TryLater),
    (
        "vsock-exists-boot",
        500,
        r#"["Error from API","The VM could not boot","Error from device manager","Cannot create virtio-vsock backend","Error binding to the host-side Unix socket","Address already in use (os error 98)"]"#,
        K::Other,
    ),
    (
        "serial-bad",
        500,
        r#"["Error from API","The VM could not be created","Error creating console devices","Error creating console device","No such file or directory (os error 2)"]"#,
        K::Other,
    ),
];

#[test]
fn recorded_answers_have_the_class_that_the_caller_needs() {
    for (name, status, body, kind) in RECORDED {
        let error = ApiError::refused("vm.boot", *status, body.as_bytes());
        assert_eq!(error.kind, *kind, "{name}: {error}");
        assert_eq!(error.status, Some(*status));
    }
}

#[test]
fn the_whole_chain_is_kept_and_shown_once() {
    let error = ApiError::refused("vm.boot", 500, RECORDED[14].2.as_bytes());
    assert_eq!(error.chain.len(), 4);
    assert_eq!(
        error.to_string(),
        "vm.boot failed (500): The VM could not boot: Cannot open kernel file: No such file or directory (os error 2)"
    );
    let raw_newline = ApiError::refused("x", 400, RECORDED[2].2.as_bytes());
    assert_eq!(
        raw_newline.chain,
        [
            "Invalid HTTP Method: Unsupported HTTP method.",
            "All previous unanswered requests will be dropped."
        ]
    );
    assert_eq!(ApiError::refused("x", 500, &[b'a'; 5000]).chain[0].len(), 2048);
}

#[test]
fn where_a_failure_arose_in_the_vmm_is_left_out() {
    let body = r#"["Cannot snapshot VM", "Could not get vCPU state GetNestedState(Invalid argument (os error 22)\n\nStack backtrace:\n   0: <unknown>)"]"#;
    let error = ApiError::refused("vm.snapshot", 500, body.as_bytes());
    assert_eq!(error.chain[1], "Could not get vCPU state GetNestedState(Invalid argument (os error 22)");
}

#[test]
fn failures_without_an_answer_have_classes_of_their_own() {
    assert_eq!(
        ApiError::timeout("vm.boot", Duration::from_millis(1500)).to_string(),
        "vm.boot failed: no answer within 1500 ms"
    );
    assert_eq!(ApiError::too_large("vm.create", 60_000, 51_199).kind, K::RequestTooLarge);
}

proptest! {
    #[test]
    fn any_answer_gets_a_class(status in 100u16..600, body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let error = ApiError::refused("vm.info", status, &body);
        prop_assert!(error.chain.len() <= 32);
        prop_assert!(error.to_string().starts_with("vm.info failed"));
    }

    #[test]
    fn a_chain_survives_whatever_its_messages_hold(chain in proptest::collection::vec("\\PC{1,40}", 1..6)) {
        let body = serde_json::to_vec(&chain).expect("json");
        let said: Vec<Said> = chain.into_iter().map(Said::from).collect();
        prop_assert_eq!(ApiError::refused("x", 500, &body).chain, said);
    }
}
