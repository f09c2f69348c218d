//! Components of the contract's world.

use std::ops::Range;

use regatta_core::decision::{LogLevel, PolicyFailure};
use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{self, Component, ComponentExportIndex, InstancePre, Linker};
use wasmtime::{Result, Store, StoreContextMut};

use crate::bindings::regatta::policy::{log, types};
use crate::bindings::{Policy, PolicyIndices};
use crate::contract::CONTRACT_VERSION;
use crate::error::LoadError;
use crate::failure::{Phase, failure};
use crate::fuel::charge;
use crate::guest::Guest;
use crate::wasi;

/// A linked component.
pub(crate) struct Door {
    pre: InstancePre<Guest>,
    indices: PolicyIndices,
    migrate: Option<ComponentExportIndex>,
}

/// An instance of one.
pub(crate) struct Instance {
    instance: component::Instance,
    policy: Policy,
    migrate: Option<ComponentExportIndex>,
}

impl Door {
    pub(super) fn new(linker: &Linker<Guest>, component: &Component) -> Result<Self, LoadError> {
        let link = || {
            let mut linker = linker.clone();
            wasi::preview2::link(&mut linker, component)?;
            let pre = linker.instantiate_pre(component)?;
            let indices = PolicyIndices::new(&pre)?;
            Ok(Self { pre, indices, migrate: migration(component)? })
        };
        link().map_err(|error: wasmtime::Error| LoadError::Contract {
            contract: CONTRACT_VERSION,
            source: error.into(),
        })
    }

    pub(super) fn image_range(&self) -> Range<*const u8> {
        self.pre.component().image_range()
    }

    pub(super) fn migrates(&self) -> bool {
        self.migrate.is_some()
    }

    pub(super) fn instantiate(&self, store: &mut Store<Guest>) -> Result<Instance> {
        let instance = self.pre.instantiate(&mut *store)?;
        let policy = self.indices.load(&mut *store, &instance)?;
        Ok(Instance { instance, policy, migrate: self.migrate })
    }
}

/// The export `migrate`, when it is there and has the type of the contract's.
fn migration(component: &Component) -> Result<Option<ComponentExportIndex>> {
    let name = format!("regatta:policy/migration@{CONTRACT_VERSION}");
    let Some(interface) = component.get_export_index(None, &name) else { return Ok(None) };
    let Some((item, index)) = component.get_export(Some(&interface), "migrate") else {
        wasmtime::bail!("`{name}` has no `migrate`");
    };
    let bytes = |ty: &Type| matches!(ty, Type::List(list) if list.ty() == Type::U8);
    let fits = match &item {
        ComponentItem::ComponentFunc(function) => {
            let params: Vec<Type> = function.params().map(|(_, ty)| ty).collect();
            let results: Vec<Type> = function.results().collect();
            matches!(&params[..], [Type::U32, state] if bytes(state))
                && matches!(&results[..], [Type::Result(result)]
                    if result.ok().is_some_and(|ok| bytes(&ok)) && result.err() == Some(Type::String))
        }
        _ => false,
    };
    wasmtime::ensure!(fits, "`migrate` of `{name}` has not the type of the contract's");
    Ok(Some(index))
}

impl Instance {
    pub(super) fn describe(&self, store: &mut Store<Guest>) -> Result<types::Manifest, PolicyFailure> {
        let answer = self.policy.regatta_policy_scaling().call_describe(&mut *store);
        answer.map_err(|error| failure(&error, store.data(), Phase::Call))
    }

    pub(super) fn validate(
        &self,
        store: &mut Store<Guest>,
        params: &str,
    ) -> Result<Result<(), Vec<types::Problem>>, PolicyFailure> {
        let answer = self.policy.regatta_policy_scaling().call_validate(&mut *store, params);
        answer.map_err(|error| failure(&error, store.data(), Phase::Call))
    }

    pub(super) fn decide(
        &self,
        store: &mut Store<Guest>,
        tick: &types::Tick,
        params: &str,
        state: &[u8],
    ) -> Result<Result<types::Outcome, String>, PolicyFailure> {
        let answer = self.policy.regatta_policy_scaling().call_decide(&mut *store, tick, params, state);
        answer.map_err(|error| failure(&error, store.data(), Phase::Call))
    }

    pub(super) fn migrate(
        &self,
        store: &mut Store<Guest>,
        from_version: u32,
        state: &[u8],
    ) -> Result<Result<Vec<u8>, String>, PolicyFailure> {
        let mut call = || {
            let Some(index) = self.migrate else { wasmtime::bail!("there is no migration") };
            let migrate = self
                .instance
                .get_typed_func::<(u32, &[u8]), (Result<Vec<u8>, String>,)>(&mut *store, index)?;
            Ok(migrate.call(&mut *store, (from_version, state))?.0)
        };
        let answer = call();
        answer.map_err(|error| failure(&error, store.data(), Phase::Call))
    }
}

type Host<'a> = StoreContextMut<'a, Guest>;

/// Defines what the contract lets every policy import.
pub(crate) fn link(linker: &mut Linker<Guest>) -> Result<()> {
    linker.instance(&format!("regatta:policy/types@{CONTRACT_VERSION}"))?;
    let mut observe = linker.instance(&format!("regatta:policy/observe@{CONTRACT_VERSION}"))?;
    observe.func_wrap("instances", |mut host: Host<'_>, (): ()| {
        let table = host.data().instances();
        let row = 2 * size_of::<u8>() + size_of::<u32>() + 3 * size_of::<u64>();
        charge(&mut host, table.id.len() * row)?;
        Ok((table,))
    })?;
    observe.func_wrap("metric", |mut host: Host<'_>, (name,): (String,)| {
        let column = host.data().metric(&name);
        charge(&mut host, name.len() + column.value.len() * (size_of::<f64>() + size_of::<u8>()))?;
        Ok((column,))
    })?;
    observe.func_wrap("window", |mut host: Host<'_>, (name,): (String,)| {
        let window = host.data().window(&name);
        charge(&mut host, name.len() + window.value.len() * (size_of::<u64>() + size_of::<f64>()))?;
        Ok((window,))
    })?;
    let mut log = linker.instance(&format!("regatta:policy/log@{CONTRACT_VERSION}"))?;
    log.func_wrap("log", |mut host: Host<'_>, (level, message): (log::Level, String)| {
        charge(&mut host, message.len())?;
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        host.data_mut().log(level, message);
        Ok(())
    })
}
