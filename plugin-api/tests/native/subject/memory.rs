//! The subject as a memory: says what it was given, and uses every function of the store.

use plugin_api::host::{Change, Row};
use plugin_api::prelude::*;

use super::Subject;

impl Memory for Subject {
    fn recall(&mut self, turn: &Turn, host: &Host) -> Result<Vec<Passage>> {
        self.at("recall")?;
        let rows = host.services().store_rows(&turn.session, "k")?;
        let rows = rows.into_iter().map(|Row { key, value }| Passage {
            source: key,
            text: String::from_utf8_lossy(&value).into_owned(),
        });
        let said = Passage { source: "turn".to_owned(), text: format!("{turn:?}") };
        Ok(rows.chain([said]).collect())
    }

    fn remember(&mut self, turn: &Turn, answer: &str, host: &Host) -> Result<Vec<String>> {
        self.at("remember")?;
        let row = |key: &str| Row { key: key.to_owned(), value: answer.as_bytes().to_vec() };
        let changes = [
            Change::Put(row("k1")),
            Change::Put(row("other")),
            Change::Create(row(&format!("k {}", turn.messages.len()))),
            Change::Remove("other".to_owned()),
        ];
        let is_new = host.services().store_change(&turn.session, &changes)?;
        Ok(vec![format!("{is_new}"), turn.question().to_owned()])
    }
}
