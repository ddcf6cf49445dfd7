//! Why a file did not become a plugin or a configuration.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::wasm::WasmError;

/// What was wrong with a manifest, a plugin or a configuration file.
///
/// Every variant names the file, says what was expected and what was found, and leaves everything
/// as it was before the attempt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The text breaks the rules of TOML.
    #[error("{file}:{line}: expected TOML: {message}")]
    Syntax {
        /// The file, or `builtin …`.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },

    /// A value is missing or has another type or range than it should.
    #[error("{file}:{line}: {key}: expected {expected}, found {found}")]
    Value {
        /// The file, or `builtin …`.
        file: String,
        /// Line of the value, or of where it should stand, from 1.
        line: usize,
        /// Dotted path of the key.
        key: String,
        /// The accepted type and range.
        expected: String,
        /// What stood there.
        found: String,
    },

    /// The plugin is made for another version of the boundary.
    #[error("{file}: built for plugin API {found}, this host speaks {supported}")]
    ApiVersion {
        /// The file, or `builtin …`.
        file: String,
        /// What the manifest says.
        found: String,
        /// The version of this host.
        supported: String,
    },

    /// The plugin provides something other than its manifest says.
    #[error("{file}: manifest says `{manifest}`, the code provides `{code}`")]
    Mismatch {
        /// The file, or `builtin …`.
        file: String,
        /// `kind/name` of the manifest.
        manifest: String,
        /// `kind/name` of what was registered, comma separated.
        code: String,
    },

    /// Another plugin already provides this capability under this name.
    #[error("{file}: `{capability}` is already provided by {owner}")]
    NameTaken {
        /// The file, or `builtin …`.
        file: String,
        /// `kind/name`.
        capability: String,
        /// The file of the other.
        owner: String,
    },

    /// The file is not what a plugin file is.
    #[error("{file}: expected {expected}, found {found}")]
    Artifact {
        /// The file.
        file: String,
        /// What a plugin file has there.
        expected: String,
        /// What it has.
        found: String,
    },

    /// The file is not as it was when it was built: cut off, changed, or never sealed.
    #[error(
        "{file}: {found}: seal it with `jackfield plugin seal` if it is as its author built it"
    )]
    Seal {
        /// The file.
        file: String,
        /// What is wrong with the seal.
        found: String,
    },

    /// The file is not the one that the configuration names by its hash.
    #[error("{file}: expected SHA-256 {expected}, found {found}")]
    Hash {
        /// The file.
        file: String,
        /// What the configuration says, in hexadecimal.
        expected: String,
        /// What the file has.
        found: String,
    },

    /// The plugin was built against other tables than this host has.
    #[error("{file}: built against other tables than this host: {difference}: build it again")]
    Abi {
        /// The file.
        file: String,
        /// What differs.
        difference: String,
    },

    /// A function of the plugin's life failed: its entry, making an instance, its self-test.
    #[error("{file}: {stage}: {source}")]
    Start {
        /// The file.
        file: String,
        /// Which function.
        stage: &'static str,
        /// What the plugin said.
        source: plugin_api::Error,
    },

    /// The plugin ended or did not end the process that tried it.
    #[error("{file}: tried in a process of its own: {found}")]
    Trial {
        /// The file.
        file: String,
        /// What became of the process.
        found: String,
    },

    /// As many generations are mapped as the configuration allows: native plugins stay mapped.
    #[error(
        "{file}: {mapped} native plugins are mapped, the quota is {quota}: raise `load.quota`, or restart at a quiet time"
    )]
    Quota {
        /// The file.
        file: String,
        /// Generations that are mapped.
        mapped: usize,
        /// How many may be.
        quota: usize,
    },

    /// The bytes are no WASM plugin that fits.
    #[error("{file}: {source}")]
    Wasm {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: WasmError,
    },

    /// The operating system refused the file.
    #[error("{}: cannot read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The line, from 1, that the byte `offset` of `text` stands in.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// The [`LoadError::Syntax`] that the parser's error amounts to.
pub(crate) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> LoadError {
    let line = line_at(text, error.span().map_or(0, |span| span.start));
    LoadError::Syntax { file: file.to_owned(), line, message: error.message().to_owned() }
}
