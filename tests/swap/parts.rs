//! Plugins of the tests: parts with another meaning, and parts that fail at one point.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jackfield_runtime::{Lane, PluginInfo};
use jackfield_tests::Setup;
use plugin_api::kinds::backend::{
    Bindings, Bucket, DomainDesc, Exe, Fence, Layout, MemoryMap, NodeView, RawRows, StatePlace,
    StreamId, Support, WeightDesc,
};
use plugin_api::prelude::*;
use plugin_api::{Backend, Registrar};

use super::round_robin::RoundRobin;

/// A rotary embedding that turns faster: another meaning, or not, as configured.
#[derive(Debug)]
pub(crate) struct Faster {
    by: f64,
    id: String,
    fails: bool,
    needs: Option<String>,
}

impl Capability for Faster {
    const NAME: &'static str = "faster";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            by: config.number_or("by", 2.0, 0.0..=1e3)?,
            id: config.text_or("id", "rope faster/1")?.to_owned(),
            fails: config.flag_or("fails", false)?,
            needs: config.text("needs").ok().map(str::to_owned),
        })
    }
}

impl Traced for Faster {
    fn semantic_id(&self) -> SemanticId {
        SemanticId::new(self.id.clone())
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        if self.fails {
            return Err(Error::unsupported("rotation", "this one fails to trace"));
        }
        if let Some(weight) = &self.needs {
            g.weight(weight)?;
        }
        Ok(vec![fused::rope(g, x[0], x[1], &self.rotation(at.config)?)?])
    }
}

impl RotaryEmbedding for Faster {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let mut rotation = Rotation::standard(config)?;
        rotation.inv_freq.iter_mut().for_each(|f| *f *= self.by as f32);
        Ok(rotation)
    }
}

/// A cache that does what is asked of it at a handover, and may use less memory than it is given.
pub(crate) struct Odd {
    inner: Box<dyn KvCache>,
    handover: Handing,
    size_bytes_max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Handing {
    Never,
    FailsToSave,
    FailsToRestore,
    RestoresNothing,
    Works,
}

impl Capability for Odd {
    const NAME: &'static str = "odd";

    fn from_config(config: &Config) -> Result<Self> {
        let kinds = ["never", "fails-to-save", "fails-to-restore", "restores-nothing", "works"];
        let handover = match config.one_of("handover", &kinds)? {
            "fails-to-save" => Handing::FailsToSave,
            "fails-to-restore" => Handing::FailsToRestore,
            "restores-nothing" => Handing::RestoresNothing,
            "works" => Handing::Works,
            _ => Handing::Never,
        };
        let registry = jackfield_registry();
        let inner = registry.make::<dyn KvCache>("paged", &Config::new());
        let size_bytes_max = config.count_or("size_bytes_max", u64::MAX >> 1, 0..=u64::MAX >> 1)?;
        Ok(Self { inner: inner.map_err(|e| Error::outside("odd", e))?, handover, size_bytes_max })
    }
}

fn jackfield_registry() -> jackfield_runtime::Registry {
    Setup::new("cpu").registry
}

impl KvCache for Odd {
    fn pool(&mut self, states: &[StateSpec], limits: &PoolLimits) -> Result<PoolSpec> {
        let size_bytes_max = self.size_bytes_max.min(limits.size_bytes_max);
        self.inner.pool(states, &PoolLimits { size_bytes_max, ..*limits })
    }

    fn reserve(&mut self, seq: SeqId, tokens: usize, moves: &mut Vec<BlockCopy>) -> Result<&[u32]> {
        self.inner.reserve(seq, tokens, moves)
    }

    fn commit(&mut self, seq: SeqId, keep: usize, moves: &mut Vec<BlockCopy>) {
        self.inner.commit(seq, keep, moves);
    }

    fn fork(&mut self, parent: SeqId, child: SeqId, moves: &mut Vec<BlockCopy>) -> Result<()> {
        self.inner.fork(parent, child, moves)
    }

    fn release(&mut self, seq: SeqId, upto: usize) {
        self.inner.release(seq, upto);
    }

    fn usage(&self) -> PoolUsage {
        self.inner.usage()
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        match self.handover {
            Handing::Never => None,
            Handing::Works => self.inner.handover(),
            _ => Some(self),
        }
    }
}

impl Handover for Odd {
    fn save(&self, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::outside("odd cache", "this one fails to save"))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        match self.handover {
            Handing::RestoresNothing => Ok(()),
            _ => Err(Error::malformed("odd cache", "nothing", bytes.len())),
        }
    }
}

/// The cpu backend, but for what is configured: `"layout"` or `"compile"` fails, or states of any
/// type but `state`.
pub(crate) struct Broken {
    inner: Box<dyn Backend>,
    fails: String,
    state: Option<DType>,
}

impl Capability for Broken {
    const NAME: &'static str = "broken";

    fn from_config(config: &Config) -> Result<Self> {
        let inner = jackfield_registry().make::<dyn Backend>("cpu", &Config::new());
        let inner = inner.map_err(|e| Error::outside("broken", e))?;
        let state = match config.text_or("state", "any")? {
            "f16" => Some(DType::F16),
            "f32" => Some(DType::F32),
            _ => None,
        };
        Ok(Self { inner, fails: config.text_or("fails", "")?.to_owned(), state })
    }
}

impl Backend for Broken {
    fn domains(&self) -> Vec<DomainDesc> {
        self.inner.domains()
    }

    fn kernels(&self) -> String {
        self.inner.kernels()
    }

    fn support(&self, node: &NodeView<'_>) -> Support {
        self.inner.support(node)
    }

    fn layout(&self, weight: &WeightDesc, lowering: &Lowering) -> Result<Layout> {
        let mut layout = self.inner.layout(weight, lowering)?;
        if self.fails == "layout" {
            layout.id.0.push_str(" turned round");
        }
        Ok(layout)
    }

    fn pack(&self, raw: &RawRows<'_>, layout: &Layout, out: &mut [u8]) -> Result<()> {
        self.inner.pack(raw, layout, out)
    }

    fn compile(&self, plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Exe> {
        if self.fails == "compile" {
            return Err(Error::unsupported("plan", "this one fails to compile"));
        }
        let takes = |place: &StatePlace| {
            self.state.is_none_or(|dtype| place.storage == Storage::Plain(dtype))
        };
        if let Some(other) = memory.states.iter().find(|place| !takes(place)) {
            return Err(Error::unsupported("state", format!("not of {:?}", other.storage)));
        }
        self.inner.compile(plan, bucket, memory)
    }

    fn run(&self, exe: &Exe, stream: StreamId, bind: &mut Bindings<'_>) -> Result<Fence> {
        self.inner.run(exe, stream, bind)
    }
}

/// A processor that fails as soon as it is applied.
pub(crate) struct Failing;

impl Capability for Failing {
    const NAME: &'static str = "failing";

    fn from_config(_: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl LogitsProcessor for Failing {
    fn batch(&mut self, _: &BatchChange<'_>) -> Result<()> {
        Ok(())
    }

    fn need(&self) -> Need {
        Need::Max
    }

    fn apply(&mut self, _: &mut LogitsRows<'_>) -> Result<()> {
        Err(Error::outside("failing", "this one fails to apply"))
    }
}

/// Cannot follow its rows once a token has been added.
pub(crate) struct Stumbling;

impl Capability for Stumbling {
    const NAME: &'static str = "stumbling";

    fn from_config(_: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl LogitsProcessor for Stumbling {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        match change {
            BatchChange::Advanced { token, .. } => {
                Err(Error::outside("stumbling", format!("this one fails to follow {token}")))
            }
            _ => Ok(()),
        }
    }

    fn need(&self) -> Need {
        Need::Nothing
    }

    fn apply(&mut self, _: &mut LogitsRows<'_>) -> Result<()> {
        Ok(())
    }
}

/// What instances of [`Counted`] tell.
#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) alive: AtomicUsize,
    pub(crate) dropped_in_a_step: AtomicUsize,
}

/// A scheduler that counts its instances, and where they are dropped.
pub(crate) struct Counted(Arc<Count>);

impl Counted {
    pub(crate) fn boxed(count: &Arc<Count>) -> Box<dyn std::any::Any + Send> {
        count.alive.fetch_add(1, Ordering::Relaxed);
        let scheduler: Box<dyn Scheduler> = Box::new(Self(Arc::clone(count)));
        Box::new(scheduler)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if std::thread::current().name() == Some(super::threads::STEP_THREAD) {
            self.0.dropped_in_a_step.fetch_add(1, Ordering::Relaxed);
        }
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Scheduler for Counted {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        let mut room = limits.tokens;
        for (index, waiting) in queue.iter().enumerate().take(limits.seqs) {
            let tokens = waiting.pending.min(room);
            if tokens > 0 {
                out.push(Picked { index, tokens });
                room -= tokens;
            }
        }
        Ok(())
    }
}

/// The builtin `fcfs`, but for every second call, which fails when it has picked already.
pub(crate) struct Flaky {
    inner: Box<dyn Scheduler>,
    calls: usize,
}

impl Capability for Flaky {
    const NAME: &'static str = "flaky";

    fn from_config(_: &Config) -> Result<Self> {
        let inner = jackfield_registry().make::<dyn Scheduler>("fcfs", &Config::new());
        Ok(Self { inner: inner.map_err(|e| Error::outside("flaky", e))?, calls: 0 })
    }
}

impl Scheduler for Flaky {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        self.calls += 1;
        if self.calls.is_multiple_of(2) {
            out.extend((0..queue.len()).rev().map(|index| Picked { index, tokens: 1 }));
            return Err(Error::outside("flaky", "this one fails to pick"));
        }
        self.inner.pick(queue, limits, out)
    }
}

/// A setup that knows the plugins of this file beside the builtin ones.
pub(crate) fn setup() -> Setup {
    let mut setup = Setup::new("cpu");
    add(&mut setup, Registrar::provide::<dyn RotaryEmbedding, Faster>, "faster");
    add(&mut setup, Registrar::provide::<dyn KvCache, Odd>, "odd");
    add(&mut setup, Registrar::provide::<dyn Backend, Broken>, "broken");
    add(&mut setup, Registrar::provide::<dyn LogitsProcessor, Failing>, "failing");
    add(&mut setup, Registrar::provide::<dyn LogitsProcessor, Stumbling>, "stumbling");
    add(&mut setup, Registrar::provide::<dyn Scheduler, Flaky>, "flaky");
    add(&mut setup, Registrar::provide::<dyn Scheduler, RoundRobin>, "round-robin");
    setup
}

fn add(setup: &mut Setup, provide: fn(&mut Registrar), name: &str) {
    let mut registrar = Registrar::new();
    provide(&mut registrar);
    let (name, description, api) = (name.to_owned(), String::new(), "0.0".to_owned());
    let info = PluginInfo { name, description, api, lane: Lane::Builtin, origin: None };
    setup.registry.add(info, registrar.into_provided()).unwrap();
}
