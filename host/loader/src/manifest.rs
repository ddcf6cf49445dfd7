//! `plugin.toml`: what a plugin is, in six keys, and one for what it cannot do without.

use plugin_api::version::ABI_VERSION;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{LoadError, line_at, syntax};

/// A plugin's manifest, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginManifest {
    /// The name that configuration uses, in kebab-case.
    pub name: String,
    /// The kind of capability, in kebab-case.
    pub kind: String,
    /// Version of the boundary, as `major.minor`.
    pub api: String,
    /// One line for people.
    pub description: String,
    /// What happens to its state when it is replaced.
    pub reload: Reload,
    /// Host services that it wants to be granted.
    pub permissions: Vec<Permission>,
    /// What has to run beside it, as `kind/name`.
    pub requires: Vec<String>,
}

/// What happens to a plugin's state when it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It has none that matters.
    Stateless,
    /// The old generation saves it and the new one restores it.
    Handover,
}

/// A host service that must be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Reading files.
    Read,
    /// Writing, renaming and removing files.
    Write,
    /// Fetching from hosts.
    Network,
    /// Running programs.
    Process,
    /// The time of day.
    Clock,
    /// The tokens of the model.
    Vocabulary,
    /// Rows of its own.
    Store,
}

impl Permission {
    /// Every permission with its name in manifests and grants.
    pub const ALL: [(&'static str, Self); 7] = [
        ("read", Self::Read),
        ("write", Self::Write),
        ("network", Self::Network),
        ("process", Self::Process),
        ("clock", Self::Clock),
        ("vocabulary", Self::Vocabulary),
        ("store", Self::Store),
    ];
}

impl PluginManifest {
    /// Reads a manifest. `file` only names it in errors.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with the line, for a key that is missing, unknown or out of range.
    pub fn parse(file: &str, text: &str) -> Result<Self, LoadError> {
        let document = DeTable::parse(text).map_err(|error| syntax(file, text, &error))?;
        let table = Table { file, text, entries: document.get_ref() };
        table.refuse_unknown_keys()?;
        let api = table.text("api")?;
        let supported = format!("{}.{}", ABI_VERSION.0, ABI_VERSION.1);
        if api != supported {
            let (file, found) = (file.to_owned(), api.to_owned());
            return Err(LoadError::ApiVersion { file, found, supported });
        }
        Ok(Self {
            name: table.kebab_case("name")?,
            kind: table.kebab_case("kind")?,
            api: api.to_owned(),
            description: table.text("description")?.to_owned(),
            reload: match table.text("reload")? {
                "stateless" => Reload::Stateless,
                "handover" => Reload::Handover,
                _ => return Err(table.wrong("reload", "`stateless` or `handover`")),
            },
            permissions: table.permissions()?,
            requires: table.requires()?,
        })
    }

    /// `kind/name`.
    pub fn capability(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// The manifest while it is read.
struct Table<'a> {
    file: &'a str,
    text: &'a str,
    entries: &'a DeTable<'a>,
}

impl Table<'_> {
    fn refuse_unknown_keys(&self) -> Result<(), LoadError> {
        let unknown = self.entries.keys().find(|key| !KEYS.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown else { return Ok(()) };
        Err(LoadError::Value {
            file: self.file.to_owned(),
            line: line_at(self.text, key.span().start),
            key: key.get_ref().to_string(),
            expected: format!("one of the keys {}", KEYS.join(", ")),
            found: "an unknown key".to_owned(),
        })
    }

    fn value(&self, key: &str) -> Option<&Spanned<DeValue<'_>>> {
        self.entries.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str) -> Result<&str, LoadError> {
        let text = self.value(key).and_then(|value| value.get_ref().as_str());
        text.ok_or_else(|| self.wrong(key, "text"))
    }

    fn kebab_case(&self, key: &str) -> Result<String, LoadError> {
        let text = self.text(key)?;
        if is_kebab_case(text) {
            Ok(text.to_owned())
        } else {
            Err(self.wrong(key, &format!("kebab-case of at most {NAME_BYTES_MAX} bytes")))
        }
    }

    fn permissions(&self) -> Result<Vec<Permission>, LoadError> {
        let expected = "a list of read, write, network, process, clock, vocabulary, store";
        let list = self.value("permissions").and_then(|value| value.get_ref().as_array());
        let list = list.ok_or_else(|| self.wrong("permissions", expected))?;
        let permission = |item: &Spanned<DeValue<'_>>| {
            let found = item.get_ref().as_str();
            let known = Permission::ALL.iter().find(|(name, _)| Some(*name) == found);
            known.map(|&(_, permission)| permission)
        };
        let permissions = list.iter().map(permission).collect::<Option<Vec<_>>>();
        permissions.ok_or_else(|| self.wrong("permissions", expected))
    }

    /// The one key that may be missing.
    fn requires(&self) -> Result<Vec<String>, LoadError> {
        let wrong = || self.wrong("requires", "a list of kind/name");
        let Some(value) = self.value("requires") else { return Ok(Vec::new()) };
        let capability = |item: &Spanned<DeValue<'_>>| {
            let text = item.get_ref().as_str()?;
            let (kind, name) = text.split_once('/')?;
            (is_kebab_case(kind) && is_kebab_case(name)).then(|| text.to_owned())
        };
        let list = value.get_ref().as_array().ok_or_else(wrong)?;
        list.iter().map(capability).collect::<Option<Vec<_>>>().ok_or_else(wrong)
    }

    fn wrong(&self, key: &str, expected: &str) -> LoadError {
        let value = self.value(key);
        LoadError::Value {
            file: self.file.to_owned(),
            line: line_at(self.text, value.map_or(self.text.len(), |value| value.span().start)),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: value.map_or_else(
                || "nothing".to_owned(),
                |value| self.text.get(value.span()).unwrap_or("something else").to_owned(),
            ),
        }
    }
}

fn is_kebab_case(text: &str) -> bool {
    let is_word = |word: &str| {
        let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        !word.is_empty() && word.chars().all(is_lower)
    };
    text.len() <= NAME_BYTES_MAX && text.split('-').all(is_word)
}

const KEYS: [&str; 7] = ["name", "kind", "api", "description", "reload", "permissions", "requires"];

/// Names become parts of paths and log lines.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const FAIR: &str = r#"name = "min-p"
kind = "logits-processor"
api = "0.0"
description = "Drops tokens"
reload = "stateless"
permissions = ["read", "clock"]
"#;

    #[test]
    fn reads_every_key() {
        let manifest = PluginManifest::parse("plugin.toml", FAIR).unwrap();
        assert_eq!(manifest.capability(), "logits-processor/min-p");
        assert_eq!(manifest.permissions, [Permission::Read, Permission::Clock]);
        assert_eq!(manifest.reload, Reload::Stateless);
        assert_eq!(manifest.requires, Vec::<String>::new());
        let more = format!("{FAIR}requires = [\"kv-cache/paged\", \"hook/stop-words\"]\n");
        let manifest = PluginManifest::parse("plugin.toml", &more).unwrap();
        assert_eq!(manifest.requires, ["kv-cache/paged", "hook/stop-words"]);
    }

    #[test]
    fn says_line_expectation_and_finding() {
        #[rustfmt::skip]
        let cases = [
            // replaced                 by                      message after `plugin.toml`
            ("name = \"min-p\"",        "name = \"Min P\"",     ":1: name: expected kebab-case of at most 64 bytes, found \"Min P\""),
            ("name = \"min-p\"",        "",                     ":7: name: expected text, found nothing"),
            ("kind = \"logits-processor\"", "kind = 3",         ":2: kind: expected text, found 3"),
            ("api = \"0.0\"",           "api = \"1.0\"",        ": built for plugin API 1.0, this host speaks 0.0"),
            ("\"stateless\"",           "\"sometimes\"",        ":5: reload: expected `stateless` or `handover`, found \"sometimes\""),
            ("\"clock\"",               "\"camera\"",           ":6: permissions: expected a list of read, write, network, process, clock, vocabulary, store, found [\"read\", \"camera\"]"),
            ("[\"read\", \"clock\"]", "[]\nrequires = [\"paged\"]", ":7: requires: expected a list of kind/name, found [\"paged\"]"),
            ("[\"read\", \"clock\"]", "[]\nrequires = \"kv-cache/paged\"", ":7: requires: expected a list of kind/name, found \"kv-cache/paged\""),
            ("description",             "describtion",          ":4: describtion: expected one of the keys name, kind, api, description, reload, permissions, requires, found an unknown key"),
        ];
        for (old, new, expected) in cases {
            let error = PluginManifest::parse("plugin.toml", &FAIR.replace(old, new)).unwrap_err();
            assert_eq!(error.to_string(), format!("plugin.toml{expected}"));
        }
        let error = PluginManifest::parse("plugin.toml", "name = \"a\"\nkind =").unwrap_err();
        assert!(error.to_string().starts_with("plugin.toml:2: expected TOML: "), "{error}");
    }
}
