//! Traced kinds across the boundary: norm, residual, rotary embedding, mixer, feed-forward, encoder,
//! adapter, and the parts of training: objective, optimizer, schedule of the learning rate.
//!
//! One table serves them all: a trace is a trace. What a mixer or a rotary embedding says beyond
//! it has a function of its own, which the others answer with an error.

use std::ffi::c_void;
use std::sync::Arc;

use super::abi::op_sink::OpSinkV1;
use super::abi::traced::{ShapedV1, TracedV1};
use super::abi::{Code, Opened, Out, RSlice, RStr};
use super::call::Remote;
use super::guard::{self, answer, guard, shared};
use super::{Owner, op_sink, shaped};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kinds::adapter::Adapter;
use crate::kinds::encoder::Encoder;
use crate::kinds::feed_forward::FeedForward;
use crate::kinds::lr_schedule::LrSchedule;
use crate::kinds::mixer::Mixer;
use crate::kinds::moe_router::MoeRouter;
use crate::kinds::norm::Norm;
use crate::kinds::objective::Objective;
use crate::kinds::optimizer::Optimizer;
use crate::kinds::residual::Residual;
use crate::kinds::rotary_embedding::{RotaryEmbedding, Rotation};
use crate::kinds::{Kind, LayerRef, SemanticId, Traced};
use crate::plan::{OpSink, StateSpec, Val};
use crate::tensor::{Shaped, ShapedMut};
use crate::wire::{Wire, from_bytes, marks, take_marks, to_bytes};

/// What stands behind the pointer, whichever traced kind it is.
pub(super) trait Part: Send + Sync {
    fn traced(&self) -> &dyn Traced;

    fn state(&self, _at: &LayerRef<'_>) -> Result<StateSpec> {
        Err(Error::unsupported("state", "only a mixer keeps one"))
    }

    fn rotation(&self, _config: &Config) -> Result<Rotation> {
        Err(Error::unsupported("rotation", "only a rotary embedding has one"))
    }
}

macro_rules! parts {
    ($($kind:ident $({ $($more:tt)* })?),*) => {
        $(impl Part for Box<dyn $kind> {
            fn traced(&self) -> &dyn Traced {
                &**self
            }
            $($($more)*)?
        }

        impl Export for dyn $kind {
            fn part(self: Box<Self>) -> Box<dyn Part> {
                Box::new(self)
            }
        }

        impl Import for dyn $kind {
            fn boxed(foreign: Foreign) -> Box<Self> {
                Box::new(foreign)
            }
        })*
    };
}
parts! {
    Norm, Residual, FeedForward, MoeRouter, Encoder, Objective, Optimizer, LrSchedule, Adapter,
    Mixer {
        fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
            (**self).state(at)
        }
    },
    RotaryEmbedding {
        fn rotation(&self, config: &Config) -> Result<Rotation> {
            (**self).rotation(config)
        }
    }
}

/// A traced kind on the plugin's side.
pub(super) trait Export {
    fn part(self: Box<Self>) -> Box<dyn Part>;
}

/// A traced kind on the host's side.
pub(super) trait Import: Kind {
    fn boxed(foreign: Foreign) -> Box<Self>;
}

static TABLE: TracedV1 = TracedV1 {
    size: size_of::<TracedV1>() as u32,
    semantic_id,
    trace,
    call,
    state,
    rotation,
    close: guard::close::<dyn Part>,
};

pub(super) fn export<K: Export + ?Sized>(instance: Box<K>) -> (*mut c_void, *const c_void) {
    (guard::export(instance.part()), (&raw const TABLE).cast())
}

unsafe extern "C" fn semantic_id(this: *mut c_void, out: *const Out) -> Code {
    // SAFETY: the host opened this instance here, and `out` is its own for this call.
    unsafe {
        guard(out, || {
            answer(out, &shared::<dyn Part>(this).traced().semantic_id());
            Ok(())
        })
    }
}

unsafe extern "C" fn trace(
    this: *mut c_void,
    sink: *const OpSinkV1,
    inputs: RSlice<'_, u8>,
    index: u32,
    config: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `semantic_id`; the sink is lent for this call.
    unsafe {
        guard(out, || {
            let inputs: Vec<_> = from_bytes(inputs.as_slice())?;
            let x: Vec<Val> = inputs.iter().map(|(val, _)| *val).collect();
            let config = from_bytes(config.as_slice())?;
            let mut g = op_sink::Lent::new(&*sink, inputs);
            let at = LayerRef { index, config: &config };
            let results = shared::<dyn Part>(this).traced().trace(&mut g, &x, &at)?;
            answer(out, &(marks(&config), results));
            Ok(())
        })
    }
}

unsafe extern "C" fn call(
    this: *mut c_void,
    callback: RStr<'_>,
    inputs: RSlice<'_, ShapedV1<'_>>,
    outputs: RSlice<'_, ShapedV1<'_>>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `semantic_id`; the host lends the tensors for this call, the outputs to nobody else.
    unsafe {
        guard(out, || {
            let part = shared::<dyn Part>(this).traced();
            let (inputs, outputs) = (inputs.as_slice(), outputs.as_slice());
            shaped::received(inputs, outputs, |inputs, outputs| {
                part.call(callback.as_str(), inputs, outputs)
            })
        })
    }
}

unsafe extern "C" fn state(
    this: *mut c_void,
    index: u32,
    config: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `semantic_id`.
    unsafe {
        guard(out, || {
            let config = from_bytes(config.as_slice())?;
            let at = LayerRef { index, config: &config };
            let state = shared::<dyn Part>(this).state(&at)?;
            answer(out, &(marks(&config), state));
            Ok(())
        })
    }
}

unsafe extern "C" fn rotation(this: *mut c_void, config: RSlice<'_, u8>, out: *const Out) -> Code {
    // SAFETY: as in `semantic_id`.
    unsafe {
        guard(out, || {
            let config = from_bytes(config.as_slice())?;
            let rotation = shared::<dyn Part>(this).rotation(&config)?;
            answer(out, &(marks(&config), rotation));
            Ok(())
        })
    }
}

/// A traced plugin in another library.
pub(super) struct Foreign {
    remote: Remote,
    table: &'static TracedV1,
    kind: &'static str,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import<K: Import + ?Sized>(opened: Opened, owner: Arc<dyn Owner>) -> Box<K> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<TracedV1>() };
    K::boxed(Foreign { remote: Remote::new(opened.this, owner), table, kind: K::NAME })
}

impl Foreign {
    /// A call that reads `config` there; what it read of it counts as read here.
    fn ask<T: Wire>(
        &self,
        config: &Config,
        function: impl FnOnce(*mut c_void, *const Out) -> Code,
    ) -> Result<T> {
        let (read, answer): (Vec<u8>, T) = self.remote.ask(function)?;
        take_marks(config, &read);
        Ok(answer)
    }
}

impl Traced for Foreign {
    fn semantic_id(&self) -> SemanticId {
        let table = self.table;
        // SAFETY: the table belongs to the instance.
        let id = self.remote.ask(|this, out| unsafe { (table.semantic_id)(this, out) });
        // An id of its own: never equal to one that a working plugin declares.
        id.unwrap_or_else(|error| SemanticId::new(format!("{} failed: {error}", self.kind)))
    }

    fn trace(&self, g: &mut dyn OpSink, x: &[Val], at: &LayerRef<'_>) -> Result<Vec<Val>> {
        let (table, config) = (self.table, to_bytes(at.config));
        let inputs = op_sink::values_bytes(g, x);
        let mut lender = op_sink::Lender::new(g, x);
        let sink = lender.lend();
        let results: Vec<Val> = self.ask(at.config, |this, out| {
            let (inputs, config) = (inputs[..].into(), config[..].into());
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.trace)(this, &raw const sink, inputs, at.index, config, out) }
        })?;
        lender.check(&results)?;
        Ok(results)
    }

    fn call(
        &self,
        callback: &str,
        inputs: &[Shaped<'_>],
        outputs: &mut [ShapedMut<'_>],
    ) -> Result<()> {
        let table = self.table;
        shaped::sent(inputs, outputs, |inputs, outputs| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            self.remote.call(&mut Vec::new(), |this, out| unsafe {
                (table.call)(this, callback.into(), inputs.into(), outputs.into(), out)
            })
        })
    }
}

impl Norm for Foreign {}
impl Residual for Foreign {}
impl FeedForward for Foreign {}
impl MoeRouter for Foreign {}
impl Encoder for Foreign {}
impl Objective for Foreign {}
impl Optimizer for Foreign {}
impl LrSchedule for Foreign {}
impl Adapter for Foreign {}

impl Mixer for Foreign {
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec> {
        let (table, config) = (self.table, to_bytes(at.config));
        self.ask(at.config, |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.state)(this, at.index, config[..].into(), out) }
        })
    }
}

impl RotaryEmbedding for Foreign {
    fn rotation(&self, config: &Config) -> Result<Rotation> {
        let (table, bytes) = (self.table, to_bytes(config));
        self.ask(config, |this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.rotation)(this, bytes[..].into(), out) }
        })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}

/// The kinds that this file carries.
#[allow(dead_code, reason = "a kind that stops being traced fails to compile here")]
const ALL_ARE_TRACED: () = assert!(
    <dyn Norm>::IS_TRACED
        && <dyn Residual>::IS_TRACED
        && <dyn FeedForward>::IS_TRACED
        && <dyn MoeRouter>::IS_TRACED
        && <dyn Encoder>::IS_TRACED
        && <dyn Objective>::IS_TRACED
        && <dyn Optimizer>::IS_TRACED
        && <dyn LrSchedule>::IS_TRACED
        && <dyn Adapter>::IS_TRACED
        && <dyn Mixer>::IS_TRACED
        && <dyn RotaryEmbedding>::IS_TRACED
);
