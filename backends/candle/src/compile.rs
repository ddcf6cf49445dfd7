//! From a plan to a flat list of instructions over numbered values.
//!
//! Expansions are written out in place. What can be wrong with a plan, other than indices that
//! arrive with a run, is found here.

use plugin_api::kinds::backend::{BindingCheck, Bucket, MemoryMap, NodeView, Support};
use plugin_api::plan::{Attrs, Dim, Node, NodeKind, OpId, Plan, Port, Spec, Symbol, ops};
use plugin_api::{DType, Error, Result};

use crate::attend::Attend;
use crate::op::Op;
use crate::support::{carrier, support};
use crate::weights::Weights;

/// A compiled plan.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) check: BindingCheck,
    /// Values of the plan and of the expansions in it.
    pub(crate) num_values: usize,
    pub(crate) inputs: Vec<Slot>,
    pub(crate) weights: Weights,
    /// The value of each weight.
    pub(crate) weight_values: Vec<usize>,
    pub(crate) instructions: Vec<Instruction>,
    /// The value of each output.
    pub(crate) outputs: Vec<usize>,
}

/// One op on numbered values.
#[derive(Debug)]
pub(crate) struct Instruction {
    pub(crate) name: OpId,
    pub(crate) work: Work,
    pub(crate) args: Vec<usize>,
    pub(crate) results: Vec<Slot>,
    /// Values that nobody reads after this.
    pub(crate) drops: Vec<usize>,
}

/// What an instruction does.
#[derive(Debug)]
pub(crate) enum Work {
    /// Tensors to tensors.
    Op(Op),
    /// The same, over the state arena.
    Attend(Attend),
}

/// A value with what it is made of.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) value: usize,
    /// What it is computed in.
    pub(crate) dtype: candle_core::DType,
    extents: Vec<Extent>,
}

#[derive(Debug, Clone, Copy)]
enum Extent {
    Fixed(usize),
    /// The index of a symbol.
    Symbol(usize),
}

impl Slot {
    /// The shape in a run with these sizes.
    pub(crate) fn shape(&self, sizes: &[usize]) -> Vec<usize> {
        let extent = |extent: &Extent| match *extent {
            Extent::Fixed(n) => n,
            Extent::Symbol(i) => sizes[i],
        };
        self.extents.iter().map(extent).collect()
    }
}

/// Compiles a plan.
pub(crate) fn compile(
    plan: &Plan,
    bucket: &Bucket,
    memory: &MemoryMap,
    has_independent_rows: bool,
) -> Result<Code> {
    let check = BindingCheck::new(plan, bucket, memory, 0)?;
    let mut lower = Lower {
        top: plan,
        memory,
        has_independent_rows,
        symbols: check.symbols().to_vec(),
        instructions: Vec::new(),
        num_values: plan.specs.len(),
    };
    let inputs = plan.inputs.iter().map(|port| lower.slot(port.val.index(), plan.spec(port.val)));
    let inputs = inputs.collect::<Result<_>>()?;
    let outputs = lower.plan(plan, (0..plan.specs.len()).collect())?;
    let Lower { mut instructions, num_values, .. } = lower;
    mark_drops(&mut instructions, num_values, &outputs);
    let weights = Weights::new(plan, memory)?;
    let weight_values = plan.weights.iter().map(|port| port.val.index()).collect();
    Ok(Code { check, num_values, inputs, weights, weight_values, instructions, outputs })
}

struct Lower<'a> {
    /// The plan whose states there are.
    top: &'a Plan,
    memory: &'a MemoryMap,
    has_independent_rows: bool,
    symbols: Vec<(Symbol, usize)>,
    instructions: Vec<Instruction>,
    num_values: usize,
}

impl Lower<'_> {
    /// Appends the nodes of `plan`, whose values have the numbers `values`; gives its outputs.
    fn plan(&mut self, plan: &Plan, mut values: Vec<usize>) -> Result<Vec<usize>> {
        for node in &plan.nodes {
            match (&node.kind, support(&NodeView { plan, node })) {
                (NodeKind::Prim(op, attrs), Support::Native)
                | (NodeKind::Fused { op, attrs, .. }, Support::Native) => {
                    self.node(*op, attrs, plan, node, &values)?;
                }
                (NodeKind::Fused { op, expansion, .. }, Support::Expand) => {
                    let results = self.expansion(*op, expansion, node, &values)?;
                    for (val, result) in node.outputs.iter().zip(results) {
                        values[val.index()] = result;
                    }
                }
                (kind, Support::No(missing)) => {
                    return Err(Error::unsupported(what(kind), missing));
                }
                (kind, _) => return Err(Error::unsupported(what(kind), "it has no expansion")),
            }
        }
        Ok(plan.outputs.iter().map(|port| values[port.val.index()]).collect())
    }

    fn expansion(
        &mut self,
        op: OpId,
        plan: &Plan,
        node: &Node,
        outer: &[usize],
    ) -> Result<Vec<usize>> {
        if !plan.weights.is_empty() || !plan.states.is_empty() {
            return Err(Error::unsupported(op, "an expansion with weights or states of its own"));
        }
        let counts = [plan.inputs.len(), plan.outputs.len()];
        if counts != [node.inputs.len(), node.outputs.len()] {
            return Err(Error::shape(op, "the inputs and outputs of its expansion", "others"));
        }
        let mut values: Vec<usize> = (self.num_values..).take(plan.specs.len()).collect();
        self.num_values += plan.specs.len();
        for (Port { val, .. }, given) in plan.inputs.iter().zip(&node.inputs) {
            values[val.index()] = outer[given.index()];
        }
        self.plan(plan, values)
    }

    fn node(
        &mut self,
        op: OpId,
        attrs: &Attrs,
        plan: &Plan,
        node: &Node,
        values: &[usize],
    ) -> Result<()> {
        let mut args: Vec<usize> = node.inputs.iter().map(|val| values[val.index()]).collect();
        let results =
            node.outputs.iter().map(|val| self.slot(values[val.index()], plan.spec(*val)));
        let results = results.collect::<Result<Vec<_>>>()?;
        let specs: Vec<&Spec> = node.inputs.iter().map(|&val| plan.spec(val)).collect();
        let work = if op == ops::ATTEND {
            let found = || Error::shape(op, "seven inputs, the fourth a state", node.inputs.len());
            let state = *args.get(STATE).filter(|_| args.len() == 7).ok_or_else(found)?;
            let state = self.top.states.iter().position(|port| port.val.index() == state);
            let state = state.ok_or_else(found)?;
            args.remove(STATE);
            let place = &self.memory.states[state];
            let spec = &self.top.states[state].spec;
            Work::Attend(Attend::new(attrs, &specs, spec, place, self.memory.block_size)?)
        } else {
            let dtype = node.outputs.first().map_or(DType::F32, |&val| plan.spec(val).dtype);
            let op = match Op::new(op, attrs, specs.len(), dtype)? {
                Op::Matmul { .. } => Op::Matmul { in_blocks: self.has_independent_rows },
                op => op,
            };
            Work::Op(op)
        };
        self.instructions.push(Instruction { name: op, work, args, results, drops: Vec::new() });
        Ok(())
    }

    fn slot(&self, value: usize, spec: &Spec) -> Result<Slot> {
        let unfit = || Error::shape("value", "sizes and numbers of this backend", spec);
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(n) => usize::try_from(*n).ok().map(Extent::Fixed),
            Dim::Symbol(symbol) => {
                let index = self.symbols.iter().position(|(known, _)| known == symbol);
                index.map(Extent::Symbol)
            }
        };
        let extents: Option<Vec<Extent>> = spec.dims.iter().map(extent).collect();
        let dtype = carrier(spec.dtype).ok_or_else(unfit)?;
        Ok(Slot { value, dtype, extents: extents.ok_or_else(unfit)? })
    }
}

fn what(kind: &NodeKind) -> String {
    match kind {
        NodeKind::Prim(op, _) | NodeKind::Fused { op, .. } => format!("op `{op}`"),
        NodeKind::Call { callback } => format!("call `{callback}`"),
    }
}

/// Lets go of each value after its last use; outputs are kept to the end.
fn mark_drops(instructions: &mut [Instruction], num_values: usize, outputs: &[usize]) {
    let mut is_read = vec![false; num_values];
    outputs.iter().for_each(|&value| is_read[value] = true);
    for instruction in instructions.iter_mut().rev() {
        let results = instruction.results.iter().map(|slot| slot.value);
        for value in instruction.args.iter().copied().chain(results) {
            if !std::mem::replace(&mut is_read[value], true) {
                instruction.drops.push(value);
            }
        }
    }
}

/// Where `attend` takes its state.
const STATE: usize = 3;
