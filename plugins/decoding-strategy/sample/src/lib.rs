//! Sampling: draws each token from the distribution that the logits processors leave.
//!
//! Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751.

use std::collections::BTreeMap;

use plugin_api::prelude::*;

/// Answers every request with one drawn sequence; at temperature 0 with the likeliest tokens.
#[derive(Debug)]
pub struct Sample {
    /// Temperature of a request that names none: here it only matters whether it is 0.
    temperature: f64,
    /// Limit of a request that names none, in tokens.
    max_tokens: u64,
    answers: BTreeMap<GroupId, SingleAnswer>,
}

impl Capability for Sample {
    const NAME: &'static str = "sample";

    fn from_config(config: &Config) -> Result<Self> {
        let max_tokens = config.count_or("max_tokens", 256, 1..=u64::from(u32::MAX))?;
        let temperature = config.number_or("temperature", 1.0, TEMPERATURES)?;
        Ok(Self { temperature, max_tokens, answers: BTreeMap::new() })
    }
}

impl DecodingStrategy for Sample {
    fn open(&mut self, group: GroupId, request: &RequestView<'_>) -> Result<()> {
        let temperature =
            request.params.number_or("temperature", self.temperature, TEMPERATURES)?;
        let want = if temperature == 0.0 { Want::Argmax } else { Want::Sample };
        let answer = SingleAnswer::open(request, want, self.max_tokens)?;
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

const TEMPERATURES: std::ops::RangeInclusive<f64> = 0.0..=100.0;

export_plugin!(Sample);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::decoding_strategy;

    #[test]
    fn passes_the_contract_suite() {
        decoding_strategy::suite::<Sample>(&Config::new());
    }

    #[test]
    fn draws_unless_the_temperature_is_0() {
        #[rustfmt::skip]
        let cases = [
            // configured  requested   wants
            (None,         None,       Want::Sample),
            (None,         Some(0.7),  Want::Sample),
            (None,         Some(0.0),  Want::Argmax),
            (Some(0.0),    None,       Want::Argmax),
            (Some(0.0),    Some(1.0),  Want::Sample),
        ];
        for (configured, requested, want) in cases {
            let table = |temperature: Option<f64>| match temperature {
                Some(temperature) => Config::new().with("temperature", temperature),
                None => Config::new(),
            };
            let mut sample = Sample::from_config(&table(configured)).unwrap();
            let params = table(requested).with("max_tokens", 3);
            let answer = decoding_strategy::answer(&mut sample, &[5, 9], &params);
            assert_eq!(answer.evaluated, [5, 9, 10, 11]);
            assert_eq!(answer.wants, [want; 3], "{configured:?}, {requested:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_temperature() {
        let mut sample = Sample::from_config(&Config::new()).unwrap();
        let params = Config::new().with("temperature", "hot");
        let request = RequestView { seq: SeqId(0), prompt: &[1], params: &params };
        let error = sample.open(GroupId(0), &request).unwrap_err();
        assert_eq!(error.to_string(), "temperature: expected a number in 0..=100, found \"hot\"",);
    }
}
