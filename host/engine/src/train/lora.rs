//! Adapters of low rank: made, read, written, and merged into the weights that they stand beside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use plugin_api::Config;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::parameters::{Parameter, Parameters, hash};
use super::random::Random;
use crate::error::EngineError;
use crate::model::adapter::{AdapterConfig, CONFIG, WEIGHTS, our_name, their_name};

/// An adapter: two narrow matrices for each weight that it stands beside.
///
/// Source: Hu et al., "LoRA", arXiv:2106.09685, in the layout of PEFT.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// `{weight}.lora_A.weight [rank, in]` and `{weight}.lora_B.weight [out, rank]`.
    pub parameters: Parameters,
    /// What products are multiplied by, before it is divided by the rank.
    pub alpha: f64,
    /// Whether that is divided by the root of the rank instead.
    pub is_stabilized: bool,
}

impl Lora {
    /// An adapter of `rank` beside every matrix of `base` whose module is one of `targets` (`q_proj`), that adds
    /// nothing yet: A is uniform within `1 / √in` as PEFT has it, B is zeros.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a target that no matrix has, and for a rank of 0.
    pub fn random(
        base: &Parameters,
        targets: &[&str],
        rank: u64,
        alpha: f64,
        seed: u64,
    ) -> Result<Self, EngineError> {
        if rank == 0 {
            return Err(EngineError::inconsistent("rank of the adapter", "at least 1", 0));
        }
        let mut parameters = Parameters::default();
        for target in targets {
            let before = parameters.0.len();
            for (name, Parameter { dims, .. }) in &base.0 {
                let scope = name.strip_suffix(".weight");
                let Some(scope) = scope.filter(|scope| module_of(scope) == *target) else {
                    continue;
                };
                let &[rows, columns] = &dims[..] else { continue };
                let mut random = Random::new(seed ^ hash(name));
                let bound = 1.0 / (columns as f64).sqrt();
                let a = (0..rank * columns).map(|_| (bound * random.signed()) as f32).collect();
                let b = vec![0.0; (rows * rank) as usize];
                let mut add = |part: &str, dims: [u64; 2], values: Vec<f32>| {
                    let parameter = Parameter { dims: dims.to_vec(), values };
                    parameters.0.insert(format!("{scope}.{part}.weight"), parameter);
                };
                add("lora_A", [rank, columns], a);
                add("lora_B", [rows, rank], b);
            }
            if parameters.0.len() == before {
                let what = format!("target `{target}` of the adapter");
                return Err(EngineError::inconsistent(what, "a matrix of the model", "none"));
            }
        }
        Ok(Self { parameters, alpha, is_stabilized: false })
    }

    /// Reads an adapter of F32 tensors.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the file, key or tensor.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        let files = AdapterConfig::open(folder)?;
        let mut config = Config::at(CONFIG);
        files.configure(&mut config)?;
        let path = folder.join(WEIGHTS);
        let bytes = fs::read(&path).map_err(|error| outside(&path, &error))?;
        let parameters = Self::parameters_of(&bytes)?;
        Self::with(parameters, &config)
    }

    /// An adapter of these weights, which says of itself what a configuration has.
    pub(crate) fn with(parameters: Parameters, config: &Config) -> Result<Self, EngineError> {
        let read =
            || Ok((config.number("lora_alpha", -1e6..=1e6)?, config.flag_or("use_rslora", false)?));
        let (alpha, is_stabilized) = read().map_err(EngineError::plugin(CONFIG))?;
        Ok(Self { parameters, alpha, is_stabilized })
    }

    /// The parameters in the bytes of a file of weights.
    pub(super) fn parameters_of(bytes: &[u8]) -> Result<Parameters, EngineError> {
        let Parameters(theirs) = Parameters::from_safetensors(bytes)?;
        let ours = theirs.into_iter().map(|(name, parameter)| match our_name(&name) {
            Some(ours) => Ok((ours.to_owned(), parameter)),
            None => Err(EngineError::inconsistent(
                WEIGHTS,
                "names that begin `base_model.model.`",
                name,
            )),
        });
        ours.collect::<Result<BTreeMap<_, _>, _>>().map(Parameters)
    }

    /// Writes the adapter as PEFT reads it, for the model `base`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] that names the file.
    pub fn save(&self, folder: &Path, base: &str) -> Result<(), EngineError> {
        let files = self.files(base)?;
        fs::create_dir_all(folder).map_err(|error| outside(folder, &error))?;
        for (name, bytes) in files {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|error| outside(&path, &error))?;
        }
        Ok(())
    }

    /// The two files of the adapter, for the model `base`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for what safetensors cannot hold.
    pub fn files(&self, base: &str) -> Result<[(&'static str, Vec<u8>); 2], EngineError> {
        let views = self.parameters.0.iter().map(|(name, Parameter { dims, values })| {
            let shape = dims.iter().map(|&n| n as usize).collect();
            let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values));
            view.map(|view| (their_name(name), view))
        });
        let views: Result<Vec<_>, _> = views.collect();
        let weights = views.and_then(|views| safetensors::serialize(views, None));
        let weights = weights.map_err(|error| {
            EngineError::inconsistent("adapter", "what safetensors holds", error)
        })?;
        let config = serde_json::to_vec_pretty(&self.config(base)).unwrap_or_default();
        Ok([(WEIGHTS, weights), (CONFIG, config)])
    }

    /// `adapter_config.json`.
    fn config(&self, base: &str) -> Value {
        let scopes = self.pairs().map(|(scope, ..)| module_of(scope));
        let mut targets: Vec<&str> = scopes.collect();
        targets.sort_unstable();
        targets.dedup();
        let rank = self.pairs().map(|(_, a, _)| a.dims[0]).max().unwrap_or(0);
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": rank,
            "lora_alpha": self.alpha,
            "use_rslora": self.is_stabilized,
            "target_modules": targets,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
        })
    }

    /// Adds what it says to the hyperparameters of the model, for a trainer of it.
    pub fn configure(&self, config: &mut Config) {
        config.set("lora_alpha", self.alpha);
        config.set("use_rslora", self.is_stabilized);
    }

    /// The parts of it by the weight that each stands beside. What has no B is left to [`merge`](Self::merge) to
    /// refuse.
    pub(crate) fn by_weight(&self) -> BTreeMap<String, Self> {
        let mut parts = BTreeMap::new();
        for (name, parameter) in &self.parameters.0 {
            let scope = name.split(".lora_").next().unwrap_or(name);
            let part = parts.entry(format!("{scope}.weight")).or_insert_with(|| Self {
                parameters: Parameters::default(),
                alpha: self.alpha,
                is_stabilized: self.is_stabilized,
            });
            part.parameters.0.insert(name.clone(), parameter.clone());
        }
        parts
    }

    /// Adds each product of A and B to the weight that they stand beside: `W + s · B A`, summed in `f64`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a weight that is not there or has another shape: `base` is then as before.
    pub fn merge(&self, base: &mut Parameters) -> Result<(), EngineError> {
        let mut merged = BTreeMap::new();
        for (scope, a, b) in self.pairs() {
            let name = format!("{scope}.weight");
            let what = format!("adapter beside `{name}`");
            let Some(weight) = base.0.get(&name) else {
                return Err(EngineError::inconsistent(what, "a weight of the model", "none"));
            };
            let (&[rank, columns], &[rows, same]) = (&a.dims[..], &b.dims[..]) else {
                return Err(EngineError::inconsistent(what, "two matrices", "others"));
            };
            if weight.dims != [rows, columns] || rank != same {
                let found = format!("A {:?}, B {:?}", a.dims, b.dims);
                let expected = format!("{:?} as a product", weight.dims);
                return Err(EngineError::inconsistent(what, expected, found));
            }
            let (columns, rank) = (columns as usize, rank as usize);
            let scale =
                self.alpha / if self.is_stabilized { (rank as f64).sqrt() } else { rank as f64 };
            let mut values = weight.values.clone();
            for (row, narrow) in values.chunks_mut(columns).zip(b.values.chunks(rank)) {
                for (column, value) in row.iter_mut().enumerate() {
                    let products = narrow.iter().enumerate();
                    let sum: f64 = products
                        .map(|(r, b)| f64::from(*b) * f64::from(a.values[r * columns + column]))
                        .sum();
                    *value = (f64::from(*value) + scale * sum) as f32;
                }
            }
            merged.insert(name, values);
        }
        for (name, values) in merged {
            if let Some(weight) = base.0.get_mut(&name) {
                weight.values = values;
            }
        }
        Ok(())
    }

    /// What it stands beside, with A and B.
    fn pairs(&self) -> impl Iterator<Item = (&str, &Parameter, &Parameter)> {
        self.parameters.0.iter().filter_map(|(name, a)| {
            let scope = name.strip_suffix(".lora_A.weight")?;
            let b = self.parameters.0.get(&format!("{scope}.lora_B.weight"))?;
            Some((scope, a, b))
        })
    }
}

/// `q_proj` of `layers.0.self_attn.q_proj`.
fn module_of(scope: &str) -> &str {
    scope.rsplit('.').next().unwrap_or(scope)
}

fn outside(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::inconsistent(path.display().to_string(), "a file or folder to use", error)
}
