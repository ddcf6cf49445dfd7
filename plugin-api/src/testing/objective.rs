//! Contract suite of objectives.

use std::collections::BTreeMap;

use super::interpreter::{Arithmetic, Feed, FusedAs, Numbers};
use super::random::Random;
use super::tolerance::{TRACED, WHOLE};
use super::traced::{
    ODD_SIZES, Scene, check_instances, check_name, check_plan, first_output, made,
};
use super::{Make, gradient, make};
use crate::config::Config;
use crate::kinds::objective::Objective;
use crate::kinds::{Capability, Traced};
use crate::plan::{self, Dim, Plan, Spec};

const VOCAB_SIZE: usize = 9;
/// Rows of each sequence but the last.
const SEQUENCE_ROWS: usize = 3;
/// Rows of a group of four sequences, which are two pairs: nothing reaches beyond.
const GROUP_ROWS: usize = 4 * SEQUENCE_ROWS;

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
        let half = rows / 2 / GROUP_ROWS * GROUP_ROWS;
        let parts = [batch.part(0, half), batch.part(half, rows)];
        let sum: f64 = parts.iter().map(|part| part.loss::<f64>(&plan, FusedAs::Expansion)).sum();
        let is_sum = (sum - exact).abs() <= 1e-9 * scale;
        assert!(is_sum, "{}: {sum} and {exact}", what("the sum of micro-batches"));
        // A sequence does not become an empty one by what is left out here.
        if rows >= SEQUENCE_ROWS {
            let mut other = batch.clone();
            for name in ["loss_weights", "token_mask"] {
                other.reals.get_mut(name).expect("every batch has it")[0] = 0.0;
            }
            let without = batch.part(1, rows).loss::<f64>(&plan, FusedAs::Expansion);
            let with = other.loss::<f64>(&plan, FusedAs::Expansion);
            let is_same = (with - without).abs() <= 1e-9 * scale;
            assert!(is_same, "{}", what("a row of weight 0 does not count"));
        }
    }
    gradient::check(&plan, &Rows::random(GROUP_ROWS).feed(&plan));
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
    let mut rows = Rows::random(0);
    rows.rows = targets.len();
    rows.reals.insert("logits", logits.to_vec());
    rows.reals.insert("loss_weights", weights.to_vec());
    rows.indices.insert("targets", targets.to_vec());
    rows.loss::<f64>(plan, FusedAs::Expansion)
}

/// Compares loss and gradient by the logits with what another program found: lines of `golden` are a name and
/// its numbers. Inputs have the names of the kind, with 9 logits a row; `{case}.loss` and
/// `{case}.gradient` are what is expected, within 1e-5 in `f32` and in `f64`.
///
/// # Panics
///
/// With what differs.
pub fn golden(golden: &str, case: &str, objective: &dyn Traced) {
    let lines = golden.lines().filter_map(|line| line.split_once(' '));
    let numbers = |text: &str| -> Vec<f64> {
        let number = |word: &str| word.parse().expect("a number");
        text.split(' ').map(number).collect()
    };
    let lines: BTreeMap<&str, Vec<f64>> = lines.map(|(name, text)| (name, numbers(text))).collect();
    let plan = trace_part(objective);
    let loss = plan.outputs[0].val;
    let plan = plan::gradient(&plan, loss, &["logits"]).unwrap_or_else(|e| panic!("{case}: {e}"));
    let (rows, seqs) = (lines["targets"].len(), lines["last_row"].len());
    let mut feed = Feed::new().size(Dim::TOKENS, rows).size(Dim::SEQS, seqs);
    for port in &plan.inputs {
        let values = &lines[port.name.as_str()];
        feed = if plan.spec(port.val).dtype.is_float() {
            feed.doubles(&port.name, values)
        } else {
            feed.indices(&port.name, &values.iter().map(|&x| x as u32).collect::<Vec<_>>())
        };
    }
    compare::<f64>(case, &plan, &feed, &lines);
    compare::<f32>(case, &plan, &feed, &lines);
}

fn compare<T: Arithmetic>(case: &str, plan: &Plan, feed: &Feed, lines: &BTreeMap<&str, Vec<f64>>) {
    let outputs = feed.run::<T>(plan, FusedAs::Expansion);
    let outputs = outputs.unwrap_or_else(|error| panic!("{case}: {error}\n{plan}"));
    for (what, numbers) in ["loss", "gradient"].into_iter().zip(outputs) {
        let found = Numbers::into_reals(numbers).expect("an output of floats");
        let expected = &lines[format!("{case}.{what}").as_str()];
        assert_eq!(found.len(), expected.len(), "{case}: {what}");
        for (found, &expected) in found.into_iter().zip(expected) {
            let found = kernels_reference::Stored::to_f64(found);
            let is_near = (found - expected).abs() < 1e-5;
            assert!(is_near, "{case}: {what} is {found}, expected {expected}");
        }
    }
}

/// What an objective may be given.
#[derive(Clone)]
struct Rows {
    rows: usize,
    seqs: usize,
    reals: BTreeMap<&'static str, Vec<f32>>,
    indices: BTreeMap<&'static str, Vec<u32>>,
}

impl Rows {
    fn random(rows: usize) -> Self {
        let mut random = Random::new(rows as u64);
        let seqs = rows.div_ceil(SEQUENCE_ROWS);
        let mut signed = |count: usize, scale: f32| -> Vec<f32> {
            (0..count).map(|_| scale * random.signed()).collect()
        };
        let share = |count: usize| 1.0 / count.max(1) as f32;
        let mut reals = BTreeMap::from([
            ("logits", signed(rows * VOCAB_SIZE, 3.0)),
            ("teacher_logits", signed(rows * VOCAB_SIZE, 3.0)),
            ("reference_logprobs", signed(rows, 1.0)),
            ("old_logprobs", signed(rows, 1.0)),
            ("margins", signed(seqs, 1.0)),
            ("rewards", signed(seqs, 2.0)),
            ("loss_weights", signed(rows, 0.5)),
            ("token_mask", vec![1.0; rows]),
        ]);
        for weight in reals.get_mut("loss_weights").into_iter().flatten() {
            *weight = share(rows) * (1.0 + *weight);
        }
        for name in ["reference_logprobs", "old_logprobs"] {
            reals.get_mut(name).into_iter().flatten().for_each(|x| *x -= 3.0);
        }
        let preferred = (0..seqs).map(|seq| if seq % 2 == 0 { 2.0 * share(seqs) } else { 0.0 });
        reals.insert("sequence_weights", preferred.collect());
        let last = seqs.saturating_sub(1) as u32;
        let of_seqs = |f: &dyn Fn(u32) -> u32| (0..seqs as u32).map(f).collect::<Vec<_>>();
        let indices = BTreeMap::from([
            ("targets", (0..rows).map(|_| random.below(VOCAB_SIZE) as u32).collect()),
            ("row_sequence", (0..rows).map(|row| (row / SEQUENCE_ROWS) as u32).collect()),
            ("last_row", of_seqs(&|seq| (3 * seq + 2).min(rows as u32 - 1))),
            ("partner", of_seqs(&|seq| (seq ^ 1).min(last))),
            ("group", of_seqs(&|seq| seq / 4)),
        ]);
        Self { rows, seqs, reals, indices }
    }

    /// The rows from `from` on, which begins a group or is 1.
    fn part(&self, from: usize, to: usize) -> Self {
        let (first, last) = (from / SEQUENCE_ROWS, to.div_ceil(SEQUENCE_ROWS));
        let range = |len: usize| match len {
            len if len == self.rows => from..to,
            len if len == self.seqs => first..last,
            _ => from * VOCAB_SIZE..to * VOCAB_SIZE,
        };
        let reals = self.reals.iter().map(|(name, x)| (*name, x[range(x.len())].to_vec()));
        let indices = self.indices.iter().map(|(name, x)| {
            let start = match *name {
                "targets" => 0,
                "last_row" => from,
                "group" => first / 4,
                _ => first,
            };
            let part = x[range(x.len())].iter().map(|&i| i - start as u32).collect();
            (*name, part)
        });
        let (reals, indices) = (reals.collect(), indices.collect());
        Self { rows: to - from, seqs: last - first, reals, indices }
    }

    /// What the plan asks for.
    fn feed(&self, plan: &Plan) -> Feed {
        let mut feed = Feed::new().size(Dim::TOKENS, self.rows).size(Dim::SEQS, self.seqs);
        for port in &plan.inputs {
            let name = port.name.as_str();
            feed = match (self.reals.get(name), self.indices.get(name)) {
                (Some(values), _) => feed.reals(name, values),
                (_, Some(values)) => feed.indices(name, values),
                _ => panic!("`{name}` is no input that the kind knows"),
            };
        }
        feed
    }

    fn loss<T: Arithmetic>(&self, plan: &Plan, fused: FusedAs) -> f64 {
        first_output::<T>(plan, &self.feed(plan), fused)[0]
    }
}
