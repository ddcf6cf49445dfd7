//! Runs a plan op by op over `kernels-reference`: what a plan means, in numbers.
//!
//! It computes in `f32` or `f64` ([`Arithmetic`]), allocates as it likes and checks everything it
//! is given, so that a wrong index is an error and never a panic. Contract suites call it through
//! [`Feed`]; `backends/reference` calls [`run`] with memory of the host.

mod attend;
mod feed;
mod moves;
mod op;
mod recurrence;
mod state;
mod value;

pub use feed::Feed;
pub use state::{OwnedArena, StateArena};
pub use value::{Arithmetic, Numbers};

use self::op::Call;
use self::value::Value;
use crate::error::{Error, Result};
use crate::plan::{Dim, NodeKind, Plan, Port, Spec, Symbol, Val};
use crate::tensor::TensorRef;

/// How nodes with an expansion run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusedAs {
    /// As the smaller ops that they mean.
    Expansion,
    /// As one kernel, where there is one.
    Whole,
}

/// What one run reads.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    /// The value of each symbol, in the order of [`Plan::symbols`].
    pub sizes: &'a [usize],
    /// In the order of the plan's inputs.
    pub inputs: &'a [TensorRef<'a>],
    /// In the order of the plan's weights, dense rows.
    pub weights: &'a [&'a [f32]],
    /// How fused nodes run.
    pub fused: FusedAs,
}

/// Runs `plan` and returns its outputs in order.
///
/// # Errors
///
/// [`Error::ShapeMismatch`] if the arguments are not those of the plan or an index points outside
/// of what it indexes; [`Error::Unsupported`] for calls and for dtypes that ops do not take. The
/// state may then hold keys and values of the failed run.
pub fn run<T: Arithmetic>(
    plan: &Plan,
    args: Args<'_>,
    state: &mut StateArena<'_>,
) -> Result<Vec<Numbers<T>>> {
    let symbols = plan.symbols();
    expect_count("sizes", symbols.len(), args.sizes.len())?;
    expect_count("inputs", plan.inputs.len(), args.inputs.len())?;
    expect_count("weights", plan.weights.len(), args.weights.len())?;
    let sizes: Vec<_> = symbols.into_iter().zip(args.sizes.iter().copied()).collect();
    let runner = Runner { sizes: &sizes, fused: args.fused };
    let mut given = Vec::new();
    for (port, input) in plan.inputs.iter().zip(args.inputs) {
        runner.expect_len(plan, port, input.len())?;
        if plan.spec(port.val).dtype.is_float() != input.dtype().is_float() {
            return Err(Error::shape(&port.name, plan.spec(port.val), input.dtype()));
        }
        given.push(Value::of(*input));
    }
    let mut weights = Vec::new();
    for (port, weight) in plan.weights.iter().zip(args.weights) {
        runner.expect_len(plan, port, weight.len())?;
        weights.push(Value::Weight(weight));
    }
    runner.plan(plan, given, weights, state)
}

struct Runner<'a> {
    sizes: &'a [(Symbol, usize)],
    fused: FusedAs,
}

impl Runner<'_> {
    fn plan<'v, T: Arithmetic>(
        &self,
        plan: &'v Plan,
        inputs: Vec<Value<'v, T>>,
        weights: Vec<Value<'v, T>>,
        state: &mut StateArena<'_>,
    ) -> Result<Vec<Numbers<T>>> {
        let mut values: Vec<Option<Value<'v, T>>> = Vec::new();
        values.resize_with(plan.specs.len(), || None);
        let ports = plan.inputs.iter().zip(inputs).chain(plan.weights.iter().zip(weights));
        for (port, value) in ports {
            values[port.val.index()] = Some(value);
        }
        for (i, port) in plan.states.iter().enumerate() {
            values[port.val.index()] = Some(Value::State(i));
        }
        let last_uses = last_uses(plan);
        for (at, node) in plan.nodes.iter().enumerate() {
            let results = self.node(plan, at, &values, state)?;
            for (&val, result) in node.outputs.iter().zip(results) {
                values[val.index()] = Some(result.into());
            }
            for &val in &node.inputs {
                if last_uses[val.index()] == at {
                    values[val.index()] = None;
                }
            }
        }
        let output = |port: &Port| value_at(&values, port.val).map(Value::to_numbers)?;
        plan.outputs.iter().map(output).collect()
    }

    fn node<T: Arithmetic>(
        &self,
        plan: &Plan,
        at: usize,
        values: &[Option<Value<'_, T>>],
        state: &mut StateArena<'_>,
    ) -> Result<Vec<Numbers<T>>> {
        let node = &plan.nodes[at];
        let mut args = Vec::new();
        for &val in &node.inputs {
            args.push((value_at(values, val)?, self.shape(plan.spec(val))?));
        }
        let results: Vec<&Spec> = node.outputs.iter().map(|&val| plan.spec(val)).collect();
        match &node.kind {
            NodeKind::Prim(op, attrs) => {
                Call { op: *op, attrs, args, results }.run(&plan.states, state)
            }
            NodeKind::Fused { op, attrs, expansion } => {
                if self.fused == FusedAs::Whole
                    && let Some(whole) =
                        (Call { op: *op, attrs, args: args.clone(), results }).whole()
                {
                    return whole;
                }
                let inputs = args.into_iter().map(|(value, _)| value.borrowed()).collect();
                self.plan(expansion, inputs, Vec::new(), state)
            }
            NodeKind::Call { callback } => {
                Err(Error::unsupported(format!("call `{callback}`"), "the interpreter takes none"))
            }
        }
    }

    fn shape(&self, spec: &Spec) -> Result<Vec<usize>> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(n) => usize::try_from(*n).ok(),
            Dim::Symbol(symbol) => {
                self.sizes.iter().find(|(name, _)| name == symbol).map(|(_, n)| *n)
            }
        };
        let shape: Option<Vec<usize>> = spec.dims.iter().map(size).collect();
        let is_fit = |shape: &Vec<usize>| shape.iter().try_fold(1_usize, |n, &x| n.checked_mul(x));
        let shape = shape.filter(|shape| is_fit(shape).is_some());
        shape.ok_or_else(|| Error::shape("value", "sizes that fit into memory", spec))
    }

    fn expect_len(&self, plan: &Plan, port: &Port, len: usize) -> Result<()> {
        let spec = plan.spec(port.val);
        let expected: usize = self.shape(spec)?.iter().product();
        if len == expected {
            Ok(())
        } else {
            Err(Error::shape(&port.name, format!("{expected} elements of {spec}"), len))
        }
    }
}

fn expect_count(what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::shape(what, expected, found)) }
}

fn value_at<'v, 'p, T: Arithmetic>(
    values: &'v [Option<Value<'p, T>>],
    val: Val,
) -> Result<&'v Value<'p, T>> {
    let value = values.get(val.index()).and_then(Option::as_ref);
    value.ok_or_else(|| Error::malformed("plan", "values in an order that can be run", val.0))
}

/// The node after which each value is not read again; outputs of the plan are read at the end.
fn last_uses(plan: &Plan) -> Vec<usize> {
    let mut last_uses = vec![usize::MAX; plan.specs.len()];
    for (at, node) in plan.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|val| last_uses[val.index()] = at);
    }
    plan.outputs.iter().for_each(|port| last_uses[port.val.index()] = usize::MAX);
    last_uses
}
