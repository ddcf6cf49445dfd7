//! The sink of a trace, lent across the boundary for one call.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;

use super::abi::op_sink::OpSinkV1;
use super::abi::{Code, OK, Out, RSlice, RStr};
use super::call::{Answer, error_of};
use super::guard::{answer, guard};
use crate::error::{Error, Result};
use crate::plan::{Attrs, OpId, OpSink, Plan, Spec, StateSpec, Val};
use crate::tensor::DType;
use crate::wire::{Wire, from_bytes, to_bytes};

/// The host's side: the sink behind a table.
pub(super) struct Lender<'a> {
    sink: &'a mut dyn OpSink,
    /// Every value that the other side may name: others are refused before the sink sees them.
    known: BTreeSet<Val>,
}

impl<'a> Lender<'a> {
    pub(super) fn new(sink: &'a mut dyn OpSink, inputs: &[Val]) -> Self {
        Self { sink, known: inputs.iter().copied().collect() }
    }

    /// Refuses values that were never given out.
    pub(super) fn check(&self, values: &[Val]) -> Result<()> {
        match values.iter().find(|val| !self.known.contains(val)) {
            None => Ok(()),
            Some(val) => Err(Error::malformed("value", "one of this trace", val.0)),
        }
    }

    /// The sink as a table; valid while `self` is borrowed.
    pub(super) fn lend(&mut self) -> OpSinkV1 {
        let of = std::ptr::from_mut(self).cast();
        OpSinkV1 { of, input, weight, has_weight, state, op, fused, slot, call, output }
    }
}

/// Runs `body` on the sink and answers the values that it gives, each with its spec.
///
/// # Safety
///
/// `of` came from [`Lender::lend`] and its loan has not ended; `out` is valid for the call.
unsafe fn values(
    of: *mut c_void,
    out: *const Out,
    inputs: &[Val],
    body: impl FnOnce(&mut dyn OpSink) -> Result<Vec<Val>>,
) -> Code {
    // SAFETY: as for this function.
    unsafe {
        guard(out, || {
            let lender = &mut *of.cast::<Lender<'_>>();
            lender.check(inputs)?;
            let values = body(lender.sink)?;
            lender.known.extend(&values);
            answer(out, &with_specs(lender.sink, &values));
            Ok(())
        })
    }
}

/// Values with their specs, as they cross.
pub(super) fn with_specs(sink: &dyn OpSink, values: &[Val]) -> Vec<(Val, Spec)> {
    values.iter().map(|&val| (val, sink.spec(val).clone())).collect()
}

fn vals(numbers: RSlice<'_, u32>) -> Vec<Val> {
    numbers.as_slice().iter().map(|&number| Val(number)).collect()
}

macro_rules! lent {
    ($($name:ident($($arg:ident: $type:ty),*) of $inputs:expr, |$sink:ident| $body:expr;)*) => {
        $(unsafe extern "C" fn $name(of: *mut c_void, $($arg: $type,)* out: *const Out) -> Code {
            // SAFETY: only called through a table that is lent.
            unsafe { values(of, out, &$inputs, |$sink| $body) }
        })*
    };
}
lent! {
    input(name: RStr<'_>, spec: RSlice<'_, u8>) of [], |g|
        Ok(vec![g.input(name.as_str(), from_bytes(spec.as_slice())?)?]);
    weight(name: RStr<'_>) of [], |g| Ok(vec![g.weight(name.as_str())?]);
    state(spec: RSlice<'_, u8>) of [], |g| Ok(vec![g.state(from_bytes(spec.as_slice())?)?]);
    op(op: RStr<'_>, inputs: RSlice<'_, u32>, attrs: RSlice<'_, u8>) of vals(inputs), |g|
        g.op(OpId::new(op.as_str())?, &vals(inputs), from_bytes(attrs.as_slice())?);
    fused(op: RStr<'_>, inputs: RSlice<'_, u32>, attrs: RSlice<'_, u8>, expansion: RSlice<'_, u8>)
        of vals(inputs), |g| {
            let (op, attrs) = (OpId::new(op.as_str())?, from_bytes(attrs.as_slice())?);
            g.fused(op, &vals(inputs), attrs, Plan::from_bytes(expansion.as_slice())?)
        };
    slot(slot: RStr<'_>, scope: RStr<'_>, inputs: RSlice<'_, u32>) of vals(inputs), |g|
        g.slot(slot.as_str(), scope.as_str(), &vals(inputs));
    call(callback: RStr<'_>, inputs: RSlice<'_, u32>, outputs: RSlice<'_, u8>) of vals(inputs), |g|
        g.call(callback.as_str(), &vals(inputs), &from_bytes::<Vec<Spec>>(outputs.as_slice())?);
    output(name: RStr<'_>, value: u32) of [Val(value)], |g| {
        g.output(name.as_str(), Val(value))?;
        Ok(Vec::new())
    };
}

unsafe extern "C" fn has_weight(of: *mut c_void, name: RStr<'_>) -> u8 {
    // SAFETY: only called through a table that is lent.
    let lender = unsafe { &*of.cast::<Lender<'_>>() };
    u8::from(lender.sink.has_weight(name.as_str()))
}

/// The plugin's side: a sink that was lent to it.
pub(super) struct Lent<'a> {
    there: &'a OpSinkV1,
    /// Every value that this plugin can name, with its spec.
    specs: BTreeMap<Val, Spec>,
    nothing: Spec,
}

impl<'a> Lent<'a> {
    pub(super) fn new(there: &'a OpSinkV1, inputs: Vec<(Val, Spec)>) -> Self {
        let nothing = Spec::new(DType::F32, []);
        Self { there, specs: inputs.into_iter().collect(), nothing }
    }

    fn ask(&mut self, call: impl FnOnce(&OpSinkV1, *const Out) -> Code) -> Result<Vec<Val>> {
        let mut bytes = Vec::new();
        let out = Answer::into(&mut bytes).out();
        let code = call(self.there, &raw const out);
        if code != OK {
            return Err(error_of(code, &bytes, "op sink"));
        }
        let values: Vec<(Val, Spec)> = from_bytes(&bytes)?;
        let result = values.iter().map(|(val, _)| *val).collect();
        self.specs.extend(values);
        Ok(result)
    }

    fn ask_one(&mut self, call: impl FnOnce(&OpSinkV1, *const Out) -> Code) -> Result<Val> {
        let values = self.ask(call)?;
        values.first().copied().ok_or_else(|| Error::shape("op sink", "a value", "none"))
    }
}

fn numbers(inputs: &[Val]) -> Vec<u32> {
    inputs.iter().map(|val| val.0).collect()
}

// In every method: the table is lent for as long as `self` lives, all other pointers live until
// the call ends.
impl OpSink for Lent<'_> {
    fn input(&mut self, name: &str, spec: Spec) -> Result<Val> {
        let spec = to_bytes(&spec);
        // SAFETY: see above.
        self.ask_one(|g, out| unsafe { (g.input)(g.of, name.into(), spec[..].into(), out) })
    }

    fn weight(&mut self, name: &str) -> Result<Val> {
        // SAFETY: see above.
        self.ask_one(|g, out| unsafe { (g.weight)(g.of, name.into(), out) })
    }

    fn has_weight(&self, name: &str) -> bool {
        // SAFETY: see above.
        unsafe { (self.there.has_weight)(self.there.of, name.into()) == 1 }
    }

    fn state(&mut self, spec: StateSpec) -> Result<Val> {
        let spec = to_bytes(&spec);
        // SAFETY: see above.
        self.ask_one(|g, out| unsafe { (g.state)(g.of, spec[..].into(), out) })
    }

    fn op(&mut self, op: OpId, inputs: &[Val], attrs: Attrs) -> Result<Vec<Val>> {
        let (inputs, attrs) = (numbers(inputs), to_bytes(&attrs));
        // SAFETY: see above.
        self.ask(|g, out| unsafe {
            (g.op)(g.of, op.as_str().into(), inputs[..].into(), attrs[..].into(), out)
        })
    }

    fn fused(
        &mut self,
        op: OpId,
        inputs: &[Val],
        attrs: Attrs,
        expansion: Plan,
    ) -> Result<Vec<Val>> {
        let (inputs, attrs) = (numbers(inputs), to_bytes(&attrs));
        let expansion = expansion.to_bytes();
        let op = op.as_str();
        // SAFETY: see above.
        self.ask(|g, out| unsafe {
            let (attrs, expansion) = (attrs[..].into(), expansion[..].into());
            (g.fused)(g.of, op.into(), inputs[..].into(), attrs, expansion, out)
        })
    }

    fn slot(&mut self, slot: &str, scope: &str, inputs: &[Val]) -> Result<Vec<Val>> {
        let inputs = numbers(inputs);
        // SAFETY: see above.
        self.ask(|g, out| unsafe {
            (g.slot)(g.of, slot.into(), scope.into(), inputs[..].into(), out)
        })
    }

    fn call(&mut self, callback: &str, inputs: &[Val], outputs: &[Spec]) -> Result<Vec<Val>> {
        let (inputs, mut specs) = (numbers(inputs), Vec::new());
        crate::wire::put_list(outputs, &mut specs);
        // SAFETY: see above.
        self.ask(|g, out| unsafe {
            (g.call)(g.of, callback.into(), inputs[..].into(), specs[..].into(), out)
        })
    }

    fn output(&mut self, name: &str, val: Val) -> Result<()> {
        // SAFETY: see above.
        self.ask(|g, out| unsafe { (g.output)(g.of, name.into(), val.0, out) }).map(|_| ())
    }

    fn spec(&self, val: Val) -> &Spec {
        self.specs.get(&val).unwrap_or(&self.nothing)
    }
}

/// Values and their specs, as bytes.
pub(super) fn values_bytes(sink: &dyn OpSink, values: &[Val]) -> Vec<u8> {
    let mut bytes = Vec::new();
    with_specs(sink, values).put(&mut bytes);
    bytes
}
