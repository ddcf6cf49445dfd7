//! Answers beside those of 32-bit numbers, and the bits of a row.

use jackfield_engine::{Engine, Request};
use jackfield_tests::{Setup, answer, real_model, tiny_model};
use plugin_api::{Config, Value};

const CACHES: [&str; 2] = ["int8", "int8-residual"];

fn setup(cache: &str) -> Setup {
    let mut setup = Setup::new("cpu").with("kv-cache", cache);
    setup.options.num_seqs_max = 4;
    if cache == "paged" { setup.set("paged", "dtype", "f32") } else { setup }
}

/// Log-probability of each token after those before it.
fn logprobs(engine: &mut Engine, tokens: &[u32], chunk: usize) -> Vec<f64> {
    let mut found = Vec::new();
    let each = &mut |position: usize, row: &[f32]| {
        let Some(next) = tokens.get(position + 1) else { return };
        let peak = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let sum: f64 = row.iter().map(|x| f64::from(x - peak).exp()).sum();
        found.push(f64::from(row[*next as usize] - peak) - sum.ln());
    };
    engine.evaluate(tokens, 0, chunk, each).unwrap();
    found
}

fn as_config(scales: Vec<Vec<Vec<f32>>>) -> Value {
    let list =
        |part: Vec<f32>| Value::List(part.into_iter().map(|x| f64::from(x).into()).collect());
    let state = |parts: Vec<Vec<f32>>| Value::List(parts.into_iter().map(list).collect());
    Value::List(scales.into_iter().map(state).collect())
}

#[test]
fn the_bits_of_a_token_do_not_depend_on_chunks_threads_or_neighbours() {
    let folder = tiny_model("tiny");
    let tokens: Vec<u32> = (0..70).map(|i| (i * 37) % 510).collect();
    let bits = |cache: &str, config: &Config, threads: i64, chunk: usize, mates: bool| {
        let mut setup = setup(cache).set("cpu", "threads", threads);
        for (key, value) in config.unmarked() {
            setup = setup.set(cache, key, value.clone());
        }
        setup.options.logit_rows_max = 64;
        let mut engine = setup.load(folder.path()).unwrap();
        if mates {
            for i in 0..2 {
                let mate = Request::new(vec![7 + i; 20]).with("max_tokens", 5).with("seed", 3);
                engine.submit(mate).unwrap();
            }
            engine.step(&mut |_| {}).unwrap();
        }
        let mut bits = Vec::new();
        let each = &mut |_: usize, row: &[f32]| bits.extend(row.iter().map(|x| x.to_bits()));
        engine.evaluate(&tokens, 0, chunk, each).unwrap();
        bits
    };
    let mut wide = setup("paged").load(folder.path()).unwrap();
    let scales = as_config(wide.cache_scales(&tokens[..40], 0.99).unwrap());
    let dynamic = Config::new().with("block_size", 8);
    for cache in CACHES {
        for config in [dynamic.clone(), dynamic.clone().with("channel_scales", scales.clone())] {
            let config = match cache {
                "int8-residual" => config.with("error_min", 0.008).with("patches_per_block", 3),
                _ => config,
            };
            let expected = bits(cache, &config, 1, 64, false);
            for (threads, chunk, mates) in [(2, 64, false), (1, 1, false), (2, 7, true)] {
                let found = bits(cache, &config, threads, chunk, mates);
                assert!(found == expected, "{cache}: {threads} threads, by {chunk}, {mates}");
            }
        }
    }
}

#[test]
fn the_reference_backend_reads_the_same_codes() {
    let folder = tiny_model("tiny");
    let tokens: Vec<u32> = (0..50).map(|i| (i * 37) % 510).collect();
    for cache in CACHES {
        let of = |backend: &str| {
            let mut setup = Setup::new(backend).with("kv-cache", cache);
            setup.options.logit_rows_max = 64;
            logprobs(&mut setup.load(folder.path()).unwrap(), &tokens, 64)
        };
        let differences = of("cpu").into_iter().zip(of("reference")).map(|(a, b)| (a - b).abs());
        let most = differences.fold(0.0, f64::max);
        println!("{cache}: cpu beside reference, at most {most:.1e}");
        assert!(most < 2e-2, "{cache}: {most}");
    }
}

#[test]
fn a_real_model_answers_as_with_32_bits() {
    let Some(path) = real_model("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let text = std::fs::read_to_string(jackfield_tests::root().join("README.md")).unwrap();
    let mut wide = setup("paged").load(&path).unwrap();
    let mut tokens = wide.model().tokenizer.encode(&text, false);
    tokens.truncate(1200);
    let (learnt, tokens) = tokens.split_at(500);
    let scales = as_config(wide.cache_scales(learnt, 0.999).unwrap());
    let request = || {
        let request = Request::new("Tell me about the history of railways.").strategy("greedy");
        request.with("max_tokens", 96_i64).with("ignore_eos", true)
    };
    let expected = logprobs(&mut wide, tokens, 256);
    let greedy = answer(&mut wide, request()).1;
    let wide_bytes = wide.state_layout().bytes_per_token as f64;
    drop(wide);
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let loss = -mean(&expected);
    println!("cache                 bytes  of F16  perplexity   drift  greedy tokens alike");
    println!("paged f32         {wide_bytes:>9.0} {:>7.3} {:>11.4}", 2.0, loss.exp());
    for (name, cache, fixed, drift_max, bytes_max) in [
        ("paged f16", "paged", false, 0.002, 1.0),
        ("int8", "int8", false, 0.04, 0.52),
        ("int8, fixed", "int8", true, 0.08, 0.501),
        ("int8-residual", "int8-residual", false, 0.04, 0.53),
        ("int8-residual, fixed", "int8-residual", true, 0.08, 0.52),
    ] {
        let mut setup = setup(cache).set(cache, "dtype", "f16");
        if cache != "paged" {
            setup = self::setup(cache);
        }
        if fixed {
            setup = setup.set(cache, "channel_scales", scales.clone());
        }
        let mut engine = setup.load(&path).unwrap();
        let found = logprobs(&mut engine, tokens, 256);
        let drift: Vec<f64> = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).collect();
        let tokens = answer(&mut engine, request()).1;
        let alike = tokens.iter().zip(&greedy).take_while(|(a, b)| a == b).count();
        let bytes = engine.state_layout().bytes_per_token as f64;
        let (share, perplexity) = (2.0 * bytes / wide_bytes, (-mean(&found)).exp());
        println!(
            "{name:<20} {bytes:>6.0} {share:>7.3} {perplexity:>11.4} {:>7.4} {alike:>5} of {}",
            mean(&drift),
            greedy.len(),
        );
        assert!(share <= bytes_max, "{name}: {share} of 16-bit numbers");
        assert!(mean(&drift) < drift_max, "{name}: log-probabilities move by {}", mean(&drift));
        assert!((-mean(&found) - loss).abs() < drift_max / 2.0, "{name}: loss {}", -mean(&found));
    }
}
