//! From a plan to steps over slots of one arena on the device.
//!
//! Expansions are written out in place. What can be wrong with a plan, other than indices that
//! arrive with a run, is found here; no device is needed for it. Every value has a slot of its own.

use kernels_cuda::Rhs;
use plugin_api::kinds::backend::{BindingCheck, Bucket, MemoryMap, NodeView, Support};
use plugin_api::plan::{Node, NodeKind, Plan, Spec};
use plugin_api::{DType, Error, Result};

use crate::layout::{Packing, layout};
use crate::op::Op;
use crate::size::{Size, Symbols};
use crate::step::{Place, Step};
use crate::support::support;

/// A compiled plan.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) check: BindingCheck,
    /// Inputs whose indices must stay below a size.
    pub(crate) indices: Vec<(usize, Size)>,
    /// What has a place in the arena; the plan's inputs are the first.
    pub(crate) slots: Vec<Slot>,
    pub(crate) weights: Vec<Weight>,
    pub(crate) steps: Vec<Step>,
    /// Where each output is copied from.
    pub(crate) outputs: Vec<Place>,
    /// Bytes of the arena.
    pub(crate) arena_bytes: usize,
}

/// A value in the arena.
#[derive(Debug)]
pub(crate) struct Slot {
    /// A multiple of [`ALIGN`].
    pub(crate) offset: usize,
    pub(crate) len: Size,
}

/// A packed weight.
#[derive(Debug)]
pub(crate) struct Weight {
    pub(crate) packing: Packing,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) size_bytes: usize,
}

/// Compiles a plan.
pub(crate) fn compile(plan: &Plan, bucket: &Bucket, memory: &MemoryMap) -> Result<Code> {
    let check = BindingCheck::new(plan, bucket, memory, 0)?;
    let mut weights = Vec::with_capacity(memory.weights.len());
    for place in &memory.weights {
        let desc = &place.desc;
        if place.layout != layout(desc, &place.lowering)? {
            let what = format!("{} as {}", desc.name, place.layout.id.0);
            return Err(Error::unsupported(what, "only layouts of this backend"));
        }
        weights.push(Weight {
            packing: Packing::of(desc, &place.lowering),
            rows: desc.rows,
            cols: desc.cols,
            size_bytes: place.layout.size_bytes(desc.rows),
        });
    }
    let symbols = Symbols(check.symbols().to_vec());
    let (indices, slots, steps) = (Vec::new(), Vec::new(), Vec::new());
    let code = Code { check, indices, slots, weights, steps, outputs: Vec::new(), arena_bytes: 0 };
    let mut lower = Lower { num_inputs: plan.inputs.len(), symbols, code };
    let mut values = vec![Value::None; plan.specs.len()];
    for port in &plan.inputs {
        values[port.val.index()] = Value::Slot(lower.slot(plan.spec(port.val))?);
    }
    for (i, port) in plan.weights.iter().enumerate() {
        values[port.val.index()] = Value::Weight(i);
    }
    let outputs = lower.plan(plan, values, None)?;
    for (port, value) in plan.outputs.iter().zip(outputs) {
        let place = lower.place(value).map_err(|what| Error::unsupported(&port.name, what))?;
        lower.code.outputs.push(place);
    }
    Ok(lower.code)
}

/// What a value of a plan is here.
#[derive(Debug, Clone, Copy)]
enum Value {
    /// A state, which no op here takes.
    None,
    Slot(usize),
    Weight(usize),
}

struct Lower {
    num_inputs: usize,
    symbols: Symbols,
    code: Code,
}

impl Lower {
    /// Appends the nodes of `plan`; gives its outputs. `within` names the node that it expands.
    fn plan(
        &mut self,
        plan: &Plan,
        mut values: Vec<Value>,
        within: Option<&str>,
    ) -> Result<Vec<Value>> {
        for (at, node) in plan.nodes.iter().enumerate() {
            let name = match within {
                Some(outer) => format!("{outer}, {}", name_of(&node.kind)),
                None => format!("node {at}, {}", name_of(&node.kind)),
            };
            match (&node.kind, support(&NodeView { plan, node })) {
                (_, Support::No(missing)) => return Err(Error::unsupported(name, missing)),
                (NodeKind::Fused { expansion, .. }, Support::Expand) => {
                    let results = self.expansion(expansion, node, &values, &name)?;
                    for (val, result) in node.outputs.iter().zip(results) {
                        values[val.index()] = result;
                    }
                }
                _ => {
                    let result = self.node(plan, node, &values, &name)?;
                    values[node.outputs[0].index()] = result;
                }
            }
        }
        Ok(plan.outputs.iter().map(|port| values[port.val.index()]).collect())
    }

    fn expansion(
        &mut self,
        plan: &Plan,
        node: &Node,
        outer: &[Value],
        name: &str,
    ) -> Result<Vec<Value>> {
        let counts = [plan.inputs.len(), plan.outputs.len()];
        if counts != [node.inputs.len(), node.outputs.len()] {
            return Err(Error::shape(name, "the inputs and outputs of its expansion", "others"));
        }
        let mut values = vec![Value::None; plan.specs.len()];
        for (port, given) in plan.inputs.iter().zip(&node.inputs) {
            values[port.val.index()] = outer[given.index()];
        }
        self.plan(plan, values, Some(name))
    }

    /// Appends the step of a node that [`support`] has found native.
    fn node(&mut self, plan: &Plan, node: &Node, values: &[Value], name: &str) -> Result<Value> {
        let op = Op::of(&node.kind)?;
        let op = op.ok_or_else(|| Error::unsupported(name, "it has no kernel"))?;
        let given = |i: usize| values[node.inputs[i].index()];
        let spec = |i: usize| plan.spec(node.inputs[i]);
        self.check_shapes(op, plan, node, name)?;
        if op == Op::Reshape {
            return Ok(given(0));
        }
        let out = self.slot(plan.spec(node.outputs[0]))?;
        let dense =
            |lower: &Self, i| lower.place(given(i)).map_err(|what| Error::unsupported(name, what));
        let step = match op {
            Op::Reshape => return Ok(given(0)),
            Op::Unary(op) => Step::Unary { op, x: dense(self, 0)?, out },
            Op::Swiglu => Step::Swiglu { args: [dense(self, 0)?, dense(self, 1)?], out },
            Op::RmsNorm { eps, weight_offset } => {
                let args = [dense(self, 0)?, dense(self, 1)?];
                Step::RmsNorm { args, eps, weight_offset, out }
            }
            Op::Binary(op) => {
                let args = [dense(self, 0)?, dense(self, 1)?];
                let (rows, width) = (self.symbols.rows(spec(0))?, self.symbols.width(spec(0))?);
                Step::Binary { op, layout: rhs_of(spec(0), spec(1)), args, rows, width, out }
            }
            Op::Matmul => {
                let x = dense(self, 0)?;
                let (rows, k) = (self.symbols.rows(spec(0))?, self.symbols.width(spec(0))?);
                if let Some((weight, shape)) = self.affine(given(1)) {
                    let n = self.expect_shape(weight, spec(1), name)?;
                    Step::MatmulAffine { x, weight, shape, rows, n, out }
                } else {
                    let n = self.symbols.rows(spec(1))?;
                    Step::Matmul { args: [x, dense(self, 1)?], rows, n, k, out }
                }
            }
            Op::Embed => self.embed([given(0), given(1)], spec(0), name, out)?,
        };
        self.code.steps.push(step);
        Ok(Value::Slot(out))
    }

    /// What kernels take for granted, also of plans that no builder has checked.
    fn check_shapes(&self, op: Op, plan: &Plan, node: &Node, name: &str) -> Result<()> {
        let spec = |i: usize| plan.spec(node.inputs[i]);
        let result = plan.spec(node.outputs[0]);
        let symbols = &self.symbols;
        let (first, out) = (symbols.len(spec(0))?, symbols.len(result)?);
        let (rows, width) = (symbols.rows(spec(0))?, symbols.width(spec(0))?);
        let is_fit = match op {
            Op::Unary(_) | Op::Reshape => first == out,
            Op::Swiglu => first == out && symbols.len(spec(1))? == out,
            Op::RmsNorm { .. } => first == out && symbols.len(spec(1))? == width,
            Op::Binary(_) => {
                let rhs = symbols.len(spec(1))?;
                first == out
                    && match rhs_of(spec(0), spec(1)) {
                        Rhs::Same => true,
                        Rhs::Row => rhs == width,
                        Rhs::Column => rhs == rows,
                    }
            }
            Op::Matmul => {
                symbols.width(spec(1))? == width && rows.times(&symbols.rows(spec(1))?) == out
            }
            Op::Embed => symbols.len(spec(1))?.times(&width) == out,
        };
        let specs = || node.inputs.iter().map(|&val| plan.spec(val).to_string());
        let found = || format!("{} to {result}", specs().collect::<Vec<_>>().join(" and "));
        if is_fit { Ok(()) } else { Err(Error::shape(name, "shapes of this op", found())) }
    }

    fn embed(
        &mut self,
        [table, ids]: [Value; 2],
        spec: &Spec,
        name: &str,
        out: usize,
    ) -> Result<Step> {
        // No op here gives indices: they are inputs, and checked before anything runs.
        let Value::Slot(ids) = ids else { return Err(no_input(name)) };
        if ids >= self.num_inputs {
            return Err(no_input(name));
        }
        let (rows, width) = (self.symbols.rows(spec)?, self.symbols.width(spec)?);
        if let Some((weight, shape)) = self.affine(table) {
            let rows = self.expect_shape(weight, spec, name)?;
            self.code.indices.push((ids, Size::fixed(rows)));
            return Ok(Step::EmbedAffine { weight, shape, ids, out });
        }
        let table = self.place(table).map_err(|what| Error::unsupported(name, what))?;
        self.code.indices.push((ids, rows.clone()));
        Ok(Step::Embed { table, rows, width, ids, out })
    }

    /// A new place in the arena.
    fn slot(&mut self, spec: &Spec) -> Result<usize> {
        let len = self.symbols.len(spec)?;
        // 16-bit floats cross the boundary as `f32`.
        let element_bytes = if spec.dtype == DType::F64 { 8 } else { 4 };
        let size_bytes = (self.symbols.max(&len) * element_bytes).next_multiple_of(ALIGN);
        let offset = self.code.arena_bytes;
        let end = offset.checked_add(size_bytes);
        self.code.arena_bytes =
            end.ok_or_else(|| Error::shape("plan", "values that fit into memory", spec))?;
        self.code.slots.push(Slot { offset, len });
        Ok(self.code.slots.len() - 1)
    }

    /// Where a value lies as plain numbers, or why it does not.
    fn place(&self, value: Value) -> Result<Place, &'static str> {
        match value {
            Value::Slot(slot) => Ok(Place::Slot(slot)),
            Value::Weight(weight) if self.code.weights[weight].packing == Packing::Dense => {
                Ok(Place::Weight(weight))
            }
            Value::Weight(_) => Err("quantized weights, other than by matmul and embed"),
            Value::None => Err("states"),
        }
    }

    fn affine(&self, value: Value) -> Option<(usize, kernels_cuda::AffineShape)> {
        let Value::Weight(weight) = value else { return None };
        match self.code.weights[weight].packing {
            Packing::Affine(shape) => Some((weight, shape)),
            Packing::Dense => None,
        }
    }

    /// The rows of a weight whose shape in the plan is that of its rows in memory.
    fn expect_shape(&self, weight: usize, spec: &Spec, name: &str) -> Result<usize> {
        let Weight { rows, cols, .. } = self.code.weights[weight];
        let expected = [Size::fixed(rows), Size::fixed(cols)];
        if [self.symbols.rows(spec)?, self.symbols.width(spec)?] == expected {
            Ok(rows)
        } else {
            Err(Error::shape(name, spec, format!("[{rows}, {cols}] in memory")))
        }
    }
}

/// How `b` lies against `a`; the plan has checked that it fits.
fn rhs_of(a: &Spec, b: &Spec) -> Rhs {
    if a.dims == b.dims {
        Rhs::Same
    } else if b.dims.len() == 1 && b.dims.last() == a.dims.last() {
        Rhs::Row
    } else {
        Rhs::Column
    }
}

fn name_of(kind: &NodeKind) -> String {
    match kind {
        NodeKind::Prim(op, _) | NodeKind::Fused { op, .. } => format!("op `{op}`"),
        NodeKind::Call { callback } => format!("call `{callback}`"),
    }
}

fn no_input(name: &str) -> Error {
    Error::unsupported(name, "indices that are no input of the plan")
}

/// Bytes that slots start at a multiple of: what the device reads at once.
const ALIGN: usize = 256;
