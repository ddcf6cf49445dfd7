//! From text to batches: bytes as tokens, cut into sequences, in a random order that can be resumed.

use super::columns::Columns;
use super::dataset::{DatasetLoader, DatasetPosition};
use super::random::Random;
use crate::error::EngineError;

/// The tokens of one micro-batch, sequence after sequence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenBatch {
    /// `[tokens]`.
    pub tokens: Vec<u32>,
    /// The token after each, `[tokens]`.
    pub targets: Vec<u32>,
    /// How much each counts in the loss, `[tokens]`: 0 or 1, mostly.
    pub weights: Vec<f32>,
    /// In the sequence, from 0, `[tokens]`.
    pub positions: Vec<u32>,
    /// Which sequence, from 0, `[tokens]`.
    pub sequence_index: Vec<u32>,
    /// What objectives ask for beyond these.
    pub columns: Columns,
}

impl TokenBatch {
    /// Appends a sequence: each token but the last is to predict the one after it.
    pub fn push(&mut self, tokens: &[u32]) {
        let [_, targets @ ..] = tokens else { return };
        let index = self.num_seqs() as u32;
        self.tokens.extend(&tokens[..targets.len()]);
        self.targets.extend(targets);
        self.weights.extend(targets.iter().map(|_| 1.0));
        self.positions.extend(0..targets.len() as u32);
        self.sequence_index.extend(targets.iter().map(|_| index));
    }

    /// Tokens in all sequences.
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Sequences.
    pub fn num_seqs(&self) -> usize {
        self.sequence_index.last().map_or(0, |&index| index as usize + 1)
    }

    /// The sum of the weights.
    pub fn num_counted(&self) -> f64 {
        self.weights.iter().map(|&weight| f64::from(weight)).sum()
    }
}

/// Where a loader stands: all that has to be kept to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoaderPosition {
    /// How often the whole text was read.
    pub epoch: u64,
    /// Sequences of this epoch that were read.
    pub sequences: usize,
    /// Where files of examples stand, if the run reads such.
    pub dataset: Option<DatasetPosition>,
}

/// What a run reads: bytes of a text, or files of examples.
#[derive(Debug)]
pub enum BatchLoader {
    /// As many sequences of the text a batch.
    Text(TextLoader, usize),
    /// As many examples as fit.
    Dataset(Box<DatasetLoader>),
}

impl BatchLoader {
    /// The next batch.
    ///
    /// # Errors
    ///
    /// As [`DatasetLoader::batch`].
    pub fn batch(&mut self) -> Result<TokenBatch, EngineError> {
        match self {
            Self::Text(loader, sequences) => Ok(loader.batch(*sequences)),
            Self::Dataset(loader) => loader.batch(),
        }
    }

    /// The epoch that the next batch begins in, from 0.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Text(loader, _) => loader.epoch(),
            Self::Dataset(loader) => loader.epoch(),
        }
    }

    /// Where it stands.
    ///
    /// # Errors
    ///
    /// As [`DatasetLoader::position`].
    pub fn position(&mut self) -> Result<LoaderPosition, EngineError> {
        Ok(match self {
            Self::Text(loader, _) => loader.position(),
            Self::Dataset(loader) => {
                let (dataset, epoch) = (Some(loader.position()?), loader.epoch());
                LoaderPosition { epoch, dataset, ..LoaderPosition::default() }
            }
        })
    }

    /// Goes to where another loader of the same data stood.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a place that these data do not have.
    pub fn seek(&mut self, position: LoaderPosition) -> Result<(), EngineError> {
        match (self, position.dataset) {
            (Self::Text(loader, _), None) => {
                loader.seek(LoaderPosition { dataset: None, ..position })
            }
            (Self::Dataset(loader), Some(dataset)) => loader.seek(dataset),
            (Self::Text(..), Some(_)) => {
                Err(EngineError::inconsistent("place in the data", "one in a text", "in examples"))
            }
            (Self::Dataset(_), None) => {
                Err(EngineError::inconsistent("place in the data", "one in examples", "in a text"))
            }
        }
    }
}

/// Cuts a text into sequences of `length` tokens and gives them in an order of its own in each epoch.
/// A token is a byte; the last bytes that fill no sequence are left out.
#[derive(Debug, Clone)]
pub struct TextLoader {
    text: Vec<u8>,
    length: usize,
    seed: u64,
    order: Vec<u32>,
    position: LoaderPosition,
}

impl TextLoader {
    /// A loader at the beginning.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a text that fills no sequence.
    pub fn new(text: Vec<u8>, length: usize, seed: u64) -> Result<Self, EngineError> {
        let count = text.len().saturating_sub(1) / length.max(1);
        if length == 0 || count == 0 || u32::try_from(count).is_err() {
            let expected = format!("{} bytes for a sequence of {length} tokens", length + 1);
            return Err(EngineError::inconsistent(
                "text of the training data",
                expected,
                text.len(),
            ));
        }
        let position = LoaderPosition::default();
        let mut loader = Self { text, length, seed, order: Vec::new(), position };
        loader.shuffle();
        Ok(loader)
    }

    /// Sequences in an epoch.
    pub fn num_sequences(&self) -> usize {
        self.order.len()
    }

    /// Where it stands.
    pub fn position(&self) -> LoaderPosition {
        self.position.clone()
    }

    /// The epoch that the next sequence is of, from 0.
    pub fn epoch(&self) -> u64 {
        self.position.epoch + u64::from(self.position.sequences == self.num_sequences())
    }

    /// Goes to where another loader of the same text, length and seed stood.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a place that this text does not have.
    pub fn seek(&mut self, position: LoaderPosition) -> Result<(), EngineError> {
        if position.sequences > self.num_sequences() {
            let expected = format!("at most {} sequences", self.num_sequences());
            return Err(EngineError::inconsistent(
                "place in the text",
                expected,
                position.sequences,
            ));
        }
        self.position = position;
        self.shuffle();
        Ok(())
    }

    /// The next sequences, of this epoch and those after it.
    pub fn batch(&mut self, num_seqs: usize) -> TokenBatch {
        let mut batch = TokenBatch::default();
        for _ in 0..num_seqs {
            if self.position.sequences == self.order.len() {
                self.position.epoch += 1;
                self.position.sequences = 0;
                self.shuffle();
            }
            let start = self.order[self.position.sequences] as usize * self.length;
            let bytes = &self.text[start..=start + self.length];
            batch.push(&bytes.iter().map(|&byte| u32::from(byte)).collect::<Vec<_>>());
            self.position.sequences += 1;
        }
        batch
    }

    /// The order of the epoch. Source: Durstenfeld, "Algorithm 235", 1964.
    fn shuffle(&mut self) {
        let count = (self.text.len() - 1) / self.length;
        let mut random = Random::new(self.seed.wrapping_add(self.position.epoch));
        self.order = (0..count as u32).collect();
        for last in (1..count).rev() {
            self.order.swap(last, random.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(seed: u64) -> TextLoader {
        TextLoader::new((0..=255).collect(), 8, seed).unwrap()
    }

    #[test]
    fn an_epoch_has_each_sequence_once() {
        let mut loader = loader(1);
        assert_eq!(loader.num_sequences(), 31);
        let mut orders = Vec::new();
        for _ in 0..2 {
            let batch = loader.batch(31);
            assert!(batch.tokens.iter().zip(&batch.targets).all(|(a, b)| a + 1 == *b));
            assert_eq!((batch.num_tokens(), batch.num_seqs()), (248, 31));
            let mut starts: Vec<u32> = batch.tokens.iter().copied().step_by(8).collect();
            orders.push(starts.clone());
            starts.sort_unstable();
            assert!(starts.into_iter().eq((0..248).step_by(8)));
        }
        assert!(orders[0] != orders[1], "epochs have orders of their own");
    }

    #[test]
    fn goes_on_where_another_stood() {
        let mut first = loader(7);
        for _ in 0..5 {
            first.batch(9);
            let mut second = loader(7);
            second.seek(first.position()).unwrap();
            assert_eq!(first.clone().batch(40), second.batch(40));
        }
        let beyond = LoaderPosition { sequences: 32, ..LoaderPosition::default() };
        assert!(loader(7).seek(beyond).is_err());
    }

    #[test]
    fn a_text_too_short_is_named() {
        let error = TextLoader::new(b"short".to_vec(), 8, 0).unwrap_err().to_string();
        assert!(error.contains("9 bytes for a sequence of 8 tokens, found 5"), "{error}");
    }
}
