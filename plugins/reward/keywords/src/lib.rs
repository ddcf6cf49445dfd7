//! Keywords: answers in which words occur.

use plugin_api::prelude::*;

/// The share of the words that occur in an answer, in any case.
#[derive(Debug)]
pub struct Keywords {
    /// In lower case, at least one.
    words: Vec<String>,
}

impl Capability for Keywords {
    const NAME: &'static str = "keywords";

    fn from_config(config: &Config) -> Result<Self> {
        const EXPECTED: &str = "texts that are not empty, at least one";
        let text = |value: &Value| match value {
            Value::Text(word) if !word.is_empty() => Ok(word.to_lowercase()),
            other => Err(config.wrong("words", EXPECTED, Some(other))),
        };
        let words: Vec<String> = config.list("words")?.iter().map(text).collect::<Result<_>>()?;
        if words.is_empty() {
            return Err(config.wrong("words", EXPECTED, config.get("words")));
        }
        Ok(Self { words })
    }
}

impl Reward for Keywords {
    fn rate(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        let worth = |answer: &RatedAnswer<'_>| {
            let text = answer.text.to_lowercase();
            let found = self.words.iter().filter(|word| text.contains(word.as_str()));
            found.count() as f64 / self.words.len() as f64
        };
        Ok(answers.iter().map(worth).collect())
    }
}

export_plugin!(Keywords);

#[cfg(test)]
mod tests {
    use plugin_api::testing::reward::suite;

    use super::*;

    fn config() -> Config {
        Config::new().with("words", vec![Value::from("École"), Value::from("b")])
    }

    #[test]
    fn passes_the_contract_suite() {
        suite::<Keywords>(&config());
    }

    #[test]
    fn words_count_in_any_case() {
        let answer = |text| RatedAnswer {
            prompt: "école b",
            text,
            expected: None,
            num_tokens: 1,
            is_finished: true,
        };
        let answers = [answer("L'ÉCOLE"), answer("école B"), answer("")];
        let rated = Keywords::from_config(&config()).unwrap().rate(&answers).unwrap();
        assert_eq!(rated, [0.5, 1.0, 0.0]);
    }

    #[test]
    fn refuses_a_list_without_words() {
        for words in [vec![], vec![Value::from("")], vec![Value::from(3)]] {
            let error = Keywords::from_config(&Config::new().with("words", words)).unwrap_err();
            assert!(error.to_string().contains("at least one"), "{error}");
        }
        assert!(Keywords::from_config(&Config::new()).is_err());
    }
}
