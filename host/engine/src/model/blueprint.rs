//! Blueprints: architectures as data. Which plugin fills which slot, what the layers consist of,
//! and what a model file calls its weights.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::views::View;
use crate::error::EngineError;

/// The architecture of a family of models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blueprint {
    /// For people.
    pub name: String,
    /// What model files call it: `general.architecture`, `model_type` or `architectures`.
    pub architectures: Vec<String>,
    /// Plugin for each slot, by kind; configuration may choose others.
    pub slots: BTreeMap<String, String>,
    /// Hyperparameters that the model file may override.
    #[serde(default)]
    pub hyperparameters: toml::Table,
    /// What each layer consists of, in order.
    pub sublayers: Vec<Sublayer>,
    /// What holds only for Hugging Face checkpoints.
    #[serde(default)]
    pub hf: Source,
    /// What holds only for GGUF files.
    #[serde(default)]
    pub gguf: Source,
}

/// One residual branch of a layer: norm, part, norm, add.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sublayer {
    /// The slot whose plugin is traced.
    pub slot: String,
    /// Where it finds its weights, below `layers.N`.
    pub scope: String,
    /// Weights of the norm before it.
    pub pre_norm: Option<String>,
    /// Weights of the norm after it.
    pub post_norm: Option<String>,
}

/// What a file format does its own way.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Hyperparameters that hold whatever the file says.
    #[serde(default)]
    pub hyperparameters: toml::Table,
    /// Names of layer weights in the file (without `blk.N.` or `layers.N.`, and without `.weight`),
    /// and ours. A `*` is the number of an expert: what is called so is one weight. Names that end otherwise
    /// stand here whole, and those outside of layers as they are.
    #[serde(default)]
    pub weights: BTreeMap<String, String>,
    /// What stands before all names in the file, if not `model.`; the first that fits is taken off.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Weights that are parts of the file's tensors. Of those with one name, the first whose tensor is there.
    #[serde(default)]
    pub views: Vec<View>,
}

impl Blueprint {
    /// Reads a blueprint.
    ///
    /// # Errors
    ///
    /// [`EngineError::Blueprint`] with line and column.
    pub fn parse(name: &str, text: &str) -> Result<Self, EngineError> {
        toml::from_str(text)
            .map_err(|e| EngineError::Blueprint { name: name.to_owned(), message: e.to_string() })
    }

    /// The blueprint that comes with the host for an architecture.
    ///
    /// # Errors
    ///
    /// [`EngineError::UnknownArchitecture`] with those that are known.
    pub fn find(architecture: &str) -> Result<Self, EngineError> {
        let mut known = Vec::new();
        for (name, text) in EMBEDDED {
            let blueprint = Self::parse(name, text)?;
            if blueprint.architectures.iter().any(|other| other == architecture) {
                return Ok(blueprint);
            }
            known.extend(blueprint.architectures);
        }
        let architecture = architecture.to_owned();
        Err(EngineError::UnknownArchitecture { architecture, known })
    }

    /// Our name for a weight of a GGUF file, if the blueprint knows it.
    pub fn gguf_weight(&self, name: &str) -> Option<String> {
        match name {
            "token_embd.weight" => return Some("embed_tokens.weight".to_owned()),
            "output_norm.weight" => return Some("norm.weight".to_owned()),
            "output.weight" => return Some("lm_head.weight".to_owned()),
            _ => {}
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        if let Some(ours) = self.gguf.weights.get(rest) {
            return Some(format!("layers.{layer}.{ours}"));
        }
        let (part, suffix) = rest.rsplit_once('.')?;
        let ours = self.gguf.weights.get(part)?;
        Some(format!("layers.{layer}.{ours}.{suffix}"))
    }

    /// The name in a GGUF file of what we call `ours`: the reverse of [`gguf_weight`](Self::gguf_weight).
    pub fn gguf_name(&self, ours: &str) -> Option<String> {
        match ours {
            "embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
            "norm.weight" => return Some("output_norm.weight".to_owned()),
            "lm_head.weight" => return Some("output.weight".to_owned()),
            _ => {}
        }
        let (layer, rest) = ours.strip_prefix("layers.")?.split_once('.')?;
        let (part, suffix) = rest.rsplit_once('.')?;
        let (theirs, _) = self.gguf.weights.iter().find(|(_, ours)| **ours == *part)?;
        Some(format!("blk.{layer}.{theirs}.{suffix}"))
    }

    /// Our name for a weight of a Hugging Face checkpoint, and which expert's it is.
    pub fn hf_weight(&self, name: &str) -> (String, Option<usize>) {
        let name = &name[self.hf_prefix(name).len()..];
        let named = || {
            let Some((layer, rest)) = in_layer(name) else {
                let (part, suffix) = name.rsplit_once('.')?;
                let ours = self.hf.weights.get(part)?;
                return Some((format!("{ours}.{suffix}"), None));
            };
            if let Some(ours) = self.hf.weights.get(rest) {
                return Some((format!("layers.{layer}.{ours}"), None));
            }
            let (part, suffix) = rest.rsplit_once('.')?;
            let (ours, expert) = self.hf.weights.iter().find_map(|(theirs, ours)| {
                let Some((head, tail)) = theirs.split_once('*') else {
                    return (theirs == part).then_some((ours, None));
                };
                let number = part.strip_prefix(head)?.strip_suffix(tail)?;
                Some((ours, Some(number.parse().ok()?)))
            })?;
            Some((format!("layers.{layer}.{ours}.{suffix}"), expert))
        };
        named().unwrap_or_else(|| (name.to_owned(), None))
    }

    /// What stands before a name in a Hugging Face checkpoint.
    fn hf_prefix<'n>(&self, name: &'n str) -> &'n str {
        let others = self.hf.prefixes.iter().map(String::as_str);
        let found = others.chain(["model."]).find(|prefix| name.starts_with(prefix));
        &name[..found.map_or(0, str::len)]
    }

    /// The views whose tensor this is, with all of its name that stands before the name in the layer, and the
    /// prefix of our names.
    pub fn views_of<'n>(&self, name: &'n str) -> Option<(&'n str, String, Vec<&View>)> {
        let prefix = self.hf_prefix(name).len();
        let (layer, rest) = in_layer(&name[prefix..])?;
        let views: Vec<_> = self.hf.views.iter().filter(|view| view.of == rest).collect();
        let before = &name[..name.len() - rest.len()];
        (!views.is_empty()).then(|| (before, format!("layers.{layer}."), views))
    }

    /// Whether a tensor holds the scales of a view.
    pub fn is_scales(&self, name: &str) -> bool {
        let rest = in_layer(&name[self.hf_prefix(name).len()..]).map(|(_, rest)| rest);
        self.hf.views.iter().any(|view| view.scales.as_deref().is_some_and(|s| Some(s) == rest))
    }
}

/// Number of the layer, and the name in it.
fn in_layer(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("layers.")?.split_once('.')
}

const EMBEDDED: [(&str, &str); 10] = [
    ("llama", include_str!("blueprints/llama.toml")),
    ("qwen2", include_str!("blueprints/qwen2.toml")),
    ("qwen3", include_str!("blueprints/qwen3.toml")),
    ("gemma3", include_str!("blueprints/gemma3.toml")),
    ("mixtral", include_str!("blueprints/mixtral.toml")),
    ("qwen3moe", include_str!("blueprints/qwen3_moe.toml")),
    ("gpt-oss", include_str!("blueprints/gpt_oss.toml")),
    ("llama4", include_str!("blueprints/llama4.toml")),
    ("deepseek_v3", include_str!("blueprints/deepseek_v3.toml")),
    ("mamba", include_str!("blueprints/mamba.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_blueprint_is_found_under_its_name() {
        for (name, _) in EMBEDDED {
            let blueprint = Blueprint::find(name).unwrap();
            assert_eq!(blueprint.name, name);
            assert!(blueprint.sublayers.iter().all(|sub| blueprint.slots.contains_key(&sub.slot)));
        }
        let error = Blueprint::find("perceptron").unwrap_err().to_string();
        assert!(
            error.starts_with("architecture `perceptron`: no blueprint, expected one of llama"),
            "{error}"
        );
    }

    #[test]
    fn names_of_gguf_weights_become_ours() {
        let blueprint = Blueprint::find("gemma3").unwrap();
        #[rustfmt::skip]
        let cases = [
            ("token_embd.weight",               Some("embed_tokens.weight")),
            ("blk.3.attn_q.weight",             Some("layers.3.self_attn.q_proj.weight")),
            ("blk.11.post_ffw_norm.weight",     Some("layers.11.post_feedforward_layernorm.weight")),
            ("blk.0.attn_rotation.weight",      None),
            ("rope_freqs.weight",               None),
        ];
        for (theirs, ours) in cases {
            assert_eq!(blueprint.gguf_weight(theirs).as_deref(), ours, "{theirs}");
        }
    }

    #[test]
    fn names_of_experts_become_one() {
        let blueprint = Blueprint::find("MixtralForCausalLM").unwrap();
        #[rustfmt::skip]
        let cases = [
            ("model.embed_tokens.weight",                              "embed_tokens.weight",                 None),
            ("model.layers.3.self_attn.q_proj.weight",                 "layers.3.self_attn.q_proj.weight",    None),
            ("model.layers.3.block_sparse_moe.gate.weight",            "layers.3.mlp.router.weight",          None),
            ("model.layers.3.block_sparse_moe.experts.11.w2.weight",   "layers.3.mlp.experts.down_proj.weight", Some(11)),
            ("model.layers.3.block_sparse_moe.experts.x.w2.weight",    "layers.3.block_sparse_moe.experts.x.w2.weight", None),
        ];
        for (theirs, ours, expert) in cases {
            assert_eq!(blueprint.hf_weight(theirs), (ours.to_owned(), expert), "{theirs}");
        }
    }
}
