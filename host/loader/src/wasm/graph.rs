//! The interface `graph`: the sink of a trace, lent for the time of the trace.
//!
//! A guest may only name values that this trace was given or has made: numbers of values are
//! indices on this side, and other parts of the model are none of its business.

#![allow(unsafe_code, reason = "follows what is lent")]

use plugin_api::kinds::rotary_embedding::{Pairing, Rotation};
use plugin_api::plan::{
    Attr, Attrs, Dim, OpId, OpSink, Part, Per, Plan, Spec, StateSpec, Symbol, Val,
};
use plugin_api::plan::{fused, ops};
use plugin_api::{DType, Error};
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime::{Result, bail};

use super::bindings::offers::jackfield::plugin::{graph as wit, types};
use super::lend::Lent;
use super::state::State;

/// What a guest's `borrow<graph>` stands for: the one sink that is lent.
#[allow(unreachable_pub, reason = "named again by generated code")]
pub struct LentGraph;

/// The handle of the lent sink. There is one sink at a time, so the handle says nothing.
pub(super) fn handle() -> Resource<LentGraph> {
    Resource::new_borrow(0)
}

type Answer<T> = Result<std::result::Result<T, types::Error>>;
type Wired = Vec<(String, wit::Attr)>;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    wit::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl State {
    /// The values that the guest may name now.
    pub(super) fn known(&self) -> Vec<Val> {
        match &self.lent {
            Lent::Sink(_, known) => known.clone(),
            _ => Vec::new(),
        }
    }

    /// Calls `act` with the lent sink and the values `inputs`, if the guest may name them. Values
    /// that it answers may be named from then on.
    fn trace<T: Made>(
        &mut self,
        inputs: &[u32],
        act: impl FnOnce(&mut dyn OpSink, &[Val]) -> plugin_api::Result<T>,
    ) -> Answer<T::Wire> {
        let Lent::Sink(sink, known) = &mut self.lent else {
            bail!("graph: used outside of `trace`");
        };
        if let Some(strange) = inputs.iter().find(|val| !known.contains(&Val(**val))) {
            return Ok(Err(Error::malformed("trace", "values of this trace", strange).into()));
        }
        let inputs: Vec<Val> = inputs.iter().copied().map(Val).collect();
        // SAFETY: `Lent::Sink` is there only while the lending lasts, and the reference borrows
        // the state, so there is one at a time.
        let sink = unsafe { sink.get() };
        Ok(match act(sink, &inputs) {
            Ok(made) => {
                made.learn(known);
                Ok(made.wire())
            }
            Err(error) => Err(error.into()),
        })
    }
}

/// What a sink answers, and what the guest gets of it.
trait Made {
    type Wire;
    fn learn(&self, known: &mut Vec<Val>);
    fn wire(self) -> Self::Wire;
}

impl Made for Vec<Val> {
    type Wire = Vec<u32>;

    fn learn(&self, known: &mut Vec<Val>) {
        known.extend_from_slice(self);
    }

    fn wire(self) -> Vec<u32> {
        self.into_iter().map(|val| val.0).collect()
    }
}

impl Made for Val {
    type Wire = u32;

    fn learn(&self, known: &mut Vec<Val>) {
        known.push(*self);
    }

    fn wire(self) -> u32 {
        self.0
    }
}

/// Answers that are no values.
struct Plain<T>(T);

impl<T> Made for Plain<T> {
    type Wire = T;

    fn learn(&self, _: &mut Vec<Val>) {}

    fn wire(self) -> T {
        self.0
    }
}

impl wit::Host for State {}

impl wit::HostGraph for State {
    fn input(&mut self, _: Resource<LentGraph>, name: String, spec: wit::Spec) -> Answer<u32> {
        self.trace(&[], |g, _| g.input(&name, spec_of(spec)?))
    }

    fn weight(&mut self, _: Resource<LentGraph>, name: String) -> Answer<u32> {
        self.trace(&[], |g, _| g.weight(&name))
    }

    fn has_weight(&mut self, _: Resource<LentGraph>, name: String) -> Result<bool> {
        Ok(self.trace(&[], |g, _| Ok(Plain(g.has_weight(&name))))?.unwrap_or(false))
    }

    fn state(&mut self, _: Resource<LentGraph>, spec: wit::StateSpec) -> Answer<u32> {
        self.trace(&[], |g, _| g.state(state_of(spec)))
    }

    fn op(
        &mut self,
        _: Resource<LentGraph>,
        op: String,
        inputs: Vec<u32>,
        attrs: Wired,
    ) -> Answer<Vec<u32>> {
        self.trace(&inputs, |g, x| g.op(OpId::new(&op)?, x, attrs_of(attrs)))
    }

    fn fused(
        &mut self,
        _: Resource<LentGraph>,
        op: String,
        inputs: Vec<u32>,
        attrs: Wired,
        expansion: Vec<u8>,
    ) -> Answer<Vec<u32>> {
        self.trace(&inputs, |g, x| {
            g.fused(OpId::new(&op)?, x, attrs_of(attrs), Plan::from_bytes(&expansion)?)
        })
    }

    fn standard(
        &mut self,
        _: Resource<LentGraph>,
        op: String,
        inputs: Vec<u32>,
        attrs: Wired,
    ) -> Answer<u32> {
        self.trace(&inputs, |g, x| standard(g, &op, x, &attrs_of(attrs)))
    }

    fn slot(
        &mut self,
        _: Resource<LentGraph>,
        slot: String,
        scope: String,
        inputs: Vec<u32>,
    ) -> Answer<Vec<u32>> {
        // Another plugin traces meanwhile.
        self.working(|it| it.trace(&inputs, |g, x| g.slot(&slot, &scope, x)))
    }

    fn call(
        &mut self,
        _: Resource<LentGraph>,
        callback: String,
        inputs: Vec<u32>,
        outputs: Vec<wit::Spec>,
    ) -> Answer<Vec<u32>> {
        self.trace(&inputs, |g, x| {
            let outputs: plugin_api::Result<Vec<Spec>> = outputs.into_iter().map(spec_of).collect();
            g.call(&callback, x, &outputs?)
        })
    }

    fn output(&mut self, _: Resource<LentGraph>, name: String, val: u32) -> Answer<()> {
        self.trace(&[val], |g, x| g.output(&name, x[0]).map(Plain))
    }

    fn spec(&mut self, _: Resource<LentGraph>, val: u32) -> Answer<wit::Spec> {
        self.trace(&[val], |g, x| Ok(Plain(wire_spec(g.spec(x[0])))))
    }

    fn drop(&mut self, _: Resource<LentGraph>) -> Result<()> {
        Ok(())
    }
}

/// The fused ops of the vocabulary by name, so that guests need not spell their expansions.
fn standard(
    g: &mut dyn OpSink,
    op: &str,
    inputs: &[Val],
    attrs: &Attrs,
) -> plugin_api::Result<Val> {
    let op = OpId::new(op)?;
    match (op, inputs) {
        (ops::RMS_NORM, &[x, w]) => {
            fused::rms_norm(g, x, w, attrs.get_float("eps")?, attrs.get_float("weight_offset")?)
        }
        (ops::LAYER_NORM, &[x, w, b]) => fused::layer_norm(g, x, w, b, attrs.get_float("eps")?),
        (ops::ROPE, &[x, positions]) => {
            let rotation = Rotation {
                inv_freq: attrs.get_floats("inv_freq")?.to_vec(),
                pairing: Pairing::of(attrs.get_text("pairing")?)?,
                attention_factor: attrs.get_float("attention_factor")? as f32,
            };
            fused::rope(g, x, positions, &rotation)
        }
        (ops::SWIGLU, &[gate, up]) => fused::swiglu(g, gate, up),
        (ops::GEGLU, &[gate, up]) => fused::geglu(g, gate, up),
        _ => Err(Error::NotFound {
            kind: "fused op with that many inputs".to_owned(),
            name: op.to_string(),
            known: "rms_norm (2), layer_norm (3), rope (2), swiglu (2), geglu (2)".to_owned(),
        }),
    }
}

fn attrs_of(attrs: Wired) -> Attrs {
    attrs.into_iter().fold(Attrs::new(), |all, (name, attr)| {
        let attr = match attr {
            wit::Attr::Integer(x) => Attr::Int(x),
            wit::Attr::Number(x) => Attr::Float(x),
            wit::Attr::Text(x) => Attr::Text(x),
            wit::Attr::Integers(x) => Attr::Ints(x),
            wit::Attr::Numbers(x) => Attr::Floats(x),
        };
        all.with(&name, attr)
    })
}

const DTYPES: [(DType, wit::Dtype); 6] = [
    (DType::F64, wit::Dtype::Float64),
    (DType::F32, wit::Dtype::Float32),
    (DType::F16, wit::Dtype::Float16),
    (DType::BF16, wit::Dtype::Bfloat16),
    (DType::U8, wit::Dtype::Uint8),
    (DType::U32, wit::Dtype::Uint32),
];

fn spec_of(spec: wit::Spec) -> plugin_api::Result<Spec> {
    let dtype = DTYPES.iter().find(|(_, dtype)| *dtype == spec.dtype);
    let dims = spec.dims.into_iter().map(|dim| match dim {
        wit::Dim::Fixed(n) => Ok(Dim::Fixed(n)),
        wit::Dim::Symbol(symbol) => Symbol::new(&symbol).map(Dim::Symbol),
    });
    let dims = dims.collect::<plugin_api::Result<Vec<_>>>()?;
    Ok(Spec::new(dtype.map_or(DType::F32, |known| known.0), dims))
}

fn wire_spec(spec: &Spec) -> wit::Spec {
    let dtype = DTYPES.iter().find(|(dtype, _)| *dtype == spec.dtype);
    let dims = spec.dims.iter().map(|dim| match dim {
        Dim::Fixed(n) => wit::Dim::Fixed(*n),
        Dim::Symbol(symbol) => wit::Dim::Symbol(symbol.as_str().to_owned()),
    });
    wit::Spec { dtype: dtype.map_or(wit::Dtype::Float32, |known| known.1), dims: dims.collect() }
}

/// What a guest says of a state.
pub(super) fn state_of(spec: wit::StateSpec) -> StateSpec {
    let part = |part: wit::Part| Part { name: part.name, dims: part.dims };
    StateSpec {
        name: spec.name,
        per: match spec.per {
            wit::Per::Token(window) => Per::Token { window },
            wit::Per::Sequence => Per::Sequence,
        },
        parts: spec.parts.into_iter().map(part).collect(),
    }
}
