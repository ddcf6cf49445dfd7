//! A model ready to run: plan compiled, weights packed, memory laid out.

use std::fmt;
use std::path::Path;

use jackfield_runtime::{Label, Registry};
use plugin_api::kinds::backend::{Backend, Bucket, Buf, Exe, MemoryMap};
use plugin_api::kinds::kv_cache::{KvCache, PoolLimits, PoolSpec, bytes_per_token};
use plugin_api::plan::{Dim, Plan, StateSpec};
use sha2::{Digest as _, Sha256};

use super::files::ModelFiles;
use super::hyperparameters::Architecture;
use super::memory::lay_out;
use super::trace::{TracedParts, trace_decoder};
use super::weights::WeightTable;
use super::{ChatTemplate, Tokenizer};
use crate::error::EngineError;
use crate::wiring::Wiring;

/// Sizes that memory is laid out and plans are compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Tokens in one step.
    pub tokens_per_step_max: usize,
    /// Sequences at a time.
    pub num_seqs_max: usize,
    /// Rows of logits in one step.
    pub logit_rows_max: usize,
    /// Tokens in one sequence; the model's own limit if that is lower.
    pub context_length_max: usize,
    /// Bytes for the states of all sequences.
    pub state_bytes_max: u64,
    /// Threads that read and pack weights.
    pub threads: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            tokens_per_step_max: 512,
            num_seqs_max: 16,
            logit_rows_max: 16,
            context_length_max: 8192,
            state_bytes_max: 1 << 30,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Identifies a plan together with the plugins that described it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanDigest([u8; 32]);

impl PlanDigest {
    /// The digest of a plan and the labels, by kind, of everything that runs it.
    pub fn of(plan: &Plan, labels: &[(String, Label)]) -> Self {
        let mut hash = Sha256::new();
        hash.update(plan.to_bytes());
        for (kind, label) in labels {
            hash.update(format!("{kind} {label}\n"));
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A model with everything that a step needs.
pub struct LoadedModel {
    /// What the model is.
    pub architecture: Architecture,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// How conversations become text, if the model says so.
    pub chat_template: Option<ChatTemplate>,
    /// The plugins that described it.
    pub parts: TracedParts,
    /// What a step computes.
    pub plan: Plan,
    /// The plan, compiled.
    pub exe: Exe,
    /// The sizes that it was compiled for.
    pub bucket: Bucket,
    /// Where weights and states lie.
    pub memory: MemoryMap,
    /// Packed weights in the order of the plan.
    pub weights: Vec<Buf>,
    /// What is kept between steps.
    pub states: Vec<StateSpec>,
    /// What the cache was asked to hold.
    pub limits: PoolLimits,
    /// The cache's layout.
    pub pool: PoolSpec,
    /// Bytes of the state arena.
    pub state_bytes: usize,
    /// Longest sequence.
    pub context_length: usize,
}

impl LoadedModel {
    /// Opens, traces, packs and compiles a model. `progress` is told weight elements done and to do.
    ///
    /// # Errors
    ///
    /// [`EngineError`] that names the file, weight or plugin; nothing is left loaded.
    pub fn load(
        path: &Path,
        wiring: &Wiring,
        registry: &Registry,
        backend: &dyn Backend,
        cache: &mut dyn KvCache,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let files = ModelFiles::open(path)?;
        let architecture = Architecture::of(&files)?;
        let quantizers = wiring.quantizers(registry)?;
        let parts = wiring.traced(registry, &architecture)?;
        let table = WeightTable::of(&files, &architecture.blueprint);
        let what = format!("plan of {}", path.display());
        let plan =
            trace_decoder(&architecture, &parts, &table).map_err(EngineError::plugin(what))?;

        let context_length = architecture.context_length().min(options.context_length_max);
        let limits = PoolLimits {
            num_seqs_max: options.num_seqs_max,
            tokens_per_seq_max: context_length,
            size_bytes_max: options.state_bytes_max,
        };
        let states: Vec<StateSpec> = plan.states.iter().map(|port| port.spec.clone()).collect();
        let pool = cache.pool(&states, &limits).map_err(EngineError::plugin("kv-cache"))?;
        let (places, state_bytes) = lay_out(&states, &pool, options.num_seqs_max);

        let size_of = |name: &str| table.desc(&files, name).map(|d| (d.rows * d.cols) as u64);
        let names = plan.weights.iter().map(|port| port.name.as_str());
        let total: u64 = names.clone().map(size_of).sum::<Result<_, _>>()?;
        let (mut weights, mut weight_places, mut done) = (Vec::new(), Vec::new(), 0);
        for name in names {
            progress(done, total);
            let (place, buf) = table.pack(&files, name, &quantizers, backend, options.threads)?;
            done += (place.desc.rows * place.desc.cols) as u64;
            weight_places.push(place);
            weights.push(buf);
        }
        progress(total, total);

        let memory =
            MemoryMap { weights: weight_places, states: places, block_size: pool.block_size };
        let bucket = bucket(options, &pool);
        let exe =
            backend.compile(&plan, &bucket, &memory).map_err(EngineError::plugin("compile"))?;
        let tokenizer = files.tokenizer()?;
        let chat_template = files.chat_template()?;
        Ok(Self {
            architecture,
            tokenizer,
            chat_template,
            parts,
            plan,
            exe,
            bucket,
            memory,
            weights,
            states,
            limits,
            pool,
            state_bytes,
            context_length,
        })
    }

    /// Bytes of all packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.memory.weights.iter().map(|w| w.layout.size_bytes(w.desc.rows)).sum()
    }

    /// Bytes that one more token takes in the cache.
    pub fn state_bytes_per_token(&self) -> usize {
        bytes_per_token(&self.states, self.pool.dtype).map_or(0, |bytes| bytes as usize)
    }
}

fn bucket(options: &LoadOptions, pool: &PoolSpec) -> Bucket {
    let sizes = [
        (Dim::TOKENS, options.tokens_per_step_max),
        (Dim::SEQS, options.num_seqs_max),
        (Dim::LOGIT_ROWS, options.logit_rows_max),
        (Dim::BLOCKS, pool.blocks_per_seq_max),
    ];
    let sizes = sizes.into_iter().filter_map(|(dim, n)| match dim {
        Dim::Symbol(symbol) => Some((symbol, n)),
        Dim::Fixed(_) => None,
    });
    Bucket { sizes: sizes.collect() }
}
