//! One source, two lanes, the same answers: each kind builtin and as a component.

use plugin_api::events::{Record, Subscriptions};
use plugin_api::kinds::decoding_strategy::{
    Actions, DecodingStrategy, Evals, GroupId, Outcome, RequestView,
};
use plugin_api::kinds::hook::Hook;
use plugin_api::kinds::kv_cache::SeqId;
use plugin_api::kinds::logits_processor::{BatchChange, LogitsProcessor, LogitsRows, RowId};
use plugin_api::kinds::mixer::Mixer;
use plugin_api::kinds::norm::Norm;
use plugin_api::kinds::quantizer::{AffineMut, Calibration, Quantizer};
use plugin_api::kinds::rotary_embedding::RotaryEmbedding;
use plugin_api::kinds::scheduler::{Limits, Scheduler, Waiting};
use plugin_api::kinds::{Capability, LayerRef, Traced};
use plugin_api::plan::{Dim, Spec};
use plugin_api::testing::hook::{after_token, subscribe, suite_of};
use plugin_api::testing::machine::Machine;
use plugin_api::testing::random::Random;
use plugin_api::testing::rows::Rows;
use plugin_api::testing::traced::Scene;
use plugin_api::{Config, Result, Value};

use super::fixtures::{Lane, component, made, min_p, try_made};

fn made_here<T: Capability>(config: &Config) -> T {
    T::from_config(config).unwrap()
}

/// What a processor makes of the same rows and changes, step by step.
fn steps(processor: &mut dyn LogitsProcessor, params: &Config) -> Vec<Vec<Vec<f32>>> {
    let mut random = Random::new(3);
    let mut all = Vec::new();
    let change = |processor: &mut dyn LogitsProcessor, change: BatchChange<'_>| {
        processor.batch(&change).unwrap();
    };
    for row in 0..5 {
        let added = BatchChange::Added { row: RowId(3 * row), params, history: &[1, 2, row] };
        change(processor, added);
    }
    for step in 0..6 {
        let logits: Vec<Vec<f32>> =
            (0..5).map(|_| (0..257).map(|_| 9.0 * random.signed()).collect()).collect();
        let mut rows = Rows::new(&logits.iter().map(Vec::as_slice).collect::<Vec<_>>());
        rows.ids = (0..5).map(|row| RowId(3 * row)).collect();
        processor.apply(&mut LogitsRows::new(&mut rows)).unwrap();
        all.push(rows.logits);
        for row in 0..5 {
            change(processor, BatchChange::Advanced { row: RowId(3 * row), token: 7 + step });
        }
        match step {
            1 => change(processor, BatchChange::Forked { parent: RowId(0), child: RowId(6) }),
            2 => change(processor, BatchChange::RolledBack { row: RowId(3), history: &[1, 2] }),
            3 => change(processor, BatchChange::Removed { row: RowId(9) }),
            _ => {}
        }
    }
    all
}

#[test]
fn logits_processors_make_the_same_of_the_same_rows() {
    fn check<T: Capability + LogitsProcessor>(lane: &Lane, bytes: &[u8], params: &Config) {
        let provided = lane.open(bytes).unwrap();
        assert_eq!((provided.kind, &*provided.name), ("logits-processor", T::NAME));
        let mut here: T = made_here(&Config::new());
        let mut there = made::<dyn LogitsProcessor>(&provided, &Config::new());
        assert_eq!(there.need(), here.need(), "{}", T::NAME);
        assert_eq!(there.is_argmax_invariant(), here.is_argmax_invariant(), "{}", T::NAME);
        assert_eq!(steps(&mut *there, params), steps(&mut here, params), "{}", T::NAME);
    }
    let lane = Lane::new();
    let params = Config::new()
        .with("min_p", 0.1)
        .with("temperature", 0.7)
        .with("top_k", 9)
        .with("repetition_penalty", 1.3);
    check::<plugin_min_p::MinP>(&lane, min_p(), &params);
    check::<plugin_temperature::Temperature>(&lane, &component("temperature"), &params);
    check::<plugin_top_k::TopK>(&lane, &component("top-k"), &params);
    let penalty = component("repetition-penalty");
    check::<plugin_repetition_penalty::RepetitionPenalty>(&lane, &penalty, &params);
}

#[test]
fn errors_arrive_as_they_were_and_reads_are_marked() {
    let lane = Lane::new();
    let provided = lane.open(min_p()).unwrap();
    let config = Config::at("min-p").with("min_p", 2).with("other", 1);
    let error = (provided.make)(&config).err().unwrap();
    assert_eq!(error, plugin_min_p::MinP::from_config(&config).unwrap_err());

    let config = Config::at("min-p").with("min_p", 0.5).with("other", 1);
    let mut processor = made::<dyn LogitsProcessor>(&provided, &config);
    assert_eq!(config.unread().collect::<Vec<_>>(), ["other"]);

    let params = Config::new().with("min_p", "much").with("seed", 1);
    let added = BatchChange::Added { row: RowId(0), params: &params, history: &[] };
    let error = processor.batch(&added).unwrap_err();
    assert_eq!(error.to_string(), "min_p: expected a number in 0..=1, found \"much\"");
    assert_eq!(params.unread().collect::<Vec<_>>(), ["seed"]);
    // Others go on.
    let params = Config::new().with("min_p", 0.5);
    processor.batch(&BatchChange::Added { row: RowId(0), params: &params, history: &[] }).unwrap();
}

#[test]
fn plans_are_the_same_bytes() {
    fn bytes(part: &dyn Traced, scene: &Scene, inputs: &[(&str, Spec)]) -> Result<Vec<u8>> {
        Ok(scene.trace(part, inputs)?.to_bytes())
    }
    let lane = Lane::new();
    let frequencies: Vec<Value> = [1.0, 2.5].map(Value::from).to_vec();
    let config = Config::new()
        .with("hidden_size", 6)
        .with("num_attention_heads", 4)
        .with("num_key_value_heads", 2)
        .with("head_dim", 4)
        .with("rope_freq_factors", frequencies)
        .with("sliding_window", 5);
    let mut scene = Scene::new(&config).weight("weight", &[6]).weight("q_norm.weight", &[4]);
    for (name, rows, cols) in
        [("q_proj", 16, 6), ("k_proj", 8, 6), ("v_proj", 8, 6), ("o_proj", 6, 16)]
    {
        scene = scene.weight(&format!("{name}.weight"), &[rows, cols]);
    }
    let empty = Config::new();

    let x = [("x", Spec::f32([Dim::TOKENS, 6.into()]))];
    let there = made::<dyn Mixer>(&lane.open(&component("attention")).unwrap(), &empty);
    let here: plugin_attention::Attention = made_here(&empty);
    assert_eq!(there.semantic_id(), here.semantic_id());
    let at = LayerRef { index: 0, config: &config };
    assert_eq!(there.state(&at), here.state(&at));
    assert_eq!(bytes(&*there, &scene, &x), bytes(&here, &scene, &x));
    assert!(config.unread().next().is_none_or(|key| key != "head_dim"), "reads are marked");
    // What fails, fails in the same words.
    let bare = Scene::new(&config);
    assert_eq!(bytes(&*there, &bare, &x), bytes(&here, &bare, &x));

    let there = made::<dyn Norm>(&lane.open(&component("rms-norm")).unwrap(), &empty);
    let here: plugin_rms_norm::RmsNorm = made_here(&empty);
    assert_eq!(bytes(&*there, &scene, &x), bytes(&here, &scene, &x));

    let x = [
        ("x", Spec::f32([Dim::TOKENS, 4.into(), 4.into()])),
        ("positions", Spec::u32([Dim::TOKENS])),
    ];
    let there = made::<dyn RotaryEmbedding>(&lane.open(&component("standard")).unwrap(), &empty);
    let here: plugin_standard::Standard = made_here(&empty);
    assert_eq!(there.rotation(&config), here.rotation(&config));
    assert_eq!(bytes(&*there, &scene, &x), bytes(&here, &scene, &x));
}

#[test]
fn a_scheduler_picks_the_same() {
    picks_the_same::<plugin_fcfs::Fcfs>();
    picks_the_same::<plugin_continuous::Continuous>();
    picks_the_same::<plugin_priority::Priority>();
}

fn picks_the_same<T: Capability + Scheduler>() {
    let lane = Lane::new();
    let provided = lane.open(&component(T::NAME)).unwrap();
    let mut there = made::<dyn Scheduler>(&provided, &Config::new());
    let mut here: T = made_here(&Config::new());
    for seed in 0..50_u32 {
        let waiting = |i: u32| Waiting {
            seq: SeqId(i),
            pending: ((seed * 7 + i * 5) % 23 + 1) as usize,
            is_running: (seed + i).is_multiple_of(3),
            is_atomic: (seed + i).is_multiple_of(5),
            priority: i as i32,
        };
        let queue: Vec<Waiting> = (0..seed % 70).map(waiting).collect();
        let limits = Limits { tokens: seed as usize * 3, seqs: 16 };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        there.pick(&queue, &limits, &mut a).unwrap();
        here.pick(&queue, &limits, &mut b).unwrap();
        assert_eq!(a, b);
    }
    let states = (there.handover(), here.handover());
    assert_eq!(states.0.is_some(), states.1.is_some());
    if let (Some(there), Some(here)) = states {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        there.save(&mut a).unwrap();
        here.save(&mut b).unwrap();
        assert_eq!(a, b);
    }
}

#[test]
fn a_strategy_answers_the_same() {
    fn answer(strategy: &mut dyn DecodingStrategy) -> (Vec<u32>, String) {
        let params = Config::new().with("max_tokens", 4);
        let request = RequestView { seq: SeqId(2), prompt: &[5, 9], params: &params };
        strategy.open(GroupId(1), &request).unwrap();
        let (mut tokens, mut said) = (Vec::new(), String::new());
        for token in 10..14 {
            let mut evals = Evals::default();
            strategy.plan(GroupId(1), &mut evals).unwrap();
            tokens.extend_from_slice(&evals.tokens);
            let outcome = Outcome { seq: SeqId(2), token: Some(token), logprob: -0.5, draft: None };
            let mut actions = Actions { list: Vec::new(), next_seq: 3 };
            strategy.observe(GroupId(1), &[outcome], &mut actions).unwrap();
            said += &format!("{:?} {:?}\n", evals.list, actions.list);
        }
        strategy.close(GroupId(1));
        (tokens, said)
    }
    let lane = Lane::new();
    let provided = lane.open(&component("greedy")).unwrap();
    let mut there = made::<dyn DecodingStrategy>(&provided, &Config::new());
    let mut here: plugin_greedy::Greedy = made_here(&Config::new());
    assert_eq!(answer(&mut *there), answer(&mut here));
}

/// What a hook in a component listens on.
fn listening(provided: &plugin_api::Provided, config: &Config) -> Subscriptions {
    let mut on = Subscriptions::new();
    made::<dyn Hook>(provided, config).subscribe(&mut on).unwrap();
    on
}

#[test]
fn a_hook_edits_the_same() {
    let lane = Lane::new();
    let provided = lane.open(&component("stop-words")).unwrap();
    suite_of(&|config| try_made::<dyn Hook>(&provided, config), &Config::new());
    let mut there = listening(&provided, &Config::new());
    let mut here = subscribe::<plugin_stop_words::StopWords>(&Config::new());
    let order = |on: &Subscriptions| -> Vec<_> {
        on.hooks.iter().map(|hook| (hook.topic, hook.phase, hook.priority)).collect()
    };
    assert_eq!(order(&there), order(&here));
    for (stop, text) in [("END", "abc"), ("END", "abcEND."), ("END", "abcEN"), ("日本", "x日")] {
        let params = Config::new().with("stop", stop).with("other", 1);
        let found = after_token(&mut there, text, &params);
        assert_eq!(params.unread().collect::<Vec<_>>(), ["other"], "reads are marked");
        assert_eq!(found, after_token(&mut here, text, &params), "{text}");
    }
    let config = Config::new().with("stop", 1);
    let error = try_made::<dyn Hook>(&provided, &config).err().unwrap();
    assert_eq!(error, plugin_stop_words::StopWords::from_config(&config).unwrap_err());
}

#[test]
fn an_observer_writes_the_same() {
    let config = Config::new().with("path", "metrics.jsonl");
    let record = Record::new("after-token", 7, &[("index", 3.0), ("logprob", -0.25)]);
    let written = |machine: &Machine, on: &mut Subscriptions| {
        on.observers[0](&record, &machine.host("metrics-jsonl"));
        machine.file("metrics.jsonl")
    };
    let lane = Lane::new();
    let provided = lane.open(&component("metrics-jsonl")).unwrap();
    let there = written(&lane.machine, &mut listening(&provided, &config));
    let here = Machine::new();
    let mut on = subscribe::<plugin_metrics_jsonl::MetricsJsonl>(&config);
    assert_eq!(there, written(&here, &mut on));
    assert!(there.is_some());
}

#[test]
fn a_quantizer_makes_the_same_blocks() {
    let lane = Lane::new();
    let provided = lane.open(&component("q8-0")).unwrap();
    let there = made::<dyn Quantizer>(&provided, &Config::new());
    let here: plugin_q8_0::Q8Zero = made_here(&Config::new());
    assert_eq!(there.format(), here.format());
    assert_eq!(there.lowering(), here.lowering());
    let format = here.format();
    let mut random = Random::new(5);
    // More than one piece, and a piece that is not full.
    let len = (1 << 18) + 32 * 9;
    let numbers: Vec<f32> = (0..len).map(|_| random.signed()).collect();
    let mean_square = vec![0.5; 32 * 3];
    let calibration = Calibration { mean_square: &mean_square };
    let encoded = |quantizer: &dyn Quantizer, calibration| {
        let mut blocks = vec![0; format.size_bytes(len).unwrap()];
        quantizer.encode(&numbers, calibration, &mut blocks).unwrap();
        blocks
    };
    let blocks = encoded(&here, None);
    assert!(encoded(&*there, None) == blocks);
    assert!(encoded(&*there, Some(&calibration)) == encoded(&here, Some(&calibration)));
    let decoded = |quantizer: &dyn Quantizer| {
        let mut numbers = vec![0.0; len];
        quantizer.decode(&blocks, &mut numbers).unwrap();
        numbers
    };
    assert!(decoded(&*there) == decoded(&here));
    let unpacked = |quantizer: &dyn Quantizer| {
        let (mut codes, mut scales) = (vec![0; len], vec![0.0; len / 32]);
        let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut [] };
        quantizer.unpack(&blocks, &mut out).unwrap();
        (codes, scales)
    };
    assert!(unpacked(&*there) == unpacked(&here));
    assert_eq!(
        there.decode(&blocks[1..], &mut vec![0.0; len]),
        here.decode(&blocks[1..], &mut vec![0.0; len])
    );
}
