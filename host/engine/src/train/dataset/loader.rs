//! From examples to batches: as many as fit, one after the other.

use std::fmt;
use std::path::PathBuf;

use plugin_api::Curriculum;
use plugin_api::kinds::curriculum::{Choice, SourceView};
use serde::{Deserialize, Serialize};

use super::encode::{Encoded, ExampleEncoder, Question};
use super::example::Format;
use super::lines::LinePlace;
use super::source::{Source, SourcePosition, Survey, wrong};
use crate::error::EngineError;
use crate::train::loader::TokenBatch;

/// Sizes of a loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetOptions {
    /// Most tokens of a batch.
    pub tokens_max: usize,
    /// Most sequences of a batch.
    pub num_seqs_max: usize,
    /// Lines that are shuffled with each other; 1 keeps their order.
    pub shuffle: usize,
    /// Of the order.
    pub seed: u64,
    /// Most bytes of a line.
    pub line_bytes_max: u64,
}

/// Where a loader stands: all that has to be kept to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetPosition {
    /// Of each file.
    pub sources: Vec<SourcePosition>,
    /// File and line of the example that did not fit into the last batch.
    pub waiting: Option<(usize, LinePlace)>,
    /// What was not learnt so far.
    pub passed: Passed,
    /// Of the curriculum, if it has a state.
    pub curriculum: Option<CurriculumState>,
}

/// What decides the choices of a curriculum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurriculumState {
    /// The plugin whose it is.
    pub plugin: String,
    /// In hexadecimal.
    pub bytes: String,
}

/// Examples that were not learnt as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Of which only the first tokens were.
    pub cut: u64,
    /// Of which no token was: those to learn came after the cut.
    pub empty: u64,
}

/// Reads examples of files and packs them into batches.
pub struct DatasetLoader {
    sources: Vec<Source>,
    /// With its name; without one the files are read one after the other.
    curriculum: Option<(String, Box<dyn Curriculum>)>,
    encoder: ExampleEncoder,
    options: DatasetOptions,
    waiting: Option<Waiting>,
    passed: Passed,
}

#[derive(Debug)]
struct Waiting {
    source: usize,
    place: LinePlace,
    encoded: Encoded,
}

impl DatasetLoader {
    /// A loader at the beginning of these files, every line of which is read and checked.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] that names file and line of what is no example or has another layout than
    /// the others; for batches without room for one example.
    pub fn open(
        files: &[PathBuf],
        encoder: ExampleEncoder,
        options: DatasetOptions,
    ) -> Result<Self, EngineError> {
        let open = |(index, path): (usize, &PathBuf)| {
            let seed = options.seed ^ (index as u64).wrapping_mul(APART);
            Source::open(path, options.line_bytes_max, options.shuffle, seed)
        };
        let sources = files.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = sources.first() else {
            return Err(EngineError::inconsistent("files of examples", "at least one", 0));
        };
        let format = first.survey().format;
        if let Some(other) = sources.iter().find(|source| source.survey().format != format) {
            let what = other.path().display().to_string();
            let expected = format!("{format}, as in {}", first.path().display());
            return Err(EngineError::inconsistent(what, expected, other.survey().format));
        }
        let num_seqs = if format == Format::Preference { 2 } else { 1 };
        let rows = num_seqs * encoder.length();
        if rows > options.tokens_max || num_seqs > options.num_seqs_max {
            let what = "tokens and sequences of a batch";
            let expected = format!("room for {rows} in {num_seqs}: one example");
            let found = format!("{} in {}", options.tokens_max, options.num_seqs_max);
            return Err(EngineError::inconsistent(what, expected, found));
        }
        let passed = Passed::default();
        Ok(Self { sources, curriculum: None, encoder, options, waiting: None, passed })
    }

    /// The same with the curriculum of this name, which decides what comes next.
    #[must_use]
    pub fn with_curriculum(self, name: String, curriculum: Box<dyn Curriculum>) -> Self {
        Self { curriculum: Some((name, curriculum)), ..self }
    }

    /// What each file holds.
    pub fn surveys(&self) -> impl Iterator<Item = &Survey> {
        self.sources.iter().map(Source::survey)
    }

    /// Of every example.
    pub fn format(&self) -> Format {
        self.sources[0].survey().format
    }

    /// How often every file was read whole.
    pub fn epoch(&self) -> u64 {
        let epochs = self.sources.iter().map(|source| {
            let SourcePosition { epoch, given, .. } = source.position();
            epoch + u64::from(*given == source.survey().num_examples)
        });
        epochs.min().unwrap_or(0)
    }

    /// What was not learnt so far.
    pub fn passed(&self) -> Passed {
        self.passed
    }

    /// Where it stands.
    ///
    /// # Errors
    ///
    /// [`EngineError::Plugin`] if the curriculum cannot say what it knows.
    pub fn position(&mut self) -> Result<DatasetPosition, EngineError> {
        let curriculum = self.curriculum_state()?;
        Ok(DatasetPosition {
            sources: self.sources.iter().map(|source| source.position().clone()).collect(),
            waiting: self.waiting.as_ref().map(|waiting| (waiting.source, waiting.place)),
            passed: self.passed,
            curriculum,
        })
    }

    /// Goes to where another loader of the same files, options and seed stood.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] for a place that these files do not have.
    pub fn seek(&mut self, position: DatasetPosition) -> Result<(), EngineError> {
        let DatasetPosition { sources, waiting, passed, curriculum } = position;
        if sources.len() != self.sources.len() {
            let (expected, found) = (format!("{} files", self.sources.len()), sources.len());
            return Err(EngineError::inconsistent("place in the examples", expected, found));
        }
        if let Some(state) = curriculum {
            self.restore_curriculum(&state)?;
        }
        for (source, position) in self.sources.iter_mut().zip(sources) {
            source.seek(position)?;
        }
        self.waiting = None;
        if let Some((source, place)) = waiting {
            let encoded = self.encoded(source, place)?;
            self.waiting = Some(Waiting { source, place, encoded });
        }
        self.passed = passed;
        Ok(())
    }

    /// The next examples, as many as fit.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] that names file and line of an example that cannot be learnt; if no
    /// example of a whole epoch can.
    pub fn batch(&mut self) -> Result<TokenBatch, EngineError> {
        let mut batch = TokenBatch::default();
        loop {
            let next = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.next()?,
            };
            if !self.has_room(&batch, &next.encoded) {
                self.waiting = Some(next);
                return Ok(batch);
            }
            batch.push_encoded(&next.encoded);
        }
    }

    /// The next prompts, for the model to answer.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch).
    pub fn questions(&mut self, count: usize) -> Result<Vec<Question>, EngineError> {
        (0..count).map(|_| self.question()).collect()
    }

    fn question(&mut self) -> Result<Question, EngineError> {
        let count: u64 = self.surveys().map(|survey| survey.num_examples).sum();
        for _ in 0..=count {
            let (source, place) = self.choose()?;
            let source = &mut self.sources[source];
            let example = source.read(place)?;
            let question = self.encoder.question(&example);
            match question.map_err(|error| wrong(source.at(place), error))? {
                Some(question) => return Ok(question),
                None => self.passed.empty += 1,
            }
        }
        Err(self.nothing())
    }

    /// Batches of every example once, file after file, at most `max`: held-out data. From a loader at its beginning.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch).
    pub fn first_epoch(&mut self, max: usize) -> Result<Vec<TokenBatch>, EngineError> {
        let mut batches = vec![TokenBatch::default()];
        for source in 0..self.sources.len() {
            for _ in 0..self.sources[source].survey().num_examples {
                let place = self.sources[source].take()?;
                let example = self.encoded(source, place)?;
                if !example.has_something() {
                    continue;
                }
                let mut last = batches.len() - 1;
                if !self.has_room(&batches[last], &example) {
                    if batches.len() == max {
                        return Ok(batches);
                    }
                    batches.push(TokenBatch::default());
                    last += 1;
                }
                batches[last].push_encoded(&example);
            }
        }
        if batches[0].num_seqs() == 0 {
            return Err(self.nothing());
        }
        Ok(batches)
    }

    fn has_room(&self, batch: &TokenBatch, example: &Encoded) -> bool {
        batch.num_tokens() + example.num_rows() <= self.options.tokens_max
            && batch.num_seqs() + example.sequences.len() <= self.options.num_seqs_max
    }

    fn nothing(&self) -> EngineError {
        let expected = format!("something to learn in the first {} tokens", self.encoder.length());
        EngineError::inconsistent("examples", expected, "nothing in any")
    }

    /// The next example of which something is learnt.
    fn next(&mut self) -> Result<Waiting, EngineError> {
        let count: u64 = self.surveys().map(|survey| survey.num_examples).sum();
        for _ in 0..=count {
            let (source, place) = self.choose()?;
            let encoded = self.encoded(source, place)?;
            self.passed.cut += u64::from(encoded.is_cut && encoded.has_something());
            if encoded.has_something() {
                return Ok(Waiting { source, place, encoded });
            }
            self.passed.empty += 1;
        }
        Err(self.nothing())
    }

    /// The line that is learnt next, taken out of its file unless it was before.
    fn choose(&mut self) -> Result<(usize, LinePlace), EngineError> {
        let mut views = Vec::with_capacity(self.sources.len());
        for source in &mut self.sources {
            let next = source.peek()?.offset;
            let (num_examples, position) = (source.survey().num_examples, source.position());
            let given = position.epoch * num_examples + position.given;
            views.push(SourceView { num_examples, given, next });
        }
        let choice = match &mut self.curriculum {
            Some((_, curriculum)) => {
                curriculum.next(&views).map_err(EngineError::plugin("curriculum"))?
            }
            None => {
                let turns = |at: &usize| views[*at].given / views[*at].num_examples;
                Choice::new_of((0..views.len()).min_by_key(turns).unwrap_or(0))
            }
        };
        let count = self.sources.len();
        let Some(source) = self.sources.get_mut(choice.source) else {
            let (expected, found) = (format!("one of {count} sources"), choice.source);
            return Err(EngineError::inconsistent("choice of the curriculum", expected, found));
        };
        let place = match choice.again {
            None => source.take()?,
            Some(offset) => source.again(offset)?,
        };
        Ok((choice.source, place))
    }

    fn curriculum_state(&mut self) -> Result<Option<CurriculumState>, EngineError> {
        let Some((name, curriculum)) = &mut self.curriculum else { return Ok(None) };
        let Some(handover) = curriculum.handover() else { return Ok(None) };
        let mut state = Vec::new();
        handover.save(&mut state).map_err(EngineError::plugin("state of the curriculum"))?;
        let bytes = state.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(CurriculumState { plugin: name.clone(), bytes }))
    }

    /// Another plugin begins with what the sources tell.
    fn restore_curriculum(&mut self, state: &CurriculumState) -> Result<(), EngineError> {
        let CurriculumState { plugin, bytes } = state;
        let mine = self.curriculum.as_mut().filter(|(name, _)| name == plugin);
        let Some(handover) = mine.and_then(|(_, curriculum)| curriculum.handover()) else {
            return Ok(());
        };
        let digits: Option<Vec<u8>> =
            bytes.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
        let Some(digits) = digits.filter(|digits| digits.len().is_multiple_of(2)) else {
            let (what, expected) = ("state of the curriculum", "hexadecimal digits");
            return Err(EngineError::inconsistent(what, expected, "others"));
        };
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        handover.restore(&bytes).map_err(EngineError::plugin("state of the curriculum"))
    }

    fn encoded(&mut self, source: usize, place: LinePlace) -> Result<Encoded, EngineError> {
        let Some(source) = self.sources.get_mut(source) else {
            return Err(EngineError::inconsistent("place in the examples", "a file", source));
        };
        let example = source.read(place)?;
        self.encoder.encode(&example).map_err(|error| wrong(source.at(place), error))
    }
}

impl fmt::Debug for DatasetLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatasetLoader").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// Makes seeds of files differ: 2⁶⁴ by the golden ratio.
const APART: u64 = 0x9E37_79B9_7F4A_7C15;
