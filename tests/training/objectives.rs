//! Each objective moves what it is measured by in the right direction, from three seeds.

use jackfield_engine::train::{Column, Parameters, TokenBatch, Trainer};
use plugin_api::testing::random::Random;

use crate::{architecture, setup, trainer_of};

const SEEDS: [u64; 3] = [1, 2, 3];

/// A trainer of fresh parameters with this objective.
fn fresh(objective: &str, seed: u64, keys: &[(&str, f64)]) -> Trainer {
    let mut setup = setup("cpu").with("objective", objective).with("lr-schedule", "constant");
    for (key, value) in keys {
        setup = setup.set(objective, key, *value);
    }
    trainer_of(&setup, Parameters::random(&architecture(), seed).unwrap())
}

fn tokens(random: &mut Random, count: usize) -> Vec<u32> {
    (0..count).map(|_| random.below(512) as u32).collect()
}

/// Pairs of answers of one to three tokens to prompts of three.
fn pairs(seed: u64) -> TokenBatch {
    let mut random = Random::new(seed);
    let mut batch = TokenBatch::default();
    for pair in 0..2 {
        let prompt = tokens(&mut random, 3);
        let (preferred, other) = (tokens(&mut random, 1 + pair), tokens(&mut random, 3));
        batch.push_pair(&prompt, &preferred, &other);
    }
    batch
}

/// The sum over each sequence's tokens that count.
fn by_sequence(batch: &TokenBatch, of_tokens: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; batch.num_seqs()];
    for (row, value) in of_tokens.iter().enumerate() {
        sums[batch.sequence_index[row] as usize] += value * batch.weights[row];
    }
    sums
}

#[test]
fn dpo_makes_preferred_answers_likelier_than_others() {
    for seed in SEEDS {
        let (mut trainer, mut batch) = (fresh("dpo", seed, &[("beta", 0.5)]), pairs(seed));
        let reference = trainer.logprobs(&batch).unwrap();
        batch.set_column("reference_logprobs", Column::F32(reference.clone()));
        let ahead = |trainer: &mut Trainer| -> Vec<f32> {
            let now = trainer.logprobs(&batch).unwrap();
            let change: Vec<f32> = now.iter().zip(&reference).map(|(a, b)| a - b).collect();
            by_sequence(&batch, &change).chunks(2).map(|pair| pair[0] - pair[1]).collect()
        };
        assert_eq!(ahead(&mut trainer), [0.0, 0.0]);
        let first = trainer.step(std::slice::from_ref(&batch)).unwrap().loss;
        assert!((first - std::f64::consts::LN_2).abs() < 1e-5, "{first}: it begins undecided");
        for _ in 0..5 {
            trainer.step(std::slice::from_ref(&batch)).unwrap();
        }
        let after = ahead(&mut trainer);
        assert!(after.iter().all(|&ahead| ahead > 1.0), "seed {seed}: {after:?}");
    }
}

#[test]
fn a_reward_model_ranks_what_it_was_shown() {
    for seed in SEEDS {
        let (mut trainer, batch) = (fresh("reward-model", seed, &[]), pairs(seed));
        let gaps = |trainer: &mut Trainer| -> Vec<f32> {
            let logits = trainer.logits(&batch).unwrap();
            let is_last =
                |row: &usize| batch.sequence_index.get(row + 1) != batch.sequence_index.get(*row);
            let rows = (0..batch.num_tokens()).filter(is_last);
            let rewards: Vec<f32> = rows.map(|row| logits[row * 512]).collect();
            rewards.chunks(2).map(|pair| pair[0] - pair[1]).collect()
        };
        let before = gaps(&mut trainer);
        for _ in 0..6 {
            trainer.step(std::slice::from_ref(&batch)).unwrap();
        }
        let after = gaps(&mut trainer);
        let is_ahead = before.iter().zip(&after).all(|(b, a)| *a > 0.5 && a > b);
        assert!(is_ahead, "seed {seed}: {before:?} {after:?}");
    }
}

#[test]
fn a_student_comes_near_its_teacher() {
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let mut batch = TokenBatch::default();
        (0..2).for_each(|_| batch.push(&tokens(&mut random, 9)));
        // A teacher that knows these tokens.
        let mut teacher = fresh("causal-lm", seed + 10, &[]);
        for _ in 0..8 {
            teacher.step(std::slice::from_ref(&batch)).unwrap();
        }
        let logits = teacher.logits(&batch).unwrap();
        batch.set_column("teacher_logits", Column::F32(logits));
        let mut student = fresh("distill", seed, &[("temperature", 2.0)]);
        let surprise = |student: &mut Trainer| -> f32 {
            -student.logprobs(&batch).unwrap().iter().sum::<f32>()
        };
        let before = surprise(&mut student);
        let losses: Vec<f64> =
            (0..10).map(|_| student.step(std::slice::from_ref(&batch)).unwrap().loss).collect();
        assert!(losses[9] < 0.5 * losses[0], "seed {seed}: {losses:?}");
        assert!(surprise(&mut student) < before, "seed {seed}: what the teacher knows is learnt");
    }
}

/// Samples a token of the logits after each sequence's last token.
fn sample(random: &mut Random, logits: &[f32]) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|x| (x - most).exp()).collect();
    let mut rest = (0.5 + 0.5 * random.signed()) * weights.iter().sum::<f32>();
    let found = weights.iter().position(|weight| {
        rest -= weight;
        rest <= 0.0
    });
    found.unwrap_or(logits.len() - 1) as u32
}

#[test]
fn grpo_makes_rewarded_answers_likelier() {
    for seed in SEEDS {
        let keys = [("beta", 0.01)];
        let (mut trainer, mut random) = (fresh("grpo", seed, &keys), Random::new(seed));
        let prompts = [tokens(&mut random, 3), tokens(&mut random, 3)];
        // The mass on tokens below 256, which are rewarded, after the prompts.
        let after_prompts = |trainer: &mut Trainer| -> (Vec<Vec<f32>>, f32) {
            let mut batch = TokenBatch::default();
            prompts.iter().for_each(|prompt| batch.push_answer(prompt, &[0]));
            let logits = trainer.logits(&batch).unwrap();
            let rows: Vec<Vec<f32>> = [2, 5].map(|row| logits[row * 512..][..512].to_vec()).into();
            let mass = |row: &Vec<f32>| {
                let weights: Vec<f32> = row.iter().map(|x| x.exp()).collect();
                weights[..256].iter().sum::<f32>() / weights.iter().sum::<f32>()
            };
            let mean = rows.iter().map(mass).sum::<f32>() / 2.0;
            (rows, mean)
        };
        let (_, before) = after_prompts(&mut trainer);
        let mut reference = fresh("grpo", seed, &keys);
        for _ in 0..150 {
            let (rows, _) = after_prompts(&mut trainer);
            // A micro-batch for each group.
            let batches: Vec<TokenBatch> = (prompts.iter().zip(&rows))
                .map(|(prompt, row)| {
                    let mut batch = TokenBatch::default();
                    for _ in 0..4 {
                        let token = sample(&mut random, row);
                        let reward = if token < 256 { 1.0 } else { 0.0 };
                        batch.push_rated(prompt, &[token], 0, reward);
                    }
                    let old = trainer.logprobs(&batch).unwrap();
                    let held = reference.logprobs(&batch).unwrap();
                    batch.set_column("old_logprobs", Column::F32(old));
                    batch.set_column("reference_logprobs", Column::F32(held));
                    batch
                })
                .collect();
            trainer.step(&batches).unwrap();
        }
        let (_, after) = after_prompts(&mut trainer);
        assert!(after > before + 0.1, "seed {seed}: {before} {after}");
    }
}

#[test]
fn a_missing_or_short_column_is_named() {
    let mut trainer = fresh("dpo", 1, &[]);
    let mut batch = pairs(1);
    let error = trainer.step(std::slice::from_ref(&batch)).unwrap_err().to_string();
    assert!(error.contains("column `reference_logprobs`"), "{error}");
    batch.set_column("reference_logprobs", Column::F32(vec![0.0; 3]));
    let error = trainer.step(std::slice::from_ref(&batch)).unwrap_err().to_string();
    let expected = format!("expected {} of f32, found 3 of f32", batch.num_tokens());
    assert!(error.contains(&expected), "{error}");
    batch.set_column("reference_logprobs", Column::U32(vec![0; batch.num_tokens()]));
    let error = trainer.step(std::slice::from_ref(&batch)).unwrap_err().to_string();
    assert!(error.contains("of u32"), "{error}");
}
