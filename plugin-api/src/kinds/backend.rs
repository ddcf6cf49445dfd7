//! Backends: places that compute. They compile and run plans and own no memory.
//!
//! All methods take `&self`, so that a new plan compiles while the old one runs. Memory is the
//! host's and outlives every generation of a backend; a new generation adopts packed weights whose
//! [`LayoutId`] it recognizes.

mod check;
mod pager;

pub use check::BindingCheck;
pub use pager::StatePager;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::kind;
use super::kv_cache::Storage;
use super::quantizer::Lowering;
use crate::error::{Error, Result};
use crate::plan::{Node, Plan, Symbol};
use crate::tensor::{TensorMut, TensorRef};

/// Compiles plans and runs them.
pub trait Backend: Send + Sync {
    /// Where memory for this backend may lie. The first is the one it prefers. [any thread]
    fn domains(&self) -> Vec<DomainDesc>;

    /// For people: which of its kernels it has chosen on this machine, `avx512-vnni`; empty where
    /// there is no choice. [any thread]
    fn kernels(&self) -> String {
        String::new()
    }

    /// Whether and how one node would run. [compile thread]
    fn support(&self, node: &NodeView<'_>) -> Support;

    /// How a weight would lie in memory once packed. [loading threads]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a lowering that it cannot compute with, [`Error::ShapeMismatch`] for rows
    /// of no columns or of more bytes than there are.
    fn layout(&self, weight: &WeightDesc, lowering: &Lowering) -> Result<Layout>;

    /// Packs consecutive rows of a weight into `out`. [loading threads, in parallel]
    ///
    /// `raw` holds a whole number of row blocks of the layout, or the last rows of the weight, and
    /// `out` exactly their bytes.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the sizes do not fit.
    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()>;

    /// Compiles a plan for all sizes up to `bucket`. [compile thread]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming the node that cannot run.
    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe>;

    /// Runs a compiled plan: no lock, no allocation. [step thread]
    ///
    /// A backend that answers [`Fence::Pending`] has read every input, and touches nothing else of
    /// `bind` before the [`wait`](Self::wait) for that fence.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if bindings are not those of the plan; outputs are then untouched.
    fn run(&self, exe: &Exe, stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence>;

    /// Whether [`run_paged`](Self::run_paged) runs. [any thread]
    fn can_page(&self) -> bool {
        false
    }

    /// Runs as [`run`](Self::run) does, over a state arena that is only partly in memory: before it
    /// touches a state, it lends the arena to `pager`, which brings in what the step needs of that
    /// state. What it brought in for another state before may be gone then. Optional. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the backend wants the whole arena in memory; those of
    /// [`run`](Self::run) and of the pager, as they came.
    fn run_paged(
        &self,
        exe: &Exe,
        stream: StreamId,
        bind: &mut Bindings<'_>,
        pager: &mut dyn StatePager,
    ) -> Result<Fence> {
        let _ = (exe, stream, bind, pager);
        Err(Error::unsupported("a cache with tiers", "this backend wants all of it in memory"))
    }

    /// Waits until the work behind the `fence` of a run is done, and writes what the run left to be
    /// written. Called for [`Fence::Pending`] only. [step thread]
    ///
    /// `exe` and `bind` are those of the run. They were lent to nobody in between, but weights,
    /// which stay where they are.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`] if the device failed.
    fn wait(&self, exe: &Exe, fence: Fence, bind: &mut Bindings<'_>) -> Result<()> {
        let _ = (exe, fence, bind);
        Ok(())
    }
}

kind!(Backend, "backend", EngineStep, traced: false);

/// A place where memory lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainDesc {
    /// What to allocate with.
    pub id: DomainId,
    /// For people: `host`, `cuda:0`.
    pub name: String,
    /// Bytes it can hold, if known.
    pub size_bytes: Option<u64>,
}

/// A place where memory lies; [`HOST`](Self::HOST) is the process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainId(pub u32);

impl DomainId {
    /// Ordinary memory of the process.
    pub const HOST: Self = Self(0);
}

/// One ordered queue of work on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(pub u32);

/// When work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fence {
    /// It is done.
    Done,
    /// It is done once the device has passed this mark.
    Pending(u64),
}

/// A node with the specs around it.
#[derive(Debug, Clone, Copy)]
pub struct NodeView<'a> {
    /// The plan that the node is part of.
    pub plan: &'a Plan,
    /// The node.
    pub node: &'a Node,
}

/// How a backend would run a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// As it is.
    Native,
    /// As its expansion.
    Expand,
    /// Not at all.
    No(String),
    /// It is passed over: plans with it compile and run, and what they answer means nothing. For
    /// backends that measure what the host costs: who answers it for one op answers it for all.
    Skip,
}

/// Which weight, and in which format the model holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightDesc {
    /// Full name in the model.
    pub name: String,
    /// Name of the stored format.
    pub format: String,
    /// Rows: outputs of a matmul, entries of a table. 1 for vectors.
    pub rows: usize,
    /// Elements in a row: inputs of a matmul.
    pub cols: usize,
}

/// Names how packed bytes lie: equal ids mean that buffers may be adopted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LayoutId(pub String);

/// How a packed weight lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The layout's name with everything that distinguishes it.
    pub id: LayoutId,
    /// Rows that are packed together.
    pub row_block: usize,
    /// Bytes of one row block; the last may hold fewer rows in as many bytes.
    pub block_bytes: usize,
    /// What [`Backend::pack`] is given.
    pub wants: RawForm,
}

impl Layout {
    /// Bytes of a weight of `rows` rows.
    pub fn size_bytes(&self, rows: usize) -> usize {
        rows.div_ceil(self.row_block) * self.block_bytes
    }
}

/// In which form rows are handed to [`Backend::pack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawForm {
    /// Codes, scales and minima: only for affine formats.
    Affine,
    /// Decoded numbers.
    Floats,
}

/// Consecutive rows of a weight on their way into a layout.
#[derive(Debug, Clone, Copy)]
pub struct RawRows<'a> {
    /// The weight.
    pub desc: &'a WeightDesc,
    /// How its format computes.
    pub lowering: &'a Lowering,
    /// Rows here.
    pub rows: usize,
    /// Their numbers.
    pub values: RawValues<'a>,
}

/// The numbers of rows.
#[derive(Debug, Clone, Copy)]
pub enum RawValues<'a> {
    /// Laid open by the quantizer.
    Affine {
        /// `[rows, cols]`.
        codes: &'a [u8],
        /// `[rows, cols / group]`.
        scales: &'a [f32],
        /// As `scales`, or empty.
        mins: &'a [f32],
    },
    /// Decoded, `[rows, cols]`.
    Floats(&'a [f32]),
}

/// The largest sizes that a compiled plan is run with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Each symbol of the plan with its largest value.
    pub sizes: Vec<(Symbol, usize)>,
}

impl Bucket {
    /// The largest value of `symbol`; 1 for symbols that the bucket does not name.
    pub fn max(&self, symbol: Symbol) -> usize {
        self.sizes.iter().find(|(name, _)| *name == symbol).map_or(1, |(_, n)| *n)
    }
}

/// Where weights and states of a plan lie, in the order of the plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryMap {
    /// Layout of each weight.
    pub weights: Vec<WeightPlace>,
    /// Places of each state.
    pub states: Vec<StatePlace>,
    /// Tokens that share an entry of the block table.
    pub block_size: usize,
}

/// A packed weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightPlace {
    /// Shape and format.
    pub desc: WeightDesc,
    /// How its format computes.
    pub lowering: Lowering,
    /// How it is packed.
    pub layout: Layout,
}

/// A state in the state arena: each part is `[num_blocks, block_size, part dims]` for states per
/// token, `[num_blocks, part dims]` for states per sequence. Where it is stored as codes, a block is
/// as [`CodeLayout`](super::kv_cache::CodeLayout) says.
#[derive(Debug, Clone, PartialEq)]
pub struct StatePlace {
    /// How its numbers are stored.
    pub storage: Storage,
    /// First byte of each part in the arena.
    pub offsets: Vec<usize>,
    /// Blocks, or sequences, that the arena holds.
    pub num_blocks: usize,
}

/// A compiled plan. The code inside is the backend's own.
pub struct Exe {
    /// Scratch memory that a run needs, aligned to 64 bytes.
    pub scratch_bytes: usize,
    code: Box<dyn Any + Send + Sync>,
}

impl Exe {
    /// Wraps what the backend compiled.
    pub fn new(scratch_bytes: usize, code: impl Any + Send + Sync) -> Self {
        Self { scratch_bytes, code: Box::new(code) }
    }

    /// What the backend compiled.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if another backend compiled it.
    pub fn code<T: Any>(&self) -> Result<&T> {
        let code = self.code.downcast_ref();
        code.ok_or_else(|| Error::malformed("executable", "one of this backend", "another's"))
    }
}

impl fmt::Debug for Exe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exe").field("scratch_bytes", &self.scratch_bytes).finish_non_exhaustive()
    }
}

/// Memory that holds a packed weight, shared by everyone who computes with it.
pub trait Memory: Send + Sync {
    /// Where it lies.
    fn domain(&self) -> DomainId;

    /// Its bytes, aligned to 64, if it lies in the process.
    fn host_bytes(&self) -> Option<&[u8]>;

    /// Address on its device, if it lies on one.
    fn device_address(&self) -> Option<u64> {
        None
    }
}

/// A shared handle on [`Memory`].
pub type Buf = Arc<dyn Memory>;

/// Everything that one run reads and writes, borrowed for the run.
pub struct Bindings<'a> {
    /// The value of each symbol, in the order of [`Plan::symbols`].
    pub sizes: &'a [usize],
    /// In the order of the plan's inputs.
    pub inputs: &'a [TensorRef<'a>],
    /// In the order of the plan's weights.
    pub weights: &'a [Buf],
    /// The state arena, aligned to 64 bytes.
    pub state: &'a mut [u8],
    /// At least the bytes that the executable asked for, aligned to 64 bytes, of any content.
    pub scratch: &'a mut [u8],
    /// In the order of the plan's outputs.
    pub outputs: &'a mut [TensorMut<'a>],
}
