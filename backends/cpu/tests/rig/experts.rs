//! A mixture of gated experts, routed by its inputs.

use plugin_api::plan::PlanBuilder;
use plugin_api::prelude::*;
use plugin_api::testing::random::Random;

/// The sizes of a mixture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixture {
    pub(crate) hidden: u64,
    pub(crate) inner: u64,
    pub(crate) experts: u64,
}

impl Mixture {
    /// What each token chose: `x [tokens, hidden]`, `counts` and `chosen`, both `[tokens, choices]`.
    pub(crate) fn dispatched(self, choices: u64) -> Result<Plan> {
        let Self { hidden, inner, experts } = self;
        let mut b = PlanBuilder::new();
        let x = b.input("x", Spec::f32([Dim::TOKENS, hidden.into()]))?;
        let counts = b.input("counts", Spec::f32([Dim::TOKENS, choices.into(), 1.into()]))?;
        let chosen = b.input("chosen", Spec::u32([Dim::TOKENS, choices.into()]))?;
        let mut weight = |name: &str, rows: u64, cols: u64| {
            b.declare_weight(name, Spec::f32([experts.into(), rows.into(), cols.into()]))
        };
        let (gate, up) = (weight("gate", inner, hidden)?, weight("up", inner, hidden)?);
        let down = weight("down", hidden, inner)?;
        let (gate, up) = (b.matmul_experts(x, gate, chosen)?, b.matmul_experts(x, up, chosen)?);
        let gated = fused::swiglu(&mut b, gate, up)?;
        let results = b.matmul_experts(gated, down, chosen)?;
        let counted = b.mul(results, counts)?;
        let mut sum = None;
        for choice in 0..choices {
            let one = b.slice(counted, 1, choice, 1)?;
            let one = b.reshape(one, &[-1, hidden as i64])?;
            sum = Some(match sum {
                None => one,
                Some(sum) => b.add(sum, one)?,
            });
        }
        b.output("y", sum.ok_or_else(|| Error::shape("mixture", "choices", "none"))?)?;
        Ok(b.finish())
    }

    /// Every expert over every token, what it was not chosen for times zero: `x [tokens, hidden]` and
    /// `counts [tokens, experts]`. Weights come in the order of those of [`dispatched`](Self::dispatched), so that random numbers
    /// without blocks are the same.
    pub(crate) fn masked(self) -> Result<Plan> {
        let Self { hidden, inner, experts } = self;
        let mut b = PlanBuilder::new();
        let x = b.input("x", Spec::f32([Dim::TOKENS, hidden.into()]))?;
        let counts = b.input("counts", Spec::f32([Dim::TOKENS, experts.into()]))?;
        let mut weights = |name: &str, rows: u64, cols: u64| -> Result<Vec<Val>> {
            let spec = Spec::f32([rows.into(), cols.into()]);
            (0..experts).map(|e| b.declare_weight(&format!("{name}.{e}"), spec.clone())).collect()
        };
        let (gate, up) = (weights("gate", inner, hidden)?, weights("up", inner, hidden)?);
        let down = weights("down", hidden, inner)?;
        let mut sum = None;
        for (expert, ((gate, up), down)) in (0..experts).zip(gate.into_iter().zip(up).zip(down)) {
            let (gate, up) = (b.matmul(x, gate)?, b.matmul(x, up)?);
            let gated = fused::swiglu(&mut b, gate, up)?;
            let (result, count) = (b.matmul(gated, down)?, b.slice(counts, 1, expert, 1)?);
            let result = b.mul(result, count)?;
            sum = Some(match sum {
                None => result,
                Some(sum) => b.add(sum, result)?,
            });
        }
        b.output("y", sum.ok_or_else(|| Error::shape("mixture", "experts", "none"))?)?;
        Ok(b.finish())
    }

    /// `choices` experts for each token, each once, and how much they count.
    pub(crate) fn choices(self, tokens: usize, choices: usize) -> (Vec<u32>, Vec<f32>) {
        let mut random = Random::new(3);
        let (mut chosen, mut counts) = (Vec::new(), Vec::new());
        for _ in 0..tokens {
            let first = random.below(self.experts as usize);
            chosen.extend((0..choices).map(|i| ((first + 3 * i) % self.experts as usize) as u32));
            counts.extend((0..choices).map(|_| random.signed().abs()));
        }
        (chosen, counts)
    }
}
