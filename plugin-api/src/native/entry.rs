//! The exported symbol, and from a kind's name to its table and back.

use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;

use super::abi::{
    Code, Entry, MAGIC, OK, Open, Opened, Out, PANICKED, RStr, StableAbi, TypeLayout, backend as b,
    compressor as co, curriculum as cu, decoding_strategy as ds, hook as h, kv_cache as kv,
    logits_processor as lp, memory as me, model_source as ms, output_parser as op, quantizer as q,
    reward as rw, scheduler as s, traced as t,
};
use super::call::{Answer, error_of};
use super::guard::{guard, write};
use super::{
    DIGEST, Owner, backend, compressor, curriculum, decoding_strategy, hook, kv_cache,
    logits_processor, memory, model_source, output_parser, quantizer, reward, scheduler, traced,
};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kinds::adapter::Adapter;
use crate::kinds::backend::Backend;
use crate::kinds::compressor::Compressor;
use crate::kinds::curriculum::Curriculum;
use crate::kinds::decoding_strategy::DecodingStrategy;
use crate::kinds::encoder::Encoder;
use crate::kinds::feed_forward::FeedForward;
use crate::kinds::hook::Hook;
use crate::kinds::kv_cache::KvCache;
use crate::kinds::logits_processor::LogitsProcessor;
use crate::kinds::lr_schedule::LrSchedule;
use crate::kinds::memory::Memory;
use crate::kinds::mixer::Mixer;
use crate::kinds::model_source::ModelSource;
use crate::kinds::moe_router::MoeRouter;
use crate::kinds::norm::Norm;
use crate::kinds::objective::Objective;
use crate::kinds::optimizer::Optimizer;
use crate::kinds::output_parser::OutputParser;
use crate::kinds::quantizer::Quantizer;
use crate::kinds::residual::Residual;
use crate::kinds::reward::Reward;
use crate::kinds::rotary_embedding::RotaryEmbedding;
use crate::kinds::scheduler::Scheduler;
use crate::kinds::{Kind, Pin};
use crate::registrar::{Provided, Registrar};
use crate::version::ABI_VERSION;
use crate::wire::{from_bytes, marks, take_marks, to_bytes};

/// What `open` of an entry is.
type OpenFn = unsafe extern "C" fn(*const Open<'_>, *mut Opened, *const Out) -> Code;

/// A kind that the native lane carries.
pub trait Crosses: Kind {
    /// The id of its table.
    const INTERFACE: &'static str;

    /// The layout of its table.
    fn layout() -> &'static TypeLayout;

    /// Gives an instance to the other side: pointer and table.
    fn export(self: Box<Self>) -> (*mut c_void, *const c_void);

    /// Takes an instance from the other side; `owner` is told of its faults.
    ///
    /// # Safety
    ///
    /// `opened` came from [`export`](Self::export) of a library that matches and stays mapped for
    /// as long as the instance or its owner live.
    unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Self>;
}

/// Takes an instance over the boundary and back within this build: what is called on the result
/// goes through the table of its kind. For tests that look at both sides at once.
#[cfg(feature = "testing")]
pub fn across<K: Crosses + ?Sized>(instance: Box<K>, owner: Arc<dyn Owner>) -> Box<K> {
    let (this, table) = instance.export();
    // SAFETY: exported right here, by this library, which nobody unmaps while it runs this.
    unsafe { K::import(Opened { this, table }, owner) }
}

/// The entry of a plugin of the kind `K`; `export_plugin!` makes a static of it. What other kinds
/// need is not linked in.
///
/// # Panics
///
/// While compiling, if `manifest` is not text.
pub const fn entry_of<K: Crosses + ?Sized>(manifest: &'static [u8], open: OpenFn) -> Entry {
    let Ok(manifest) = std::str::from_utf8(manifest) else { panic!("plugin.toml is not UTF-8") };
    Entry {
        magic: MAGIC,
        size: size_of::<Entry>() as u32,
        abi_major: ABI_VERSION.0,
        abi_minor: ABI_VERSION.1,
        digest: DIGEST,
        unwinds: cfg!(panic = "unwind") as u8,
        manifest: RStr::from_str(manifest),
        layout: layout_of::<K>,
        open,
    }
}

/// Makes an instance of what `register` provides of the kind `K`; `export_plugin!` writes the call.
///
/// # Safety
///
/// The pointers are valid for the call.
pub unsafe fn open_of<K: Crosses + ?Sized>(
    register: fn(&mut Registrar),
    request: *const Open<'_>,
    opened: *mut Opened,
    out: *const Out,
) -> Code {
    let make = || {
        // SAFETY: as for this function.
        let request = unsafe { &*request };
        let (kind, name) = (request.kind.as_str(), request.name.as_str());
        let config: Config = from_bytes(request.config.as_slice())?;
        let mut registrar = Registrar::new();
        register(&mut registrar);
        let provided = registrar.into_provided();
        let mut known = provided.iter();
        let Some(wanted) = known.find(|p| (p.kind, &*p.name) == (kind, name)) else {
            let known = provided.iter().map(|p| format!("{p:?}")).collect::<Vec<_>>().join(", ");
            return Err(Error::NotFound { kind: kind.to_owned(), name: name.to_owned(), known });
        };
        let instance = (wanted.make)(&config)?.downcast::<Box<K>>();
        let instance =
            instance.map_err(|_| Error::malformed("instance", K::NAME, "another kind"))?;
        let (this, table) = (*instance).export();
        // SAFETY: as for this function; the marks go to the caller's memory.
        unsafe {
            *opened = Opened { this, table };
            write(out, &marks(&config));
        }
        Ok(())
    };
    // SAFETY: as for this function.
    unsafe { guard(out, make) }
}

/// An open library, as far as making instances goes.
#[derive(Clone, Copy)]
pub struct Foreign {
    entry: &'static Entry,
}

impl Foreign {
    /// The plugin behind an entry that has been found to match this host.
    ///
    /// # Safety
    ///
    /// `entry` was made by [`entry_of`] of a `plugin-api` with the same [`DIGEST`], and its library
    /// stays mapped.
    pub const unsafe fn new(entry: &'static Entry) -> Self {
        Self { entry }
    }

    /// What the plugin provides as `kind` under `name`. `owner` makes the owner of each instance.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a kind that the native lane does not carry.
    pub fn provided(
        self,
        kind: &str,
        name: &str,
        owner: impl Fn() -> Arc<dyn Owner> + Send + Sync + 'static,
    ) -> Result<Provided> {
        let row = row(kind)?;
        let name_of_capability = name.to_owned();
        let make = move |config: &Config| {
            let owner = owner();
            let opened = self.make(row.kind, &name_of_capability, config, &*owner)?;
            // SAFETY: the library behind the entry matches this host, so the pointers are what the
            // kind's own `export` made.
            Ok(unsafe { (row.import)(opened, owner) })
        };
        Ok(Provided {
            kind: row.kind,
            pin: row.pin,
            is_traced: row.is_traced,
            name: name.to_owned().into(),
            make: Arc::new(make),
        })
    }

    /// The interface id of a kind with the layout that this host expects of its table, and the
    /// plugin's own; null where the plugin does not know the id.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a kind that the native lane does not carry.
    pub fn layouts(
        self,
        kind: &str,
    ) -> Result<(&'static str, &'static TypeLayout, *const TypeLayout)> {
        let row = row(kind)?;
        // SAFETY: as for `new`.
        let theirs = unsafe { (self.entry.layout)(RStr::from_str(row.interface)) };
        Ok((row.interface, (row.layout)(), theirs))
    }

    fn make(self, kind: &str, name: &str, config: &Config, owner: &dyn Owner) -> Result<Opened> {
        let bytes = to_bytes(config);
        let request = Open {
            kind: RStr::from_str(kind),
            name: RStr::from_str(name),
            config: bytes.as_slice().into(),
        };
        let mut opened = Opened { this: std::ptr::null_mut(), table: std::ptr::null() };
        let mut answer = Vec::new();
        let out = Answer::into(&mut answer).out();
        let (to, mut code) = (&raw mut opened, PANICKED);
        owner.run(&mut || {
            // SAFETY: as for `new`; the pointers live until the end of this function.
            code = unsafe { (self.entry.open)(&raw const request, to, &raw const out) };
        });
        if code != OK {
            return Err(error_of(code, &answer, &format!("plugin {name}")));
        }
        if opened.table.is_null() {
            return Err(Error::outside(format!("plugin {name}"), "an instance without a table"));
        }
        take_marks(config, &answer);
        Ok(opened)
    }
}

/// A kind of the native lane, by its name.
struct Row {
    kind: &'static str,
    pin: Pin,
    is_traced: bool,
    interface: &'static str,
    layout: fn() -> &'static TypeLayout,
    import: unsafe fn(Opened, Arc<dyn Owner>) -> Box<dyn Any + Send>,
}

impl Row {
    const fn of<K: Crosses + ?Sized>() -> Self
    where
        Box<K>: Send,
    {
        Self {
            kind: K::NAME,
            pin: K::PIN,
            is_traced: K::IS_TRACED,
            interface: K::INTERFACE,
            layout: K::layout,
            // SAFETY: as for `Crosses::import`, which whoever calls this vouches for.
            import: |opened, owner| unsafe { Box::new(K::import(opened, owner)) },
        }
    }
}

macro_rules! rows {
    ($($kind:ident: $module:ident, $table:ident, $abi:ident;)*) => {
        const ROWS: &[Row] = &[$(Row::of::<dyn $kind>()),*];

        $(impl Crosses for dyn $kind {
            const INTERFACE: &'static str = $abi::ID;

            fn layout() -> &'static TypeLayout {
                <$abi::$table as StableAbi>::LAYOUT
            }

            fn export(self: Box<Self>) -> (*mut c_void, *const c_void) {
                $module::export(self)
            }

            unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Self> {
                // SAFETY: as for this function.
                unsafe { $module::import(opened, owner) }
            }
        })*
    };
}
rows! {
    Adapter: traced, TracedV1, t;
    Backend: backend, BackendV1, b;
    Compressor: compressor, CompressorV1, co;
    Curriculum: curriculum, CurriculumV1, cu;
    DecodingStrategy: decoding_strategy, DecodingStrategyV1, ds;
    Encoder: traced, TracedV1, t;
    FeedForward: traced, TracedV1, t;
    Hook: hook, HookV1, h;
    KvCache: kv_cache, KvCacheV1, kv;
    LogitsProcessor: logits_processor, LogitsProcessorV1, lp;
    LrSchedule: traced, TracedV1, t;
    Memory: memory, MemoryV1, me;
    Mixer: traced, TracedV1, t;
    ModelSource: model_source, ModelSourceV1, ms;
    MoeRouter: traced, TracedV1, t;
    Norm: traced, TracedV1, t;
    Objective: traced, TracedV1, t;
    Optimizer: traced, TracedV1, t;
    OutputParser: output_parser, OutputParserV1, op;
    Quantizer: quantizer, QuantizerV1, q;
    Residual: traced, TracedV1, t;
    Reward: reward, RewardV1, rw;
    RotaryEmbedding: traced, TracedV1, t;
    Scheduler: scheduler, SchedulerV1, s;
}

fn row(kind: &str) -> Result<&'static Row> {
    ROWS.iter().find(|row| row.kind == kind).ok_or_else(|| Error::NotFound {
        kind: "kind".to_owned(),
        name: kind.to_owned(),
        known: ROWS.iter().map(|row| row.kind).collect::<Vec<_>>().join(", "),
    })
}

unsafe extern "C" fn layout_of<K: Crosses + ?Sized>(interface: RStr<'_>) -> *const TypeLayout {
    if interface.as_str() == K::INTERFACE { K::layout() } else { std::ptr::null() }
}
