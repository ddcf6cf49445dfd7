//! Prompt lookup: guesses the next tokens from what followed the last ones earlier.
//!
//! Source: A. Saxena, "Prompt Lookup Decoding", 2023; Yang et al., arXiv:2304.04487.

use std::collections::BTreeMap;

use plugin_api::prelude::*;

/// Answers every request with one drawn sequence, several tokens a step where text repeats.
#[derive(Debug)]
pub struct PromptLookup {
    defaults: Settings,
    answers: BTreeMap<GroupId, Answer>,
}

/// What a request may choose.
#[derive(Debug, Clone, Copy)]
struct Settings {
    max_tokens: u64,
    /// Only matters for whether it is 0.
    temperature: f64,
    num_draft_tokens: usize,
    ngram_max: usize,
    ngram_min: usize,
}

impl Settings {
    /// Those in `config`, else these.
    fn or(self, config: &Config) -> Result<Self> {
        let count = |key: &str, default: usize, least: u64| {
            Ok(config.count_or(key, default as u64, least..=DRAFTS_MAX)? as usize)
        };
        let ngram_max = count("ngram_max", self.ngram_max, 1)?;
        let ngram_min = count("ngram_min", self.ngram_min.min(ngram_max), 1)?;
        if ngram_min > ngram_max {
            let expected = format!("at most `ngram_max`, {ngram_max}");
            return Err(config.wrong("ngram_min", &expected, config.get("ngram_min")));
        }
        Ok(Self {
            max_tokens: config.count_or("max_tokens", self.max_tokens, 1..=u64::from(u32::MAX))?,
            temperature: config.number_or("temperature", self.temperature, 0.0..=100.0)?,
            num_draft_tokens: count("num_draft_tokens", self.num_draft_tokens, 0)?,
            ngram_max,
            ngram_min,
        })
    }
}

const DEFAULTS: Settings =
    Settings { max_tokens: 256, temperature: 1.0, num_draft_tokens: 8, ngram_max: 3, ngram_min: 2 };

const DRAFTS_MAX: u64 = 64;

/// One request.
#[derive(Debug)]
struct Answer {
    answer: SingleAnswer,
    settings: Settings,
    /// Prompt and answer, to look into.
    text: Vec<u32>,
    /// What was guessed last, and how many of it came true.
    drafts: Vec<u32>,
    num_accepted: usize,
    /// How many to guess next.
    num_next: usize,
}

impl Answer {
    fn open(request: &RequestView<'_>, settings: Settings) -> Result<Self> {
        let want = if settings.temperature == 0.0 { Want::Argmax } else { Want::Sample };
        let answer = SingleAnswer::open(request, want, settings.max_tokens)?;
        // All that it may grow to, so that no step allocates.
        let most = settings.max_tokens.min(ROOM_MAX) as usize;
        let mut text = Vec::with_capacity(request.prompt.len() + most);
        text.extend_from_slice(request.prompt);
        let (drafts, num_next) =
            (Vec::with_capacity(DRAFTS_MAX as usize), settings.num_draft_tokens);
        Ok(Self { answer, settings, text, drafts, num_accepted: 0, num_next })
    }

    fn plan(&mut self, out: &mut Evals) {
        self.adapt();
        self.drafts.clear();
        let found = repeated(&self.text, self.settings.ngram_max, self.settings.ngram_min);
        if let Some(found) = found {
            // What follows may be shorter than the guess: then it is taken to be a period.
            let period = self.text[found..].iter().copied().cycle();
            self.drafts.extend(period.take(self.num_next));
        }
        self.answer.plan_drafts(&self.drafts, out);
    }

    /// More guesses after good ones, fewer after bad ones.
    fn adapt(&mut self) {
        if !self.drafts.is_empty() {
            let all = self.num_accepted == self.drafts.len();
            self.num_next = if all { self.num_next * 2 } else { self.num_next / 2 };
            let least = self.settings.num_draft_tokens.min(1);
            self.num_next = self.num_next.clamp(least, self.settings.num_draft_tokens);
        }
        self.num_accepted = 0;
    }

    fn observe(&mut self, results: &[Outcome], out: &mut Actions) {
        for outcome in results {
            let Some(token) = outcome.token else { continue };
            if self.drafts.get(self.num_accepted) == Some(&token) {
                self.num_accepted += 1;
            }
            self.text.push(token);
        }
        self.answer.observe(results, out);
    }
}

/// Tokens of an answer that there is room for without growing.
const ROOM_MAX: u64 = 1 << 16;

/// Where the text goes on after the latest earlier occurrence of its last tokens: `max` of them if
/// there is one, else fewer, down to `min`.
fn repeated(text: &[u32], max: usize, min: usize) -> Option<usize> {
    (min..=max.min(text.len().saturating_sub(1))).rev().find_map(|n| {
        let (before, last) = (&text[..text.len() - 1], &text[text.len() - n..]);
        let start = before.windows(n).rposition(|window| window == last)?;
        Some(start + n)
    })
}

impl Capability for PromptLookup {
    const NAME: &'static str = "prompt-lookup";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { defaults: DEFAULTS.or(config)?, answers: BTreeMap::new() })
    }
}

impl DecodingStrategy for PromptLookup {
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let settings = self.defaults.or(request.params)?;
        self.answers.insert(group, Answer::open(request, settings)?);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        if let Some(answer) = self.answers.get_mut(&group) {
            answer.plan(out);
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        if let Some(answer) = self.answers.get_mut(&group) {
            answer.observe(results, out);
        }
        Ok(())
    }

    fn close(&mut self, group: GroupId) {
        self.answers.remove(&group);
    }
}

export_plugin!(PromptLookup);

#[cfg(test)]
mod tests {
    use plugin_api::testing::decoding_strategy::{self, answer, next_token};

    use super::*;

    fn made() -> PromptLookup {
        PromptLookup::from_config(&Config::new()).unwrap()
    }

    #[test]
    fn passes_the_contract_suite() {
        decoding_strategy::suite::<PromptLookup>(&Config::new());
    }

    /// Name, text, longest and shortest ngram, where the text goes on.
    type Case = (&'static str, &'static [u32], usize, usize, Option<usize>);

    #[test]
    fn finds_what_followed_the_last_tokens() {
        #[rustfmt::skip]
        let cases: [Case; 8] = [
            // name             text                       max min  goes on at
            ("nothing",         &[],                       3,  1,   None),
            ("one token",       &[1],                      3,  1,   None),
            ("no repetition",   &[1, 2, 3],                3,  1,   None),
            ("one token back",  &[7, 7],                   3,  1,   Some(1)),
            ("the longest",     &[1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 3, 1, Some(3)),
            ("the latest",      &[2, 3, 4, 2, 3, 5, 2, 3], 2,  1,   Some(5)),
            ("not below min",   &[3, 4, 2, 3],             3,  2,   None),
            ("overlapping",     &[5, 5, 5, 5],             2,  2,   Some(3)),
        ];
        for (name, text, max, min, expected) in cases {
            assert_eq!(repeated(text, max, min), expected, "{name}");
        }
    }

    #[test]
    fn text_that_repeats_takes_fewer_steps() {
        // The model counts, and the prompt holds what it is going to say.
        let prompt: Vec<u32> = (0..40).chain(0..3).collect();
        let params = Config::new().with("max_tokens", 32);
        let found = answer(&mut made(), &prompt, &params);
        assert_eq!(found.tokens, (3..35).collect::<Vec<_>>());
        assert_eq!(found.wants.len(), 4, "8 guesses and a token of its own in a step");
        assert_eq!((found.drafts, found.accepted), (32, 29));
    }

    #[test]
    fn bad_guesses_become_fewer_and_change_nothing() {
        // After 1, 2 the prompt goes on otherwise than the model does.
        let prompt: Vec<u32> = [1, 2, 50, 51, 52, 53, 54, 55, 56, 57, 1, 2].to_vec();
        let params = Config::new().with("max_tokens", 12).with("ngram_min", 1);
        let found = answer(&mut made(), &prompt, &params);
        let expected: Vec<u32> = (0..12)
            .scan(2, |last, _| {
                *last = next_token(*last);
                Some(*last)
            })
            .collect();
        assert_eq!(found.tokens, expected);
        assert_eq!(
            (found.drafts, found.accepted),
            (8, 0),
            "one guess of eight, then no repetition"
        );
    }

    #[test]
    fn as_many_guesses_as_are_asked_for() {
        let prompt: Vec<u32> = (0..40).chain(0..3).collect();
        for (drafts, steps) in [(0, 12), (1, 6), (3, 3), (64, 1)] {
            let params = Config::new().with("max_tokens", 12).with("num_draft_tokens", drafts);
            let found = answer(&mut made(), &prompt, &params);
            assert_eq!(found.tokens, (3..15).collect::<Vec<_>>());
            assert_eq!(found.wants.len(), steps, "{drafts} drafts");
        }
    }

    #[test]
    fn a_shortest_ngram_beyond_the_longest_is_refused() {
        let error = PromptLookup::from_config(&Config::new().with("ngram_min", 4)).unwrap_err();
        assert!(error.to_string().contains("ngram_min"), "{error}");
    }
}
