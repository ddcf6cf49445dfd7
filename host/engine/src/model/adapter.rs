//! Adapters in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors` in a folder.

use std::path::Path;

use plugin_api::Config;
use plugin_api::kinds::adapter::MARK;
use plugin_api::kinds::backend::Backend;
use plugin_api::plan::Plan;
use serde_json::Value;

use super::error::ModelError;
use super::files::{CONFIG_BYTES_MAX, ModelFiles, read_json};
use super::hyperparameters::Architecture;
use super::interleaved::InterleavedRows;
use super::loaded::{Packed, pack};
use super::safetensors::Safetensors;
use super::trace::WeightShapes;
use super::weights::{Quantizers, WeightTable};
use crate::error::EngineError;
use crate::train::{Lora, Parameter, Parameters};

/// An open adapter of one model.
#[derive(Debug)]
pub struct AdapterFiles {
    /// That of the model, with what the adapter says of itself.
    pub architecture: Architecture,
    /// Its weights.
    pub table: WeightTable,
    files: ModelFiles,
}

/// An adapter in memory, beside a model.
pub struct LoadedAdapter {
    /// That of the model, with what the adapter says of itself.
    pub architecture: Architecture,
    /// Its weights.
    pub table: WeightTable,
    /// Where they lie.
    pub packed: Packed,
}

/// The weights of a model, and of the adapter beside it if there is one.
pub struct Beside<'a>(pub &'a WeightTable, pub Option<&'a WeightTable>);

impl WeightShapes for Beside<'_> {
    fn dims(&self, name: &str) -> Option<&[u64]> {
        self.0.dims(name).or_else(|| self.1?.dims(name))
    }
}

impl AdapterFiles {
    /// Opens and checks the adapter in `folder`, for a model whose rows of queries and keys may lie otherwise than
    /// those that the adapter adds to.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`], and what its files say against their formats.
    pub fn open(
        folder: &Path,
        model: &Architecture,
        rows: Option<InterleavedRows>,
    ) -> Result<Self, EngineError> {
        let mut architecture = model.clone();
        AdapterConfig::open(folder)?.configure(&mut architecture.config)?;
        let path = folder.join(WEIGHTS);
        let tensors = reordered(Safetensors::open(&path)?, rows);
        let files = ModelFiles::of_tensors(&path, tensors);
        let table = WeightTable::named(&files, |theirs| our_name(theirs).map(str::to_owned));
        Ok(Self { architecture, table, files })
    }

    /// The numbers of its weights, to be merged.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the weight or key.
    pub fn read(&self, quantizers: &Quantizers) -> Result<Lora, EngineError> {
        let mut parameters = Parameters::default();
        for name in self.table.names() {
            let dims = self.table.dims(name).unwrap_or_default().to_vec();
            let values = self.table.values(&self.files, name, quantizers)?;
            parameters.0.insert(name.to_owned(), Parameter { dims, values });
        }
        Lora::with(parameters, &self.architecture.config)
    }

    /// Packs all weights as `backend` wants them.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the weight.
    pub fn pack(
        self,
        quantizers: &Quantizers,
        backend: &dyn Backend,
    ) -> Result<LoadedAdapter, EngineError> {
        let Self { architecture, table, files } = self;
        let names: Vec<&str> = table.names().collect();
        let packed = pack(&names, &table, &files, quantizers, backend, 1, &mut |_, _| ())?;
        Ok(LoadedAdapter { architecture, table, packed })
    }
}

/// The name that an adapter goes by: that of its folder.
pub fn name_of(folder: Option<&Path>) -> String {
    let name = folder.map(|folder| folder.file_name().unwrap_or(folder.as_os_str()));
    name.map_or_else(|| "none".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The same tensors with those rows of B in another order whose sums go to queries and keys that lie so.
fn reordered(tensors: Safetensors, rows: Option<InterleavedRows>) -> Safetensors {
    let Some(rows) = rows else { return tensors };
    tensors.changed(|tensor, bytes| {
        let num_rows = tensor.dims.first().copied().unwrap_or(0) as usize;
        let width = bytes.len() / num_rows.max(1);
        rows.concerns(&tensor.name).then(|| rows.done(bytes, width.max(1)))
    })
}

/// What `adapter_config.json` says.
#[derive(Debug)]
pub struct AdapterConfig {
    config: Value,
}

impl AdapterConfig {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`] or [`ModelError::Json`].
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        Ok(Self { config: read_json(&folder.join(CONFIG), CONFIG_BYTES_MAX, CONFIG)? })
    }

    /// Adds what its configuration says to the hyperparameters of the model.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] that names the key of what no plugin here computes.
    pub fn configure(&self, config: &mut Config) -> Result<(), EngineError> {
        let wrong = |key: &str, expected: &str| {
            let found = self.config.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
            EngineError::inconsistent(format!("{CONFIG}: `{key}`"), expected, found)
        };
        let get = |key: &str| self.config.get(key).filter(|value| !value.is_null());
        if get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(wrong("peft_type", "\"LORA\""));
        }
        for key in ["use_dora", "fan_in_fan_out", "lora_bias"] {
            if get(key).is_some_and(|value| *value != Value::Bool(false)) {
                return Err(wrong(key, "false"));
            }
        }
        for key in ["alpha_pattern", "modules_to_save"] {
            let is_empty = |value: &Value| match value {
                Value::Object(object) => object.is_empty(),
                Value::Array(list) => list.is_empty(),
                _ => false,
            };
            if get(key).is_some_and(|value| !is_empty(value)) {
                return Err(wrong(key, "none"));
            }
        }
        if get("bias").is_some_and(|value| value != "none") {
            return Err(wrong("bias", "\"none\""));
        }
        let alpha = get("lora_alpha").and_then(Value::as_f64);
        config.set(ALPHA, alpha.ok_or_else(|| wrong("lora_alpha", "a number"))?);
        let is_stabilized = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        config.set("use_rslora", is_stabilized);
        Ok(())
    }
}

/// Our name of a tensor of an adapter; nothing for tensors of models.
pub fn our_name(theirs: &str) -> Option<&str> {
    let name = theirs.strip_prefix(PREFIX)?;
    Some(name.strip_prefix("model.").unwrap_or(name))
}

/// The name in an adapter's file of what we call `ours`.
pub fn their_name(ours: &str) -> String {
    let scope = if ours.starts_with("lm_head.") { "" } else { "model." };
    format!("{PREFIX}{scope}{ours}")
}

/// Whether hyperparameters are those of a model with an adapter.
pub fn is_adapted(config: &Config) -> bool {
    config.has(ALPHA)
}

/// The slot of an engine that adapters fill.
pub const SLOT: &str = "weights";

/// Refuses an adapter of which the model reads less than there is.
///
/// # Errors
///
/// [`EngineError::Inconsistent`] with the first weight that nobody reads.
pub fn check_read<'a>(
    plan: &Plan,
    weights: &dyn WeightShapes,
    mut names: impl Iterator<Item = &'a str>,
) -> Result<(), EngineError> {
    let unread = names.find(|name| !plan.weights.iter().any(|port| port.name == **name));
    let Some(name) = unread else { return Ok(()) };
    let base = name.strip_suffix(MARK).map(|scope| format!("{scope}weight"));
    let found = match base {
        Some(base) if weights.dims(&base).is_none() => format!("no weight `{base}`"),
        _ => "a place where no adapter can stand".to_owned(),
    };
    Err(EngineError::inconsistent(
        format!("weight `{name}` of the adapter"),
        "a product of the model that it stands behind",
        found,
    ))
}

/// The two files of an adapter.
pub const CONFIG: &str = "adapter_config.json";
/// See [`CONFIG`].
pub const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
const ALPHA: &str = "lora_alpha";
