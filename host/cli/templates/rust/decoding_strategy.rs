//! My plugin: always the likeliest token, the lowest id where several tie.
//!
//! Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751.

use std::collections::BTreeMap;

use plugin_api::prelude::*;

/// Answers every request with one sequence of likeliest tokens, whatever its temperature.
#[derive(Debug)]
pub struct MyPlugin {
    /// Limit of a request that names none, in tokens.
    max_tokens: u64,
    answers: BTreeMap<GroupId, SingleAnswer>,
}

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(config: &Config) -> Result<Self> {
        let max_tokens = config.count_or("max_tokens", 256, 1..=u64::from(u32::MAX))?;
        Ok(Self { max_tokens, answers: BTreeMap::new() })
    }
}

impl DecodingStrategy for MyPlugin {
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

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        plugin_api::testing::decoding_strategy::suite::<MyPlugin>(&Config::new());
    }
}
