//! Why the bytes of a file are no WASM plugin.

use thiserror::Error;

/// What was wrong with a component, or with what it asks for. The file is named by
/// [`LoadError::Wasm`](crate::LoadError::Wasm).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WasmError {
    /// A core module: the tools of its language have to make a component of it.
    #[error("expected a WASM component, found a core module")]
    CoreModule,

    /// No WASM, or WASM that ends early or breaks its format.
    #[error("expected a WASM component: {message} (at byte {offset})")]
    Malformed {
        /// Where, from 0.
        offset: usize,
        /// What is wrong there.
        message: String,
    },

    /// There is no manifest in it, or more than one.
    #[error("expected one custom section `jackfield.manifest`, found {found}")]
    Manifest {
        /// How many there are.
        found: usize,
    },

    /// The manifest is no text.
    #[error("custom section `jackfield.manifest`: expected UTF-8")]
    ManifestText,

    /// A kind that only runs in other lanes.
    #[error("plugins of kind `{kind}` cannot be WASM components")]
    Kind {
        /// The kind of the manifest.
        kind: String,
    },

    /// It needs something that this host does not offer to its kind.
    #[error("imports `{import}`, which the host does not offer to a `{kind}`")]
    Import {
        /// The name of the import.
        import: String,
        /// The kind of the manifest.
        kind: String,
    },

    /// It is made for another version of the boundary.
    #[error("made for `{found}`, this host speaks version {supported}")]
    Version {
        /// The interface with its version.
        found: String,
        /// The version of this host.
        supported: &'static str,
    },

    /// It is a plugin of another kind than its manifest says.
    #[error("expected the exports of a `{kind}` ({expected}), found {found}")]
    World {
        /// The kind of the manifest.
        kind: String,
        /// Interfaces that the kind exports.
        expected: String,
        /// Interfaces that the component exports.
        found: String,
    },

    /// An interface has the right name and other functions or types.
    #[error("does not fit the interfaces of its kind: {message}")]
    Incompatible {
        /// What does not fit.
        message: String,
    },

    /// It could not be compiled.
    #[error("cannot be compiled: {message}")]
    Compile {
        /// What the compiler says.
        message: String,
    },

    /// The engines could not be made on this machine.
    #[error("no WASM on this machine: {message}")]
    Engine {
        /// What is missing.
        message: String,
    },
}
