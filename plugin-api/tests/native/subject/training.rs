//! What runs of training ask.

use plugin_api::prelude::*;

use super::Subject;

impl Curriculum for Subject {
    fn next(&mut self, sources: &[SourceView]) -> Result<Choice> {
        self.at("next")?;
        let last = sources.len() - 1;
        let SourceView { num_examples, given, next } = sources[last];
        Ok(Choice { source: last, again: (given > num_examples).then_some(next) })
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        self.at_most_panics("handover");
        if self.lies == "no handover" { None } else { Some(self) }
    }
}

impl Reward for Subject {
    fn rate(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        self.at("rate")?;
        let worth = |it: &RatedAnswer<'_>| {
            let expected = it.expected.map_or(-1.0, |text| text.len() as f64);
            let texts = (it.prompt.len() * 100 + it.text.len()) as f64;
            texts
                + expected / 8.0
                + it.num_tokens as f64 * 1e6
                + f64::from(u8::from(it.is_finished))
        };
        Ok(answers.iter().map(worth).collect())
    }
}
