//! One plan for each op, shape and lowering.

mod fused;
mod plain;
mod weights;

use super::rig::Weight;
use super::{rig, symbol};
use crate::error::Result;
use crate::kinds::backend::Bucket;
use crate::plan::{Dim, OpId, OpSink, Plan, PlanBuilder, Port, Spec, Val};
use crate::tensor::DType;
use crate::testing::interpreter::Feed;
use crate::testing::random::Random;
use crate::testing::tolerance::{Tolerance, of_op};

/// Rows of tables that are looked up.
const TABLE_ROWS: usize = 13;

/// A plan with one output or more, and how to feed it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) weights: Vec<Weight>,
    pub(super) tolerance: Tolerance,
    /// What the tolerance is relative to, where it is not the greatest result.
    pub(super) scale: Option<f64>,
    /// Whether each row of the first output follows from the same row of the inputs.
    pub(super) has_free_rows: bool,
}

impl Case {
    fn new(
        name: impl Into<String>,
        op: OpId,
        build: impl FnOnce(&mut PlanBuilder) -> Result<Val>,
    ) -> Self {
        let name = name.into();
        let mut b = PlanBuilder::new();
        let result = build(&mut b).and_then(|val| b.output("y", val));
        result.unwrap_or_else(|e| panic!("{name}: {e}"));
        Self {
            name,
            plan: b.finish(),
            weights: Vec::new(),
            tolerance: of_op(op),
            scale: None,
            has_free_rows: true,
        }
    }

    fn with_bound_rows(mut self) -> Self {
        self.has_free_rows = false;
        self
    }

    pub(super) fn bucket(&self, tokens: usize) -> Bucket {
        rig::bucket(&[(symbol(Dim::TOKENS), tokens), (symbol(Dim::LOGIT_ROWS), tokens)])
    }

    /// Random inputs for a number of tokens. Inputs called `positive…` are, those called
    /// `steps…` have many ties, indices are in range.
    pub(super) fn feed(&self, tokens: usize) -> Feed {
        let mut random = Random::new(tokens as u64);
        let logit_rows = if tokens == 0 { 0 } else { tokens / 2 + 1 };
        let mut feed = Feed::new().size(Dim::TOKENS, tokens).size(Dim::LOGIT_ROWS, logit_rows);
        for Port { name, val } in &self.plan.inputs {
            let spec = self.plan.spec(*val);
            let size = |dim: &Dim| match dim {
                Dim::Fixed(n) => *n as usize,
                Dim::Symbol(symbol) => feed.size_of(*symbol),
            };
            let len = spec.dims.iter().map(size).product();
            feed = if spec.dtype == DType::U32 {
                let below = if name == "rows" { tokens } else { TABLE_ROWS };
                let indices: Vec<u32> = (0..len).map(|_| random.below(below) as u32).collect();
                feed.indices(name, &indices)
            } else {
                let number = |x: f32| match name.as_str() {
                    "positive" => x.abs() + 0.01,
                    "steps" => (x * 4.0).round() / 4.0,
                    _ => 2.0 * x,
                };
                let values: Vec<f32> = (0..len).map(|_| number(random.signed())).collect();
                feed.reals(name, &values)
            };
        }
        feed
    }

    /// The feed with the decoded weights, for the interpreter.
    pub(super) fn with_weights(&self, feed: &Feed) -> Feed {
        let weights = self.weights.iter();
        weights.fold(feed.clone(), |feed, weight| feed.reals(&weight.name, &weight.values))
    }
}

pub(super) fn all() -> Vec<Case> {
    let mut cases = plain::elementwise();
    cases.extend(plain::by_row());
    cases.extend(plain::of_training());
    cases.extend(plain::moves());
    cases.extend(weights::matmuls());
    cases.extend(weights::experts());
    cases.extend(fused::fused_ops());
    cases.extend(fused::deep());
    cases
}

/// `[tokens, width]`
fn rows(width: u64) -> Spec {
    Spec::f32([Dim::TOKENS, width.into()])
}
