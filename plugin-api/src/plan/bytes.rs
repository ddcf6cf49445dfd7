//! Plans as versioned bytes: the same in every lane, on disk and in golden tests.
//!
//! Little endian. Lists are a `u32` count and their items; text is a list of bytes. Reading
//! trusts nothing: counts are checked against what is left before anything is allocated, values
//! must be defined before they are used, and shapes are inferred again.

use super::build::PlanBuilder;
use super::ops::{Attr, Attrs, OpId};
use super::sink::OpSink;
use super::spec::{Dim, Part, Per, Spec, StateSpec, Word};
use super::{NodeKind, Plan, Port, Val};
use crate::error::{Error, Result};
use crate::tensor::DType;

const MAGIC: &[u8; 4] = b"JFPL";
const VERSION: u32 = 0;
/// Expansions inside expansions: no op of the vocabulary goes deeper than one.
const DEPTH_MAX: u32 = 4;

impl Plan {
    /// The plan as bytes; equal plans give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        put_u32(&mut out, VERSION);
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
        let mut r = Reader { rest: bytes };
        if r.take(4)? != MAGIC {
            return Err(Error::malformed("plan", "magic JFPL", "other bytes"));
        }
        let version = r.u32()?;
        if version != VERSION {
            return Err(Error::malformed("plan", format!("version {VERSION}"), version));
        }
        let plan = r.plan(0)?;
        if r.rest.is_empty() {
            Ok(plan)
        } else {
            Err(Error::malformed("plan", "its end", format!("{} more bytes", r.rest.len())))
        }
    }
}

fn put_plan(out: &mut Vec<u8>, plan: &Plan) {
    put_ports(out, plan, &plan.inputs);
    put_ports(out, plan, &plan.weights);
    put_u32(out, plan.states.len() as u32);
    for port in &plan.states {
        put_u32(out, port.val.0);
        put_state(out, &port.spec);
    }
    put_u32(out, plan.nodes.len() as u32);
    for node in &plan.nodes {
        match &node.kind {
            NodeKind::Prim(op, attrs) => {
                out.push(0);
                put_text(out, op.as_str());
                put_attrs(out, attrs);
            }
            NodeKind::Fused { op, attrs, expansion } => {
                out.push(1);
                put_text(out, op.as_str());
                put_attrs(out, attrs);
                put_plan(out, expansion);
            }
            NodeKind::Call { callback } => {
                out.push(2);
                put_text(out, callback);
                put_u32(out, node.outputs.len() as u32);
                for &val in &node.outputs {
                    put_spec(out, plan.spec(val));
                }
            }
        }
        put_vals(out, &node.inputs);
        put_vals(out, &node.outputs);
    }
    put_u32(out, plan.outputs.len() as u32);
    for port in &plan.outputs {
        put_text(out, &port.name);
        put_u32(out, port.val.0);
    }
}

fn put_ports(out: &mut Vec<u8>, plan: &Plan, ports: &[Port]) {
    put_u32(out, ports.len() as u32);
    for port in ports {
        put_u32(out, port.val.0);
        put_text(out, &port.name);
        put_spec(out, plan.spec(port.val));
    }
}

fn put_spec(out: &mut Vec<u8>, spec: &Spec) {
    let code = DType::ALL.iter().find(|(dtype, _)| *dtype == spec.dtype).map_or(0, |x| x.1);
    out.push(code);
    put_u32(out, spec.dims.len() as u32);
    for dim in &spec.dims {
        match dim {
            Dim::Fixed(n) => {
                out.push(0);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Dim::Symbol(symbol) => {
                out.push(1);
                put_text(out, symbol.as_str());
            }
        }
    }
}

fn put_state(out: &mut Vec<u8>, spec: &StateSpec) {
    put_text(out, &spec.name);
    match spec.per {
        Per::Token { window } => {
            out.push(0);
            put_u32(out, window);
        }
        Per::Sequence => out.push(1),
    }
    put_u32(out, spec.parts.len() as u32);
    for part in &spec.parts {
        put_text(out, &part.name);
        put_u32(out, part.dims.len() as u32);
        part.dims.iter().for_each(|&n| put_u32(out, n));
    }
}

fn put_attrs(out: &mut Vec<u8>, attrs: &Attrs) {
    put_u32(out, attrs.0.len() as u32);
    for (name, attr) in attrs.iter() {
        put_text(out, name);
        match attr {
            Attr::Int(x) => {
                out.push(0);
                out.extend_from_slice(&x.to_le_bytes());
            }
            Attr::Float(x) => {
                out.push(1);
                out.extend_from_slice(&x.to_le_bytes());
            }
            Attr::Text(x) => {
                out.push(2);
                put_text(out, x);
            }
            Attr::Ints(x) => {
                out.push(3);
                put_u32(out, x.len() as u32);
                x.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
            }
            Attr::Floats(x) => {
                out.push(4);
                put_u32(out, x.len() as u32);
                x.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
            }
        }
    }
}

fn put_vals(out: &mut Vec<u8>, vals: &[Val]) {
    put_u32(out, vals.len() as u32);
    vals.iter().for_each(|val| put_u32(out, val.0));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn plan(&mut self, depth: u32) -> Result<Plan> {
        if depth > DEPTH_MAX {
            return Err(Error::malformed("plan", format!("depth to {DEPTH_MAX}"), depth));
        }
        let mut b = PlanBuilder::new();
        for _ in 0..self.count(9)? {
            let val = self.u32()?;
            let (name, spec) = (self.text()?, self.spec()?);
            same("input", val, b.input(name, spec)?)?;
        }
        for _ in 0..self.count(9)? {
            let val = self.u32()?;
            let (name, spec) = (self.text()?, self.spec()?);
            same("weight", val, b.declare_weight(name, spec)?)?;
        }
        for _ in 0..self.count(13)? {
            let val = self.u32()?;
            let spec = self.state()?;
            same("state", val, b.state(spec)?)?;
        }
        for _ in 0..self.count(9)? {
            let kind = self.u8()?;
            let outputs = match kind {
                0 => {
                    let (op, attrs) = (self.op()?, self.attrs()?);
                    b.op(op, &self.vals()?, attrs)?
                }
                1 => {
                    let (op, attrs) = (self.op()?, self.attrs()?);
                    let expansion = self.plan(depth + 1)?;
                    b.fused(op, &self.vals()?, attrs, expansion)?
                }
                2 => {
                    let callback = self.text()?;
                    let count = self.count(5)?;
                    let specs: Vec<Spec> =
                        (0..count).map(|_| self.spec()).collect::<Result<_>>()?;
                    b.call(callback, &self.vals()?, &specs)?
                }
                other => return Err(Error::malformed("node", "kind 0, 1 or 2", other)),
            };
            if self.vals()? != outputs {
                return Err(Error::malformed("node", format!("{outputs:?}"), "other results"));
            }
        }
        for _ in 0..self.count(8)? {
            let (name, val) = (self.text()?, Val(self.u32()?));
            b.output(name, val)?;
        }
        Ok(b.finish())
    }

    fn spec(&mut self) -> Result<Spec> {
        let code = self.u8()?;
        let dtype = DType::ALL.iter().find(|(_, known)| *known == code);
        let (dtype, _) = dtype.ok_or_else(|| Error::malformed("dtype", "0 to 5", code))?;
        let mut dims = Vec::new();
        for _ in 0..self.count(5)? {
            dims.push(match self.u8()? {
                0 => Dim::Fixed(u64::from_le_bytes(self.array()?)),
                1 => Dim::Symbol(Word::new(self.text()?)?),
                other => return Err(Error::malformed("extent", "0 or 1", other)),
            });
        }
        Ok(Spec::new(*dtype, dims))
    }

    fn state(&mut self) -> Result<StateSpec> {
        let name = self.text()?.to_owned();
        let per = match self.u8()? {
            0 => Per::Token { window: self.u32()? },
            1 => Per::Sequence,
            other => return Err(Error::malformed("state", "per token or sequence", other)),
        };
        let mut parts = Vec::new();
        for _ in 0..self.count(8)? {
            let name = self.text()?.to_owned();
            let dims = (0..self.count(4)?).map(|_| self.u32()).collect::<Result<_>>()?;
            parts.push(Part { name, dims });
        }
        Ok(StateSpec { name, per, parts })
    }

    fn attrs(&mut self) -> Result<Attrs> {
        let mut attrs = Attrs::new();
        for _ in 0..self.count(9)? {
            let name = self.text()?;
            attrs = attrs.with(
                name,
                match self.u8()? {
                    0 => Attr::Int(i64::from_le_bytes(self.array()?)),
                    1 => Attr::Float(f64::from_le_bytes(self.array()?)),
                    2 => Attr::Text(self.text()?.to_owned()),
                    3 => {
                        let n = self.count(8)?;
                        let ints = (0..n).map(|_| Ok(i64::from_le_bytes(self.array()?)));
                        Attr::Ints(ints.collect::<Result<_>>()?)
                    }
                    4 => {
                        let n = self.count(4)?;
                        let floats = (0..n).map(|_| Ok(f32::from_le_bytes(self.array()?)));
                        Attr::Floats(floats.collect::<Result<_>>()?)
                    }
                    other => return Err(Error::malformed("attribute", "type 0 to 4", other)),
                },
            );
        }
        Ok(attrs)
    }

    fn op(&mut self) -> Result<OpId> {
        Word::new(self.text()?)
    }

    fn vals(&mut self) -> Result<Vec<Val>> {
        (0..self.count(4)?).map(|_| self.u32().map(Val)).collect()
    }

    /// A count of items of at least `bytes_each`: more than the rest can hold is refused.
    fn count(&mut self, bytes_each: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / bytes_each {
            return Err(Error::malformed(
                "count",
                format!("at most {} in {} bytes", self.rest.len() / bytes_each, self.rest.len()),
                count,
            ));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = self.count(1)?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|e| Error::malformed("text", "UTF-8", e))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.rest.len() {
            return Err(Error::malformed("plan", format!("{n} more bytes"), self.rest.len()));
        }
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(taken)
    }
}

fn same(what: &str, written: u32, val: Val) -> Result<()> {
    if written == val.0 { Ok(()) } else { Err(Error::malformed(what, val.0, written)) }
}
