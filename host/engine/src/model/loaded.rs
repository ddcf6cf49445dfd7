//! A model in memory: weights packed, state laid out, sizes fixed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jackfield_runtime::{Label, Registry};
use plugin_api::kinds::backend::{Backend, Bucket, Buf, WeightPlace};
use plugin_api::kinds::kv_cache::{KvCache, PoolLimits, PoolSpec};
use plugin_api::plan::{Dim, Plan, StateSpec};
use plugin_api::{Error, Quantizer};
use sha2::{Digest as _, Sha256};

use super::adapter::{AdapterFiles, Beside, LoadedAdapter, check_read, name_of};
use super::files::ModelFiles;
use super::hyperparameters::Architecture;
use super::interleaved::InterleavedRows;
use super::memory::{AlignedBytes, Piece, StateLayout, room_for};
use super::precise::{PreciseOptions, StandIns};
use super::trace::{TracedParts, WeightShapes as _, trace_decoder};
use super::weights::{Quantizers, WeightTable};
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
    /// Bytes of the old state memory that one step reads while a cache of another type takes over,
    /// beside those that the step before it wrote.
    pub convert_bytes_per_step: u64,
    /// Threads that read and pack weights.
    pub threads: usize,
    /// A folder with an adapter in the layout of PEFT, to stand beside the weights.
    pub adapter: Option<PathBuf>,
    /// A smaller model with the same tokens, which guesses for strategies that ask for it.
    pub draft_model: Option<PathBuf>,
    /// The same model in more bits, of which weights stand in for its own.
    pub precise: Option<PreciseOptions>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            tokens_per_step_max: 512,
            num_seqs_max: 16,
            logit_rows_max: 16,
            context_length_max: 8192,
            state_bytes_max: 1 << 30,
            convert_bytes_per_step: 1 << 20,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            adapter: None,
            draft_model: None,
            precise: None,
        }
    }
}

/// Identifies what made a token: a plan together with the plugins that described and run it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanDigest([u8; 32]);

impl PlanDigest {
    /// The digest of a plan alone.
    pub fn of(plan: &Plan) -> Self {
        Self(Sha256::digest(plan.to_bytes()).into())
    }

    /// The digest as bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of this plan with the labels, by kind, of everything that runs it.
    #[must_use]
    pub fn with<'a>(&self, labels: impl Iterator<Item = (&'a str, &'a Label)>) -> Self {
        let mut text = Hashed(Sha256::new());
        text.0.update(self.0);
        for (kind, label) in labels {
            // Hashing text never fails.
            let _ = fmt::write(&mut text, format_args!("{kind} {label}\n"));
        }
        Self(text.0.finalize().into())
    }
}

/// Text that is hashed instead of kept.
struct Hashed(Sha256);

impl fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
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

/// Weights in memory, by name, and where they lie.
pub type Packed = BTreeMap<String, (WeightPlace, Buf)>;

/// What of a model stays as it is, whatever is swapped.
pub struct LoadedModel {
    /// What the model is.
    pub architecture: Architecture,
    /// How its rows of queries and keys lie, if not as adapters have them.
    pub rows: Option<InterleavedRows>,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// How conversations become text, if the model says so.
    pub chat_template: Option<Arc<ChatTemplate>>,
    /// The weights that its files hold.
    pub table: WeightTable,
    /// Weights that were packed, by name, and where they lie.
    pub packed: Packed,
    /// The sizes that plans are compiled for.
    pub bucket: Bucket,
    /// What is kept between steps.
    pub states: Vec<StateSpec>,
    /// What the cache was asked to hold.
    pub limits: PoolLimits,
    /// Longest sequence.
    pub context_length: usize,
    /// Logits in a row.
    pub num_logits: usize,
}

/// What stands beside the weights of a model and in place of some, and what it is called.
#[derive(Clone)]
pub struct Companions {
    /// An adapter, or none.
    pub adapter: (Label, Option<Arc<LoadedAdapter>>),
    /// Weights in more bits.
    pub precise: (Label, StandIns),
}

/// The parts of a model that swaps replace, as they were first.
pub struct FirstParts {
    /// The plugins that describe a step.
    pub traced: TracedParts,
    /// What they described.
    pub plan: Plan,
    /// What stands beside the weights and in place of some.
    pub companions: Companions,
    /// The quantizers of its weights, by the name of their plugin.
    pub quantizers: Vec<(String, Box<dyn Quantizer>)>,
    /// How the cache's memory lies.
    pub layout: Arc<StateLayout>,
}

impl LoadedModel {
    /// Opens, traces and packs a model. `progress` is told weight elements done and to do.
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
    ) -> Result<(Self, FirstParts), EngineError> {
        let files = ModelFiles::open(path)?;
        let mut architecture = Architecture::of(&files)?;
        let context_length = architecture.context_length().min(options.context_length_max);
        architecture.config.set("context_length", context_length as i64);
        let mut quantizers = wiring.quantizers(registry)?;
        let folder = options.adapter.as_deref();
        let rows = InterleavedRows::of(&files, &architecture);
        let open = |folder| AdapterFiles::open(folder, &architecture, rows);
        let adapter = folder.map(open).transpose()?;
        let beside = adapter.as_ref();
        let adapted = beside.map_or(&architecture, |adapter| &adapter.architecture);
        let traced = wiring.traced(registry, adapted)?;
        let table = WeightTable::of(&files, &architecture)?;
        let what = format!("plan of {}", path.display());
        let shapes = Beside(&table, beside.map(|adapter| &adapter.table));
        let plan = trace_decoder(adapted, &traced, &shapes).map_err(EngineError::plugin(what))?;
        if let Some(adapter) = beside {
            check_read(&plan, &shapes, adapter.table.names())?;
        }

        let limits = PoolLimits {
            num_seqs_max: options.num_seqs_max,
            tokens_per_seq_max: context_length,
            size_bytes_max: options.state_bytes_max,
        };
        let states: Vec<StateSpec> = plan.states.iter().map(|port| port.spec.clone()).collect();
        let pool = cache.pool(&states, &limits).map_err(EngineError::plugin("kv-cache"))?;
        pool.check(&states).map_err(EngineError::plugin("kv-cache"))?;
        let mut layout = StateLayout::new(&states, pool);
        layout.is_tiered = cache.tiering().is_some();
        if layout.is_tiered && !backend.can_page() {
            let missing = "the backend wants all of it in memory: choose `cpu`";
            let error = Error::unsupported("a cache with tiers", missing);
            return Err(EngineError::plugin("kv-cache")(error));
        }
        let layout = Arc::new(layout);

        let own = plan.weights.iter().map(|port| &*port.name);
        let own: Vec<&str> = own.filter(|name| table.dims(name).is_some()).collect();
        let packed = pack(&own, &table, &files, &quantizers, backend, options.threads, progress)?;
        let adapter = adapter.map(|adapter| adapter.pack(&quantizers, backend)).transpose()?;
        let adapter = (Label::first(&name_of(folder)), adapter.map(Arc::new));
        let precise = match &options.precise {
            Some(precise) => {
                let of = (backend, options.threads);
                // Nothing stands beside its products.
                let what = EngineError::plugin("plan without an adapter");
                let plan = trace_decoder(&architecture, &traced, &table).map_err(what)?;
                let described = (&traced, &plan);
                StandIns::load(precise, &architecture, described, &quantizers, of, progress)?
            }
            None => Default::default(),
        };
        let precise = (Label::first(&precise.0.label()), precise.1);
        let companions = Companions { adapter, precise };

        let is_used =
            |format: &String| packed.values().any(|(place, _)| place.desc.format == *format);
        quantizers.retain(|format, _| is_used(format));
        let quantizers = quantizers.into_values().collect();
        let model = Self {
            tokenizer: Arc::new(files.tokenizer()?),
            chat_template: files.chat_template()?.map(Arc::new),
            bucket: bucket(options, &layout.pool),
            num_logits: logits_width(&plan)?,
            architecture,
            rows,
            table,
            packed,
            states,
            limits,
            context_length,
        };
        Ok((model, FirstParts { traced, plan, companions, quantizers, layout }))
    }

    /// Bytes of all packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.packed.values().map(|(w, _)| w.layout.size_bytes(w.desc.rows)).sum()
    }

    /// Multiply-adds with weights for a token that nobody asks the logits of.
    pub fn macs_per_token(&self) -> usize {
        let layers = self.packed.iter().filter(|(name, _)| name.starts_with("layers."));
        let matrices = layers.map(|(_, (place, _))| &place.desc).filter(|desc| desc.rows > 1);
        matrices.map(|desc| desc.rows * desc.cols).sum()
    }
}

/// Packs weights into one piece of memory.
pub(crate) fn pack(
    names: &[&str],
    table: &WeightTable,
    files: &ModelFiles,
    quantizers: &Quantizers,
    backend: &dyn Backend,
    threads: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Packed, EngineError> {
    let place = |name: &&str| table.place(files, name, quantizers, backend);
    let places: Vec<WeightPlace> = names.iter().map(place).collect::<Result<_, _>>()?;
    let size = |place: &WeightPlace| place.layout.size_bytes(place.desc.rows);
    let room = room_for(places.iter().map(size));
    let mut packed = AlignedBytes::huge(room);

    let elements = |place: &WeightPlace| (place.desc.rows * place.desc.cols) as u64;
    let (total, mut done) = (places.iter().map(elements).sum(), 0);
    let mut rest = packed.as_mut_slice();
    for place in &places {
        progress(done, total);
        let size = size(place);
        let (own, others) = rest.split_at_mut(room_for([size].into_iter()));
        table.pack(files, place, quantizers, backend, threads, &mut own[..size])?;
        done += elements(place);
        rest = others;
    }
    progress(total, total);

    let pieces = Piece::divide(packed, places.iter().map(size));
    let named = places.into_iter().zip(pieces).map(|(place, piece)| {
        let buf: Buf = Arc::new(piece);
        (place.desc.name.clone(), (place, buf))
    });
    Ok(named.collect())
}

/// Width of the one output: the logits that tokens are chosen from.
///
/// # Errors
///
/// [`EngineError::Inconsistent`] for plans with other outputs.
pub fn logits_width(plan: &Plan) -> Result<usize, EngineError> {
    match &plan.outputs[..] {
        [port] if port.name == "logits" => {
            let width = plan.spec(port.val).width();
            let width = width.map_err(EngineError::plugin("output `logits`"))?;
            Ok(width as usize)
        }
        other => Err(EngineError::inconsistent("outputs of the plan", "`logits`", other.len())),
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
