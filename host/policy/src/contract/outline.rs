//! What the headers of a module say.

use wasmparser::{BinaryReaderError, Encoding, Parser, Payload};

use crate::error::LoadError;
use crate::text::capped;

const VERSION_SECTION: &str = "regatta-contract";
/// What is shown of a version that is none.
const VERSION_BYTES: usize = 64;

/// What the headers say of the outermost module or component, where nothing else is said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Whether it is a component; none when it is not WebAssembly.
    pub component: Option<bool>,
    /// Contents of the sections that tell the version of the contract, at any depth.
    pub versions: Vec<String>,
    /// Whether there is a section that says what the functions mean.
    pub component_type: bool,
    /// Module and name; of a component's imports, the module is empty.
    pub imports: Vec<(String, String)>,
    /// Names.
    pub exports: Vec<String>,
}

/// Reads the headers as far as they can be read, and says whether that was to the end; the bodies are passed over.
pub fn outline(bytes: &[u8]) -> (Outline, Result<(), LoadError>) {
    let mut outline = Outline::default();
    let read = outline.read(bytes).map_err(|error| LoadError::Malformed(error.into()));
    (outline, read)
}

impl Outline {
    fn read(&mut self, bytes: &[u8]) -> Result<(), BinaryReaderError> {
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    self.component.get_or_insert(encoding == Encoding::Component);
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                // A component keeps the sections of the core module inside it.
                Payload::CustomSection(section) if section.name() == VERSION_SECTION => {
                    let version = String::from_utf8_lossy(section.data()).trim().to_owned();
                    self.versions.push(capped(version, VERSION_BYTES));
                }
                Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                    self.component_type = true;
                }
                Payload::ImportSection(imports) if depth == 1 => {
                    for import in imports.into_imports() {
                        let import = import?;
                        self.imports.push((import.module.to_owned(), import.name.to_owned()));
                    }
                }
                Payload::ExportSection(exports) if depth == 1 => {
                    for export in exports {
                        self.exports.push(export?.name.to_owned());
                    }
                }
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports {
                        self.imports.push((String::new(), import?.name.name.to_owned()));
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 1 => {
                    for export in exports {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
