//! The memories beside a model: made, swapped, and asked on the terminal.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use jackfield_engine::memory::{place, turn};
use jackfield_engine::model::{LoadedModel, Message};
use jackfield_engine::{Engine, Memories, MemorySwapper, Recalled};
use jackfield_loader::{Services, StoreOptions};
use jackfield_runtime::SystemClock;
use plugin_api::Config;
use plugin_api::host::is_session;

use crate::embedder::SideBySide;
use crate::folders::data_folder;
use crate::setup::Session;

/// Services that keep rows: in the folder of the table `store`, or among the data of this user.
pub(crate) fn services(config: &Config) -> Result<Services> {
    let table = config.table("store")?;
    let folder = data_folder().map(|folder| folder.join("store"));
    if folder.is_none() && !table.is_some_and(|table| table.has("folder")) {
        return Ok(Services::new());
    }
    let options = StoreOptions::from_config(table, folder.unwrap_or_default())?;
    Ok(Services::with_store(options))
}

/// Makes the configured memories. What they recall may take `tokens` of the table `memory`: 600, or three tenths of
/// a context that is small.
pub(crate) fn load(session: &Session, model: &LoadedModel) -> Result<Memories> {
    let usual = TOKENS.min(model.context_length as u64 * 3 / 10);
    let tokens = match session.config.table("memory")? {
        Some(table) => table.count_or("tokens", usual, 0..=1 << 20)?,
        None => usual,
    };
    let (wiring, registry) = (&session.wiring, &session.registry());
    Ok(Memories::load(wiring, registry, &model.tokenizer, tokens as u32)?)
}

/// What replaces memories.
pub(crate) fn swapper(session: &Session, memories: &Memories) -> MemorySwapper {
    memories.swapper(&session.bus, Arc::new(SystemClock::new()))
}

/// The memory of one conversation on the terminal.
pub(crate) struct Remembered<'a> {
    memories: Memories,
    id: &'a str,
}

impl<'a> Remembered<'a> {
    /// The memory of the conversation `id`, whose plugins can be swapped beside those of the engine.
    pub(crate) fn open(session: &Session, engine: &Engine, id: &'a str) -> Result<Self> {
        if !is_session(id) {
            bail!("--session: expected 1 to 128 bytes without control characters, found {id:?}");
        }
        let memories = load(session, engine.model())?;
        if memories.is_empty() {
            bail!("--session: expected a memory in `memory` of [plugins], found none");
        }
        let beside = swapper(session, &memories);
        let all = SideBySide(vec![Arc::new(engine.swapper()), Arc::new(beside)]);
        session.plugins.attach(Arc::new(all));
        Ok(Self { memories, id })
    }

    /// The conversation with what is recalled for it.
    pub(crate) fn recall(
        &self,
        engine: &Engine,
        messages: &[Message],
    ) -> Result<(Recalled, Vec<Message>)> {
        let tokens = |text: &str| engine.model().tokenizer.encode(text, false).len();
        let recalled = self.memories.recall(turn(self.id, messages), &tokens)?;
        let mut messages = messages.to_vec();
        place(recalled.passages(), &mut messages);
        Ok((recalled, messages))
    }
}

/// Keeps the turn, and tells on standard error what people should know of it.
pub(crate) fn remember(recalled: Recalled, answer: &str) -> Result<()> {
    for note in recalled.remember(answer)? {
        writeln!(std::io::stderr(), "memory: {note}")?;
    }
    Ok(())
}

/// Tokens for what is recalled where nothing is configured.
const TOKENS: u64 = 600;
