//! What the doors have in common: modules without a component type, migrations, the limit of tables.

use regatta_core::decision::FailureKind;
use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{Abi, CONTRACT_VERSION, LoadError, MigrateError};

use crate::fixtures::{engine, limits, module, observation};
use crate::modules;

#[test]
fn a_module_of_the_canonical_names_needs_no_section() {
    let fixture = "(func $answer (i32.store (i32.const 264) (i32.const 3)))";
    let sectioned = engine().load(&module(fixture)).unwrap();
    for version in ["0.1.0", CONTRACT_VERSION, "0.1.9"] {
        let text = modules::text(fixture).replace("@0.1.0", &format!("@{version}"));
        let policy = engine().load(&wat::parse_str(&text).unwrap()).unwrap();
        assert_eq!(policy.abi(), Abi::CoreCanonical, "{version}");
        assert_eq!(policy.manifest(), sectioned.manifest());
        let decide = |policy: &regatta_policy_host::CompiledPolicy| {
            let run = policy.decide(&observation(2, 0.5), "{}", b"", &limits()).run;
            (run.result, run.fuel)
        };
        assert_eq!(decide(&policy), decide(&sectioned));
        assert!(!policy.migrates());
    }
    let text = modules::text(fixture).replace("@0.1.0", "@0.2.0");
    assert!(
        matches!(engine().load(&wat::parse_str(&text).unwrap()), Err(LoadError::Exports { missing }) if missing.len() == 3)
    );
}

/// A module with a migration, whose result lies at 6,000.
fn migrating(body: &str) -> Vec<u8> {
    let text = modules::text(&format!(
        r#"(func (export "regatta:policy/migration@0.1.1#migrate") (param $from i32) (param $at i32) (param $length i32)
          (result i32) {body} (i32.const 6000))
        (func $answer )"#
    ));
    wat::parse_str(text.replace("@0.1.0", "@0.1.1")).expect("the text is valid")
}

#[test]
fn a_component_migrates() {
    // The version as a byte, and what was there, whose length is capped by the memory that it lies in.
    let echo = "(i32.store8 (i32.sub (local.get $at) (i32.const 1)) (local.get $from))
        (i32.store8 (i32.const 6000) (i32.const 0))
        (call $string (i32.const 6004) (i32.sub (local.get $at) (i32.const 1)) (i32.add (local.get $length) (i32.const 1)))";
    let policy = engine().load(&migrating(echo)).unwrap();
    assert!(policy.migrates());
    assert_eq!(policy.migrate(7, b"old", &limits()).unwrap(), b"\x07old");
    let small = PolicyLimits { output_bytes: 3, ..limits() };
    assert!(
        matches!(policy.migrate(7, b"old", &small), Err(MigrateError::Failed(f)) if f.failure.kind == FailureKind::Output)
    );

    let refusing = "(i32.store8 (i32.const 6000) (i32.const 1)) (call $string (i32.const 6004) (i32.const 1088) (i32.const 5))";
    match engine().load(&migrating(refusing)).unwrap().migrate(1, b"", &limits()) {
        Err(MigrateError::Refused(message)) => assert_eq!(message, "again"),
        other => panic!("{other:?}"),
    }
    match engine().load(&migrating("(unreachable)")).unwrap().migrate(1, b"", &limits()) {
        Err(MigrateError::Failed(call)) => assert_eq!(call.failure.kind, FailureKind::Trap),
        other => panic!("{other:?}"),
    }
    let without = engine().load(&module("(func $answer )")).unwrap();
    assert!(matches!(without.migrate(1, b"", &limits()), Err(MigrateError::NoMigration)));
}

#[test]
fn tables_are_limited_together() {
    let growing = |first: u32| {
        module(&format!(
            "(table $one {first} funcref) (table $other 0 funcref)
            (func $answer
              (if (i32.eq (table.grow $one (ref.null func) (i32.const 500)) (i32.const -1)) (then (unreachable)))
              (if (i32.eq (table.grow $other (ref.null func) (i32.const 500)) (i32.const -1)) (then (unreachable)))
              (i32.store (i32.const 264) (i32.const 3)))"
        ))
    };
    let policy = engine().load(&growing(1_000)).unwrap();
    // Making a component of the module adds tables of a few elements.
    for (table_elements, decides) in [(2_100, true), (1_999, false), (100_000, true), (900, false)] {
        let limits = PolicyLimits { table_elements, ..limits() };
        let result = policy.decide(&observation(2, 0.5), "{}", b"", &limits).run.result;
        match result {
            Ok(_) => assert!(decides, "{table_elements}"),
            Err(failure) => {
                assert!(!decides, "{table_elements}: {failure:?}");
                assert_eq!(failure.kind, FailureKind::Memory, "{failure:?}");
                assert!(failure.message.contains("table"), "{failure:?}");
            }
        }
    }
    match engine().load(&growing(200_000)) {
        Err(LoadError::Describe(call)) => assert_eq!(call.failure.kind, FailureKind::Memory, "{call:?}"),
        other => panic!("{other:?}"),
    }
}
