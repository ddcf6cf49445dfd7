//! Products with chosen experts against all experts over all tokens, with every thread count and
//! instruction set.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use backend_cpu::Cpu;
use plugin_api::TensorRef;
use plugin_api::prelude::*;
use plugin_api::testing::random::Random;

use self::rig::experts::Mixture;
use self::rig::{Cache, Format, Rig};

const MIXTURE: Mixture = Mixture { hidden: 64, inner: 96, experts: 8 };

#[test]
fn what_is_chosen_is_what_a_mask_would_leave() {
    for format in [Format::F32, Format::Affine(4, 32, true, false)] {
        for tokens in [1, 7, 64] {
            let mut random = Random::new(tokens as u64);
            let x: Vec<f32> = (0..tokens * 64).map(|_| random.signed()).collect();
            let (chosen, counts) = MIXTURE.choices(tokens, 2);
            // The same sum over all experts, most of them times zero.
            let everyone: Vec<u32> = (0..tokens).flat_map(|_| 0..8).collect();
            let mut mask = vec![0.0; tokens * 8];
            for (i, (expert, count)) in chosen.iter().zip(&counts).enumerate() {
                mask[i / 2 * 8 + *expert as usize] = *count;
            }
            let mut bits: Option<Vec<u32>> = None;
            for (threads, isa) in [(1, "scalar"), (2, "auto"), (1, "auto")] {
                let config = Config::new().with("threads", threads).with("isa", isa);
                let backend = Cpu::from_config(&config).unwrap();
                let run = |choices: u64, counts: &[f32], chosen: &[u32]| {
                    let plan = MIXTURE.dispatched(choices).unwrap();
                    let maxima = [(Dim::TOKENS, 64)];
                    let mut rig = Rig::new(&backend, plan, format, Cache::NONE, &maxima).unwrap();
                    let inputs =
                        [TensorRef::F32(&x), TensorRef::F32(counts), TensorRef::U32(chosen)];
                    rig.run(&backend, &[(Dim::TOKENS, tokens)], &inputs).unwrap()
                };
                let (found, expected) = (run(2, &counts, &chosen), run(8, &mask, &everyone));
                let peak = expected.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() <= 2e-6 * peak, "{found}, not {expected}");
                }
                let found: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
                if isa == "auto" {
                    assert_eq!(*bits.get_or_insert(found.clone()), found, "{threads} threads");
                }
            }
        }
    }
}

/// What the bench compares makes the same numbers.
#[test]
fn all_experts_over_all_tokens_with_a_mask_make_what_the_chosen_make() {
    let backend = Cpu::from_config(&Config::new().with("threads", 1)).unwrap();
    let (tokens, maxima) = (32, [(Dim::TOKENS, 32)]);
    let mut random = Random::new(1);
    let x: Vec<f32> = (0..tokens * 64).map(|_| random.signed()).collect();
    let (chosen, counts) = MIXTURE.choices(tokens, 2);
    let mut mask = vec![0.0; tokens * 8];
    for (i, (expert, count)) in chosen.iter().zip(&counts).enumerate() {
        mask[i / 2 * 8 + *expert as usize] = *count;
    }
    let run = |plan: Plan, inputs: &[TensorRef<'_>]| {
        let mut rig = Rig::new(&backend, plan, Format::F32, Cache::NONE, &maxima).unwrap();
        rig.run(&backend, &maxima, inputs).unwrap()
    };
    let counts = [TensorRef::F32(&x), TensorRef::F32(&counts), TensorRef::U32(&chosen)];
    let found = run(MIXTURE.dispatched(2).unwrap(), &counts);
    let expected = run(MIXTURE.masked().unwrap(), &[TensorRef::F32(&x), TensorRef::F32(&mask)]);
    let peak = expected.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
    assert!(peak > 0.0 && found.len() == expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 2e-6 * peak, "{found}, not {expected}");
    }
}
