//! Core modules that exchange JSON text through their memory: the contract without component tooling.
//!
//! An argument is written to what `regatta_alloc` gives; a result is a pointer and a length in one `i64`. The same
//! checks hold as for components: what lies outside of the memory, is not text, too long or not the contract's JSON
//! becomes a failure of the kind `output`.

mod answers;
mod arguments;
mod columns;
mod imports;
#[cfg(test)]
mod schema;
mod text;

use std::ops::Range;

use regatta_core::decision::{LogLevel, PolicyFailure};
use wasmtime::{ExternType, InstancePre, Linker, Memory, Module, Result, Store, TypedFunc, ValType};

pub(crate) use imports::{IMPORTS, MODULE, link, memory};
pub(crate) use text::{slice, slice_mut, unsigned};

use crate::bindings::regatta::policy::types;
use crate::contract::CONTRACT_VERSION;
use crate::error::LoadError;
use crate::failure::{Phase, bad_output, failure};
use crate::guest::Guest;

/// What a module must export.
pub(crate) const EXPORTS: [&str; 5] =
    ["memory", "regatta_alloc", "regatta_describe", "regatta_validate", "regatta_decide"];

/// A linked module.
pub(crate) struct Door {
    pre: InstancePre<Guest>,
    migrates: bool,
    initializes: bool,
}

/// An instance of one.
pub(crate) struct Instance {
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    describe: TypedFunc<(), i64>,
    validate: TypedFunc<(i32, i32), i64>,
    decide: TypedFunc<(i32, i32), i64>,
    migrate: Option<TypedFunc<(i32, i32), i64>>,
    initialize: Option<TypedFunc<(), ()>>,
}

impl Door {
    pub(super) fn new(linker: &Linker<Guest>, module: &Module) -> Result<Self, LoadError> {
        check_types(module)?;
        let pre = linker
            .instantiate_pre(module)
            .map_err(|error| LoadError::Contract { contract: CONTRACT_VERSION, source: error.into() })?;
        let exported = |name: &str| module.get_export(name).is_some();
        Ok(Self { pre, migrates: exported("regatta_migrate"), initializes: exported("_initialize") })
    }

    pub(super) fn image_range(&self) -> Range<*const u8> {
        self.pre.module().image_range()
    }

    pub(super) fn migrates(&self) -> bool {
        self.migrates
    }

    pub(super) fn instantiate(&self, store: &mut Store<Guest>) -> Result<Instance> {
        let instance = self.pre.instantiate(&mut *store)?;
        let Some(memory) = instance.get_memory(&mut *store, "memory") else {
            wasmtime::bail!("the module has no memory");
        };
        Ok(Instance {
            memory,
            alloc: instance.get_typed_func(&mut *store, "regatta_alloc")?,
            describe: instance.get_typed_func(&mut *store, "regatta_describe")?,
            validate: instance.get_typed_func(&mut *store, "regatta_validate")?,
            decide: instance.get_typed_func(&mut *store, "regatta_decide")?,
            migrate: match self.migrates {
                true => Some(instance.get_typed_func(&mut *store, "regatta_migrate")?),
                false => None,
            },
            initialize: match self.initializes {
                true => Some(instance.get_typed_func(&mut *store, "_initialize")?),
                false => None,
            },
        })
    }
}

/// Names every export that has another type than the contract says.
fn check_types(module: &Module) -> Result<(), LoadError> {
    let mut wrong = Vec::new();
    let mut require = |name: &str, params: &[ValType], results: &[ValType], shown: &str| {
        let Some(export) = module.get_export(name) else { return };
        let same = |types: &[ValType], other: &mut dyn Iterator<Item = ValType>| {
            let other: Vec<ValType> = other.collect();
            types.len() == other.len() && types.iter().zip(&other).all(|(one, other)| ValType::eq(one, other))
        };
        let fits = matches!(&export, ExternType::Func(function)
            if same(params, &mut function.params()) && same(results, &mut function.results()));
        if !fits {
            wrong.push(format!("`{name}` is not a function {shown}"));
        }
    };
    require("regatta_alloc", &[ValType::I32], &[ValType::I32], "(i32) -> i32");
    require("regatta_describe", &[], &[ValType::I64], "() -> i64");
    for name in ["regatta_validate", "regatta_decide", "regatta_migrate"] {
        require(name, &[ValType::I32, ValType::I32], &[ValType::I64], "(i32, i32) -> i64");
    }
    require("_initialize", &[], &[], "() -> ()");
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared() => {}
        _ => wrong.push("`memory` is not a 32-bit memory".to_owned()),
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(LoadError::Contract { contract: CONTRACT_VERSION, source: wrong.join(", ").into() })
}

impl Instance {
    pub(super) fn initialize(&self, store: &mut Store<Guest>) -> Result<(), PolicyFailure> {
        let Some(initialize) = &self.initialize else { return Ok(()) };
        let done = initialize.call(&mut *store, ());
        done.map_err(|error| failure(&error, store.data(), Phase::Call))
    }

    pub(super) fn describe(
        &self,
        store: &mut Store<Guest>,
        limit: usize,
    ) -> Result<types::Manifest, PolicyFailure> {
        let answer = self.describe.call(&mut *store, ());
        let answer = answer.map_err(|error| failure(&error, store.data(), Phase::Call))?;
        answers::manifest(&self.text(store, limit, answer)?)
    }

    pub(super) fn validate(
        &self,
        store: &mut Store<Guest>,
        limit: usize,
        params: &str,
    ) -> Result<Result<(), Vec<types::Problem>>, PolicyFailure> {
        if let Err(error) = text::raw(params) {
            let message = format!("the parameters are not JSON: {error}");
            return Ok(Err(vec![types::Problem { path: String::new(), message }]));
        }
        let problems = answers::problems(&self.ask(store, limit, &self.validate, params)?)?;
        Ok(if problems.is_empty() { Ok(()) } else { Err(problems) })
    }

    pub(super) fn decide(
        &self,
        store: &mut Store<Guest>,
        limit: usize,
        tick: &types::Tick,
        params: &str,
        state: &[u8],
    ) -> Result<Result<types::Outcome, String>, PolicyFailure> {
        let (state, understood) = arguments::state(state);
        if !understood {
            let message = "the stored state is not JSON; the policy is given null instead";
            store.data_mut().log(LogLevel::Warn, message.to_owned());
        }
        let argument = arguments::decide(tick, params, state)?;
        answers::outcome(&self.ask(store, limit, &self.decide, &argument)?)
    }

    pub(super) fn migrate(
        &self,
        store: &mut Store<Guest>,
        limit: usize,
        from_version: u32,
        state: &[u8],
    ) -> Result<Result<Vec<u8>, String>, PolicyFailure> {
        let Some(migrate) = &self.migrate else { return Err(bad_output("there is no migration")) };
        let argument = arguments::migrate(from_version, arguments::state(state).0)?;
        answers::migrated(&self.ask(store, limit, migrate, &argument)?)
    }

    /// Hands over an argument, calls and reads the answer.
    fn ask(
        &self,
        store: &mut Store<Guest>,
        limit: usize,
        function: &TypedFunc<(i32, i32), i64>,
        argument: &str,
    ) -> Result<String, PolicyFailure> {
        let Ok(length) = i32::try_from(argument.len()) else {
            return Err(bad_output("the argument is larger than any memory"));
        };
        let pointer = self.alloc.call(&mut *store, length);
        let pointer = pointer.map_err(|error| failure(&error, store.data(), Phase::Call))?;
        let Some(room) = text::slice_mut(self.memory.data_mut(&mut *store), pointer, length) else {
            return Err(bad_output(format!(
                "regatta_alloc gave {length} bytes at {}, outside of its memory",
                text::unsigned(pointer)
            )));
        };
        room.copy_from_slice(argument.as_bytes());
        let answer = function.call(&mut *store, (pointer, length));
        let answer = answer.map_err(|error| failure(&error, store.data(), Phase::Call))?;
        self.text(store, limit, answer)
    }

    /// The text that a result points to.
    fn text(&self, store: &Store<Guest>, limit: usize, packed: i64) -> Result<String, PolicyFailure> {
        let (pointer, length) = text::unpack(packed);
        if length > limit {
            return Err(bad_output(format!(
                "its answer has {length} bytes, more than the {limit} that it may have"
            )));
        }
        let bytes = self.memory.data(store).get(pointer..pointer.saturating_add(length));
        let Some(bytes) = bytes else {
            return Err(bad_output(format!(
                "its answer of {length} bytes at {pointer} lies outside of its memory"
            )));
        };
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|error| bad_output(format!("its answer is not text: {error}")))
    }
}
