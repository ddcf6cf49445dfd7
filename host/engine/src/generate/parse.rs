//! What answers mean: parsers read the text of requests that ask for it, one behind the other.

use jackfield_runtime::RequestSlot;
use plugin_api::kinds::decoding_strategy::GroupId;
use plugin_api::kinds::output_parser::{AnswerId, Piece};
use plugin_api::{Config, Error, Kind, OutputParser};

use super::engine::Engine;
use crate::error::EngineError;

/// The parsers of an engine, by name, in the order in which they read.
pub(super) type Parsers = Vec<(String, RequestSlot<dyn OutputParser>)>;

/// What was found in a piece of text, kept from step to step.
#[derive(Default)]
pub(super) struct Read {
    pub(super) pieces: Vec<Piece>,
    /// What a parser is given, while it answers.
    given: Vec<Piece>,
}

impl Read {
    /// Lets parsers, each in the generation that a request holds, read what follows in its answer.
    ///
    /// # Errors
    ///
    /// The first that fails, by its place.
    pub(super) fn read(
        &mut self,
        parsers: &mut Parsers,
        generations: &[u32],
        answer: AnswerId,
        text: &str,
        is_over: bool,
    ) -> Result<(), (usize, Error)> {
        self.pieces.clear();
        if !text.is_empty() {
            self.pieces.push(Piece::Content(text.to_owned()));
        }
        for (place, ((_, slot), &generation)) in parsers.iter_mut().zip(generations).enumerate() {
            let parser = slot.get_mut(generation);
            std::mem::swap(&mut self.pieces, &mut self.given);
            self.pieces.clear();
            for piece in self.given.drain(..) {
                match piece {
                    Piece::Content(text) => parser.push(answer, &text, &mut self.pieces),
                    other => {
                        self.pieces.push(other);
                        Ok(())
                    }
                }
                .map_err(|error| (place, error))?;
            }
            if is_over {
                parser.finish(answer, &mut self.pieces).map_err(|error| (place, error))?;
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Pins a generation of every parser for a new answer, if its request has its text read.
    pub(super) fn open_parsers(
        &mut self,
        group: GroupId,
        params: &Config,
    ) -> Result<Option<Vec<u32>>, EngineError> {
        let is_read = params.flag_or("parse_output", false);
        if !is_read.map_err(EngineError::plugin("request"))? {
            return Ok(None);
        }
        let mut opened = Vec::with_capacity(self.parsers.len());
        for i in 0..self.parsers.len() {
            let (name, slot) = &mut self.parsers[i];
            let generation = slot.open();
            if let Err(error) = slot.get_mut(generation).open(AnswerId(group.0), params) {
                let (what, name) = (format!("request: {name}"), name.clone());
                let drained = slot.close(generation);
                self.dispose(drained);
                self.close_parsers(group, &opened);
                if !matches!(error, Error::Config { .. }) {
                    self.tell_fault(<dyn OutputParser>::NAME, &name, 0, &error);
                }
                return Err(EngineError::plugin(what)(error));
            }
            opened.push(generation);
        }
        Ok(Some(opened))
    }

    /// Lets parsers forget an answer; the first ones that were opened.
    pub(super) fn close_parsers(&mut self, group: GroupId, generations: &[u32]) {
        for ((_, slot), &generation) in self.parsers.iter_mut().zip(generations) {
            slot.get_mut(generation).close(AnswerId(group.0));
            if let Some(drained) = slot.close(generation) {
                self.shared.reaper.dispose(drained);
            }
        }
    }

    /// Tells of a parser that failed on an answer.
    pub(super) fn parser_failed(&mut self, place: usize, request: u64, error: &Error) {
        let name = self.parsers[place].0.clone();
        self.tell_fault(<dyn OutputParser>::NAME, &name, request, error);
    }
}
