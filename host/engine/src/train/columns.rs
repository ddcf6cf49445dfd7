//! What a batch has beside its tokens: columns that objectives ask for by name.

use std::collections::BTreeMap;

use plugin_api::TensorRef;

use super::dataset::{Encoded, EncodedSequence};
use super::loader::TokenBatch;

/// One column: a number for each token, each sequence, or each token and word of the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Numbers.
    F32(Vec<f32>),
    /// Indices.
    U32(Vec<u32>),
}

/// The columns of a batch, by the names of the objective's inputs.
pub type Columns = BTreeMap<String, Column>;

impl Column {
    pub(super) fn view(&self) -> TensorRef<'_> {
        match self {
            Self::F32(values) => TensorRef::F32(values),
            Self::U32(values) => TensorRef::U32(values),
        }
    }
}

impl TokenBatch {
    /// Appends a prompt with its answer: of its tokens those of the answer count.
    pub fn push_answer(&mut self, prompt: &[u32], answer: &[u32]) {
        let before = self.num_tokens();
        self.push(&[prompt, answer].concat());
        // The token before the answer predicts its first.
        let of_prompt = prompt.len().saturating_sub(1).min(self.num_tokens() - before);
        self.weights[before..before + of_prompt].fill(0.0);
    }

    /// Appends two answers to a prompt, the preferred one first, with the columns `partner` and
    /// `sequence_weights`. Both answers have a token, or the prompt has two.
    pub fn push_pair(&mut self, prompt: &[u32], preferred: &[u32], other: &[u32]) {
        self.push_answer(prompt, preferred);
        self.push_answer(prompt, other);
        self.mark_pair();
    }

    /// Appends the sequences of an example; two are a pair, the preferred one first. Each has two tokens.
    pub fn push_encoded(&mut self, example: &Encoded) {
        for EncodedSequence { tokens, counts } in &example.sequences {
            let before = self.num_tokens();
            self.push(tokens);
            let counts = counts.iter().skip(1);
            for (weight, counts) in self.weights[before..].iter_mut().zip(counts) {
                *weight = if *counts { 1.0 } else { 0.0 };
            }
        }
        if example.sequences.len() == 2 {
            self.mark_pair();
        }
    }

    /// The last two sequences are a pair.
    fn mark_pair(&mut self) {
        let first = self.num_seqs() as u32 - 2;
        self.indices("partner").extend([first + 1, first]);
        self.numbers("sequence_weights").extend([1.0, 0.0]);
    }

    /// Appends an answer to the prompt `group` that was found to be worth `reward`, with the columns of these names.
    pub fn push_rated(&mut self, prompt: &[u32], answer: &[u32], group: u32, reward: f32) {
        self.push_answer(prompt, answer);
        self.indices("group").push(group);
        self.numbers("rewards").push(reward);
    }

    /// Puts a column in the place of what the batch has under this name.
    pub fn set_column(&mut self, name: &str, column: Column) {
        self.columns.insert(name.to_owned(), column);
    }

    /// The numbers under `name`; none at first.
    fn numbers(&mut self, name: &str) -> &mut Vec<f32> {
        let column = self.columns.entry(name.to_owned());
        let column = column.or_insert_with(|| Column::F32(Vec::new()));
        if let Column::U32(indices) = column {
            *column = Column::F32(indices.iter().map(|&index| index as f32).collect());
        }
        match column {
            Column::F32(numbers) => numbers,
            Column::U32(_) => unreachable!("it was made one of numbers"),
        }
    }

    /// The indices under `name`; none at first, and none if it held numbers.
    fn indices(&mut self, name: &str) -> &mut Vec<u32> {
        let column = self.columns.entry(name.to_owned());
        let column = column.or_insert_with(|| Column::U32(Vec::new()));
        if matches!(column, Column::F32(_)) {
            *column = Column::U32(Vec::new());
        }
        match column {
            Column::U32(indices) => indices,
            Column::F32(_) => unreachable!("it was made one of indices"),
        }
    }

    /// How much each sequence counts: as the column `sequence_weights` says, else alike.
    pub(super) fn sequence_weights(&self) -> Vec<f32> {
        match self.columns.get("sequence_weights") {
            Some(Column::F32(weights)) => weights.clone(),
            _ => vec![1.0; self.num_seqs()],
        }
    }

    /// Which token of its sequence each is, from 1, and how many its sequence has.
    pub(super) fn places(&self) -> [Vec<f32>; 2] {
        let (mut places, mut lengths) = (Vec::new(), Vec::new());
        for sequence in self.sequence_index.chunk_by(|a, b| a == b) {
            places.extend((1..=sequence.len()).map(|place| place as f32));
            lengths.extend(std::iter::repeat_n(sequence.len() as f32, sequence.len()));
        }
        [places, lengths]
    }

    /// The last row of each sequence.
    pub(super) fn last_rows(&self) -> Vec<u32> {
        let index = &self.sequence_index;
        let is_last = |&row: &usize| index.get(row + 1) != index.get(row);
        (0..self.num_tokens()).filter(is_last).map(|row| row as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tokens_of_answers_count() {
        let mut batch = TokenBatch::default();
        batch.push_pair(&[1, 2, 3], &[4, 5], &[6]);
        batch.push_rated(&[7], &[8], 3, 0.5);
        assert_eq!(batch.tokens, [1, 2, 3, 4, 1, 2, 3, 7]);
        assert_eq!(batch.targets, [2, 3, 4, 5, 2, 3, 6, 8]);
        assert_eq!(batch.weights, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!(batch.sequence_index, [0, 0, 0, 0, 1, 1, 1, 2]);
        assert_eq!(batch.last_rows(), [3, 6, 7]);
        let places =
            [[1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 1.0], [4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 1.0]];
        assert_eq!(batch.places(), places.map(Vec::from));
        assert_eq!(batch.columns["partner"], Column::U32(vec![1, 0]));
        assert_eq!(batch.columns["group"], Column::U32(vec![3]));
        assert_eq!(batch.sequence_weights(), [1.0, 0.0]);
        assert!(TokenBatch::default().last_rows().is_empty());
    }
}
