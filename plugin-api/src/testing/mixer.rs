//! Contract suite of mixers.

use super::interpreter::{Feed, FusedAs, OwnedArena};
use super::random::Random;
use super::tolerance::{TRACED, peak};
use super::traced::{
    ODD_SIZES, Scene, check_instances, check_name, check_trace, first_reals, made, random_feed,
};
use super::{Make, gradient, make};
use crate::config::Config;
use crate::kinds::mixer::Mixer;
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Spec, rewrite};
use crate::tensor::DType;

/// Sizes of an attention, for scenes.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// `hidden_size`
    pub hidden: u64,
    /// `num_attention_heads`
    pub heads: u64,
    /// `num_key_value_heads`
    pub kv_heads: u64,
    /// `head_dim`
    pub head_dim: u64,
}

/// Runs the whole suite over the sizes of MHA, GQA and MQA.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Mixer + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn Mixer, T>);
}

/// The same for mixers that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Mixer>) {
    let mixer = check_instances(make);
    for (heads, kv_heads) in [(2, 2), (4, 2), (3, 1)] {
        let heads = Heads { hidden: 6, heads, kv_heads, head_dim: 4 };
        for window in [0_u32, 5] {
            let config = Config::new().with("sliding_window", window);
            for extras in [&[][..], &["bias"], &["q_norm", "k_norm"]] {
                let plan = trace_part(&*mixer, &config, heads, extras);
                check_state(&*mixer, &config, heads, &plan);
                check_numbers(&plan, heads);
                check_gradient(&plan);
            }
        }
    }
}

/// The gradient over two whole sequences, where the mixer is attention that needs no state for
/// that.
fn check_gradient(plan: &Plan) {
    let Ok(within) = rewrite::without_states(plan) else { return };
    let feed = random_feed(&within, 5, &mut Random::new(3));
    gradient::check(&within, &feed.indices("sequence_index", &[0, 0, 0, 1, 1]));
}

/// The plan over `x [tokens, hidden]`; `extras` are `bias`, `q_norm`, `k_norm`.
///
/// # Panics
///
/// If the mixer cannot be traced.
pub fn trace<T: Capability + Mixer>(config: &Config, heads: Heads, extras: &[&str]) -> Plan {
    trace_part(&made::<T>(), config, heads, extras)
}

fn trace_part(part: &dyn Traced, config: &Config, heads: Heads, extras: &[&str]) -> Plan {
    let x = Spec::f32([Dim::TOKENS, heads.hidden.into()]);
    check_trace(&scene(config, heads, extras), part, &[("x", x)])
}

/// Runs a plan of [`trace`] over one sequence from its start, in `f64`.
///
/// # Panics
///
/// If the plan does not run.
pub fn run(plan: &Plan, x: &[f32], tokens: usize, weights: &[(&str, &[f32])]) -> Vec<f64> {
    let positions: Vec<u32> = (0..tokens as u32).collect();
    let mut feed = Feed::new()
        .size(Dim::TOKENS, tokens)
        .reals("x", x)
        .indices("positions", &positions)
        .indices("sequence_index", &vec![0; tokens])
        .indices("block_table", &[0]);
    for (name, values) in weights {
        feed = feed.reals(name, values);
    }
    let mut arena = OwnedArena::new(plan, 1, tokens.max(1), DType::F64);
    let outputs = feed.run_with::<f64>(plan, FusedAs::Expansion, &mut arena);
    first_reals(outputs.unwrap_or_else(|e| panic!("does not run: {e}\n{plan}")))
}

fn scene(config: &Config, heads: Heads, extras: &[&str]) -> Scene {
    let config = config
        .clone()
        .with("hidden_size", heads.hidden as i64)
        .with("num_attention_heads", heads.heads as i64)
        .with("num_key_value_heads", heads.kv_heads as i64)
        .with("head_dim", heads.head_dim as i64);
    let (q, kv) = (heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim);
    let mut scene = Scene::new(&config);
    for (name, rows, cols) in [
        ("q_proj", q, heads.hidden),
        ("k_proj", kv, heads.hidden),
        ("v_proj", kv, heads.hidden),
        ("o_proj", heads.hidden, q),
    ] {
        scene = scene.weight(&format!("{name}.weight"), &[rows, cols]);
        if extras.contains(&"bias") {
            scene = scene.weight(&format!("{name}.bias"), &[rows]);
        }
    }
    // Of latent attention: half of a head turns, six channels are kept.
    let (rank, half) = (6, heads.head_dim / 2);
    for (name, n) in [
        ("qk_nope_head_dim", half),
        ("qk_rope_head_dim", half),
        ("v_head_dim", heads.head_dim),
        ("kv_lora_rank", rank),
    ] {
        scene = scene.hyperparameter(name, n);
    }
    for (name, dims) in [
        ("kv_a_proj_with_mqa", &[rank + half, heads.hidden][..]),
        ("kv_a_layernorm", &[rank]),
        ("k_b_proj", &[heads.heads, rank, half]),
        ("v_b_proj", &[heads.heads, heads.head_dim, rank]),
    ] {
        scene = scene.weight(&format!("{name}.weight"), dims);
    }
    // Of a recurrence.
    let (inner, n, dt_rank, kernel) = (2 * heads.hidden, 4, 3, 4);
    for (name, n) in [("intermediate_size", inner), ("state_size", n), ("conv_kernel", kernel)] {
        scene = scene.hyperparameter(name, n);
    }
    for (name, dims) in [
        ("in_proj.weight", &[2 * inner, heads.hidden][..]),
        ("conv1d.weight", &[inner, 1, kernel]),
        ("conv1d.bias", &[inner]),
        ("x_proj.weight", &[dt_rank + 2 * n, inner]),
        ("dt_proj.weight", &[inner, dt_rank]),
        ("dt_proj.bias", &[inner]),
        ("A_log", &[inner, n]),
        ("D", &[inner]),
        ("out_proj.weight", &[heads.hidden, inner]),
    ] {
        scene = scene.weight(name, dims);
    }
    for norm in extras.iter().filter(|extra| extra.ends_with("_norm")) {
        scene = scene.weight(&format!("{norm}.weight"), &[heads.head_dim]);
    }
    scene
}

/// What the mixer says it keeps is what its trace keeps.
fn check_state(mixer: &dyn Mixer, config: &Config, heads: Heads, plan: &Plan) {
    let scene = scene(config, heads, &[]);
    let state = mixer.state(&scene.layer()).expect("hyperparameters of the suite");
    let traced: Vec<_> = plan.states.iter().map(|port| &port.spec).collect();
    assert_eq!(traced, [&state], "keeps what it says");
    assert!(state.parts.iter().all(|part| part.num_elements() > 0), "{state:?}");
}

fn check_numbers(plan: &Plan, heads: Heads) {
    for tokens in ODD_SIZES {
        let run = Run::new(plan, heads, tokens);
        let whole = run.pieces::<f32>(&[tokens], 16);
        assert_eq!(whole.len(), tokens * heads.hidden as usize, "{tokens} tokens: length");
        let exact = run.pieces::<f64>(&[tokens], 16);
        let what = format!("{tokens} tokens, f32 and f64\n{plan}");
        TRACED.assert(&what, &whole, &exact, peak(&exact));
        if tokens > 1 {
            // Later tokens change nothing: each piece is computed before they are known.
            let pieces = run.pieces::<f32>(&[1, tokens / 2, tokens - 1 - tokens / 2], 16);
            assert!(pieces == whole, "{tokens} tokens in pieces give other bits\n{plan}");
            let blocks = run.pieces::<f32>(&[tokens], 3);
            assert!(blocks == whole, "{tokens} tokens in blocks of 3 give other bits\n{plan}");
        }
    }
}

/// One sequence in two copies, with a stranger between them.
struct Run<'a> {
    plan: &'a Plan,
    weights: Feed,
    x: Vec<f32>,
    hidden: usize,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, heads: Heads, tokens: usize) -> Self {
        let (mut random, mut weights) = (Random::new(11), Feed::new());
        let mut numbers = |len: usize| (0..len).map(|_| random.signed()).collect::<Vec<f32>>();
        for port in &plan.weights {
            let dims = plan.spec(port.val).dims.iter();
            let len = dims.map(|dim| dim.fixed().map_or(0, |n| n as usize)).product();
            weights = weights.reals(&port.name, &numbers(len));
        }
        let hidden = heads.hidden as usize;
        Self { plan, weights, x: numbers(tokens * hidden), hidden }
    }

    /// The outputs of sequence 0 computed in pieces of these lengths, in batches with a sequence 1
    /// whose tokens are others.
    fn pieces<T: super::interpreter::Arithmetic>(
        &self,
        pieces: &[usize],
        block_size: usize,
    ) -> Vec<f64> {
        let tokens = self.x.len() / self.hidden;
        let blocks = tokens.div_ceil(block_size).max(1);
        let mut arena = OwnedArena::new(self.plan, 2 * blocks, block_size, DType::F64);
        // The blocks of sequence 0 lie backwards between those of sequence 1.
        let own = (0..blocks as u32).rev().map(|i| 2 * i);
        let table: Vec<u32> = own.chain((0..blocks as u32).map(|i| 2 * i + 1)).collect();
        let (mut start, mut out) = (0, Vec::new());
        for &len in pieces {
            let mates: usize = (start % 3).min(len);
            let x = &self.x[start * self.hidden..][..len * self.hidden];
            let mut rows: Vec<f32> = x[..mates * self.hidden].iter().map(|x| x + 1.0).collect();
            rows.extend_from_slice(x);
            let own = (start..start + len).map(|i| i as u32);
            let positions: Vec<u32> = (0..mates as u32).chain(own).collect();
            let sequence_index: Vec<u32> = (0..mates + len).map(|i| u32::from(i < mates)).collect();
            let feed = self
                .weights
                .clone()
                .size(Dim::TOKENS, mates + len)
                .size(Dim::SEQS, 2)
                .size(Dim::BLOCKS, blocks)
                .reals("x", &rows)
                .indices("positions", &positions)
                .indices("sequence_index", &sequence_index)
                .indices("block_table", &table);
            let outputs = feed.run_with::<T>(self.plan, FusedAs::Expansion, &mut arena);
            let y = first_reals(outputs.unwrap_or_else(|e| panic!("does not run: {e}")));
            out.extend_from_slice(&y[mates * self.hidden..]);
            start += len;
        }
        out
    }
}
