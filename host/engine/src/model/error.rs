//! What can be wrong with a model's files. Every message names the file, the expectation and the
//! finding; nothing here is logged as well as returned.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A model file that cannot be used, and why.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused the file.
    #[error("{path}: expected a readable {expected}", path = .path.display())]
    Open {
        /// The file or folder.
        path: PathBuf,
        /// What should have been there.
        expected: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },

    /// The path is not a model in a format that is read here.
    #[error("{path}: expected {expected}, found {found}", path = .path.display())]
    NotAModel {
        /// The file or folder.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },

    /// A part of the file contradicts its format.
    #[error("{path}: {item}: expected {expected}, found {found}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The part that was being read: a header field, a tensor, a key.
        item: String,
        /// What the format demands.
        expected: String,
        /// What the file holds.
        found: String,
    },

    /// The file is not JSON, or not of the expected form.
    #[error("{path}: expected {expected}", path = .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What should have been there.
        expected: &'static str,
        /// Where it stops being that.
        #[source]
        source: serde_json::Error,
    },

    /// The header of a safetensors file contradicts the file.
    #[error("{path}: expected a safetensors header that fits its file", path = .path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: safetensors::SafeTensorError,
    },

    /// The model has no tensor of this name.
    #[error("{path}: expected a tensor `{name}`, found none among {count}", path = .path.display())]
    TensorMissing {
        /// The model.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
        /// How many tensors there are.
        count: usize,
    },

    /// The tensor is there, in a format that nobody here can name.
    #[error("{path}: tensor `{name}`: expected a known format, found ggml type {type_id}", path = .path.display())]
    FormatUnknown {
        /// The model.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its ggml type id.
        type_id: u32,
    },

    /// The tokenizer's parts do not make a tokenizer, or not one that is implemented.
    #[error("{path}: tokenizer: expected {expected}, found {found}", path = .path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What a tokenizer needs there.
        expected: String,
        /// What the file holds.
        found: String,
    },

    /// The chat template does not compile, refuses the messages, or exceeds its limits.
    #[error("{path}: expected a chat template that {expected}", path = .path.display())]
    Template {
        /// The file that the template came from.
        path: PathBuf,
        /// `compiles`, or `renders these messages within its limits`.
        expected: &'static str,
        /// What the template engine, or the template itself, said.
        #[source]
        source: minijinja::Error,
    },
}

impl ModelError {
    /// A [`Malformed`](Self::Malformed) of `path`.
    pub(crate) fn malformed(
        path: &Path,
        item: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            item: item.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A [`Tokenizer`](Self::Tokenizer) error of `path`.
    pub(crate) fn tokenizer(
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Tokenizer { path: path.to_path_buf(), expected: expected.into(), found: found.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_file_the_expectation_and_the_finding() {
        let error = ModelError::malformed(Path::new("a.gguf"), "version", "2 or 3", "7");
        assert_eq!(error.to_string(), "a.gguf: version: expected 2 or 3, found 7");
    }
}
