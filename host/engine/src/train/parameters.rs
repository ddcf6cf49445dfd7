//! The parameters of a model in training.

use std::collections::BTreeMap;
use std::path::Path;

use jackfield_runtime::Registry;
use plugin_api::{FeedForward, Kind, Mixer, MoeRouter, Value};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::checkpoint::Checkpoint;
use super::random::Random;
use crate::error::EngineError;
use crate::model::trace::WeightShapes;
use crate::model::weights::WeightTable;
use crate::model::{Architecture, InterleavedRows, ModelFiles};
use crate::wiring::Wiring;

/// One tensor that training changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Outermost first.
    pub dims: Vec<u64>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// All of them, by our names: `layers.0.self_attn.q_proj.weight`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters(pub BTreeMap<String, Parameter>);

impl Parameters {
    /// The first parameters of a decoder: norms of ones, matrices of random numbers with a deviation of
    /// 0.02, those whose result joins the stream less by the root of how many join. Each name has
    /// a stream of its own.
    ///
    /// Source: Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] for hyperparameters that are missing.
    pub fn random(architecture: &Architecture, seed: u64) -> Result<Self, EngineError> {
        let shapes = shapes(architecture).map_err(EngineError::plugin("hyperparameters"))?;
        let joins = shapes.keys().filter(|name| is_join(name)).count().max(1);
        let parameter = |(name, dims): (String, Vec<u64>)| {
            let len = dims.iter().product::<u64>() as usize;
            let deviation = if is_join(&name) { 0.02 / (joins as f64).sqrt() } else { 0.02 };
            let mut random = Random::new(seed ^ hash(&name));
            let values = match dims.len() {
                1 => vec![1.0; len],
                _ => (0..len).map(|_| (deviation * random.normal()) as f32).collect(),
            };
            (name, Parameter { dims, values })
        };
        Ok(Self(shapes.into_iter().map(parameter).collect()))
    }

    /// Reads a safetensors file of F32 tensors, in the names of Hugging Face or ours.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a file that is none, and for a tensor of another type.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, EngineError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| {
            EngineError::inconsistent("parameters", "a safetensors file", error)
        })?;
        let parameter = |(name, view): (String, TensorView<'_>)| {
            let what = format!("parameter `{name}`");
            if view.dtype() != Dtype::F32 {
                let found = format!("{:?}", view.dtype());
                return Err(EngineError::inconsistent(what, "F32", found));
            }
            let (chunks, _) = view.data().as_chunks::<4>();
            let values = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let dims = view.shape().iter().map(|&n| n as u64).collect();
            let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
            Ok((name, Parameter { dims, values }))
        };
        file.tensors().into_iter().map(parameter).collect::<Result<_, _>>().map(Self)
    }

    /// The weights of a model file as F32, whatever format they are stored in, with what the model is:
    /// what a run begins with, or an adapter is trained beside. Rows lie as in files of Hugging Face.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the file, weight or format.
    pub fn of_model(
        path: &Path,
        wiring: &Wiring,
        registry: &Registry,
    ) -> Result<(Architecture, Self), EngineError> {
        let files = ModelFiles::open(path)?;
        let mut architecture = Architecture::of(&files)?;
        let rows = InterleavedRows::of(&files, &architecture);
        let quantizers = wiring.quantizers(registry)?;
        let table = WeightTable::of(&files, &architecture)?;
        let mut parameters = Self::default();
        for name in table.names() {
            let dims = table.dims(name).unwrap_or_default().to_vec();
            let mut values = table.values(&files, name, &quantizers)?;
            if let Some(rows) = rows.filter(|rows| rows.concerns(name)) {
                values = rows.undone(&values, dims.get(1).map_or(1, |&width| width as usize));
            }
            parameters.0.insert(name.to_owned(), Parameter { dims, values });
        }
        if rows.is_some() {
            InterleavedRows::say_undone(&mut architecture.config);
        }
        Ok((architecture, parameters))
    }

    /// A safetensors file in the names of Hugging Face.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for what such a file cannot hold.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, EngineError> {
        let views = self.0.iter().map(|(name, Parameter { dims, values })| {
            let shape = dims.iter().map(|&n| n as usize).collect();
            let prefix = if name.starts_with(HEAD) { "" } else { PREFIX };
            TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values))
                .map(|view| (format!("{prefix}{name}"), view))
        });
        let views: Result<Vec<_>, _> = views.collect();
        let bytes = views.and_then(|views| safetensors::serialize(views, None));
        bytes.map_err(|e| EngineError::inconsistent("parameters", "what safetensors holds", e))
    }

    /// What tells one model from another: names, shapes and the first numbers of each parameter, hashed.
    pub fn fingerprint(&self) -> String {
        let mut described = String::new();
        for (name, Parameter { dims, values }) in &self.0 {
            let first: Vec<u32> = values.iter().take(64).map(|x| x.to_bits()).collect();
            described.push_str(&format!("{name} {dims:?} {first:?}\n"));
        }
        Checkpoint::run_of(&described)
    }

    /// Elements of all parameters.
    pub fn num_elements(&self) -> usize {
        self.0.values().map(|parameter| parameter.values.len()).sum()
    }
}

impl WeightShapes for Parameters {
    fn dims(&self, name: &str) -> Option<&[u64]> {
        self.0.get(name).map(|parameter| &parameter.dims[..])
    }
}

/// Shapes of the parameters of a decoder by its blueprint and hyperparameters.
fn shapes(architecture: &Architecture) -> plugin_api::Result<BTreeMap<String, Vec<u64>>> {
    let config = &architecture.config;
    let hidden = config.count("hidden_size", 1..=1 << 20)?;
    let vocab = config.count("vocab_size", 1..=1 << 24)?;
    let inner = config.count("intermediate_size", 1..=1 << 24)?;
    let experts = num_experts(architecture)?;
    let of_expert = config.count_or("moe_intermediate_size", inner, 1..=1 << 24)?;
    let dense = config.list("mlp_only_layers")?;
    let head_dim = config.count("head_dim", 2..=4096)?;
    let queries = config.count("num_attention_heads", 1..=4096)? * head_dim;
    let keys = config.count("num_key_value_heads", 1..=4096)? * head_dim;
    let mut shapes = BTreeMap::new();
    let mut add = |name: String, dims: &[u64]| {
        shapes.insert(format!("{name}.weight"), dims.to_vec());
    };
    add("embed_tokens".to_owned(), &[vocab, hidden]);
    add("norm".to_owned(), &[hidden]);
    if !config.flag_or("tie_word_embeddings", false)? {
        add("lm_head".to_owned(), &[vocab, hidden]);
    }
    for layer in 0..architecture.num_layers() {
        let is_dense = dense.contains(&Value::from(i64::from(layer)));
        for sub in &architecture.blueprint.sublayers {
            for norm in [&sub.pre_norm, &sub.post_norm].into_iter().flatten() {
                add(format!("layers.{layer}.{norm}"), &[hidden]);
            }
            let mut part = |name: &str, dims: &[u64]| {
                add(format!("layers.{layer}.{}.{name}", sub.scope), dims);
            };
            if sub.slot == <dyn Mixer>::NAME {
                part("q_proj", &[queries, hidden]);
                part("k_proj", &[keys, hidden]);
                part("v_proj", &[keys, hidden]);
                part("o_proj", &[hidden, queries]);
            } else if sub.slot == <dyn FeedForward>::NAME && experts > 0 && !is_dense {
                part("router", &[experts, hidden]);
                part("experts.gate_proj", &[experts, of_expert, hidden]);
                part("experts.up_proj", &[experts, of_expert, hidden]);
                part("experts.down_proj", &[experts, hidden, of_expert]);
            } else if sub.slot == <dyn FeedForward>::NAME {
                part("gate_proj", &[inner, hidden]);
                part("up_proj", &[inner, hidden]);
                part("down_proj", &[hidden, inner]);
            }
        }
    }
    Ok(shapes)
}

/// How many experts each layer of a mixture has, under the names of several families; 0 for other models.
fn num_experts(architecture: &Architecture) -> plugin_api::Result<u64> {
    if !architecture.blueprint.slots.contains_key(<dyn MoeRouter>::NAME) {
        return Ok(0);
    }
    let names = ["num_local_experts", "num_experts", "n_routed_experts"];
    let name = names.into_iter().find(|name| architecture.config.has(name));
    name.map_or(Ok(0), |name| architecture.config.count(name, 1..=1 << 16))
}

/// Whether the product with this matrix is added to the stream.
fn is_join(name: &str) -> bool {
    name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")
}

/// Before all names but that of the head in files of Hugging Face.
const PREFIX: &str = "model.";
const HEAD: &str = "lm_head.";

/// FNV-1a.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
