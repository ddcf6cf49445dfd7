//! A model that encodes, in memory: weights packed, plan compiled, ready to run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jackfield_runtime::{Label, Registry};
use plugin_api::kinds::backend::{
    Backend, Bindings, Bucket, Buf, Exe, Fence, MemoryMap, StreamId, WeightPlace,
};
use plugin_api::plan::{Dim, Plan};
use plugin_api::{Config, Encoder, Kind, TensorMut};

use super::batch::EncoderBatch;
use crate::error::EngineError;
use crate::model::files::{Metadata, ModelFiles, read_json};
use crate::model::hyperparameters::read_config;
use crate::model::loaded::pack;
use crate::model::memory::AlignedBytes;
use crate::model::trace::trace_encoder;
use crate::model::weights::WeightTable;
use crate::model::{PlanDigest, Tokenizer};
use crate::wiring::Wiring;

/// Sizes that plans of encoders are compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderOptions {
    /// Tokens in one step; a longer sequence gets a step of its own size.
    pub tokens_per_step_max: usize,
    /// Sequences in one step.
    pub num_seqs_max: usize,
    /// Threads that read and pack weights.
    pub threads: usize,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { tokens_per_step_max: 512, num_seqs_max: 32, threads: 1 }
    }
}

/// A model that turns token ids into vectors.
pub struct EncoderModel {
    pub(super) core: Arc<EncoderCore>,
    pub(super) active: Arc<EncoderPlan>,
    pub(super) runner: Runner,
}

/// What stays as it is, whichever plugin describes the model.
pub(super) struct EncoderCore {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) width: usize,
    pub(super) tokens_max: usize,
    pub(super) vocab_size: usize,
    config: Config,
    table: WeightTable,
    /// What the first plan read, packed for the backend.
    packed: BTreeMap<String, (WeightPlace, Buf)>,
    limits: EncoderOptions,
    ran_by: Label,
    backend: Arc<dyn Backend>,
}

/// A model as one plugin describes it. It never changes.
pub(super) struct EncoderPlan {
    pub(super) label: Label,
    pub(super) digest: PlanDigest,
    plan: Plan,
    /// In the order of the plan.
    weights: Vec<Buf>,
    /// Compiled by `backend`, and dropped before it.
    exe: Exe,
    backend: Arc<dyn Backend>,
}

/// The memory of runs.
pub(super) struct Runner {
    scratch: AlignedBytes,
    batch: EncoderBatch,
}

impl EncoderModel {
    /// Opens, describes and packs the model in a folder as Hugging Face lays it out. The encoder
    /// and the backend are those that `wiring` chooses, in instances of their own.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the file, weight or plugin; nothing is left loaded.
    pub fn load(
        path: &Path,
        wiring: &Wiring,
        registry: &Registry,
        options: &EncoderOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let files = ModelFiles::open(path)?;
        let config = hyperparameters(&files)?;
        let count = |key: &str, max| config.count(key, 1..=max).map(|n| n as usize);
        let in_config = || EngineError::plugin("config.json of the encoder");
        let mut tokens_max = count("max_position_embeddings", 1 << 20).map_err(in_config())?;
        if config.has("max_seq_length") {
            tokens_max = tokens_max.min(count("max_seq_length", 1 << 20).map_err(in_config())?);
        }
        let vocab_size = count("vocab_size", u64::from(u32::MAX)).map_err(in_config())?;
        let mut limits = options.clone();
        limits.tokens_per_step_max = limits.tokens_per_step_max.max(tokens_max);

        let (name, encoder) = wiring.encoder(registry)?;
        let (backend_name, backend) = wiring.backend(registry)?;
        let quantizers = wiring.quantizers(registry)?;
        // Some files say whose part a weight is: `bert.embeddings…`.
        let prefix = config.text_or("model_type", "").map_err(in_config())?;
        let prefix = format!("{prefix}.");
        let table = WeightTable::named(&files, |theirs| {
            Some(theirs.strip_prefix(prefix.as_str()).unwrap_or(theirs).to_owned())
        });
        let plan = trace_encoder(&*encoder, config.clone(), &table);
        let plan = plan.map_err(EngineError::plugin(format!("plan of {}", path.display())))?;
        let names: Vec<&str> = plan.weights.iter().map(|port| &*port.name).collect();
        let packed =
            pack(&names, &table, &files, &quantizers, &*backend, limits.threads, progress)?;
        let core = EncoderCore {
            tokenizer: Arc::new(files.tokenizer()?),
            width: vector_width(&plan)?,
            tokens_max,
            vocab_size,
            config,
            table,
            packed,
            limits,
            ran_by: Label::first(&backend_name),
            backend: Arc::from(backend),
        };
        let active = Arc::new(core.compile(Label::first(&name), plan)?);
        let runner = Runner {
            scratch: AlignedBytes::zeroed(active.exe.scratch_bytes),
            batch: EncoderBatch::default(),
        };
        Ok(Self { core: Arc::new(core), active, runner })
    }

    /// Text to tokens.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.core.tokenizer
    }

    /// What makes the vectors: the digest of plan and plugins.
    pub fn digest(&self) -> PlanDigest {
        self.active.digest
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.core.width
    }

    /// Tokens of the longest sequence, those around a text counted: the least of
    /// `max_position_embeddings` and what `sentence_bert_config.json` says.
    pub fn tokens_max(&self) -> usize {
        self.core.tokens_max
    }

    /// Ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.core.vocab_size
    }

    /// Encodes sequences, in as many steps as they take: a vector of [`width`](Self::width) numbers
    /// for each, one after the other. Neither the other sequences nor the division into steps
    /// change a bit of a vector.
    ///
    /// # Errors
    ///
    /// [`EngineError::Request`] for a sequence without tokens, with too many, or with an id that
    /// the model does not have; [`EngineError::Plugin`] if the backend fails.
    pub fn encode<'a>(
        &mut self,
        sequences: impl IntoIterator<Item = &'a [u32]>,
    ) -> Result<Vec<f32>, EngineError> {
        self.runner.encode(&self.core, &self.active, sequences)
    }
}

impl EncoderCore {
    /// Describes the model by another plugin and compiles that, for the weights as they lie.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] for a trace that fails; [`EngineError::Inconsistent`] for vectors of
    /// another width and for weights that were not packed.
    pub(super) fn describe(
        &self,
        label: Label,
        encoder: &dyn Encoder,
    ) -> Result<EncoderPlan, EngineError> {
        let plan = trace_encoder(encoder, self.config.clone(), &self.table);
        let plan = plan.map_err(EngineError::plugin("trace"))?;
        let width = vector_width(&plan)?;
        if width != self.width {
            let expected = format!("{} numbers", self.width);
            return Err(EngineError::inconsistent("vectors", expected, width));
        }
        self.compile(label, plan)
    }

    fn compile(&self, label: Label, plan: Plan) -> Result<EncoderPlan, EngineError> {
        let (mut memory, mut weights) = (MemoryMap::default(), Vec::new());
        for port in &plan.weights {
            let Some((place, buf)) = self.packed.get(&port.name) else {
                let what = format!("weight `{}`", port.name);
                let expected = "one that was packed when the model was loaded";
                return Err(EngineError::inconsistent(what, expected, "another: load it again"));
            };
            memory.weights.push(place.clone());
            weights.push(Arc::clone(buf));
        }
        memory.block_size = 1;
        let exe = self.backend.compile(&plan, &bucket(&self.limits), &memory);
        let exe = exe.map_err(EngineError::plugin("compile"))?;
        let labels = [(<dyn Backend>::NAME, &self.ran_by), (<dyn Encoder>::NAME, &label)];
        let digest = PlanDigest::of(&plan).with(labels.into_iter());
        Ok(EncoderPlan { label, digest, plan, weights, exe, backend: Arc::clone(&self.backend) })
    }

    /// Whether a sequence of so many tokens fits into a step that holds others.
    pub(super) fn has_room(&self, num_seqs: usize, num_tokens: usize, more: usize) -> bool {
        num_seqs < self.limits.num_seqs_max && num_tokens + more <= self.limits.tokens_per_step_max
    }

    fn check(&self, ids: &[u32]) -> Result<(), EngineError> {
        let wrong =
            |expected, found: String| Err(EngineError::Request { what: "input", expected, found });
        if ids.is_empty() || ids.len() > self.tokens_max {
            let expected = format!("1 to {} tokens", self.tokens_max);
            return wrong(expected, ids.len().to_string());
        }
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(id) => wrong(format!("ids below {}", self.vocab_size), id.to_string()),
            None => Ok(()),
        }
    }
}

impl Runner {
    /// As [`EncoderModel::encode`], by one of its plans.
    pub(super) fn encode<'a>(
        &mut self,
        core: &EncoderCore,
        by: &EncoderPlan,
        sequences: impl IntoIterator<Item = &'a [u32]>,
    ) -> Result<Vec<f32>, EngineError> {
        let mut out = Vec::new();
        self.batch.clear();
        for ids in sequences {
            core.check(ids)?;
            if !core.has_room(self.batch.num_seqs(), self.batch.num_tokens(), ids.len()) {
                self.step(core, by, &mut out)?;
            }
            self.batch.push(ids);
        }
        if self.batch.num_seqs() > 0 {
            self.step(core, by, &mut out)?;
        }
        Ok(out)
    }

    /// Runs the batch, appends its vectors, and empties it.
    fn step(
        &mut self,
        core: &EncoderCore,
        by: &EncoderPlan,
        out: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        if self.scratch.as_slice().len() < by.exe.scratch_bytes {
            self.scratch = AlignedBytes::zeroed(by.exe.scratch_bytes);
        }
        let (inputs, sizes) = (self.batch.inputs(&by.plan)?, self.batch.sizes(&by.plan)?);
        let start = out.len();
        out.resize(start + self.batch.num_seqs() * core.width, 0.0);
        let mut outputs = [TensorMut::F32(&mut out[start..])];
        let mut bind = Bindings {
            sizes: &sizes,
            inputs: &inputs,
            weights: &by.weights,
            state: &mut [],
            scratch: self.scratch.as_mut_slice(),
            outputs: &mut outputs,
        };
        let ran = by.backend.run(&by.exe, StreamId(0), &mut bind).and_then(|fence| match fence {
            Fence::Done => Ok(()),
            pending => by.backend.wait(&by.exe, pending, &mut bind),
        });
        ran.map_err(EngineError::plugin("encoder"))?;
        self.batch.clear();
        Ok(())
    }
}

/// What the files of a folder say: `config.json`, and beside it how rows are pooled and how long
/// a text may be, under the names that sentence-transformers uses.
fn hyperparameters(files: &ModelFiles) -> Result<Config, EngineError> {
    let Metadata::Hf(json) = files.metadata() else {
        let (what, expected) = ("model of the encoder", "a folder with config.json");
        return Err(EngineError::inconsistent(what, expected, "a GGUF file"));
    };
    let mut config = Config::at("config.json");
    read_config(json, &mut config);
    for name in ["sentence_bert_config.json", "1_Pooling/config.json"] {
        let path = files.folder().join(name);
        if path.exists() {
            read_config(&read_json(&path, EXTRA_BYTES_MAX, name)?, &mut config);
        }
    }
    Ok(config)
}

/// Width of the one output.
fn vector_width(plan: &Plan) -> Result<usize, EngineError> {
    let found = plan.outputs.iter().map(|port| plan.spec(port.val).to_string());
    let wrong = || {
        let found = found.collect::<Vec<_>>().join(", ");
        EngineError::inconsistent("outputs of the encoder", "f32[seqs, width] alone", found)
    };
    match &plan.outputs[..] {
        [port] if plan.states.is_empty() => match plan.spec(port.val).dims[..] {
            [Dim::SEQS, Dim::Fixed(width)] => Ok(width as usize),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn bucket(limits: &EncoderOptions) -> Bucket {
    let sizes = [(Dim::TOKENS, limits.tokens_per_step_max), (Dim::SEQS, limits.num_seqs_max)];
    let sizes = sizes.into_iter().filter_map(|(dim, n)| match dim {
        Dim::Symbol(symbol) => Some((symbol, n)),
        Dim::Fixed(_) => None,
    });
    Bucket { sizes: sizes.collect() }
}

impl std::fmt::Debug for EncoderModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncoderModel").field("label", &self.active.label).finish_non_exhaustive()
    }
}

/// Largest file beside `config.json` that is read.
const EXTRA_BYTES_MAX: u64 = 1 << 20;
