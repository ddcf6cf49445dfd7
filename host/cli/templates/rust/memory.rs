//! My plugin: brings back what the user said before, the latest first.
//!
//! Source: none needed; an example of a memory that keeps its rows in the store of the host.

use plugin_api::host::{Change, Row};
use plugin_api::prelude::*;

/// Keeps what users say, up to a number of messages.
#[derive(Debug)]
pub struct MyPlugin {
    /// Messages that are kept of a session.
    messages_max: usize,
}

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { messages_max: config.count_or("messages", 20, 1..=1000)? as usize })
    }
}

impl Memory for MyPlugin {
    fn recall(&mut self, turn: &Turn, host: &Host) -> Result<Vec<Passage>> {
        let rows = host.services().store_rows(&turn.session, "said/")?;
        let passage = |row: Row| Some(Passage { source: row.key, text: text_of(row.value)? });
        Ok(rows.into_iter().rev().filter_map(passage).collect())
    }

    fn remember(&mut self, turn: &Turn, _answer: &str, host: &Host) -> Result<Vec<String>> {
        let rows = host.services().store_rows(&turn.session, "said/")?;
        let last = rows.last().and_then(|row| row.key.strip_prefix("said/")?.parse::<u64>().ok());
        let (mut next, mut changes) = (last.map_or(0, |last| last + 1), Vec::new());
        let is_there = |said: &str| rows.iter().any(|row| row.value == said.as_bytes());
        for message in turn.latest().iter().filter(|message| message.role == "user") {
            if !message.content.is_empty() && !is_there(&message.content) {
                let (key, value) =
                    (format!("said/{next:020}"), message.content.clone().into_bytes());
                changes.push(Change::Put(Row { key, value }));
                next += 1;
            }
        }
        let over = (rows.len() + changes.len()).saturating_sub(self.messages_max);
        changes.extend(rows.into_iter().take(over).map(|row| Change::Remove(row.key)));
        host.services().store_change(&turn.session, &changes)?;
        Ok(Vec::new())
    }
}

/// The text of a row, unless it is empty or was damaged.
fn text_of(value: Vec<u8>) -> Option<String> {
    String::from_utf8(value).ok().filter(|text| !text.is_empty())
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::machine::Machine;
    use plugin_api::testing::memory::{suite, turn};

    #[test]
    fn passes_the_contract_suite() {
        suite::<MyPlugin>(&Config::new());
    }

    #[test]
    fn brings_back_the_latest_first() {
        let mut memory = MyPlugin::from_config(&Config::new().with("messages", 2)).unwrap();
        let (machine, asked) = (Machine::new(), turn("s", "?"));
        let host = machine.host("my-plugin");
        for said in ["one", "two", "three"] {
            memory.remember(&turn("s", said), "", &host).unwrap();
        }
        let found = memory.recall(&asked, &host).unwrap();
        let texts: Vec<&str> = found.iter().map(|passage| &*passage.text).collect();
        assert_eq!(texts, ["three", "two"]);
    }
}
