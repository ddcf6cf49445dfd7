//! Writes models that other programs read: folders as Hugging Face has them, and GGUF files.
//!
//! What is written appears whole or not at all: it is made beside its place under another name, brought
//! to the disk, then renamed.

mod gguf;
mod hugging_face;
mod merge;
mod whole;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use jackfield_runtime::Registry;

use super::files::{Metadata, ModelFiles};
use super::hyperparameters::Architecture;
use super::weights::{Quantizers, WeightTable};
use crate::error::EngineError;
use crate::wiring::Wiring;

pub use merge::{Merged, MergedWeight, merge};

/// The kind of file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportLayout {
    /// A file that llama.cpp reads.
    Gguf,
    /// A folder that transformers and mlx-lm read.
    HuggingFace,
}

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions<'a> {
    /// The kind of file.
    pub layout: ExportLayout,
    /// Of matrices: `F32`, `BF16` or `F16`.
    pub format: &'a str,
    /// A folder with the tokenizer, for models that lie without theirs.
    pub tokenizer: Option<&'a Path>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of the file, or of all files in the folder.
    pub size_bytes: u64,
}

/// Weights that are written in place of those of the model, by our names, in the order of rows that the layout
/// has.
pub(crate) trait Parts {
    /// The format of a weight; nothing for one that stays as it is.
    fn format(&self, ours: &str) -> Option<&str>;

    /// Its bytes.
    fn bytes(&self, ours: &str) -> Result<Vec<u8>, EngineError>;
}

/// A model to be written in another layout.
pub(crate) struct Exporter<'a> {
    pub(crate) files: &'a ModelFiles,
    pub(crate) architecture: Architecture,
    pub(crate) table: WeightTable,
    pub(crate) quantizers: Quantizers,
    /// Of matrices; vectors of GGUF files are F32. Nothing leaves all tensors as they are.
    pub(crate) format: Option<&'a str>,
    /// Where the tokenizer lies, if not beside the weights.
    pub(crate) tokenizer: Option<&'a Path>,
    /// Bytes that take the place of tensors, by the names in the file.
    pub(crate) replaced: BTreeMap<String, Vec<u8>>,
    /// Weights that were made in other formats.
    pub(crate) parts: Option<&'a dyn Parts>,
}

/// Writes the model at `from`, a folder as Hugging Face or a training run leaves it, to `to`, where nothing is.
/// `progress` is told tensors done and to do.
///
/// # Errors
///
/// [`EngineError`] that names the file, weight or hyperparameter; nothing is then at `to`.
pub fn export(
    from: &Path,
    to: &Path,
    options: &ExportOptions<'_>,
    wiring: &Wiring,
    registry: &Registry,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported, EngineError> {
    let files = ModelFiles::open(from)?;
    if !matches!(files.metadata(), Metadata::Hf(config) if config.is_object()) {
        let what = from.display().to_string();
        let expected = "a folder with `config.json` and safetensors";
        return Err(EngineError::inconsistent(what, expected, "another layout"));
    }
    let architecture = Architecture::of(&files)?;
    let table = WeightTable::of(&files, &architecture)?;
    if let Some(name) = table.names().find(|name| name.contains(".lora_A.")) {
        let what = format!("weight `{name}`");
        let expected = "weights of a whole model: merge the adapter into its model first";
        return Err(EngineError::inconsistent(what, expected, "an adapter's"));
    }
    let quantizers = wiring.quantizers(registry)?;
    let &ExportOptions { layout, format, tokenizer } = options;
    if let Some(folder) = tokenizer.filter(|folder| !folder.join("tokenizer.json").is_file()) {
        let what = folder.display().to_string();
        return Err(EngineError::inconsistent(what, "a folder with `tokenizer.json`", "none"));
    }
    let (files, format, replaced, parts) = (&files, Some(format), BTreeMap::new(), None);
    let exporter =
        Exporter { files, architecture, table, quantizers, format, tokenizer, replaced, parts };
    match layout {
        ExportLayout::Gguf => exporter.to_gguf(to, progress),
        ExportLayout::HuggingFace => exporter.to_folder(to, progress),
    }
}

impl Exporter<'_> {
    /// The bytes of a tensor as they are in the file, or what takes their place.
    fn stored(&self, name: &str) -> Result<Cow<'_, [u8]>, EngineError> {
        match self.replaced.get(name) {
            Some(bytes) => Ok(bytes.into()),
            None => Ok(self.files.tensor(name)?.bytes.into()),
        }
    }

    /// The format that a weight is made in, if it does not stay as it is.
    fn made(&self, ours: &str) -> Option<&str> {
        self.parts.and_then(|parts| parts.format(ours))
    }

    /// Weights that were made and that the file has no tensor of their own for; `ours` is our name for one of its.
    fn made_beside(&self, ours: &dyn Fn(&str) -> Option<String>) -> Vec<&str> {
        let is_made =
            |name: &&str| self.made(name).is_some() && !self.table.names_in_file(name).is_empty();
        let names = self.table.names().filter(is_made);
        let known: Vec<String> = self.files.tensors().filter_map(|t| ours(t.name)).collect();
        names.filter(|name| known.iter().all(|other| other != name)).collect()
    }

    /// The bytes of a weight that was made in another format.
    fn bytes_of_part(&self, ours: &str) -> Option<Result<Vec<u8>, EngineError>> {
        let parts = self.parts.filter(|parts| parts.format(ours).is_some())?;
        Some(parts.bytes(ours))
    }

    /// Where files of the tokenizer are; nothing where tokens are bytes.
    fn tokenizer_folder(&self) -> Option<&Path> {
        self.tokenizer.or_else(|| (!self.files.is_of_bytes()).then(|| self.files.folder()))
    }

    /// The bytes of numbers in a format.
    fn encode(&self, what: &str, values: &[f32], format: &str) -> Result<Vec<u8>, EngineError> {
        let Some((_, quantizer)) = self.quantizers.get(format) else {
            let known = self.quantizers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let expected = format!("a format with a quantizer ({known})");
            return Err(EngineError::inconsistent(what, expected, format));
        };
        let encode = || {
            let mut bytes = vec![0; quantizer.format().size_bytes(values.len())?];
            quantizer.encode(values, None, &mut bytes)?;
            Ok(bytes)
        };
        encode().map_err(EngineError::plugin(format!("weight `{what}`")))
    }

    /// Refuses what would not come out as it is.
    fn refuse<T>(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: &str,
    ) -> Result<T, EngineError> {
        let what = format!("{}: `{key}`", self.files.path().display());
        Err(EngineError::inconsistent(what, expected, found))
    }
}

fn outside(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::inconsistent(path.display().to_string(), "a file or folder to use", error)
}
