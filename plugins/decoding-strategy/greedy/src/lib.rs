//! Greedy decoding: always the likeliest token, the lowest id where several tie.
//!
//! Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751.

use std::collections::BTreeMap;

use plugin_api::prelude::*;

/// Answers every request with one sequence of likeliest tokens, whatever its temperature.
#[derive(Debug)]
pub struct Greedy {
    /// Limit of a request that names none, in tokens.
    max_tokens: u64,
    answers: BTreeMap<GroupId, SingleAnswer>,
}

impl Capability for Greedy {
    const NAME: &'static str = "greedy";

    fn from_config(config: &Config) -> Result<Self> {
        let max_tokens = config.count_or("max_tokens", 256, 1..=u64::from(u32::MAX))?;
        Ok(Self { max_tokens, answers: BTreeMap::new() })
    }
}

impl DecodingStrategy for Greedy {
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let answer = SingleAnswer::open(request, Want::Argmax, self.max_tokens)?;
        self.answers.insert(group, answer);
        Ok(())
    }

    fn plan(&mut self, group: GroupId, out: &mut Evals) -> Result<()> {
        if let Some(answer) = self.answers.get(&group) {
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

export_plugin!(Greedy);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::decoding_strategy;

    #[test]
    fn passes_the_contract_suite() {
        decoding_strategy::suite::<Greedy>(&Config::new());
    }

    #[test]
    fn evaluates_the_prompt_then_each_chosen_token() {
        let mut greedy = Greedy::from_config(&Config::new()).unwrap();
        let params = Config::new().with("max_tokens", 3).with("temperature", 1.5);
        let answer = decoding_strategy::answer(&mut greedy, &[5, 9], &params);
        assert_eq!(answer.evaluated, [5, 9, 10, 11]);
        assert_eq!(answer.tokens, [10, 11, 12]);
        assert_eq!(answer.wants, [Want::Argmax; 3]);
    }

    #[test]
    fn a_request_without_limit_takes_the_configured_one() {
        let mut greedy = Greedy::from_config(&Config::new().with("max_tokens", 7)).unwrap();
        let answer = decoding_strategy::answer(&mut greedy, &[1], &Config::new());
        assert_eq!(answer.tokens.len(), 7);
    }
}
