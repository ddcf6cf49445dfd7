//! Random calls of plugins that run: in the order in which an engine calls, with what it never
//! should hand out.

use std::path::Path;

use super::{Asked, number, text};
use crate::config::Config;
use crate::events::Subscriptions;
use crate::host::{Change, Row};
use crate::kinds::backend::{Backend, Bucket, MemoryMap, RawRows, RawValues, WeightDesc};
use crate::kinds::compressor::{Channels, Compressor, Grid, Input, Matrix, Products};
use crate::kinds::curriculum::{Curriculum, SourceView};
use crate::kinds::decoding_strategy::{
    Actions, DecodingStrategy, Evals, GroupId, Outcome, RequestView,
};
use crate::kinds::hook::Hook;
use crate::kinds::kv_cache::{KvCache, PoolLimits, SeqId};
use crate::kinds::logits_processor::{BatchChange, LogitsProcessor, LogitsRows, RowId};
use crate::kinds::memory::{Memory, Message, Turn};
use crate::kinds::model_source::{ModelEntry, ModelSource};
use crate::kinds::output_parser::{AnswerId, OutputParser};
use crate::kinds::quantizer::{AffineMut, Calibration, Lowering, Quantizer, Scales};
use crate::kinds::reward::{RatedAnswer, Reward};
use crate::kinds::scheduler::{Limits, Scheduler, Waiting};
use crate::plan::{Part, Per, Plan, StateSpec};
use crate::testing::Make;
use crate::testing::hook::after_token;
use crate::testing::machine::{Answer, Machine};
use crate::testing::random::Random;
use crate::testing::rows::Rows;

const ROUNDS: usize = 300;

/// Returns the request parameters that it reads.
pub(in crate::testing) fn logits_processor(
    make: Make<'_, dyn LogitsProcessor>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let asked = Asked::of(config, config, |params| {
        if let Ok(mut processor) = make(config) {
            let _ = processor.batch(&BatchChange::Added { row: RowId(0), params, history: &[] });
        }
    });
    let Ok(mut processor) = make(config) else { return asked.keys };
    let mut known: Vec<u32> = Vec::new();
    for _ in 0..ROUNDS {
        let row = RowId(random.below(6) as u32);
        let history: Vec<u32> = (0..random.below(9)).map(|_| random.bits() as u32).collect();
        let parameters = asked.params(random);
        let change = match (random.below(5), known.contains(&row.0)) {
            (_, false) => BatchChange::Added { row, params: &parameters, history: &history },
            (0, _) => BatchChange::RolledBack { row, history: &history },
            (1, _) => BatchChange::Removed { row },
            (2, _) => BatchChange::Forked { parent: row, child: RowId(random.below(6) as u32) },
            _ => BatchChange::Advanced { row, token: random.bits() as u32 },
        };
        if processor.batch(&change).is_ok() {
            match change {
                BatchChange::Added { row, .. } => known.push(row.0),
                BatchChange::Forked { child, .. } => known.push(child.0),
                BatchChange::Removed { row } => known.retain(|id| *id != row.0),
                _ => {}
            }
        }
        known.sort_unstable();
        known.dedup();
        let vocab_size = [1, 2, 7, 64][random.below(4)];
        let logits: Vec<Vec<f32>> =
            known.iter().map(|_| (0..vocab_size).map(|_| number(random)).collect()).collect();
        let mut rows = Rows::new(&logits.iter().map(Vec::as_slice).collect::<Vec<_>>());
        rows.ids = known.iter().map(|&id| RowId(id)).collect();
        let _ = processor.apply(&mut LogitsRows::new(&mut rows));
        let _ = (processor.need(), processor.is_argmax_invariant());
    }
    asked.keys
}

pub(in crate::testing) fn scheduler(
    make: Make<'_, dyn Scheduler>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(mut scheduler) = make(config) else { return Vec::new() };
    let size = |random: &mut Random| [0, 1, 7, 300, u32::MAX as usize][random.below(5)];
    for _ in 0..ROUNDS {
        let queue: Vec<Waiting> = (0..random.below(40))
            .map(|_| Waiting {
                seq: SeqId(random.bits() as u32),
                pending: size(random),
                is_running: random.below(2) == 0,
                is_atomic: random.below(3) == 0,
                priority: random.bits() as i32,
            })
            .collect();
        let limits = Limits { tokens: size(random), seqs: size(random) };
        let _ = scheduler.pick(&queue, &limits, &mut Vec::new());
        let bytes: Vec<u8> = (0..random.below(99)).map(|_| random.bits() as u8).collect();
        if let Some(state) = scheduler.handover().filter(|_| random.below(8) == 0) {
            let _ = state.restore(&bytes);
        }
    }
    Vec::new()
}

/// Returns the request parameters that it reads.
pub(in crate::testing) fn output_parser(
    make: Make<'_, dyn OutputParser>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let asked = Asked::of(config, config, |params| {
        if let Ok(mut parser) = make(config) {
            let _ = parser.open(AnswerId(0), params);
        }
    });
    let Ok(mut parser) = make(config) else { return asked.keys };
    let mut out = Vec::new();
    for _ in 0..ROUNDS {
        let answer = AnswerId(random.below(4) as u32);
        match random.below(8) {
            0 => _ = parser.open(answer, &asked.params(random)),
            1 => _ = parser.finish(answer, &mut out),
            2 => parser.close(answer),
            _ => _ = parser.push(answer, &text(random), &mut out),
        }
    }
    asked.keys
}

pub(in crate::testing) fn compressor(
    make: Make<'_, dyn Compressor>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(mut compressor) = make(config) else { return Vec::new() };
    for _ in 0..ROUNDS.min(30) {
        let (rows, cols) = (random.below(5), 16 * random.below(5));
        let mut numbers = |len: usize| (0..len).map(|_| number(random)).collect::<Vec<f32>>();
        let [mean_abs, max_abs] = [numbers(cols), numbers(cols)];
        let (moments, values) = (numbers(cols * cols), numbers(rows * cols));
        let has_grid = random.below(4) > 0;
        let grid = Grid {
            bits: 1 + random.below(8) as u32,
            group: 16,
            zero_point: 0,
            has_min: random.below(2) == 0,
            is_half: random.below(2) == 0,
        };
        let (mean_abs, max_abs, moments) = (&mean_abs[..], &max_abs[..], &moments[..]);
        let products = Products {
            input: Input { tokens: random.bits(), mean_abs, max_abs, moments },
            weights: vec![Matrix { name: "w", rows, cols, values: &values }],
            grid: has_grid.then_some(grid),
            can_scale: random.below(2) == 0,
        };
        let _ = compressor.compress(&products);
        let _ = compressor.needs_moments();
        let mut rows: Vec<f32> = (0..random.below(40)).map(|_| number(random)).collect();
        let _ = compressor.rotate(Channels::Stream, random.below(20), &mut rows);
    }
    Vec::new()
}

pub(in crate::testing) fn curriculum(
    make: Make<'_, dyn Curriculum>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(mut curriculum) = make(config) else { return Vec::new() };
    let size = |random: &mut Random| [0, 1, 7, 300, u64::MAX][random.below(5)];
    for _ in 0..ROUNDS {
        let sources: Vec<SourceView> = (0..1 + random.below(8))
            .map(|_| SourceView {
                num_examples: size(random).max(1),
                given: size(random),
                next: random.bits(),
            })
            .collect();
        let _ = curriculum.next(&sources);
        let bytes: Vec<u8> = (0..random.below(99)).map(|_| random.bits() as u8).collect();
        if let Some(state) = curriculum.handover().filter(|_| random.below(8) == 0) {
            let _ = state.restore(&bytes);
        }
    }
    Vec::new()
}

pub(in crate::testing) fn reward(
    make: Make<'_, dyn Reward>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(mut reward) = make(config) else { return Vec::new() };
    for _ in 0..ROUNDS {
        let texts: Vec<[String; 3]> =
            (0..random.below(9)).map(|_| [(); 3].map(|()| text(random))).collect();
        let answers = texts.iter().map(|[prompt, text, expected]| RatedAnswer {
            prompt,
            text,
            // Data without it are no fault of the plugin, and an error that it may answer with.
            expected: Some(expected),
            num_tokens: random.bits(),
            is_finished: random.below(2) == 0,
        });
        let answers: Vec<RatedAnswer<'_>> = answers.collect();
        let _ = reward.rate(&answers);
    }
    Vec::new()
}

/// Returns the request parameters that it reads.
pub(in crate::testing) fn decoding_strategy(
    make: Make<'_, dyn DecodingStrategy>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let asked = Asked::of(config, config, |params| {
        if let Ok(mut strategy) = make(config) {
            crate::testing::decoding_strategy::attach(&mut *strategy);
            let request = RequestView { seq: SeqId(0), prompt: &[1], params };
            let _ = strategy.open(GroupId(0), &request);
        }
    });
    let Ok(mut strategy) = make(config) else { return asked.keys };
    crate::testing::decoding_strategy::attach(&mut *strategy);
    let (mut evals, mut actions) =
        (Evals::default(), Actions { next_seq: 100, ..Actions::default() });
    for _ in 0..ROUNDS {
        let group = GroupId(random.below(5) as u32);
        match random.below(6) {
            0 | 1 => {
                let parameters = asked.params(random);
                let prompt: Vec<u32> = (0..random.below(5)).map(|_| random.bits() as u32).collect();
                let request =
                    RequestView { seq: SeqId(group.0), prompt: &prompt, params: &parameters };
                let _ = strategy.open(group, &request);
            }
            2 => strategy.close(group),
            _ => {
                evals.clear();
                actions.list.clear();
                let _ = strategy.plan(group, &mut evals);
                let outcome = |random: &mut Random, seq| Outcome {
                    seq,
                    token: (random.below(4) > 0).then(|| random.bits() as u32),
                    logprob: number(random),
                    draft: (random.below(4) == 0).then(|| random.bits() as u32),
                };
                let results: Vec<Outcome> =
                    evals.list.iter().map(|eval| outcome(random, eval.seq)).collect();
                let _ = strategy.observe(group, &results, &mut actions);
            }
        }
    }
    asked.keys
}

pub(in crate::testing) fn kv_cache(
    make: Make<'_, dyn KvCache>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    for _ in 0..ROUNDS / 30 {
        let Ok(mut cache) = make(config) else { return Vec::new() };
        let part = |random: &mut Random| Part {
            name: text(random),
            dims: (0..random.below(4)).map(|_| [0, 1, 2, 64, 1 << 20][random.below(5)]).collect(),
        };
        let states: Vec<StateSpec> = (0..random.below(4))
            .map(|_| StateSpec {
                name: text(random),
                per: Per::Token { window: random.below(9) as u32 },
                parts: (0..random.below(3)).map(|_| part(random)).collect(),
            })
            .collect();
        let limits = PoolLimits {
            num_seqs_max: random.below(9),
            tokens_per_seq_max: random.below(99),
            size_bytes_max: [0, 1, 4_096, 1 << 20][random.below(4)],
        };
        let mut moves = Vec::new();
        if cache.pool(&states, &limits).is_err() {
            continue;
        }
        for _ in 0..60 {
            let (seq, other) = (SeqId(random.below(9) as u32), SeqId(random.below(9) as u32));
            let tokens = random.below(120);
            match random.below(6) {
                0 => cache.commit(seq, tokens, &mut moves),
                1 if seq != other => drop(cache.fork(seq, other, &mut moves)),
                2 => cache.release(seq, random.below(3) * tokens),
                3 => cache.tick(random.bits() % 4_096, &mut moves),
                _ => drop(cache.reserve(seq, tokens, &mut moves).map(<[u32]>::len)),
            }
            let bytes: Vec<u8> = (0..random.below(99)).map(|_| random.bits() as u8).collect();
            if let Some(state) = cache.handover().filter(|_| random.below(8) == 0) {
                let _ = state.restore(&bytes);
            }
            let _ = cache.usage();
        }
    }
    Vec::new()
}

pub(in crate::testing) fn quantizer(
    make: Make<'_, dyn Quantizer>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(quantizer) = make(config) else { return Vec::new() };
    let (format, lowering) = (quantizer.format(), quantizer.lowering());
    for _ in 0..ROUNDS {
        let blocks = random.below(4);
        let off = |random: &mut Random| random.below(5).saturating_sub(3);
        let bytes: Vec<u8> =
            (0..blocks * format.block_bytes + off(random)).map(|_| random.bits() as u8).collect();
        let rows: Vec<f32> =
            (0..blocks * format.block_len + off(random)).map(|_| number(random)).collect();
        let _ = quantizer.decode(&bytes, &mut rows.clone());
        let weights: Vec<f32> = (0..random.below(rows.len() + 2)).map(|_| number(random)).collect();
        let calibration = Calibration { mean_square: &weights };
        let calibration = (random.below(2) == 0).then_some(&calibration);
        let _ = quantizer.encode(&rows, calibration, &mut bytes.clone());
        let group = match lowering {
            Lowering::Affine { group, .. } => group,
            _ => 16,
        };
        let (mut codes, mut scales) = (vec![0; rows.len()], vec![0.0; rows.len() / group.max(1)]);
        let mut mins = vec![0.0; random.below(2) * scales.len()];
        let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut mins };
        let _ = quantizer.unpack(&bytes, &mut out);
    }
    Vec::new()
}

/// Returns the request parameters that it reads.
pub(in crate::testing) fn hook(
    make: Make<'_, dyn Hook>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let subscribed = || {
        let mut listening = Subscriptions::new();
        make(config)?.subscribe(&mut listening).map(|()| listening)
    };
    let asked = Asked::of(config, config, |params| {
        if let Ok(mut listening) = subscribed() {
            let _ = after_token(&mut listening, "text", params);
        }
    });
    if let Ok(mut listening) = subscribed() {
        for _ in 0..ROUNDS {
            let _ = after_token(&mut listening, &text(random), &asked.params(random));
        }
    }
    asked.keys
}

pub(in crate::testing) fn memory(
    make: Make<'_, dyn Memory>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(mut memory) = make(config) else { return Vec::new() };
    let machine = Machine::new();
    let host = machine.host("fuzz");
    for _ in 0..ROUNDS {
        let messages = (0..random.below(4)).map(|_| Message::new(text(random), text(random)));
        let messages = messages.collect();
        let session = ["a", "b", ""][random.below(3)].to_owned();
        let turn = Turn { session, messages, tokens_max: random.bits() as u32 };
        let _ = memory.recall(&turn, &host);
        let _ = memory.remember(&turn, &text(random), &host);
        let row = Row { key: text(random), value: text(random).into_bytes() };
        let _ = host.services().store_change("a", &[Change::Put(row)]);
    }
    Vec::new()
}

pub(in crate::testing) fn model_source(
    make: Make<'_, dyn ModelSource>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(source) = make(config) else { return Vec::new() };
    for _ in 0..ROUNDS / 10 {
        let machine = Machine::new();
        let host = machine.host("fuzz");
        for entry in source.list().into_iter().take(3) {
            let _ = source.resolve(&entry.name, &host);
        }
        let name = text(random);
        let description = text(random);
        let size_bytes = (random.below(2) == 0).then(|| random.bits());
        let _ = source.resolve(&name, &host);
        machine.put(&*name, text(random));
        let answer = Answer { body: text(random).into_bytes(), ..Answer::default() };
        machine.answer(&name, answer);
        let entry = ModelEntry { name, description, size_bytes };
        let _ = source.fetch(&entry, Path::new("models"), &mut |_| (), &host);
    }
    Vec::new()
}

pub(in crate::testing) fn backend(
    make: Make<'_, dyn Backend>,
    config: &Config,
    random: &mut Random,
) -> Vec<String> {
    let Ok(backend) = make(config) else { return Vec::new() };
    let lowering = [
        Lowering::Affine { bits: 4, group: 32, zero_point: 8, has_min: false, scales: Scales::F16 },
        Lowering::MiniFloat { exponent: 5, mantissa: 10 },
        Lowering::Opaque,
    ];
    for _ in 0..ROUNDS {
        let size = |random: &mut Random| [0, 1, 7, 32, 64][random.below(5)];
        let (rows, cols) = (size(random), size(random));
        let desc = WeightDesc { name: text(random), format: text(random), rows, cols };
        let lowering = &lowering[random.below(3)];
        let Ok(layout) = backend.layout(&desc, lowering) else { continue };
        let values: Vec<f32> = (0..random.below(rows * cols + 2)).map(|_| number(random)).collect();
        let values = RawValues::Floats(&values);
        let raw = RawRows { desc: &desc, lowering, rows, values };
        let mut out = vec![0; (layout.size_bytes(rows) + random.below(2)).min(1 << 16)];
        let _ = backend.pack(&raw, &layout, &mut out);
    }
    let nothing = Plan::default();
    let _ = backend.compile(&nothing, &Bucket::default(), &MemoryMap::default());
    Vec::new()
}
