//! Which features of WebAssembly a module may use: the table of `docs/languages.md`.

use regatta_policy_host::ParamsError;
use regatta_util::chain;

use crate::fixtures::{engine, limits};

/// The complete policy of the contract's document, with more in it.
fn policy_with(more: &str) -> Vec<u8> {
    let contract = include_str!("../../../../docs/policy-contract.md");
    let (_, text) = contract.split_once("```wat\n").expect("there is one");
    let text = text.split("\n```").next().expect("it ends").trim_end();
    let text = text.strip_suffix(')').expect("a module");
    wat::parse_str(format!("{text}\n{more})")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_a_module_may_use() {
    for more in [
        "",
        "(func (result i32 i32) (i32.const 1) (i32.const 2))",
        "(func (result v128) (v128.const i32x4 1 2 3 4))",
        "(func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))",
        "(func $again (return_call $again))",
        "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
    ] {
        let loaded = engine().load(&policy_with(more));
        assert!(loaded.is_ok(), "{more}: {}", chain(&loaded.expect_err("refused")));
    }
}

#[test]
fn what_a_module_may_not_use() {
    for more in [
        "(memory 1)",
        "(memory 1 1 shared)",
        "(table 1 externref)",
        "(type (struct (field i32)))",
        "(tag (param i32)) (func (throw 0 (i32.const 1)))",
        "(type $f (func)) (type (cont $f))",
    ] {
        assert!(engine().load(&policy_with(more)).is_err(), "{more} is taken");
    }
}

/// This one's `validate` takes everything; its schema wants an object.
#[test]
fn what_validate_lets_through_is_held_to_the_schema() {
    let policy = engine().load(&policy_with("")).expect("it is a policy");
    for (params, problems) in
        [("{\"any\": 1}", vec![]), ("[]", vec!["must be an object"]), ("7", vec!["must be an object"])]
    {
        assert!(policy.validate(params, &limits()).is_ok(), "{params}");
        let found = match policy.accept(params, &limits()) {
            Ok(()) => Vec::new(),
            Err(ParamsError::Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
            Err(failed) => panic!("{params}: {failed}"),
        };
        assert_eq!(found, problems, "{params}");
    }
}
