//! The host's graph as an [`OpSink`].

use std::collections::BTreeMap;

use super::error::error_of;
use super::offers::jackfield::plugin::graph::{self as wit, Graph};
use crate::error::{Error, Result};
use crate::plan::{Attr, Attrs, Dim, OpId, OpSink, Part, Per, Plan, Spec, StateSpec, Symbol, Val};
use crate::tensor::DType;

/// Describes into a graph that lies with the host. Specs are asked for once: the trait lends them.
pub(super) struct Sink<'a> {
    graph: &'a Graph,
    specs: BTreeMap<u32, Spec>,
}

impl<'a> Sink<'a> {
    /// The graph, with the values that the trace is given.
    pub(super) fn new(graph: &'a Graph, given: &[u32]) -> Result<Self> {
        let mut sink = Self { graph, specs: BTreeMap::new() };
        sink.learn(given)?;
        Ok(sink)
    }

    fn learn(&mut self, vals: &[u32]) -> Result<Vec<Val>> {
        for &val in vals {
            if !self.specs.contains_key(&val) {
                self.specs.insert(val, spec_of(self.graph.spec(val).map_err(error_of)?)?);
            }
        }
        Ok(vals.iter().copied().map(Val).collect())
    }

    fn learn_one(&mut self, val: u32) -> Result<Val> {
        self.learn(&[val]).map(|_| Val(val))
    }
}

impl OpSink for Sink<'_> {
    fn input(&mut self, name: &str, spec: Spec) -> Result<Val> {
        self.learn_one(self.graph.input(name, &wire_spec(&spec)).map_err(error_of)?)
    }

    fn weight(&mut self, name: &str) -> Result<Val> {
        self.learn_one(self.graph.weight(name).map_err(error_of)?)
    }

    fn has_weight(&self, name: &str) -> bool {
        self.graph.has_weight(name)
    }

    fn state(&mut self, spec: StateSpec) -> Result<Val> {
        self.learn_one(self.graph.state(&wire_state(spec)).map_err(error_of)?)
    }

    fn op(&mut self, op: OpId, inputs: &[Val], attrs: Attrs) -> Result<Vec<Val>> {
        let made = self
            .graph
            .op(op.as_str(), &wire_vals(inputs), &wire_attrs(&attrs))
            .map_err(error_of)?;
        self.learn(&made)
    }

    fn fused(&mut self, op: OpId, x: &[Val], attrs: Attrs, expansion: Plan) -> Result<Vec<Val>> {
        let (x, attrs, expansion) = (wire_vals(x), wire_attrs(&attrs), expansion.to_bytes());
        let made = self.graph.fused(op.as_str(), &x, &attrs, &expansion).map_err(error_of)?;
        self.learn(&made)
    }

    fn slot(&mut self, slot: &str, scope: &str, inputs: &[Val]) -> Result<Vec<Val>> {
        let made = self.graph.slot(slot, scope, &wire_vals(inputs)).map_err(error_of)?;
        self.learn(&made)
    }

    fn call(&mut self, callback: &str, inputs: &[Val], outputs: &[Spec]) -> Result<Vec<Val>> {
        let outputs: Vec<_> = outputs.iter().map(wire_spec).collect();
        let made = self.graph.call(callback, &wire_vals(inputs), &outputs).map_err(error_of)?;
        self.learn(&made)
    }

    fn output(&mut self, name: &str, val: Val) -> Result<()> {
        self.graph.output(name, val.0).map_err(error_of)
    }

    /// # Panics
    ///
    /// If the value was neither given to nor made by this trace.
    fn spec(&self, val: Val) -> &Spec {
        &self.specs[&val.0]
    }
}

fn wire_vals(vals: &[Val]) -> Vec<u32> {
    vals.iter().map(|val| val.0).collect()
}

fn wire_attrs(attrs: &Attrs) -> Vec<(String, wit::Attr)> {
    let wire = |attr: &Attr| match attr {
        Attr::Int(x) => wit::Attr::Integer(*x),
        Attr::Float(x) => wit::Attr::Number(*x),
        Attr::Text(x) => wit::Attr::Text(x.clone()),
        Attr::Ints(x) => wit::Attr::Integers(x.clone()),
        Attr::Floats(x) => wit::Attr::Numbers(x.clone()),
    };
    attrs.iter().map(|(name, attr)| (name.to_owned(), wire(attr))).collect()
}

const DTYPES: [(DType, wit::Dtype); 6] = [
    (DType::F64, wit::Dtype::Float64),
    (DType::F32, wit::Dtype::Float32),
    (DType::F16, wit::Dtype::Float16),
    (DType::BF16, wit::Dtype::Bfloat16),
    (DType::U8, wit::Dtype::Uint8),
    (DType::U32, wit::Dtype::Uint32),
];

fn wire_spec(spec: &Spec) -> wit::Spec {
    let dtype = DTYPES.iter().find(|(dtype, _)| *dtype == spec.dtype);
    let dims = spec.dims.iter().map(|dim| match dim {
        Dim::Fixed(n) => wit::Dim::Fixed(*n),
        Dim::Symbol(symbol) => wit::Dim::Symbol(symbol.as_str().to_owned()),
    });
    wit::Spec { dtype: dtype.map_or(wit::Dtype::Float32, |x| x.1), dims: dims.collect() }
}

fn spec_of(spec: wit::Spec) -> Result<Spec> {
    let dtype = DTYPES.iter().find(|(_, dtype)| *dtype == spec.dtype);
    let (dtype, _) = dtype.ok_or_else(|| Error::unsupported("dtype", "this plugin is older"))?;
    let dims = spec.dims.into_iter().map(|dim| match dim {
        wit::Dim::Fixed(n) => Ok(Dim::Fixed(n)),
        wit::Dim::Symbol(symbol) => Symbol::new(&symbol).map(Dim::Symbol),
    });
    Ok(Spec::new(*dtype, dims.collect::<Result<Vec<_>>>()?))
}

pub(super) fn wire_state(spec: StateSpec) -> wit::StateSpec {
    let part = |part: Part| wit::Part { name: part.name, dims: part.dims };
    wit::StateSpec {
        name: spec.name,
        per: match spec.per {
            Per::Token { window } => wit::Per::Token(window),
            Per::Sequence => wit::Per::Sequence,
        },
        parts: spec.parts.into_iter().map(part).collect(),
    }
}
