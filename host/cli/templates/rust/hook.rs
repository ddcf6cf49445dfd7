//! My plugin: ends an answer after a number of characters, wherever the model would go on.
//!
//! Source: none needed; an example of a hook that edits what it is shown.

use plugin_api::events::AfterToken;
use plugin_api::prelude::*;

/// Cuts answers.
#[derive(Debug)]
pub struct MyPlugin {
    /// Characters that an answer may have.
    length_max: u64,
}

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { length_max: config.count_or("length_max", 1_000, 1..=1_000_000)? })
    }
}

impl Hook for MyPlugin {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        on.order(Phase::Normal, 0).after_token(move |event, _| self.cut(event));
        Ok(())
    }
}

impl MyPlugin {
    fn cut(&self, event: &mut AfterToken<'_>) -> Flow {
        let text = &event.text[..event.keep_bytes];
        match text.char_indices().nth(self.length_max as usize) {
            None => Flow::Continue,
            Some((end, _)) => {
                event.keep_bytes = end;
                event.hold_bytes = event.hold_bytes.min(end);
                Flow::Finish(FinishReason::Length)
            }
        }
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::hook::{after_token, subscribe, suite};

    #[test]
    fn passes_the_contract_suite() {
        suite::<MyPlugin>(&Config::new());
    }

    #[test]
    fn cuts_between_characters() {
        let mut listening = subscribe::<MyPlugin>(&Config::new().with("length_max", 3));
        let mut keep = |text| after_token(&mut listening, text, &Config::new()).keep_bytes;
        assert_eq!([keep("ab"), keep("abc"), keep("abcd"), keep("日本語です")], [2, 3, 3, 9]);
    }
}
