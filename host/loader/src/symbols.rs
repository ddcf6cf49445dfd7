//! What a shared library exports and imports, for whoever judges a plugin file without loading it.

use object::{Object as _, ObjectSymbol as _, SymbolFlags};

use crate::elf;
use crate::error::LoadError;

/// The dynamic symbols of a shared library, in the order of its table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Names that it defines for others.
    pub exported: Vec<String>,
    /// Those of them that the dynamic linker keeps one of in the whole process.
    pub unique: Vec<String>,
    /// Names that it takes from elsewhere, without their versions.
    pub imported: Vec<String>,
}

impl Symbols {
    /// Those of `names` that it takes from elsewhere.
    pub fn imported_of<'a>(&'a self, names: &[&str]) -> Vec<&'a str> {
        let imported = self.imported.iter().map(String::as_str);
        imported.filter(|name| names.contains(name)).collect()
    }

    /// Reads them.
    ///
    /// # Errors
    ///
    /// [`LoadError::Artifact`] for bytes that are no shared library for this machine.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let library = elf::open(file, bytes)?;
        let mut symbols = Self::default();
        for symbol in library.dynamic_symbols() {
            let Ok(name) = symbol.name() else { continue };
            let name = name.split('@').next().unwrap_or(name).to_owned();
            if symbol.is_undefined() {
                symbols.imported.push(name);
            } else if symbol.is_definition() && symbol.is_global() {
                if matches!(symbol.flags(), SymbolFlags::Elf { st_info, .. } if st_info >> 4 == UNIQUE)
                {
                    symbols.unique.push(name.clone());
                }
                symbols.exported.push(name);
            }
        }
        Ok(symbols)
    }

    /// Checks what the loader asks of a plugin: one exported entry, of the right size.
    ///
    /// # Errors
    ///
    /// [`LoadError::Artifact`] that says what is exported instead.
    pub fn check_entry(file: &str, bytes: &[u8]) -> Result<String, LoadError> {
        elf::entry_symbol(file, bytes)
    }
}

/// `STB_GNU_UNIQUE`.
const UNIQUE: u8 = 10;
