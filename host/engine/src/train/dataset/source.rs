//! One file of examples: looked through once, then read in an order of its own within a window.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::example::{Example, Format, LineError};
use super::lines::{LinePlace, Lines};
use crate::error::EngineError;
use crate::train::random::Random;

/// What a file holds, found by reading it once from end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Lines, each of which is an example.
    pub num_examples: u64,
    /// Of every one.
    pub format: Format,
    /// Of the bytes, in hexadecimal.
    pub sha256: String,
}

/// Where the reading of one file stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    /// How often the whole file was read.
    pub epoch: u64,
    /// Examples of this epoch that were given.
    pub given: u64,
    /// The line that comes into the window next; none at the end of the file.
    pub next: Option<LinePlace>,
    /// Lines of which the next is one.
    pub window: Vec<LinePlace>,
    /// Which of them.
    pub random: u64,
}

/// An open file of examples.
#[derive(Debug)]
pub(super) struct Source {
    /// Fills the window.
    ahead: Lines,
    /// Reads what is drawn from it.
    drawn: Lines,
    survey: Survey,
    window_max: usize,
    position: SourcePosition,
}

impl Survey {
    /// Reads a file and checks every line of it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Inconsistent`] that names file and line: one that is no example, is longer than
    /// `line_bytes_max`, or has another layout than those before it; a file without lines.
    pub fn of(path: &Path, line_bytes_max: u64) -> Result<Self, EngineError> {
        let mut lines = Lines::open(path, line_bytes_max)?;
        let (mut place, mut format, mut hash) = (LinePlace::FIRST, None, Sha256::new());
        loop {
            let at = lines.at(place);
            let Some((line, next)) = lines.read(place)? else { break };
            hash.update(line);
            hash.update(b"\n");
            let found = Example::parse(line).map_err(|error| wrong(at.clone(), error))?.format();
            match format {
                Some(expected) if expected != found => {
                    let expected = format!("{expected}, as in the lines before");
                    return Err(EngineError::inconsistent(at, expected, found));
                }
                _ => format = Some(found),
            }
            place = next;
        }
        let Some(format) = format else {
            let what = path.display().to_string();
            return Err(EngineError::inconsistent(what, "a line with an example", "an empty file"));
        };
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { num_examples: place.line - 1, format, sha256 })
    }
}

impl Source {
    /// Opens a file at its beginning; `window_max` lines are shuffled with each other, 1 keeps their order.
    pub(super) fn open(
        path: &Path,
        line_bytes_max: u64,
        window_max: usize,
        seed: u64,
    ) -> Result<Self, EngineError> {
        let survey = Survey::of(path, line_bytes_max)?;
        let position = SourcePosition {
            epoch: 0,
            given: 0,
            next: Some(LinePlace::FIRST),
            window: Vec::new(),
            random: seed,
        };
        Ok(Self {
            ahead: Lines::open(path, line_bytes_max)?,
            drawn: Lines::open(path, line_bytes_max)?,
            survey,
            window_max: window_max.max(1),
            position,
        })
    }

    pub(super) fn survey(&self) -> &Survey {
        &self.survey
    }

    pub(super) fn path(&self) -> PathBuf {
        self.drawn.path().to_owned()
    }

    pub(super) fn position(&self) -> &SourcePosition {
        &self.position
    }

    /// Goes to where another source of the same file, window and seed stood.
    pub(super) fn seek(&mut self, position: SourcePosition) -> Result<(), EngineError> {
        let (found, max) = (position.window.len(), self.window_max);
        if found > max || position.given > self.survey.num_examples {
            let what = format!("place in {}", self.path().display());
            let expected = format!("a window of {max} of {} lines", self.survey.num_examples);
            return Err(EngineError::inconsistent(what, expected, format!("{found} lines")));
        }
        self.position = position;
        Ok(())
    }

    /// Which line comes next, now that the window is full or holds the rest of the file.
    pub(super) fn peek(&mut self) -> Result<LinePlace, EngineError> {
        self.fill()?;
        if self.position.window.is_empty() {
            let SourcePosition { epoch, given, next, .. } = &mut self.position;
            (*epoch, *given, *next) = (*epoch + 1, 0, Some(LinePlace::FIRST));
            self.fill()?;
        }
        let (at, _) = self.draw();
        self.position.window.get(at).copied().ok_or_else(|| {
            let what = self.path().display().to_string();
            EngineError::inconsistent(what, "the lines that it had", "an empty file")
        })
    }

    /// Takes that line out of the window.
    pub(super) fn take(&mut self) -> Result<LinePlace, EngineError> {
        let place = self.peek()?;
        let (at, random) = self.draw();
        self.position.window.swap_remove(at);
        self.position.random = random;
        self.position.given += 1;
        Ok(place)
    }

    /// The line that begins at `offset`, to be read once more.
    pub(super) fn again(&mut self, offset: u64) -> Result<LinePlace, EngineError> {
        let place = LinePlace { offset, line: 0 };
        let is_start = match offset.checked_sub(1) {
            None => true,
            // What is left of the line before is nothing but its end.
            Some(before) => {
                let line = self.drawn.read(LinePlace { offset: before, line: 0 })?;
                line.is_some_and(|(line, next)| line.is_empty() && next.offset == offset)
            }
        };
        if is_start {
            return Ok(place);
        }
        let (what, expected) = ("choice of the curriculum", "an example that was given before");
        Err(EngineError::inconsistent(what, expected, self.at(place)))
    }

    /// The example at a place.
    pub(super) fn read(&mut self, place: LinePlace) -> Result<Example, EngineError> {
        let at = self.drawn.at(place);
        match self.drawn.read(place)? {
            Some((line, _)) => Example::parse(line).map_err(|error| wrong(at, error)),
            None => Err(EngineError::inconsistent(at, "a line", "the end of the file")),
        }
    }

    /// `file:line` of a place, for errors.
    pub(super) fn at(&self, place: LinePlace) -> String {
        self.drawn.at(place)
    }

    fn fill(&mut self) -> Result<(), EngineError> {
        while self.position.window.len() < self.window_max {
            let Some(place) = self.position.next else { break };
            self.position.next = match self.ahead.read(place)? {
                Some((_, next)) => {
                    self.position.window.push(place);
                    Some(next)
                }
                None => None,
            };
        }
        Ok(())
    }

    /// An index into the window, and the state after it was drawn.
    fn draw(&self) -> (usize, u64) {
        let mut random = Random::new(self.position.random);
        let at = random.below(self.position.window.len().max(1));
        (at, random.state())
    }
}

pub(super) fn wrong(at: String, LineError { expected, found }: LineError) -> EngineError {
    EngineError::inconsistent(at, expected, found)
}
