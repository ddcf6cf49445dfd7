//! What the size of a block costs and saves, drawn from a long-tailed mix of lengths:
//! `cargo run --release -p plugin-paged --example page_size`.
//!
//! Lengths are log-normal with a median of 300 tokens, cut at 8,192: many short, few very long.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::time::Instant;

use plugin_api::plan::{Part, Per};
use plugin_api::prelude::*;
use plugin_api::testing::random::Random;
use plugin_paged::Paged;

const SEQS: usize = 64;
const ROUNDS: usize = 40;
const TOKENS_MAX: usize = 8192;

fn main() -> Result<()> {
    println!("block  waste   95 % below  table bytes  ns a token  prefix tokens");
    println!("size                       a sequence   reserved    evaluated again");
    for block_size in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
        let (mut random, mut wastes) = (Random::new(1), Vec::new());
        let (mut blocks, mut again, mut tokens, mut nanos) = (0, 0, 0, 0);
        for _ in 0..ROUNDS {
            let mut cache = open(block_size)?;
            let mut moves = Vec::new();
            let lengths: Vec<usize> = (0..SEQS).map(|_| length(&mut random)).collect();
            let start = Instant::now();
            for (seq, length) in (0..).zip(&lengths) {
                // A prompt of a quarter at once, the answer token by token.
                for part in std::iter::once(length / 4).chain((length / 4..*length).map(|_| 1)) {
                    cache.reserve(SeqId(seq), part, &mut moves)?;
                    cache.commit(SeqId(seq), part, &mut moves);
                }
            }
            nanos += start.elapsed().as_nanos();
            let held: usize = lengths.iter().sum();
            let used = cache.usage().used;
            wastes.push(1.0 - held as f64 / (used * block_size) as f64);
            (blocks, tokens) = (blocks + used, tokens + held);
            // Of a prefix that ends anywhere, only full blocks are shared.
            again += lengths.iter().map(|length| length % block_size).sum::<usize>();
        }
        wastes.sort_by(f64::total_cmp);
        let mean = wastes.iter().sum::<f64>() / wastes.len() as f64;
        println!(
            "{block_size:>5}  {:>5.2} %  {:>7.2} %  {:>11.0}  {:>10.1}  {:>15.1}",
            100.0 * mean,
            100.0 * wastes[wastes.len() * 95 / 100],
            4.0 * blocks as f64 / (ROUNDS * SEQS) as f64,
            nanos as f64 / tokens as f64,
            again as f64 / (ROUNDS * SEQS) as f64,
        );
    }
    Ok(())
}

fn open(block_size: usize) -> Result<Paged> {
    let mut cache = Paged::from_config(&Config::new().with("block_size", block_size as i64))?;
    let part = Part { name: "key".to_owned(), dims: vec![1] };
    let states =
        [StateSpec { name: "s".to_owned(), per: Per::Token { window: 0 }, parts: vec![part] }];
    let (num_seqs_max, tokens_per_seq_max) = (SEQS, TOKENS_MAX);
    let size_bytes_max = (SEQS * TOKENS_MAX * 2 + 64 * 256) as u64;
    cache.pool(&states, &PoolLimits { num_seqs_max, tokens_per_seq_max, size_bytes_max })?;
    Ok(cache)
}

/// Tokens of a sequence: log-normal, by Box and Muller.
fn length(random: &mut Random) -> usize {
    let [u, v] = [(); 2].map(|()| (f64::from(random.signed()) + 1.0) / 2.0);
    let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    ((300.0 * normal.exp()) as usize).clamp(1, TOKENS_MAX)
}
