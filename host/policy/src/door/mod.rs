//! The ways into a policy: a component of the contract, or a core module that exchanges JSON.

pub(crate) mod component;
pub(crate) mod json;
mod session;

pub(crate) use session::Session;

use crate::engine::Engine;
use crate::error::LoadError;
use crate::load::Code;

/// Compiled code, linked and ready for instances.
pub(crate) enum Door {
    Component(component::Door),
    Json(json::Door),
}

impl Door {
    /// Links `code` and checks the types of what it imports and exports.
    pub(crate) fn new(engine: &Engine, code: &Code) -> Result<Self, LoadError> {
        // In front of a worker, only the worker has instances.
        let Some(linkers) = &engine.inner.linkers else {
            return Err(LoadError::Compile("its instances are made in the policy worker".into()));
        };
        match code {
            Code::Component(component) => {
                component::Door::new(&linkers.components, component).map(Self::Component)
            }
            Code::Module(module) => json::Door::new(&linkers.modules, module).map(Self::Json),
        }
    }

    /// Size of its machine code with the data that belongs to it.
    pub(crate) fn bytes(&self) -> usize {
        let range = match self {
            Self::Component(door) => door.image_range(),
            Self::Json(door) => door.image_range(),
        };
        range.end.addr() - range.start.addr()
    }

    /// Whether it has a migration.
    pub(crate) fn migrates(&self) -> bool {
        match self {
            Self::Component(door) => door.migrates(),
            Self::Json(door) => door.migrates(),
        }
    }
}
