//! From a plan to instructions: names, shapes and attributes are resolved here, once.

mod arena;
mod attention;
mod builder;
mod chain;
mod elements;
mod experts;
mod fused;
mod lower;
mod product;
mod recurrence;
mod training;

use plugin_api::kinds::backend::{BindingCheck, Bucket, MemoryMap, NodeView, Support};
use plugin_api::plan::{NodeKind, Plan};
use plugin_api::{Error, Result};

use self::builder::Builder;
use crate::code::{Code, WeightPlan};
use crate::frame::OUTPUTS_MAX;
use crate::layout::{Packing, layout};
use crate::size::Symbols;
use crate::support::support;

/// Compiles a plan for all sizes up to `bucket`; quantized activations are sums of `terms` rows.
pub(crate) fn compile(
    plan: &Plan,
    bucket: &Bucket,
    memory: &MemoryMap,
    terms: usize,
) -> Result<Code> {
    check_values(plan)?;
    for node in &plan.nodes {
        if let Support::No(missing) = support(&NodeView { plan, node }) {
            let what = match &node.kind {
                NodeKind::Prim(op, _) | NodeKind::Fused { op, .. } => format!("op `{op}`"),
                NodeKind::Call { callback } => format!("call `{callback}`"),
            };
            return Err(Error::unsupported(what, missing));
        }
    }
    if plan.outputs.len() > OUTPUTS_MAX {
        return Err(Error::unsupported("plan", format!("more than {OUTPUTS_MAX} outputs")));
    }
    // Finds maps that are not the plan's, before they are used.
    BindingCheck::new(plan, bucket, memory, 0)?;
    let symbols = plan.symbols().into_iter().map(|symbol| (symbol, bucket.max(symbol)));
    let mut builder = Builder::new(plan, memory, Symbols(symbols.collect()), weights(memory)?);
    builder.terms = terms;
    builder.plan(plan)?;
    let drafts = chain::join(builder.drafts, &builder.slots);
    let (slots, instructions, scratch_bytes) =
        arena::place(builder.slots, drafts, &builder.symbols)?;
    Ok(Code {
        check: BindingCheck::new(plan, bucket, memory, scratch_bytes)?,
        index_checks: builder.index_checks,
        slots,
        instructions,
        weights: builder.weights,
        constants: builder.constants,
        scratch_bytes,
    })
}

/// Every value that is named exists.
fn check_values(plan: &Plan) -> Result<()> {
    let ports = [&plan.inputs, &plan.weights, &plan.outputs].into_iter().flatten();
    let ports = ports.map(|port| port.val).chain(plan.states.iter().map(|port| port.val));
    let nodes = plan.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs));
    match ports.chain(nodes.copied()).find(|val| val.index() >= plan.specs.len()) {
        Some(val) => Err(Error::malformed("plan", "a value of this plan", val.0)),
        None => Ok(()),
    }
}

/// The weights of a memory map, if they are packed as this backend packs them.
fn weights(memory: &MemoryMap) -> Result<Vec<WeightPlan>> {
    let weight = |place: &plugin_api::kinds::backend::WeightPlace| {
        let mine = layout(&place.desc, &place.lowering)?;
        if mine != place.layout {
            let expected = format!("layout {:?}", mine.id);
            return Err(Error::shape(&place.desc.name, expected, format!("{:?}", place.layout.id)));
        }
        Ok(WeightPlan {
            packing: Packing::of(&place.desc, &place.lowering),
            rows: place.desc.rows,
            cols: place.desc.cols,
            size_bytes: mine.size_bytes(place.desc.rows),
        })
    };
    memory.weights.iter().map(weight).collect()
}
