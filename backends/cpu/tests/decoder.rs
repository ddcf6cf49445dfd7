//! A whole decoder against the interpreter, and the law that no bit depends on how it is run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod rig;

use backend_cpu::Cpu;
use plugin_api::Error;
use plugin_api::prelude::*;
use plugin_api::testing::interpreter::{Args, FusedAs, OwnedArena, run};
use proptest::prelude::*;

use self::rig::{Cache, Decoder, Format, Rig, Step};

const CACHE: Cache = Cache { num_blocks: 40, block_size: 4, dtype: DType::F32 };
const MAXIMA: [(Dim, usize); 4] =
    [(Dim::TOKENS, 64), (Dim::SEQS, 20), (Dim::BLOCKS, 16), (Dim::LOGIT_ROWS, 64)];
const Q4: Format = Format::Affine(4, 32, true, true);

fn cpu(threads: i64, isa: &str) -> Cpu {
    Cpu::from_config(&Config::new().with("threads", threads).with("isa", isa)).unwrap()
}

fn isas() -> impl Iterator<Item = &'static str> {
    let has = |isa: &&str| Cpu::from_config(&Config::new().with("isa", *isa)).is_ok();
    ["scalar", "avx2", "avx512"].into_iter().filter(has)
}

/// Seven tokens of one sequence and five of another, in blocks that lie anyhow.
fn two_sequences() -> Step {
    let mut step = Step::default();
    step.push(&[3, 149, 0, 7, 7, 20, 1], 0, &[9, 3, 0, 0]);
    step.push(&[5, 6, 7, 8, 90], 0, &[2, 39, 0, 0]);
    step
}

fn expected(rig: &Rig, step: &Step, cache: Cache) -> Vec<f64> {
    let Cache { num_blocks, block_size, dtype } = cache;
    let mut arena = OwnedArena::new(&rig.plan, num_blocks, block_size, dtype);
    let sizes = rig.sizes(&step.sizes());
    let inputs = step.inputs(&rig.plan);
    let weights: Vec<&[f32]> = rig.floats.iter().map(Vec::as_slice).collect();
    let args =
        Args { sizes: &sizes, inputs: &inputs, weights: &weights, fused: FusedAs::Expansion };
    let results = run::<f64>(&rig.plan, args, &mut arena.arena()).unwrap();
    results.into_iter().next().unwrap().into_reals().unwrap()
}

fn logits(backend: &Cpu, rig: &mut Rig, step: &Step) -> Result<Vec<f32>> {
    let inputs = step.inputs(&rig.plan);
    rig.run(backend, &step.sizes(), &inputs)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn agrees_with_the_interpreter() {
    let windowed = Decoder { window: 3, softcap: 2.0, has_bias: false, ..Decoder::SMALL };
    #[rustfmt::skip]
    let cases = [
        // name             decoder         weights                            state       within
        ("f32",             Decoder::SMALL, Format::F32,                       DType::F32, 2e-5),
        ("f16",             Decoder::SMALL, Format::F16,                       DType::F16, 2e-3),
        ("bf16",            Decoder::SMALL, Format::BF16,                      DType::BF16, 2e-2),
        ("4 bits and min",  Decoder::SMALL, Q4,                                DType::F32, 3e-2),
        ("6 bits of 16",    Decoder::SMALL, Format::Affine(6, 16, false, false), DType::F32, 3e-2),
        ("8 bits",          Decoder::SMALL, Format::Affine(8, 32, false, true), DType::F16, 3e-2),
        ("window, softcap", windowed,       Format::F32,                       DType::F32, 2e-5),
    ];
    let backend = cpu(2, "auto");
    let step = two_sequences();
    for (name, decoder, format, dtype, within) in cases {
        let cache = Cache { dtype, ..CACHE };
        let mut rig = Rig::new(&backend, decoder.plan().unwrap(), format, cache, &MAXIMA).unwrap();
        let expected = expected(&rig, &step, cache);
        let found = logits(&backend, &mut rig, &step).unwrap();
        let peak = expected.iter().fold(0.0_f64, |peak, x| peak.max(x.abs()));
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            let error = (f64::from(*a) - b).abs() / peak;
            assert!(error <= within, "{name}: logit {i} is {a}, not {b}: {error:.2e} of {peak}");
        }
    }
}

#[test]
fn no_bit_depends_on_threads_instruction_set_batch_mates_or_chunking() {
    for format in [Q4, Format::F16] {
        let plan = Decoder::SMALL.plan().unwrap();
        let one = cpu(1, "scalar");
        let mut rig = Rig::new(&one, plan.clone(), format, CACHE, &MAXIMA).unwrap();
        let step = two_sequences();
        let expected = bits(&logits(&one, &mut rig, &step).unwrap());
        let vocab = Decoder::SMALL.vocab as usize;
        for isa in isas() {
            for threads in [1, 2, 3] {
                let backend = cpu(threads, isa);
                // Weights packed by another instance are adopted as they are.
                let found = bits(&logits(&backend, &mut rig, &step).unwrap());
                assert_eq!(found, expected, "{format:?} {isa} {threads} threads");

                let mut alone = Step::default();
                alone.push(&step.token_ids[7..], 0, &[11, 12, 0, 0]);
                let found = bits(&logits(&backend, &mut rig, &alone).unwrap());
                assert_eq!(found, expected[7 * vocab..], "{format:?} {isa} {threads} alone");

                for (from, to) in [(0, 3), (3, 4), (4, 7)] {
                    let mut chunk = Step::default();
                    chunk.push(&step.token_ids[from..to], from, &[20, 21, 0, 0]);
                    let found = bits(&logits(&backend, &mut rig, &chunk).unwrap());
                    let expected = &expected[from * vocab..to * vocab];
                    assert_eq!(found, expected, "{format:?} {isa} {threads} {from}..{to}");
                }
            }
        }
    }
}

#[test]
fn nothing_to_do_is_done() {
    let backend = cpu(2, "auto");
    let plan = Decoder::SMALL.plan().unwrap();
    let mut rig = Rig::new(&backend, plan, Q4, CACHE, &MAXIMA).unwrap();
    let mut step = two_sequences();
    step.logit_rows.clear();
    assert_eq!(logits(&backend, &mut rig, &step), Ok(vec![]));
    assert_eq!(logits(&backend, &mut rig, &Step::default()), Ok(vec![]));
}

/// A mistake of the host.
type Spoil = fn(&mut Step);

#[test]
fn refuses_indices_that_point_nowhere_before_anything_runs() {
    let backend = cpu(2, "auto");
    let plan = Decoder::SMALL.plan().unwrap();
    let mut rig = Rig::new(&backend, plan, Q4, CACHE, &MAXIMA).unwrap();
    #[rustfmt::skip]
    let cases: [(&str, Spoil); 5] = [
        ("token id",       |step| step.token_ids[3] = 150),
        ("position",       |step| step.positions[6] = 16),
        ("sequence",       |step| step.sequence_index[6] = 2),
        ("block",          |step| step.block_table[1] = 40),
        ("row of logits",  |step| step.logit_rows[0] = 12),
    ];
    for (name, spoil) in cases {
        let mut step = two_sequences();
        spoil(&mut step);
        let inputs = step.inputs(&rig.plan);
        let sizes = rig.sizes(&step.sizes());
        let mut out = vec![7.0; 12 * 150];
        let error = rig.run_into(&backend, &sizes, &inputs, &mut out).unwrap_err();
        assert!(matches!(error, Error::ShapeMismatch { .. }), "{name}: {error}");
        assert!(out.iter().all(|x| *x == 7.0), "{name}: outputs were touched");
    }
}

#[test]
fn runs_at_the_same_time_give_the_same_bits() {
    let backend = cpu(3, "auto");
    let plan = Decoder::SMALL.plan().unwrap();
    let step = two_sequences();
    let run_often = |times: usize| -> Vec<Vec<u32>> {
        let mut rig = Rig::new(&backend, plan.clone(), Q4, CACHE, &MAXIMA).unwrap();
        (0..times).map(|_| bits(&logits(&backend, &mut rig, &step).unwrap())).collect()
    };
    let expected = run_often(1).remove(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| run_often(20))).collect();
        for thread in threads {
            assert!(thread.join().unwrap().into_iter().all(|found| found == expected));
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_chunks_beside_any_mates_give_the_bits_of_a_sequence_alone(
        ids in prop::collection::vec(0..150_u32, 1..40),
        chunks in prop::collection::vec(1..12_usize, 40),
        mates in prop::collection::vec(1..4_usize, 40),
        threads in 1..4_i64,
    ) {
        let backend = cpu(threads, "auto");
        let plan = Decoder { window: 11, ..Decoder::SMALL }.plan().unwrap();
        let mut rig = Rig::new(&backend, plan, Q4, CACHE, &MAXIMA).unwrap();
        let blocks: Vec<u32> = (0..10).map(|i| 38 - 3 * i).collect();
        let mut alone = Step::default();
        alone.push(&ids, 0, &blocks);
        let expected = bits(&logits(&backend, &mut rig, &alone).unwrap());
        let (vocab, mut done) = (Decoder::SMALL.vocab as usize, 0);
        for (len, mates) in chunks.into_iter().zip(mates) {
            if done == ids.len() {
                break;
            }
            let end = ids.len().min(done + len);
            let mut step = Step::default();
            // Mates share a block that nobody else has: what they read there is of no concern.
            (1..mates).for_each(|id| step.push(&[id as u32], 0, &[39; 10]));
            step.push(&ids[done..end], done, &blocks);
            let found = bits(&logits(&backend, &mut rig, &step).unwrap());
            prop_assert_eq!(&found[(mates - 1) * vocab..], &expected[done * vocab..end * vocab]);
            done = end;
        }
    }
}
