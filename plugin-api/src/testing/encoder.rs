//! Contract suite of encoders.

use super::interpreter::{Arithmetic, Feed, FusedAs};
use super::random::Random;
use super::tolerance::{TRACED, WHOLE};
use super::traced::{Scene, check_instances, check_name, check_plan, first_output};
use super::{Make, make};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kinds::encoder::Encoder;
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Port, Spec};

/// Tokens of the sequences that are encoded side by side.
const LENGTHS: [usize; 6] = [7, 1, 257, 8, 9, 63];

const VOCAB_SIZE: u64 = 31;
const HIDDEN_SIZE: u64 = 12;
const INTERMEDIATE_SIZE: u64 = 20;
const POSITIONS: u64 = 300;
const LAYERS: u64 = 2;

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Encoder + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn Encoder, T>);
}

/// The same for encoders that `make` makes. The weights are those of a small BERT, in its names:
/// an encoder that asks for others and gets the error that it returns is asked no further.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Encoder>) {
    let encoder = check_instances(make);
    let bare = Scene::new(&config()).trace(&*encoder, &input());
    let is_missing = matches!(bare, Err(Error::MissingWeight { .. }));
    assert!(is_missing, "a missing weight is named, found {bare:?}");
    if let Err(Error::MissingWeight { .. }) = try_trace(&*encoder, &config()) {
        return;
    }
    let plan = trace(&*encoder, &config());
    let id = encoder.semantic_id();
    assert!(plan.states.is_empty(), "{id}: nothing outlives a step\n{plan}");
    let result = plan.spec(plan.outputs[0].val);
    let is_rows = matches!(result.dims[..], [Dim::SEQS, Dim::Fixed(1..)]);
    assert!(is_rows, "{id}: expected [seqs, width], found {result}");
    check_vectors(&plan);
}

/// Vectors have length one, are near their `f64` selves and have the same bits in any company.
fn check_vectors(plan: &Plan) {
    let all: Vec<usize> = (0..LENGTHS.len()).collect();
    let together = vectors::<f32>(plan, &all, FusedAs::Expansion);
    let exact = vectors::<f64>(plan, &all, FusedAs::Expansion);
    TRACED.assert("f32 and f64", &together, &exact, 1.0);
    let whole = vectors::<f32>(plan, &all, FusedAs::Whole);
    WHOLE.assert("whole and expanded", &whole, &together, 1.0);
    let width = exact.len() / LENGTHS.len();
    for (row, tokens) in exact.chunks_exact(width).zip(LENGTHS) {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-6, "{tokens} tokens: expected length 1, found {length}");
    }
    assert!(exact[..width] != exact[width..2 * width], "different texts, different vectors");
    for order in [&[0][..], &[1], &[2], &[3], &[4], &[5], &[5, 4, 3, 2, 1, 0], &[2, 0], &[]] {
        let found = vectors::<f32>(plan, order, FusedAs::Expansion);
        for (row, &sequence) in found.chunks_exact(width).zip(order) {
            let expected = &together[sequence * width..][..width];
            assert_eq!(row, expected, "sequence {sequence} has other bits among {order:?}");
        }
        assert_eq!(found.len(), order.len() * width, "a vector for each sequence");
    }
}

/// The hyperparameters of the suite's model.
pub fn config() -> Config {
    Config::new()
        .with("hidden_size", HIDDEN_SIZE as i64)
        .with("intermediate_size", INTERMEDIATE_SIZE as i64)
        .with("num_hidden_layers", LAYERS as i64)
        .with("num_attention_heads", 3)
        .with("max_position_embeddings", POSITIONS as i64)
        .with("vocab_size", VOCAB_SIZE as i64)
        .with("type_vocab_size", 2)
}

/// The plan over the suite's weights, with these hyperparameters.
///
/// # Panics
///
/// If the encoder cannot be traced.
pub fn trace(encoder: &dyn Traced, config: &Config) -> Plan {
    check_plan(&scene(config), encoder, &input())
}

/// The same, with the error of an encoder that cannot be traced.
///
/// # Errors
///
/// Whatever the trace returns.
pub fn try_trace(encoder: &dyn Traced, config: &Config) -> Result<Plan> {
    scene(config).trace(encoder, &input())
}

/// Encodes random sequences of these lengths, at most 300 tokens each, in `f64`.
///
/// # Panics
///
/// If the plan does not run.
pub fn run(plan: &Plan, lens: &[usize]) -> Vec<f64> {
    let sequences: Vec<(u64, usize)> = (0..).zip(lens.iter().copied()).collect();
    first_output::<f64>(plan, &feed(plan, &sequences), FusedAs::Expansion)
}

fn vectors<T: Arithmetic>(plan: &Plan, sequences: &[usize], fused: FusedAs) -> Vec<f64> {
    let sequences: Vec<(u64, usize)> = sequences.iter().map(|&i| (i as u64, LENGTHS[i])).collect();
    first_output::<T>(plan, &feed(plan, &sequences), fused)
}

fn input() -> [(&'static str, Spec); 1] {
    [("token_ids", Spec::u32([Dim::TOKENS]))]
}

/// A small BERT in the names of its files.
fn scene(config: &Config) -> Scene {
    let (h, i) = (HIDDEN_SIZE, INTERMEDIATE_SIZE);
    let mut scene = Scene::new(config)
        .weight("embeddings.word_embeddings.weight", &[VOCAB_SIZE, h])
        .weight("embeddings.position_embeddings.weight", &[POSITIONS, h])
        .weight("embeddings.token_type_embeddings.weight", &[2, h]);
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in (0..LAYERS).map(|index| format!("encoder.layer.{index}")) {
        for (name, rows, cols) in [
            ("attention.self.query", h, h),
            ("attention.self.key", h, h),
            ("attention.self.value", h, h),
            ("attention.output.dense", h, h),
            ("intermediate.dense", i, h),
            ("output.dense", h, i),
        ] {
            scene = scene
                .weight(&format!("{layer}.{name}.weight"), &[rows, cols])
                .weight(&format!("{layer}.{name}.bias"), &[rows]);
        }
        let norm = |part: &str| format!("{layer}.{part}.LayerNorm");
        norms.extend(["attention.output", "output"].map(norm));
    }
    norms.iter().fold(scene, |scene, norm| {
        let scene = scene.weight(&format!("{norm}.weight"), &[h]);
        scene.weight(&format!("{norm}.bias"), &[h])
    })
}

/// Weights from one seed, and sequences from one seed each, side by side.
fn feed(plan: &Plan, sequences: &[(u64, usize)]) -> Feed {
    let mut random = Random::new(11);
    let mut feed = Feed::new();
    for Port { name, val } in &plan.weights {
        let dims = plan.spec(*val).dims.iter();
        let len = dims.map(|dim| dim.fixed().map_or(1, |n| n as usize)).product();
        let values: Vec<f32> = (0..len).map(|_| random.signed()).collect();
        feed = feed.reals(name, &values);
    }
    let (mut ids, mut positions, mut index) = (Vec::new(), Vec::new(), Vec::new());
    let (mut starts, mut lens) = (Vec::new(), Vec::new());
    for (row, &(seed, len)) in sequences.iter().enumerate() {
        let mut random = Random::new(seed);
        starts.push(ids.len() as u32);
        lens.push(len as u32);
        ids.extend((0..len).map(|_| random.below(VOCAB_SIZE as usize) as u32));
        positions.extend(0..len as u32);
        index.extend(vec![row as u32; len]);
    }
    feed.size(Dim::TOKENS, ids.len())
        .size(Dim::SEQS, lens.len())
        .indices("token_ids", &ids)
        .indices("positions", &positions)
        .indices("sequence_index", &index)
        .indices("sequence_starts", &starts)
        .indices("sequence_lens", &lens)
}
