//! Plans with calls, run by the interpreter and the part that is called.

use std::collections::BTreeMap;

use super::interpreter::{Feed, FusedAs, Numbers};
use crate::error::{Error, Result};
use crate::kinds::Traced;
use crate::plan::rewrite::{Named, Stage, cut_at_calls};
use crate::plan::{Dim, NodeKind, Plan};
use crate::tensor::{DType, Shaped, ShapedMut, TensorMut, TensorRef};

/// Whether a plan calls the part that described it.
pub(super) fn has_calls(plan: &Plan) -> bool {
    plan.nodes.iter().any(|node| matches!(node.kind, NodeKind::Call { .. }))
}

/// Runs a plan that keeps nothing, and returns its outputs in order. Calls go to `part`.
///
/// # Errors
///
/// As those of the interpreter and of the part.
pub(super) fn run(part: &dyn Traced, plan: &Plan, feed: &Feed) -> Result<Vec<Numbers<f64>>> {
    let cut = cut_at_calls(plan)?;
    let (mut feed, mut made) = (feed.clone(), BTreeMap::new());
    for stage in &cut.stages {
        let results = match stage {
            Stage::Run(plan) => {
                let names = plan.outputs.iter().map(|port| port.name.clone());
                let results = feed.run::<f64>(plan, FusedAs::Expansion)?;
                names.zip(results).collect::<Vec<_>>()
            }
            Stage::Call { callback, inputs, outputs } => {
                call(part, callback, inputs, outputs, &feed)?
            }
        };
        for (name, numbers) in results {
            feed = match &numbers {
                Numbers::Reals(x) => feed.doubles(&name, x),
                Numbers::Indices(x) => feed.indices(&name, x),
            };
            made.insert(name, numbers);
        }
    }
    let output = |named: &Named| made.get(&named.name).cloned().ok_or_else(|| missing(named));
    cut.outputs.iter().map(output).collect()
}

fn call(
    part: &dyn Traced,
    callback: &str,
    inputs: &[Named],
    outputs: &[Named],
    feed: &Feed,
) -> Result<Vec<(String, Numbers<f64>)>> {
    let dims = |named: &Named| -> Vec<usize> {
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(n) => *n as usize,
            Dim::Symbol(symbol) => feed.size_of(*symbol),
        };
        named.spec.dims.iter().map(extent).collect()
    };
    let (ins, outs): (Vec<_>, Vec<_>) =
        (inputs.iter().map(dims).collect(), outputs.iter().map(dims).collect());
    let reals: Vec<Option<Vec<f32>>> = inputs
        .iter()
        .map(|named| Some(feed.values_of(&named.name)?.iter().map(|&x| x as f32).collect()))
        .collect();
    let mut shaped = Vec::new();
    for ((named, dims), reals) in inputs.iter().zip(&ins).zip(&reals) {
        let indices = || feed.indices_of(&named.name).map(TensorRef::U32);
        let values = reals.as_deref().map(TensorRef::F32).or_else(indices);
        shaped.push(Shaped { dims, values: values.ok_or_else(|| missing(named))? });
    }
    // What is not written shows.
    let len = |dims: &Vec<usize>| dims.iter().product();
    let mut floats: Vec<Vec<f32>> = outs.iter().map(|dims| vec![f32::NAN; len(dims)]).collect();
    let mut indices: Vec<Vec<u32>> = outs.iter().map(|dims| vec![u32::MAX; len(dims)]).collect();
    let rooms = floats.iter_mut().zip(&mut indices).zip(outputs.iter().zip(&outs));
    let mut lent: Vec<ShapedMut<'_>> = rooms
        .map(|((floats, indices), (named, dims))| ShapedMut {
            dims,
            values: match named.spec.dtype {
                DType::U32 => TensorMut::U32(indices),
                _ => TensorMut::F32(floats),
            },
        })
        .collect();
    part.call(callback, &shaped, &mut lent)?;
    let numbers = |((floats, indices), named): ((Vec<f32>, Vec<u32>), &Named)| {
        let numbers = match named.spec.dtype {
            DType::U32 => Numbers::Indices(indices),
            _ => Numbers::Reals(floats.into_iter().map(f64::from).collect()),
        };
        (named.name.clone(), numbers)
    };
    Ok(floats.into_iter().zip(indices).zip(outputs).map(numbers).collect())
}

fn missing(named: &Named) -> Error {
    let (kind, known) = ("value".to_owned(), String::new());
    Error::NotFound { kind, name: named.name.clone(), known }
}
