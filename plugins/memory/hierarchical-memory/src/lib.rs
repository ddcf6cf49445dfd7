//! Hierarchical memory: originals in three tiers, with versions, hashes and a card that is always there.
//!
//! Details are kept by bringing originals back, never by summaries of them. `README.md` has the directives.

mod card;
mod directive;
mod fields;
mod kept;
mod record;
mod said;
mod validate;

use std::collections::BTreeSet;

use plugin_api::kinds::memory::Ranking;
use plugin_api::prelude::*;

use directive::{Control, Directive, Tier, scan};
use kept::{Kept, Written};
use record::{Entry, Record, UNSEALED};

/// Keeps what is sealed and what is stated, by key and version.
#[derive(Debug)]
pub struct HierarchicalMemory {
    /// Most entries of a session.
    entries_max: usize,
    /// Characters of the longest original.
    verbatim_max: usize,
    /// Most entries that are recalled.
    top_k: usize,
    /// Share of the best score from which an entry is recalled.
    near: f64,
    /// Most tokens of the card.
    card_tokens: u32,
    /// Whether statements are kept that nobody asked to be kept.
    keeps_statements: bool,
}

impl Capability for HierarchicalMemory {
    const NAME: &'static str = "hierarchical-memory";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            entries_max: config.count_or("items", 1000, 1..=10_000)? as usize,
            verbatim_max: config.count_or("verbatim_max", 5000, 1..=100_000)? as usize,
            top_k: config.count_or("top_k", 5, 1..=100)? as usize,
            near: f64::from(config.unit_interval_or("near", 0.6)?),
            card_tokens: config.count_or("card_tokens", 400, 0..=4000)? as u32,
            keeps_statements: config.flag_or("statements", true)?,
        })
    }
}

impl Memory for HierarchicalMemory {
    fn recall(&mut self, turn: &Turn, host: &Host) -> Result<Vec<Passage>> {
        let kept = Kept::read(&turn.session, host)?;
        for said in &kept.damage {
            host.warn(format_args!("session `{}`: {said}", turn.session));
        }
        let mut found = traced_back(turn, &kept);
        found.extend(kept.card.passages(&kept, self.card_tokens.min(turn.tokens_max / 3)));
        let details = self.found(&kept, turn.question()).into_iter();
        found.extend(details.map(|(entry, head)| passage(entry, head)));
        let mut sources = BTreeSet::new();
        found.retain(|passage| sources.insert(passage.source.clone()));
        Ok(found)
    }

    fn remember(&mut self, turn: &Turn, answer: &str, host: &Host) -> Result<Vec<String>> {
        for _ in 0..TRIES {
            let mut kept = Kept::read(&turn.session, host)?;
            kept.turn += 1;
            let mut notes = kept.damage.clone();
            for message in turn.latest().iter().filter(|message| message.role == "user") {
                self.take(&message.content, &mut kept, &mut notes);
            }
            notes.extend(validate::violations(answer, &kept));
            kept.evict(self.entries_max);
            if host.services().store_change(&turn.session, &kept.changes())? {
                return Ok(notes);
            }
        }
        let message = format!("{TRIES} times another request of the session was faster");
        Err(Error::outside("hierarchical memory", message))
    }
}

impl HierarchicalMemory {
    /// Keeps what a message has to be kept.
    fn take(&self, text: &str, kept: &mut Kept, notes: &mut Vec<String>) {
        let (directives, plain) = scan(text);
        for directive in directives {
            let done = match directive {
                Directive::Control { control, text } => obey(control, text, kept),
                Directive::Seal { tier, key, version, body, at } => {
                    let sealed = self.seal(tier, key.as_deref(), version, &body, kept);
                    sealed.map_err(|why| format!("directive at byte {at}: {why}"))
                }
            };
            notes.extend(done.err());
        }
        if self.keeps_statements {
            for sentence in said::sentences(&plain) {
                self.keep_statement(sentence, kept, notes);
            }
        }
    }

    fn seal(
        &self,
        tier: Tier,
        key: Option<&str>,
        version: Option<u64>,
        body: &str,
        kept: &mut Kept,
    ) -> std::result::Result<(), String> {
        let length = body.chars().count();
        if body.trim().is_empty() || length > self.verbatim_max {
            return Err(format!("expected 1 to {} characters, found {length}", self.verbatim_max));
        }
        let (content, reference) = match tier {
            Tier::Verbatim => (body.to_owned(), None),
            Tier::Structured => (fields::canonical(&fields::read(body)?), None),
            Tier::Narrative => match body.rsplit_once('←') {
                Some((summary, of)) => (summary.trim().to_owned(), Some(of.trim().to_owned())),
                None => (body.to_owned(), None),
            },
        };
        let short: String = record::sha256(&content).chars().take(8).collect();
        let own = format!("SEAL:{}:{short}", tier.letter());
        let sealed = kept.entries.iter().filter(|entry| entry.is_sealed()).count();
        let key = key.unwrap_or(&own);
        if sealed >= self.entries_max && kept.entry(key).is_none() {
            return Err(format!(
                "expected at most {} sealed entries, found as many",
                self.entries_max
            ));
        }
        let written =
            Written { key, tier, content: &content, version, reason: "sealed", reference };
        kept.write(written).map(drop)
    }

    /// Keeps a statement as a version of what was said of its subject; other sentences as narrative.
    fn keep_statement(&self, sentence: &str, kept: &mut Kept, notes: &mut Vec<String>) {
        let is_long = sentence.chars().count() > self.verbatim_max;
        if is_long || said::is_question(sentence) {
            return;
        }
        let (key, tier) = match said::statement(sentence) {
            Some((subject, _)) => {
                (kept.key_of(&subject.replace('/', " "), sentence), Tier::Verbatim)
            }
            None if sentence.split_whitespace().count() < WORDS_MIN && sentence.is_ascii() => {
                return;
            }
            None => {
                let short: String = record::sha256(sentence).chars().take(8).collect();
                (format!("{}NARR:{short}", record::SAID), Tier::Narrative)
            }
        };
        let (content, version, reference) = (sentence, None, None);
        let written = Written { key: &key, tier, content, version, reason: "said", reference };
        notes.extend(kept.write(written).err());
    }

    /// The entries that a question is about: those that it names, then those that share its words.
    fn found<'a>(&self, kept: &'a Kept, question: &str) -> Vec<(&'a Entry, &'a Record)> {
        let heads = kept.entries.iter().filter_map(|entry| Some((entry, entry.head()?)));
        let heads: Vec<(&Entry, &Record)> = heads.collect();
        let texts: Vec<String> = heads
            .iter()
            .map(|(entry, head)| format!("{} {}", entry.name(), head.content))
            .collect();
        let scores = Ranking::new(texts.iter().map(String::as_str)).scores(question);
        let asked = said::normal(question);
        let mut found: Vec<(bool, f64, usize)> = Vec::new();
        for (place, ((entry, head), score)) in heads.iter().zip(scores).enumerate() {
            let is_named = said::mentions(&asked, &entry.name().to_lowercase());
            found.push((is_named, score * head.tier.importance(), place));
        }
        let best = found.iter().map(|(_, score, _)| *score).fold(0.0, f64::max);
        found
            .retain(|(is_named, score, _)| *is_named || *score > 0.0 && *score >= self.near * best);
        // Equal ones: what was written last.
        let turn = |place: usize| heads[place].1.turn;
        found.sort_by(|a, b| {
            let by_name = b.0.cmp(&a.0).then(b.1.total_cmp(&a.1));
            by_name.then(turn(b.2).cmp(&turn(a.2))).then(a.2.cmp(&b.2))
        });
        found.into_iter().take(self.top_k).map(|(.., place)| heads[place]).collect()
    }
}

/// Does what a line asks.
fn obey(control: Control, text: String, kept: &mut Kept) -> std::result::Result<(), String> {
    if text.is_empty() {
        return Err(format!("{control:?}: expected a text, found none"));
    }
    match control {
        Control::Anchor => kept.card.anchor(text),
        Control::NoDrift => kept.card.rule(text),
        Control::Goal => kept.card.goal = text,
        Control::Unseal => {
            let head = kept.entry(&text).and_then(Entry::head);
            let head =
                head.ok_or_else(|| format!("unseal: expected a sealed key, found `{text}`"))?;
            let (tier, content) = (head.tier, head.content.clone());
            let (version, reference, reason) = (None, None, UNSEALED);
            kept.write(Written {
                key: &text,
                tier,
                content: &content,
                version,
                reason,
                reference,
            })?;
        }
        Control::TraceBack => {
            // Without a version it only asks to be shown.
            let Some((key, number)) = text.rsplit_once(":v") else { return Ok(()) };
            let wanted = number.parse::<u64>().ok();
            let versions = kept.entry(key).map(|entry| &entry.versions[..]).unwrap_or_default();
            let old = versions.iter().find(|record| Some(record.version) == wanted);
            let old = old.ok_or_else(|| {
                format!("trace back: expected a key and a version of it, found `{text}`")
            })?;
            let (tier, content, reference) = (old.tier, old.content.clone(), old.reference.clone());
            let reason = &*format!("rolled back to v{number}");
            let version = None;
            kept.write(Written { key, tier, content: &content, version, reason, reference })?;
        }
    }
    Ok(())
}

/// All versions of what the latest messages ask to trace back.
fn traced_back(turn: &Turn, kept: &Kept) -> Vec<Passage> {
    let mut found = Vec::new();
    for message in turn.latest().iter().filter(|message| message.role == "user") {
        for directive in scan(&message.content).0 {
            let Directive::Control { control: Control::TraceBack, text } = directive else {
                continue;
            };
            let entry = kept.entry(&text);
            found.extend(
                entry
                    .into_iter()
                    .flat_map(|entry| entry.versions.iter().map(move |it| passage(entry, it))),
            );
        }
    }
    found
}

/// What the model is to read of a version: an original as it is.
fn passage(entry: &Entry, record: &Record) -> Passage {
    let body = match record.tier {
        Tier::Verbatim => record.content.clone(),
        Tier::Structured => {
            let fields = fields::of_canonical(&record.content);
            let fields =
                fields.iter().map(|(name, value)| format!("{name} = {}", fields::shown(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        Tier::Narrative => match &record.reference {
            Some(of) => format!("{} (see {of})", record.content),
            None => record.content.clone(),
        },
    };
    let text = if entry.is_sealed() { format!("{}: {body}", entry.key) } else { body };
    Passage { source: entry.citation(record), text }
}

/// How often another writer of the same session may be faster.
const TRIES: u32 = 3;

/// Shorter sentences that state nothing say nothing: `Hello.`, `Thank you.`
const WORDS_MIN: usize = 4;

export_plugin!(HierarchicalMemory);

#[cfg(test)]
mod tests;
