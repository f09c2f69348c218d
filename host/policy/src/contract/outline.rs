//! What the headers of a module say.

use wasmparser::{Encoding, Parser, Payload};

use crate::error::LoadError;
use crate::text::capped;

const VERSION_SECTION: &str = "regatta-contract";
/// What is shown of a version that is none.
const VERSION_BYTES: usize = 64;

/// Of the outermost module or component, where nothing else is said.
#[derive(Default)]
pub(super) struct Outline {
    pub(super) component: bool,
    /// Contents of the version sections, at any depth.
    pub(super) versions: Vec<String>,
    /// Whether there is a section that says what the functions mean.
    pub(super) component_type: bool,
    /// Module or interface, and name.
    pub(super) imports: Vec<(String, String)>,
    pub(super) exports: Vec<String>,
}

/// Reads them; the bodies are passed over.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline, LoadError> {
    let malformed = |error: wasmparser::BinaryReaderError| LoadError::Malformed(error.into());
    let mut outline = Outline::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 {
                    outline.component = encoding == Encoding::Component;
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            // A component keeps the sections of the core module inside it.
            Payload::CustomSection(section) if section.name() == VERSION_SECTION => {
                let version = String::from_utf8_lossy(section.data()).trim().to_owned();
                outline.versions.push(capped(version, VERSION_BYTES));
            }
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                outline.component_type = true;
            }
            Payload::ImportSection(imports) if depth == 1 => {
                for import in imports.into_imports() {
                    let import = import.map_err(malformed)?;
                    outline.imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::ExportSection(exports) if depth == 1 => {
                for export in exports {
                    outline.exports.push(export.map_err(malformed)?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}
