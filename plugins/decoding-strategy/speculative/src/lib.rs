//! Speculative: several tokens a step, of which a draft model guesses all but one.
//!
//! Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", arXiv:2211.17192.

use std::collections::BTreeMap;

use plugin_api::prelude::*;

/// Answers every request with one drawn sequence, with as many guesses as pay.
#[derive(Debug)]
pub struct Speculative {
    defaults: Settings,
    /// Where an engine has not measured any.
    costs: Option<Costs>,
    /// Of all requests.
    hits: Hits,
    /// Since one tried guesses that did not pay.
    num_without: u32,
    answers: BTreeMap<GroupId, Answer>,
}

/// What a request may choose.
#[derive(Debug, Clone, Copy)]
struct Settings {
    max_tokens: u64,
    /// Only matters for whether it is 0.
    temperature: f64,
    num_draft_tokens: usize,
    is_adaptive: bool,
}

const DEFAULTS: Settings =
    Settings { max_tokens: 256, temperature: 1.0, num_draft_tokens: 4, is_adaptive: true };

impl Settings {
    /// Those in `config`, else these.
    fn or(self, config: &Config) -> Result<Self> {
        let drafts = self.num_draft_tokens as u64;
        Ok(Self {
            max_tokens: config.count_or("max_tokens", self.max_tokens, 1..=u64::from(u32::MAX))?,
            temperature: config.number_or("temperature", self.temperature, 0.0..=100.0)?,
            num_draft_tokens: config.count_or("num_draft_tokens", drafts, 1..=64)? as usize,
            is_adaptive: config.flag_or("adaptive", self.is_adaptive)?,
        })
    }
}

/// Guesses that came true, and all; old ones count less and less.
#[derive(Debug, Clone, Copy)]
struct Hits {
    hits: f64,
    trials: f64,
    /// What is left of a count with each further trial.
    memory: f64,
}

impl Hits {
    fn new(memory: f64) -> Self {
        Self { hits: 0.0, trials: 0.0, memory }
    }

    fn add(&mut self, is_hit: bool) {
        self.hits = self.hits * self.memory + f64::from(u8::from(is_hit));
        self.trials = self.trials * self.memory + 1.0;
    }

    /// The share that comes true, of little experience near to `before`.
    fn share(&self, before: f64) -> f64 {
        (self.hits + PRIOR_TRIALS * before) / (self.trials + PRIOR_TRIALS)
    }
}

/// What guesses cost, over a step for one token.
#[derive(Debug, Clone, Copy)]
struct Costs {
    draft: f64,
    verify: f64,
}

impl Costs {
    /// Those in `config`, if it has any.
    fn of(config: &Config) -> Result<Option<Self>> {
        if !config.has("draft_cost") {
            return Ok(None);
        }
        let cost = |key, default| config.number_or(key, default, 0.0..=1e9);
        Ok(Some(Self { draft: cost("draft_cost", 1.0)?, verify: cost("verify_cost", 0.0)? }))
    }

    /// How many guesses give the most tokens for the time, at most `most`.
    fn best(self, share: f64, most: usize) -> usize {
        let speed = |guesses: usize| {
            // 1 + α + α² + …: as many tokens come of a step.
            let tokens: f64 = (0..=guesses).map(|n| share.powi(n as i32)).sum();
            tokens / (1.0 + guesses as f64 * (self.draft + self.verify))
        };
        (0..=most).max_by(|a, b| speed(*a).total_cmp(&speed(*b)).then(b.cmp(a))).unwrap_or(0)
    }
}

/// One request.
#[derive(Debug)]
struct Answer {
    answer: SingleAnswer,
    settings: Settings,
    costs: Costs,
    hits: Hits,
    /// What requests before it found.
    before: f64,
    /// Guesses to try whatever they cost, to learn how many come true.
    num_to_try: u32,
    /// Whether guesses are over: the draft model would have to read all that it has missed.
    is_over: bool,
}

impl Answer {
    fn plan(&mut self, out: &mut Evals) {
        let most = self.settings.num_draft_tokens;
        let guesses = match self.settings.is_adaptive {
            false => most,
            true if self.is_over => 0,
            true => {
                let least = usize::from(self.hits.trials < f64::from(self.num_to_try));
                self.costs.best(self.hits.share(self.before), most).max(least)
            }
        };
        self.is_over = guesses == 0;
        self.answer.plan_guessed(guesses, out);
    }
}

impl Capability for Speculative {
    const NAME: &'static str = "speculative";

    fn from_config(config: &Config) -> Result<Self> {
        let (defaults, costs) = (DEFAULTS.or(config)?, Costs::of(config)?);
        let hits = Hits::new(MEMORY_OF_ALL);
        Ok(Self { defaults, costs, hits, num_without: 0, answers: BTreeMap::new() })
    }
}

impl DecodingStrategy for Speculative {
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let settings = self.defaults.or(request.params)?;
        let Some(costs) = Costs::of(request.params)?.or(self.costs) else {
            let missing = "an engine with a draft model: `draft_model`";
            return Err(Error::unsupported("speculative", missing));
        };
        let want = if settings.temperature == 0.0 { Want::Argmax } else { Want::Sample };
        let answer = SingleAnswer::open(request, want, settings.max_tokens)?;
        let before = self.hits.share(SHARE_AT_FIRST);
        let pays = costs.best(before, settings.num_draft_tokens) > 0;
        self.num_without = if pays { 0 } else { (self.num_without + 1) % RETRY_AFTER };
        let is_new = self.hits.trials < f64::from(TRIALS);
        let num_to_try = if pays || is_new || self.num_without == 0 { TRIALS } else { 0 };
        let hits = Hits::new(MEMORY_OF_ONE);
        let answer = Answer { answer, settings, costs, hits, before, num_to_try, is_over: false };
        self.answers.insert(group, answer);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        if let Some(answer) = self.answers.get_mut(&group) {
            answer.plan(out);
        }
        Ok(())
    }

    fn observe(&mut self, group: GroupId, results: &[Outcome], out: &mut Actions) -> Result<()> {
        let Some(answer) = self.answers.get_mut(&group) else { return Ok(()) };
        for outcome in results {
            if let (Some(token), Some(draft)) = (outcome.token, outcome.draft) {
                answer.hits.add(token == draft);
                self.hits.add(token == draft);
            }
        }
        answer.answer.observe(results, out);
        Ok(())
    }

    fn close(&mut self, group: GroupId) {
        self.answers.remove(&group);
    }
}

/// What share of guesses is expected to come true before any was made, and how many trials that counts for.
const SHARE_AT_FIRST: f64 = 0.7;
const PRIOR_TRIALS: f64 = 4.0;
/// A request looks back at about twenty guesses, all together at two hundred.
const MEMORY_OF_ONE: f64 = 0.95;
const MEMORY_OF_ALL: f64 = 0.995;
const TRIALS: u32 = 8;
/// Of requests for which guesses do not pay, one in so many tries whether they do by now.
const RETRY_AFTER: u32 = 16;

export_plugin!(Speculative);

#[cfg(test)]
mod tests {
    use plugin_api::testing::decoding_strategy::{answer, suite};

    use super::*;

    fn params(draft_cost: f64) -> Config {
        Config::new().with("draft_cost", draft_cost).with("verify_cost", 0.05)
    }

    #[test]
    fn passes_the_contract_suite() {
        suite::<Speculative>(&params(0.1));
    }

    #[test]
    fn as_many_guesses_as_pay() {
        #[rustfmt::skip]
        let cases = [
            // share, draft, verify, most, guesses
            (0.0,     0.01,  0.0,    8,    0),
            (0.5,     0.6,   0.0,    8,    0),
            (0.8,     0.1,   0.05,   8,    5),
            (0.8,     0.1,   0.05,   2,    2),
            (1.0,     0.3,   0.3,    8,    8),
            (0.99,    0.0,   0.0,    64,   64),
        ];
        for (share, draft, verify, most, guesses) in cases {
            let found = Costs { draft, verify }.best(share, most);
            assert_eq!(found, guesses, "{share} {draft} {verify} {most}");
        }
    }

    #[test]
    fn good_guesses_take_fewer_steps_and_change_nothing() {
        let mut strategy = Speculative::from_config(&Config::new()).unwrap();
        let params = params(0.05).with("max_tokens", 40);
        let found = answer(&mut strategy, &[5], &params);
        let plain = answer(&mut strategy, &[5], &params.clone().with("num_draft_tokens", 1));
        assert_eq!(found.tokens, plain.tokens);
        // Of three guesses in a row the suite's draft model errs in the last.
        assert!(found.wants.len() < 20, "{}", found.wants.len());
        assert!(found.accepted * 3 > found.drafts, "{found:?}");
    }

    #[test]
    fn guesses_that_cost_more_than_they_give_end() {
        let mut strategy = Speculative::from_config(&Config::new()).unwrap();
        let params = params(3.0).with("max_tokens", 200);
        let mut drafts = 0;
        for _ in 0..RETRY_AFTER {
            drafts += answer(&mut strategy, &[5], &params).drafts;
        }
        // The first answer tries, and one of the next sixteen.
        assert!((8..=24).contains(&drafts), "{drafts}");
        let always = params.with("adaptive", false);
        assert!(answer(&mut strategy, &[5], &always).drafts > 200);
    }

    #[test]
    fn an_engine_without_a_draft_model_is_told() {
        let mut strategy = Speculative::from_config(&Config::new()).unwrap();
        let (seq, prompt, params) = (SeqId(0), &[1][..], &Config::new());
        let error = strategy.open(GroupId(0), &RequestView { seq, prompt, params }).unwrap_err();
        assert!(error.to_string().contains("`draft_model`"), "{error}");
    }
}
