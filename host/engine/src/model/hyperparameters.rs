//! Hyperparameters of a model, under their names in `config.json`, whatever file they come from.

use plugin_api::{Config, Value};

use super::blueprint::{Blueprint, Source};
use super::files::{Metadata, ModelFiles};
use super::gguf::GgufMetadata;
use crate::error::EngineError;

/// Blueprint and hyperparameters of one model.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// How the model is built.
    pub blueprint: Blueprint,
    /// Hyperparameters of the whole model.
    pub config: Config,
}

impl Architecture {
    /// Reads what a model says of itself.
    ///
    /// # Errors
    ///
    /// [`EngineError::UnknownArchitecture`], or [`EngineError::Plugin`] for hyperparameters that
    /// are missing or out of range.
    pub fn of(files: &ModelFiles) -> Result<Self, EngineError> {
        match files.metadata() {
            Metadata::Gguf(gguf) => {
                let name = gguf.str("general.architecture")?.unwrap_or("").to_owned();
                let has_experts = gguf.u64(&format!("{name}.expert_count"))?.is_some_and(|n| n > 0);
                // Mixtral's files say that they are Llama, with experts.
                let blueprint = match &*name {
                    "llama" if has_experts => Blueprint::find("llama with experts")?,
                    name => Blueprint::find(name)?,
                };
                let mut config = Config::at("model");
                merge(&mut config, &blueprint.hyperparameters);
                from_gguf(gguf, &name, &mut config)?;
                rope_factors(files, &mut config)?;
                Self::new(blueprint, config, |b| &b.gguf)
            }
            Metadata::Hf(json) => Self::from_json(json),
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn from_json(json: &serde_json::Value) -> Result<Self, EngineError> {
        let listed = json["architectures"][0].as_str();
        let name = listed.or_else(|| json["model_type"].as_str()).unwrap_or("");
        let blueprint = Blueprint::find(name)?;
        let mut config = Config::at("config.json");
        merge(&mut config, &blueprint.hyperparameters);
        read_config(json, &mut config);
        // Of a model for text and images, what reads text.
        read_config(&json["text_config"], &mut config);
        rope_parameters(&mut config);
        if let (true, Ok(eps)) =
            (json["rms_norm_eps"].is_null(), config.number("layer_norm_epsilon", 0.0..=1.0))
        {
            config.set("rms_norm_eps", eps);
        }
        // Latent attention turns some channels only, and has no heads of one width.
        if let Ok(width) = config.count("qk_rope_head_dim", 2..=4096) {
            config.set("head_dim", width as i64);
        }
        if let Ok(scalar) = config.number("query_pre_attn_scalar", 1.0..=1e6) {
            config.set("attention_scale", scalar.powf(-0.5));
        }
        Self::new(blueprint, config, |b| &b.hf)
    }

    fn new(
        blueprint: Blueprint,
        mut config: Config,
        source: fn(&Blueprint) -> &Source,
    ) -> Result<Self, EngineError> {
        merge(&mut config, &source(&blueprint).hyperparameters);
        let checked = (|| {
            let hidden = config.count("hidden_size", 1..=1 << 20)?;
            config.count("num_hidden_layers", 1..=4096)?;
            let heads = config.count("num_attention_heads", 1..=4096)?;
            let (default_kv, default_dim) = (heads, (hidden / heads).max(1));
            config.count_or("num_key_value_heads", default_kv, 1..=heads)?;
            config.count_or("head_dim", default_dim, 2..=4096)?;
            if !config.has("num_key_value_heads") {
                config.set("num_key_value_heads", heads as i64);
            }
            if !config.has("head_dim") {
                config.set("head_dim", default_dim as i64);
            }
            config.count_or("max_position_embeddings", 2048, 1..=1 << 30)
        })();
        checked.map_err(EngineError::plugin(format!("{} model", blueprint.name)))?;
        Ok(Self { blueprint, config })
    }

    /// Number of decoder layers.
    pub fn num_layers(&self) -> u32 {
        self.config.count("num_hidden_layers", 1..=4096).map_or(0, |n| n as u32)
    }

    /// Tokens that the model was trained for.
    pub fn context_length(&self) -> usize {
        let length = self.config.count_or("max_position_embeddings", 2048, 1..=1 << 30);
        length.map_or(2048, |n| n as usize)
    }

    /// Which plugin fills a slot when configuration names none. Where the blueprint has the standard
    /// rotary embedding, a scaled one is a plugin of the name of its scaling.
    pub fn default_plugin(&self, slot: &str) -> Option<String> {
        let plugin = self.blueprint.slots.get(slot);
        if slot == "rotary-embedding"
            && plugin.is_some_and(|plugin| plugin == "standard")
            && let Ok(Some(scaling)) = self.config.table("rope_scaling")
            && let Ok(name) = scaling.text("rope_type").or_else(|_| scaling.text("type"))
            && name != "default"
        {
            let plugin = SCALINGS.iter().find(|(theirs, _)| *theirs == name);
            return Some(plugin.map_or(name, |(_, ours)| ours).to_owned());
        }
        plugin.cloned()
    }

    /// Hyperparameters of one layer: those of the model, with what alternates between layers
    /// decided.
    ///
    /// # Errors
    ///
    /// [`plugin_api::Error::Config`] for a pattern that cannot be.
    pub fn layer(&self, index: u32) -> plugin_api::Result<Config> {
        let mut config = self.config.clone();
        if !self.is_sliding(index)? {
            config.set("sliding_window", 0);
        } else if let Ok(theta) = self.config.number("rope_local_base_freq", 1.0..=1e12) {
            // Layers with a window see near tokens only and are not scaled for long contexts.
            config.set("rope_theta", theta);
            config.set("rope_scaling", Config::new());
        }
        if self.has_no_rope(index)? {
            // Layers without positions read everything.
            config.set("no_rope", true);
            config.set("attention_chunk_size", 0);
        }
        Ok(config)
    }

    /// Whether a layer has no positions: a list says 0 of it, or every so many layers have none.
    fn has_no_rope(&self, index: u32) -> plugin_api::Result<bool> {
        if let Some(has_rope) = self.config.list("no_rope_layers")?.get(index as usize) {
            return Ok(*has_rope == Value::from(0));
        }
        let interval = self.config.count_or("no_rope_layer_interval", 0, 0..=4096)?;
        Ok(interval > 0 && u64::from(index + 1).is_multiple_of(interval))
    }

    pub(super) fn is_sliding(&self, index: u32) -> plugin_api::Result<bool> {
        let types = self.config.list("layer_types")?;
        if let Some(kind) = types.get(index as usize) {
            return Ok(*kind == Value::from("sliding_attention"));
        }
        let pattern = self.config.count_or("sliding_window_pattern", 0, 0..=4096)?;
        Ok(pattern > 0 && !u64::from(index + 1).is_multiple_of(pattern))
    }
}

/// Names that files give a scaling of rotary embeddings, and plugins of other names that do it.
const SCALINGS: [(&str, &str); 3] =
    [("dynamic", "ntk"), ("deepseek_yarn", "yarn"), ("su", "longrope")];

/// Deepest nesting that is read from a `config.json`.
const MAX_DEPTH: u32 = 8;

fn merge(config: &mut Config, table: &toml::Table) {
    for (key, value) in table {
        match value {
            toml::Value::Integer(x) => config.set(key, *x),
            toml::Value::Float(x) => config.set(key, *x),
            toml::Value::Boolean(x) => config.set(key, *x),
            toml::Value::String(x) => config.set(key, x.as_str()),
            _ => {}
        }
    }
}

/// Sets what an object of `config.json` holds.
pub(crate) fn read_config(json: &serde_json::Value, config: &mut Config) {
    for (key, value) in json.as_object().into_iter().flatten() {
        if let Some(value) = from_json(key, value, MAX_DEPTH) {
            config.set(key, value);
        }
    }
}

fn from_json(key: &str, value: &serde_json::Value, depth: u32) -> Option<Value> {
    use serde_json::Value as Json;
    let depth = depth.checked_sub(1)?;
    match value {
        Json::Null => None,
        Json::Bool(x) => Some((*x).into()),
        Json::Number(x) => x.as_i64().map(Value::Int).or_else(|| x.as_f64().map(Value::Float)),
        Json::String(x) => Some(x.as_str().into()),
        Json::Array(x) => {
            Some(Value::List(x.iter().filter_map(|item| from_json(key, item, depth)).collect()))
        }
        Json::Object(x) => {
            let mut table = Config::at(&format!("config.json.{key}"));
            for (key, value) in x {
                if let Some(value) = from_json(key, value, depth) {
                    table.set(key, value);
                }
            }
            Some(Value::Table(table))
        }
    }
}

/// GGUF keys (below the architecture's name) and the names of `config.json`.
#[rustfmt::skip]
pub(super) const COUNTS: [(&str, &str); 10] = [
    ("embedding_length",        "hidden_size"),
    ("block_count",             "num_hidden_layers"),
    ("feed_forward_length",     "intermediate_size"),
    ("attention.head_count",    "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length",    "head_dim"),
    ("attention.sliding_window", "sliding_window"),
    ("context_length",          "max_position_embeddings"),
    ("expert_used_count",       "num_experts_per_tok"),
    ("expert_feed_forward_length", "moe_intermediate_size"),
];
#[rustfmt::skip]
pub(super) const NUMBERS: [(&str, &str); 4] = [
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base",                   "rope_theta"),
    ("attn_logit_softcapping",           "attn_logit_softcapping"),
    ("final_logit_softcapping",          "final_logit_softcapping"),
];

fn from_gguf(gguf: &GgufMetadata, name: &str, config: &mut Config) -> Result<(), EngineError> {
    for (theirs, ours) in COUNTS {
        if let Some(n) = gguf.u64(&format!("{name}.{theirs}"))? {
            config.set(ours, i64::try_from(n).unwrap_or(i64::MAX));
        }
    }
    for (theirs, ours) in NUMBERS {
        if let Some(x) = gguf.f64(&format!("{name}.{theirs}"))? {
            config.set(ours, x);
        }
    }
    if let (Some(rotary), Ok(head_dim)) =
        (gguf.u64(&format!("{name}.rope.dimension_count"))?, config.count("head_dim", 2..=4096))
        && rotary < head_dim
    {
        config.set("partial_rotary_factor", rotary as f64 / head_dim as f64);
    }
    if let Some(kind) = gguf.str(&format!("{name}.rope.scaling.type"))?
        && kind != "none"
    {
        let mut scaling = Config::at("model.rope_scaling").with("rope_type", kind);
        if let Some(factor) = gguf.f64(&format!("{name}.rope.scaling.factor"))? {
            scaling.set("factor", factor);
        }
        if let Some(n) = gguf.u64(&format!("{name}.rope.scaling.original_context_length"))? {
            scaling.set("original_max_position_embeddings", n as i64);
        }
        config.set("rope_scaling", scaling);
    }
    Ok(())
}

/// Transformers 5 writes base, share and scaling of the rotary embedding as one table.
fn rope_parameters(config: &mut Config) {
    let Ok(Some(table)) = config.table("rope_parameters") else { return };
    let table = table.clone();
    for key in ["rope_theta", "partial_rotary_factor"] {
        if let Some(value) = table.get(key) {
            config.set(key, value.clone());
        }
    }
    if !config.has("rope_scaling") {
        config.set("rope_scaling", table);
    }
}

/// Converters of Llama 3 store each frequency's divisor as a tensor instead of its parameters.
fn rope_factors(files: &ModelFiles, config: &mut Config) -> Result<(), EngineError> {
    let Ok(factors) = files.tensor("rope_freqs.weight") else { return Ok(()) };
    if factors.format != "F32" {
        return Err(EngineError::inconsistent("rope_freqs.weight", "F32", factors.format));
    }
    let (chunks, _) = factors.bytes.as_chunks::<4>();
    let factors = chunks.iter().map(|bytes| Value::from(f32::from_le_bytes(*bytes)));
    config.set("rope_freq_factors", Value::List(factors.collect()));
    Ok(())
}
