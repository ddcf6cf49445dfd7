//! Contract suite of logits processors.

use super::machine::Machine;
use super::random::Random;
use super::rows::Rows;
use super::{Make, make};
use crate::config::Config;
use crate::kinds::Capability;
use crate::kinds::logits_processor::{BatchChange, LogitsProcessor, LogitsRows, RowId};
use crate::vocabulary::Vocabulary;

/// Runs the whole suite; `params` are parameters of a request that make the processor act.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + LogitsProcessor + 'static>(params: &Config) {
    suite_of(&make::<dyn LogitsProcessor, T>, params);
}

/// The same for processors that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn LogitsProcessor>, params: &Config) {
    for vocab_size in [1, 7, 8, 9, 63, 257] {
        for num_rows in [0, 1, 7] {
            let logits = random_rows(num_rows, vocab_size, (vocab_size + num_rows) as u64);
            treats_rows_alike(make, params, &logits);
        }
    }
    leaves_rows_alone_without_parameters(make);
    follows_the_batch(make, params);
    for _ in 0..100 {
        drop(open(make));
    }
}

/// What a new processor makes of one row of a request with `params` and the prompt `history`.
///
/// # Panics
///
/// If the processor refuses the parameters.
pub fn apply<T>(params: &Config, history: &[u32], logits: &[f32]) -> Vec<f32>
where
    T: Capability + LogitsProcessor + 'static,
{
    apply_after::<T>(params, history, &[], logits)
}

/// The same once the request has the tokens `answer`.
///
/// # Panics
///
/// If the processor refuses the parameters.
pub fn apply_after<T>(params: &Config, prompt: &[u32], answer: &[u32], logits: &[f32]) -> Vec<f32>
where
    T: Capability + LogitsProcessor + 'static,
{
    apply_grown(&make::<dyn LogitsProcessor, T>, params, prompt, answer, logits)
}

fn apply_one(
    make: Make<'_, dyn LogitsProcessor>,
    params: &Config,
    prompt: &[u32],
    logits: &[f32],
) -> Vec<f32> {
    apply_grown(make, params, prompt, &[], logits)
}

/// What a new processor makes of a row with a prompt and an answer so far.
fn apply_grown(
    make: Make<'_, dyn LogitsProcessor>,
    params: &Config,
    prompt: &[u32],
    answer: &[u32],
    logits: &[f32],
) -> Vec<f32> {
    let mut processor = open(make);
    add(&mut *processor, 0, params, prompt);
    for &token in answer {
        let change = BatchChange::Advanced { row: RowId(0), token };
        processor.batch(&change).expect("a fair change");
    }
    edit(&mut *processor, &[0], &[logits.to_vec()]).remove(0)
}

/// A processor with a host beside a model whose tokens are the 256 bytes and one that ends an answer.
fn open(make: Make<'_, dyn LogitsProcessor>) -> Box<dyn LogitsProcessor> {
    let mut processor = make(&Config::new()).expect("every key has a default");
    let machine = Machine::new();
    machine.speak(bytes_and_end());
    processor.open(&machine.host("suite")).expect("it takes what the host lends");
    processor
}

/// A vocabulary of the 256 bytes, each under its own number, and the token 256, which ends an answer.
///
/// # Panics
///
/// Never.
pub fn bytes_and_end() -> Vocabulary {
    let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
    let tokens = bytes.iter().map(|byte| &byte[..]).chain([&b"<end>"[..]]);
    Vocabulary::new(tokens, vec![256], vec![256]).expect("ids of the vocabulary")
}

fn add(processor: &mut dyn LogitsProcessor, row: u32, params: &Config, history: &[u32]) {
    let change = BatchChange::Added { row: RowId(row), params, history };
    processor.batch(&change).expect("the parameters are in range");
}

/// Edits rows and checks what holds for every processor.
fn edit(processor: &mut dyn LogitsProcessor, ids: &[u32], logits: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut rows = Rows::new(&logits.iter().map(Vec::as_slice).collect::<Vec<_>>());
    rows.ids = ids.iter().map(|&id| RowId(id)).collect();
    processor.apply(&mut LogitsRows::new(&mut rows)).expect("the rows are well formed");
    assert!(rows.read <= processor.need(), "reads {:?}, declares less", rows.read);
    for (before, after) in logits.iter().zip(&rows.logits) {
        assert!(after.iter().all(|logit| !logit.is_nan()), "a logit is no number: {after:?}");
        let is_masked = |logits: &[f32], i: usize| logits[i] == f32::NEG_INFINITY;
        let unmasks = |i: usize| is_masked(before, i) && !is_masked(after, i);
        assert!(!(0..before.len()).any(unmasks), "a masked token comes back");
        if processor.is_argmax_invariant() {
            assert_eq!(argmax(before), argmax(after), "says that the largest logit stays so");
        }
    }
    rows.logits
}

/// The lowest id among the largest logits.
fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

fn random_rows(num_rows: usize, vocab_size: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed);
    let mut logit = |token: usize| {
        let is_masked = token % 5 == 4;
        if is_masked { f32::NEG_INFINITY } else { 8.0 * random.signed() }
    };
    (0..num_rows).map(|_| (0..vocab_size).map(&mut logit).collect()).collect()
}

fn treats_rows_alike(make: Make<'_, dyn LogitsProcessor>, params: &Config, logits: &[Vec<f32>]) {
    let mut processor = open(make);
    let ids: Vec<u32> = (0..logits.len() as u32).map(|i| 3 * i + 1).collect();
    for (&id, row) in ids.iter().zip(logits) {
        add(&mut *processor, id, params, &[row.len() as u32 / 2, id]);
    }
    let together = edit(&mut *processor, &ids, logits);
    for ((&id, row), together) in ids.iter().zip(logits).zip(&together) {
        let alone = apply_one(make, params, &[row.len() as u32 / 2, id], row);
        assert_eq!(&alone, together, "a row depends on its neighbours");
    }
}

fn leaves_rows_alone_without_parameters(make: Make<'_, dyn LogitsProcessor>) {
    let row = &random_rows(1, 63, 5)[0];
    let after = apply_one(make, &Config::new(), &[1, 2, 3], row);
    assert_eq!(&after, row, "without parameters and configuration nothing is edited");
}

fn follows_the_batch(make: Make<'_, dyn LogitsProcessor>, params: &Config) {
    let rows = random_rows(1, 63, 9);
    let row = &rows[0];
    let mut processor = open(make);
    add(&mut *processor, 2, params, &[1, 2]);
    let mut change = |change: BatchChange<'_>| processor.batch(&change).expect("a fair change");

    change(BatchChange::Advanced { row: RowId(2), token: 7 });
    change(BatchChange::Forked { parent: RowId(2), child: RowId(5) });
    change(BatchChange::Advanced { row: RowId(5), token: 8 });
    change(BatchChange::Advanced { row: RowId(2), token: 9 });
    change(BatchChange::RolledBack { row: RowId(2), history: &[1, 2, 7] });
    let after = edit(&mut *processor, &[2, 5], &[row.clone(), row.clone()]);
    assert_eq!(
        after[0],
        apply_grown(make, params, &[1, 2], &[7], row),
        "rolled back to three tokens"
    );
    assert_eq!(after[1], apply_grown(make, params, &[1, 2], &[7, 8], row), "forked, then advanced");

    // Row 2 now belongs to somebody without parameters.
    processor.batch(&BatchChange::Removed { row: RowId(2) }).expect("a known row");
    add(&mut *processor, 2, &Config::new(), &[3]);
    let after = edit(&mut *processor, &[2], &rows);
    assert_eq!(&after[0], row, "parameters outlive their request");
}
