//! Length: answers of about as many tokens as they should have.

use plugin_api::prelude::*;

/// `1 − |n − target| / target` for an answer of `n` tokens, at least −1.
#[derive(Debug)]
pub struct Length {
    target_tokens: f64,
    must_finish: bool,
}

impl Capability for Length {
    const NAME: &'static str = "length";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            target_tokens: config.count_or("target_tokens", 64, 1..=1 << 20)? as f64,
            must_finish: config.flag_or("must_finish", false)?,
        })
    }
}

impl Reward for Length {
    fn rate(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        Ok(answers.iter().map(|answer| self.worth(answer)).collect())
    }
}

impl Length {
    fn worth(&self, answer: &RatedAnswer<'_>) -> f64 {
        if self.must_finish && !answer.is_finished {
            return -1.0;
        }
        let off = (answer.num_tokens as f64 - self.target_tokens).abs();
        (1.0 - off / self.target_tokens).max(-1.0)
    }
}

export_plugin!(Length);

#[cfg(test)]
mod tests {
    use plugin_api::testing::reward::suite;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Length>(&Config::new());
        suite::<Length>(&Config::new().with("target_tokens", 1).with("must_finish", true));
    }

    #[test]
    fn the_nearer_the_better() {
        let answer = |num_tokens, is_finished| RatedAnswer {
            prompt: "",
            text: "",
            expected: None,
            num_tokens,
            is_finished,
        };
        let answers = [answer(8, false), answer(6, true), answer(12, true), answer(99, true)];
        let config = Config::new().with("target_tokens", 8);
        let rated = Length::from_config(&config).unwrap().rate(&answers).unwrap();
        assert_eq!(rated, [1.0, 0.75, 0.5, -1.0]);
        let config = config.with("must_finish", true);
        assert_eq!(Length::from_config(&config).unwrap().rate(&answers).unwrap()[0], -1.0);
    }
}
