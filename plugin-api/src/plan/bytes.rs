//! Plans as versioned bytes: the same in every lane, on disk and in golden tests.
//!
//! In the form of [`wire`](crate::wire). Reading trusts nothing: values must be defined before they
//! are used, and shapes are inferred again.

use super::build::PlanBuilder;
use super::ops::{Attr, Attrs, OpId};
use super::sink::OpSink;
use super::spec::{Dim, Part, Per, Spec, StateSpec, Word};
use super::{NodeKind, Plan, Port, Val};
use crate::error::{Error, Result};
use crate::tensor::DType;
use crate::wire::{Reader, Wire, put_text, wire_enum, wire_struct};

const MAGIC: &[u8; 4] = b"JFPL";
const VERSION: u32 = 0;
/// Expansions inside expansions: no op of the vocabulary goes deeper than one.
const DEPTH_MAX: u32 = 4;

impl Plan {
    /// The plan as bytes; equal plans give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        VERSION.put(&mut out);
        put_plan(&mut out, self);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] or [`Error::ShapeMismatch`] that says what was expected; whatever the
    /// bytes are, nothing larger than a small multiple of them is allocated.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.bytes(4)? != MAGIC {
            return Err(Error::malformed("plan", "magic JFPL", "other bytes"));
        }
        let version = u32::take(&mut r)?;
        if version != VERSION {
            return Err(Error::malformed("plan", format!("version {VERSION}"), version));
        }
        let plan = take_plan(&mut r, 0)?;
        r.end()?;
        Ok(plan)
    }
}

fn put_plan(out: &mut Vec<u8>, plan: &Plan) {
    put_ports(out, plan, &plan.inputs);
    put_ports(out, plan, &plan.weights);
    (plan.states.len() as u32).put(out);
    for port in &plan.states {
        port.val.put(out);
        port.spec.put(out);
    }
    (plan.nodes.len() as u32).put(out);
    for node in &plan.nodes {
        match &node.kind {
            NodeKind::Prim(op, attrs) => {
                out.push(0);
                op.put(out);
                attrs.put(out);
            }
            NodeKind::Fused { op, attrs, expansion } => {
                out.push(1);
                op.put(out);
                attrs.put(out);
                put_plan(out, expansion);
            }
            NodeKind::Call { callback } => {
                out.push(2);
                callback.put(out);
                (node.outputs.len() as u32).put(out);
                node.outputs.iter().for_each(|&val| plan.spec(val).put(out));
            }
        }
        node.inputs.put(out);
        node.outputs.put(out);
    }
    (plan.outputs.len() as u32).put(out);
    for port in &plan.outputs {
        port.name.put(out);
        port.val.put(out);
    }
}

fn put_ports(out: &mut Vec<u8>, plan: &Plan, ports: &[Port]) {
    (ports.len() as u32).put(out);
    for port in ports {
        port.val.put(out);
        port.name.put(out);
        plan.spec(port.val).put(out);
    }
}

fn take_plan(r: &mut Reader<'_>, depth: u32) -> Result<Plan> {
    if depth > DEPTH_MAX {
        return Err(Error::malformed("plan", format!("depth to {DEPTH_MAX}"), depth));
    }
    let mut b = PlanBuilder::new();
    for _ in 0..r.count(9)? {
        let (val, name, spec) = (Val::take(r)?, r.text()?, Spec::take(r)?);
        same("input", val, b.input(name, spec)?)?;
    }
    for _ in 0..r.count(9)? {
        let (val, name, spec) = (Val::take(r)?, r.text()?, Spec::take(r)?);
        same("weight", val, b.declare_weight(name, spec)?)?;
    }
    for _ in 0..r.count(13)? {
        let (val, spec) = (Val::take(r)?, StateSpec::take(r)?);
        same("state", val, b.state(spec)?)?;
    }
    for _ in 0..r.count(9)? {
        take_node(r, &mut b, depth)?;
    }
    for _ in 0..r.count(8)? {
        let (name, val) = (r.text()?, Val::take(r)?);
        b.output(name, val)?;
    }
    Ok(b.finish())
}

fn take_node(r: &mut Reader<'_>, b: &mut PlanBuilder, depth: u32) -> Result<()> {
    let outputs = match u8::take(r)? {
        0 => {
            let (op, attrs) = (OpId::take(r)?, Attrs::take(r)?);
            b.op(op, &Vec::take(r)?, attrs)?
        }
        1 => {
            let (op, attrs) = (OpId::take(r)?, Attrs::take(r)?);
            let expansion = take_plan(r, depth + 1)?;
            b.fused(op, &Vec::take(r)?, attrs, expansion)?
        }
        2 => {
            let (callback, specs) = (r.text()?, Vec::<Spec>::take(r)?);
            b.call(callback, &Vec::take(r)?, &specs)?
        }
        other => return Err(Error::malformed("node", "kind 0, 1 or 2", other)),
    };
    if Vec::<Val>::take(r)? == outputs {
        Ok(())
    } else {
        Err(Error::malformed("node", format!("{outputs:?}"), "other results"))
    }
}

fn same(what: &str, written: Val, val: Val) -> Result<()> {
    if written == val { Ok(()) } else { Err(Error::malformed(what, val.0, written.0)) }
}

impl Wire for Val {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        u32::take(r).map(Self)
    }
}

impl Wire for Word {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(self.as_str(), out);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        Self::new(r.text()?)
    }
}

impl Wire for DType {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(Self::ALL.iter().find(|(dtype, _)| dtype == self).map_or(0, |x| x.1));
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        let code = u8::take(r)?;
        let dtype = Self::ALL.iter().find(|(_, known)| *known == code);
        dtype.map(|x| x.0).ok_or_else(|| Error::malformed("dtype", "0 to 5", code))
    }
}

wire_struct!(Spec { dtype, dims });
wire_enum!(Dim, "extent", 0 => Fixed { 0: n }, 1 => Symbol { 0: symbol });
wire_struct!(StateSpec { name, per, parts });
wire_enum!(Per, "state", 0 => Token { window: window }, 1 => Sequence {});
wire_struct!(Part { name, dims });
wire_struct!(Attrs { 0 });
wire_enum!(Attr, "attribute",
    0 => Int { 0: x }, 1 => Float { 0: x }, 2 => Text { 0: x }, 3 => Ints { 0: x },
    4 => Floats { 0: x },
);
