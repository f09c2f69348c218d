//! The ways into a policy: a component of the contract, or a core module that exchanges JSON.

pub(crate) mod component;
pub(crate) mod json;
mod session;

pub(crate) use session::Session;

use std::ops::Range;

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
        match code {
            Code::Component(component) => component::Door::new(engine, component).map(Self::Component),
            Code::Module(module) => json::Door::new(engine, module).map(Self::Json),
        }
    }

    /// Where its machine code with the data that belongs to it lies.
    pub(crate) fn image_range(&self) -> Range<*const u8> {
        match self {
            Self::Component(door) => door.image_range(),
            Self::Json(door) => door.image_range(),
        }
    }

    /// Whether it has a migration.
    pub(crate) fn migrates(&self) -> bool {
        match self {
            Self::Component(door) => door.migrates(),
            Self::Json(door) => door.migrates(),
        }
    }
}
