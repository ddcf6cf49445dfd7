//! The bits of a token do not depend on chunking, threads, instruction set or cache, on the
//! backends that promise it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use jackfield_engine::Engine;
use jackfield_tests::{Setup, tiny_model};
use proptest::prelude::*;

const MODELS: [&str; 4] = ["tiny", "tiny_qwen2", "tiny_qwen3", "tiny_gemma3"];

/// Logits of every token, as bits.
fn logits(engine: &mut Engine, tokens: &[u32], chunk: usize) -> Vec<u32> {
    let mut bits = Vec::new();
    let each = &mut |_: usize, row: &[f32]| bits.extend(row.iter().map(|x| x.to_bits()));
    engine.evaluate(tokens, 0, chunk, each).unwrap();
    bits
}

fn engine(model: &str, backend: &str, table: &[(&str, plugin_api::Value)], cache: &str) -> Engine {
    let folder = tiny_model(model);
    let mut setup = Setup::new(backend).with("kv-cache", cache);
    for (key, value) in table {
        setup = setup.set(backend, key, value.clone());
    }
    setup.options.logit_rows_max = 64;
    setup.options.num_seqs_max = 2;
    setup.load(folder.path()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn chunking_threads_and_caches_change_no_bit(
        model in 0..MODELS.len(),
        tokens in prop::collection::vec(0..510_u32, 1..60),
        chunks in prop::collection::vec(1..61_usize, 3),
    ) {
        let model = MODELS[model];
        for (backend, tables) in [
            ("reference", vec![vec![]]),
            ("cpu", vec![
                vec![("threads", 2.into())],
                vec![("threads", 3.into()), ("isa", "avx2".into())],
                vec![("threads", 1.into()), ("isa", "scalar".into())],
            ]),
        ] {
            let one = [("threads", 1.into())];
            let first = if backend == "cpu" { &one[..] } else { &[] };
            let expected = logits(&mut engine(model, backend, first, "paged"), &tokens, 64);
            for (table, chunk) in tables.iter().zip(&chunks) {
                for cache in ["paged", "contiguous"] {
                    let mut engine = engine(model, backend, table, cache);
                    let found = logits(&mut engine, &tokens, *chunk);
                    prop_assert!(found == expected, "{model} {backend} {table:?} {cache} {chunk}");
                }
            }
        }
    }
}
