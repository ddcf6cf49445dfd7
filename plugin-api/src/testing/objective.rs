//! Contract suite of objectives.

use super::interpreter::{Arithmetic, Feed, FusedAs};
use super::random::Random;
use super::tolerance::{TRACED, WHOLE};
use super::traced::{
    ODD_SIZES, Scene, check_instances, check_name, check_plan, first_output, made,
};
use super::{Make, gradient, make};
use crate::config::Config;
use crate::kinds::objective::Objective;
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Spec};

const VOCAB_SIZE: usize = 9;

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Objective + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn Objective, T>);
}

/// The same for objectives that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Objective>) {
    let objective = check_instances(make);
    let (plan, id) = (trace_part(&*objective), objective.semantic_id());
    assert!(plan.states.is_empty() && plan.weights.is_empty(), "{id}: computes over inputs only");
    let loss = plan.spec(plan.outputs[0].val);
    assert_eq!(*loss, Spec::f32([Dim::Fixed(1)]), "{id}: one number");
    for rows in ODD_SIZES {
        let batch = Rows::random(rows);
        let what = |how: &str| format!("{id}, {rows} rows, {how}\n{plan}");
        let exact = batch.loss::<f64>(&plan, FusedAs::Expansion);
        assert!(exact.is_finite(), "{}", what("finite"));
        let expanded = batch.loss::<f32>(&plan, FusedAs::Expansion);
        let whole = batch.loss::<f32>(&plan, FusedAs::Whole);
        let scale = 1.0 + exact.abs();
        TRACED.assert(&what("f32 and f64"), &[expanded], &[exact], scale);
        WHOLE.assert(&what("whole and expanded"), &[whole], &[expanded], scale);
        // What a step is divided into does not change its loss.
        let half = rows / 2;
        let parts = [batch.part(0, half), batch.part(half, rows)];
        let sum: f64 = parts.iter().map(|part| part.loss::<f64>(&plan, FusedAs::Expansion)).sum();
        let is_sum = (sum - exact).abs() <= 1e-9 * scale;
        assert!(is_sum, "{}: {sum} and {exact}", what("the sum of micro-batches"));
        if rows > 0 {
            let mut other = batch.clone();
            other.weights[0] = 0.0;
            let without = batch.part(1, rows).loss::<f64>(&plan, FusedAs::Expansion);
            let with = other.loss::<f64>(&plan, FusedAs::Expansion);
            let is_same = (with - without).abs() <= 1e-9 * scale;
            assert!(is_same, "{}", what("a row of weight 0 does not count"));
        }
    }
    gradient::check(&plan, &Rows::random(5).feed());
}

/// The plan over `logits [tokens, 9]`.
///
/// # Panics
///
/// If the objective cannot be traced.
pub fn trace<T: Capability + Objective>() -> Plan {
    trace_part(&made::<T>())
}

fn trace_part(part: &dyn Traced) -> Plan {
    let logits = Spec::f32([Dim::TOKENS, (VOCAB_SIZE as u64).into()]);
    check_plan(&Scene::new(&Config::new()), part, &[("logits", logits)])
}

/// Runs a plan of [`trace`] with rows of 9 logits, in `f64`.
///
/// # Panics
///
/// If the plan does not run.
pub fn run(plan: &Plan, logits: &[f32], targets: &[u32], weights: &[f32]) -> f64 {
    let (logits, targets, weights) = (logits.to_vec(), targets.to_vec(), weights.to_vec());
    Rows { logits, targets, weights }.loss::<f64>(plan, FusedAs::Expansion)
}

/// What an objective is given.
#[derive(Clone)]
struct Rows {
    logits: Vec<f32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
}

impl Rows {
    fn random(rows: usize) -> Self {
        let mut random = Random::new(rows as u64);
        let logits = (0..rows * VOCAB_SIZE).map(|_| 3.0 * random.signed()).collect();
        let targets = (0..rows).map(|_| random.below(VOCAB_SIZE) as u32).collect();
        let share = 1.0 / rows.max(1) as f32;
        let weights = (0..rows).map(|_| share * (1.0 + 0.5 * random.signed())).collect();
        Self { logits, targets, weights }
    }

    fn part(&self, from: usize, to: usize) -> Self {
        Self {
            logits: self.logits[from * VOCAB_SIZE..to * VOCAB_SIZE].to_vec(),
            targets: self.targets[from..to].to_vec(),
            weights: self.weights[from..to].to_vec(),
        }
    }

    fn feed(&self) -> Feed {
        Feed::new()
            .size(Dim::TOKENS, self.targets.len())
            .reals("logits", &self.logits)
            .indices("targets", &self.targets)
            .reals("loss_weights", &self.weights)
    }

    fn loss<T: Arithmetic>(&self, plan: &Plan, fused: FusedAs) -> f64 {
        first_output::<T>(plan, &self.feed(), fused)[0]
    }
}
