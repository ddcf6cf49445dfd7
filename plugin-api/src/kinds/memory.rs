//! Memory: what is kept of conversations between requests.
//!
//! A memory keeps its rows with [`HostServices::store_rows`](crate::host::HostServices::store_rows) and
//! [`store_change`](crate::host::HostServices::store_change), by session, and nothing in itself: two
//! generations of it may serve side by side, and a restart of the host has to change nothing.

mod ranking;

pub use ranking::{Ranking, terms};

use super::kind;
use crate::error::Result;
use crate::host::Host;

/// Brings what was said before into a conversation, and keeps what is said in it.
pub trait Memory: Send {
    /// What belongs in front of the next answer, most important first. [any thread, before generation]
    ///
    /// The host counts tokens, leaves out whole passages that have no room in `turn.tokens_max`, and puts the
    /// others in front of the latest message of the user. Nothing is written: the same turn with the same rows
    /// in the store is answered alike.
    ///
    /// # Errors
    ///
    /// What the store says, and [`Error::Malformed`](crate::Error::Malformed) for rows that are no longer what was
    /// written. The request is refused: an answer without what it should have known would be wrong unnoticed.
    fn recall(&mut self, turn: &Turn, host: &Host) -> Result<Vec<Passage>>;

    /// Keeps what is worth keeping of a turn that was answered with `answer`. Returns sentences for people about
    /// what it found: contradictions, directives that it could not read. [any thread, after generation]
    ///
    /// Clients send whole conversations: what was kept before is not kept again. [`Turn::latest`] tells which
    /// messages came since the answer before.
    ///
    /// # Errors
    ///
    /// What the store says. Nothing of the turn is kept then, and the client is told with its answer.
    fn remember(&mut self, turn: &Turn, answer: &str, host: &Host) -> Result<Vec<String>>;
}

kind!(Memory, "memory", Request, traced: false);

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// What a memory is asked about: a conversation whose next answer is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Whose memory it is.
    pub session: String,
    /// The conversation as the client sent it.
    pub messages: Vec<Message>,
    /// Tokens that passages may take together.
    pub tokens_max: u32,
}

impl Turn {
    /// The messages that came since the answer before.
    pub fn latest(&self) -> &[Message] {
        let said = self.messages.iter().rposition(|message| message.role == "assistant");
        self.messages.get(said.map_or(0, |at| at + 1)..).unwrap_or_default()
    }

    /// What the user said last; nothing where they said nothing.
    pub fn question(&self) -> &str {
        let mut messages = self.messages.iter().rev();
        messages.find(|message| message.role == "user").map_or("", |message| &message.content)
    }
}

/// Something that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Where it comes from, to be cited: unique among the passages of one answer.
    pub source: String,
    /// What the model is to read.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_knows_what_is_new_in_it() {
        let roles = ["system", "user", "assistant", "user", "tool"];
        let messages: Vec<Message> = roles.map(|role| Message::new(role, role)).to_vec();
        let turn = Turn { session: "s".to_owned(), messages, tokens_max: 9 };
        let latest: Vec<&str> = turn.latest().iter().map(|message| &*message.role).collect();
        assert_eq!((latest, turn.question()), (vec!["user", "tool"], "user"));
        let first = Turn { messages: turn.messages[..2].to_vec(), ..turn.clone() };
        assert_eq!(first.latest().len(), 2);
        let none = Turn { messages: Vec::new(), ..turn };
        assert!(none.latest().is_empty() && none.question().is_empty());
    }
}
