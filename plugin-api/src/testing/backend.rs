//! Contract suite of backends: every op against the interpreter, the independence of rows, and
//! what happens with wrong bindings.
//!
//! What a backend answers [`Support::No`] to is left out, and checked to be refused. Of plans with
//! [`Support::Skip`] in them no number is looked at, but that they run.

mod attention;
mod cases;
mod hostile;
mod recurrence;
mod rig;
mod within;

use super::interpreter::{Feed, FusedAs, Numbers};
use super::traced::ODD_SIZES;
use crate::error::Error;
use crate::kinds::backend::{Backend, NodeView, Support};
use crate::plan::{Dim, Node, Plan};
use cases::Case;
use rig::Compiled;

/// Rows that are computed together, at most, when their independence is tested.
const MATES: usize = 17;

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite(backend: &dyn Backend) {
    ops(backend);
    attention::check(backend);
    recurrence::check(backend);
    within::check(backend);
    bindings(backend);
    hostile::check_indices(backend);
}

/// Every op and lowering, at every odd size, against the interpreter in `f64`; and that the bits
/// of a row are the same whatever is computed with it.
///
/// # Panics
///
/// With the op that is wrong.
pub fn ops(backend: &dyn Backend) {
    for case in cases::all() {
        check_case(backend, &case);
    }
}

/// That wrong bindings are typed errors which leave outputs as they were.
///
/// # Panics
///
/// With the mistake that was not refused.
pub fn bindings(backend: &dyn Backend) {
    assert!(!backend.domains().is_empty(), "memory for a backend lies somewhere");
    hostile::check_bindings(backend);
    hostile::check_compiling(backend);
    hostile::check_empty_rows(backend);
}

fn check_case(backend: &dyn Backend, case: &Case) {
    let most = ODD_SIZES.into_iter().max().unwrap_or(1);
    let bucket = case.bucket(most);
    let compiled = match Compiled::new(backend, &case.plan, &case.weights, &bucket, None) {
        Ok(compiled) => compiled,
        Err(error) => return check_refusal(backend, &case.plan, &error),
    };
    assert!(!is_refused(backend, &case.plan), "{}: compiles what it does not support", case.name);
    for tokens in ODD_SIZES {
        let feed = case.feed(tokens);
        let found = compiled.run(&feed).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        if skips(backend, &case.plan) {
            continue;
        }
        let expected = case.with_weights(&feed).run::<f64>(&case.plan, FusedAs::Expansion);
        let expected = expected.unwrap_or_else(|e| panic!("{}, interpreted: {e}", case.name));
        for (found, expected) in found.into_iter().zip(expected) {
            compare(case, tokens, found, expected);
        }
    }
    if case.has_free_rows && !skips(backend, &case.plan) {
        check_rows(case, &compiled);
    }
}

fn compare(case: &Case, tokens: usize, found: Numbers<f32>, expected: Numbers<f64>) {
    let what = format!("{}, {tokens} tokens", case.name);
    match (found, expected) {
        (Numbers::Indices(found), Numbers::Indices(expected)) => {
            assert_eq!(found, expected, "{what}");
        }
        (Numbers::Reals(found), Numbers::Reals(expected)) => {
            let found: Vec<f64> = found.into_iter().map(f64::from).collect();
            let scale = case.scale.unwrap_or_else(|| super::tolerance::peak(&expected));
            case.tolerance.assert(&what, &found, &expected, scale);
        }
        _ => panic!("{what}: floats where indices are expected, or the reverse"),
    }
}

/// The bits of a row: alone, with 16 mates, with 256.
fn check_rows(case: &Case, compiled: &Compiled<'_>) {
    let rows_of = |feed: &Feed| match compiled.run(feed) {
        Ok(outputs) => outputs.into_iter().next().map(bits).unwrap_or_default(),
        Err(error) => panic!("{}: {error}", case.name),
    };
    let most = case.feed(ODD_SIZES.into_iter().max().unwrap_or(MATES));
    let many = rows_of(&most.rows(&case.plan, 0, MATES));
    let width = many.len() / MATES;
    assert!(rows_of(&most)[..many.len()] == many, "{}: 256 mates change bits", case.name);
    for row in [0, MATES / 2, MATES - 1] {
        let alone = rows_of(&most.rows(&case.plan, row, 1));
        assert!(many[row * width..][..width] == alone, "{}: 16 mates change bits", case.name);
    }
}

fn bits(numbers: Numbers<f32>) -> Vec<u32> {
    match numbers {
        Numbers::Reals(x) => x.into_iter().map(f32::to_bits).collect(),
        Numbers::Indices(x) => x,
    }
}

/// A plan that does not compile has a node that the backend said so of.
fn check_refusal(backend: &dyn Backend, plan: &Plan, error: &Error) {
    assert!(
        matches!(error, Error::Unsupported { .. }) && is_refused(backend, plan),
        "does not compile, though every node is supported: {error}\n{plan}"
    );
}

fn is_refused(backend: &dyn Backend, plan: &Plan) -> bool {
    let refused = |node| matches!(backend.support(&NodeView { plan, node }), Support::No(_));
    plan.nodes.iter().any(refused)
}

/// Whether what the plan answers means nothing.
fn skips(backend: &dyn Backend, plan: &Plan) -> bool {
    let is_skipped = |node: &Node| backend.support(&NodeView { plan, node }) == Support::Skip;
    let num_skipped = plan.nodes.iter().filter(|node| is_skipped(node)).count();
    let num_nodes = plan.nodes.len();
    assert!(
        num_skipped == 0 || num_skipped == num_nodes,
        "{num_skipped} of {num_nodes} ops are skipped: expected all or none"
    );
    num_skipped > 0
}

/// `dim` as the symbol that it is known to be.
fn symbol(dim: Dim) -> crate::plan::Symbol {
    match dim {
        Dim::Symbol(symbol) => symbol,
        Dim::Fixed(n) => panic!("{n} is no symbol"),
    }
}
