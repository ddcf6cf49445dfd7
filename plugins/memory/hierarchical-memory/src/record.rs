//! What is kept under a key: a chain of versions, each with the SHA-256 of what it says and of the one before.

use std::collections::BTreeMap;

use plugin_api::host::Row;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::directive::Tier;

/// One version of an entry. It is never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) tier: Tier,
    /// From 1.
    pub(crate) version: u64,
    /// Verbatim, canonical fields, or a summary.
    pub(crate) content: String,
    /// Of the content, in hexadecimal.
    pub(crate) sha256: String,
    /// That of the version before.
    pub(crate) prev: Option<String>,
    /// The turn in which it was written.
    pub(crate) turn: u64,
    /// Why: `sealed`, `said`, `rolled back to v1`, `unsealed`.
    pub(crate) reason: String,
    /// What a summary is of.
    pub(crate) reference: Option<String>,
}

impl Record {
    /// Whether the entry ends with it.
    pub(crate) fn is_end(&self) -> bool {
        self.reason == UNSEALED
    }

    pub(crate) fn row(&self, key: &str) -> Row {
        let value = json!({
            "v": VERSION, "tier": self.tier.letter(), "version": self.version, "content": self.content,
            "sha256": self.sha256, "prev": self.prev, "turn": self.turn, "reason": self.reason, "ref": self.reference,
        });
        let key = format!("{ENTRY}{key}/{:06}", self.version);
        Row { key, value: value.to_string().into_bytes() }
    }

    /// The key and version of a row, or why it is none.
    fn read(row: &Row) -> Result<(String, Self), String> {
        let named = row.key.strip_prefix(ENTRY).and_then(|rest| rest.rsplit_once('/'));
        let (key, _) = named.ok_or("expected a key and a version")?;
        let value: Value = serde_json::from_slice(&row.value).map_err(|error| error.to_string())?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let count = |name: &str| value.get(name).and_then(Value::as_u64);
        if count("v") != Some(VERSION) {
            return Err(format!("expected version {VERSION} of the format"));
        }
        let read = || {
            Some(Self {
                tier: Tier::of(&text("tier")?)?,
                version: count("version")?,
                content: text("content")?,
                sha256: text("sha256")?,
                prev: text("prev"),
                turn: count("turn")?,
                reason: text("reason")?,
                reference: text("ref"),
            })
        };
        let record = read().ok_or("expected tier, version, content, sha256, turn and reason")?;
        if sha256(&record.content) != record.sha256 {
            return Err("the content is not what its SHA-256 says".to_owned());
        }
        Ok((key.to_owned(), record))
    }
}

/// Versions of one key, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) versions: Vec<Record>,
}

impl Entry {
    /// The version that counts; none where the entry was unsealed.
    pub(crate) fn head(&self) -> Option<&Record> {
        self.versions.last().filter(|head| !head.is_end())
    }

    /// The name without its type; for what was said in passing the subject.
    pub(crate) fn name(&self) -> &str {
        let name = self.key.split_once(':').map_or(&*self.key, |(_, name)| name);
        if self.is_sealed() { name } else { name.split('#').next().unwrap_or(name) }
    }

    /// Whether somebody asked for it to be kept.
    pub(crate) fn is_sealed(&self) -> bool {
        !self.key.starts_with(SAID)
    }

    /// `key@v2#0a1b2c3d`.
    pub(crate) fn citation(&self, record: &Record) -> String {
        let short: String = record.sha256.chars().take(8).collect();
        format!("{}@v{}#{short}", self.key, record.version)
    }

    /// Whether versions follow each other without a gap, each naming the one before.
    fn is_chain(&self) -> bool {
        let mut before = None;
        self.versions.iter().zip(1..).all(|(record, version)| {
            let follows = record.version == version && record.prev == before;
            before = Some(record.sha256.clone());
            follows
        })
    }
}

/// The entries of rows, by key ascending, and what keeps others from being read: those are left alone, and nothing of
/// them is recalled.
pub(crate) fn entries(rows: &[Row]) -> (Vec<Entry>, Vec<String>) {
    let (mut found, mut damage): (BTreeMap<String, Entry>, Vec<String>) = Default::default();
    for row in rows.iter().filter(|row| row.key.starts_with(ENTRY)) {
        match Record::read(row) {
            Ok((key, record)) => {
                let entry = || Entry { key: key.clone(), versions: Vec::new() };
                found.entry(key.clone()).or_insert_with(entry).versions.push(record);
            }
            Err(why) => damage.push(format!("`{}` is damaged and set aside: {why}", row.key)),
        }
    }
    let mut entries: Vec<Entry> = found.into_values().collect();
    let broken = |entry: &Entry| !entry.is_chain();
    for entry in entries.iter().filter(|entry| broken(entry)) {
        damage.push(format!("`{}` is set aside: its versions are no unbroken chain", entry.key));
    }
    let is_damaged = |entry: &Entry| {
        let row = format!("`{ENTRY}{}/", entry.key);
        broken(entry) || damage.iter().any(|said| said.starts_with(&row))
    };
    entries.retain(|entry| !is_damaged(entry));
    (entries, damage)
}

/// In hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the rows of entries begin with.
pub(crate) const ENTRY: &str = "entry/";

/// What keys of things begin with that were said in passing.
pub(crate) const SAID: &str = "AUTO:";

/// Why the last version of an entry ends it.
pub(crate) const UNSEALED: &str = "unsealed";

/// Of the documents in rows.
pub(crate) const VERSION: u64 = 1;
