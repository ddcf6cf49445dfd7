//! What a name means, and what the hub says a repository holds.

use plugin_api::prelude::*;
use serde_json::Value as Json;

/// A name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    /// `user/repo`.
    pub(crate) repo: &'a str,
    /// A file, or a word of its name such as `Q4_K_M`.
    pub(crate) file: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Nothing if `name` is not for the hub.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let (repo, file) = match name.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (name, None),
        };
        let (user, model) = repo.split_once('/')?;
        let is_char = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_word =
            |word: &str| !word.is_empty() && !word.starts_with('.') && word.chars().all(is_char);
        // `folder/a.gguf` is a path.
        let is_path =
            file.is_none() && [".gguf", ".safetensors"].iter().any(|end| model.ends_with(end));
        let is_fair = is_word(user) && is_word(model) && !is_path && file.is_none_or(is_safe);
        is_fair.then_some(Self { repo, file })
    }

    /// Whether a file of the repository is meant.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let Some(wanted) = self.file else { return name.ends_with(".gguf") };
        let words = name.split(['-', '.', '/']);
        name.eq_ignore_ascii_case(wanted)
            || name.ends_with(".gguf")
                && words.into_iter().any(|word| word.eq_ignore_ascii_case(wanted))
    }
}

/// A file name that stays below its folder.
fn is_safe(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.split('/').all(is_part) && !name.contains(['\\', '\0'])
}

/// A repository as the hub describes it.
#[derive(Debug)]
pub(crate) struct Repo {
    /// `user/repo`.
    pub(crate) name: String,
    pub(crate) commit: String,
    files: Vec<RemoteFile>,
}

/// A file on the hub.
#[derive(Debug)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) size_bytes: Option<u64>,
    /// In hex; the hub knows it of large files.
    pub(crate) sha256: Option<String>,
}

impl RemoteFile {
    /// The name as a part of a URL.
    pub(crate) fn url_path(&self) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./~".contains(&byte);
        let escape = |byte: u8| {
            if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        };
        self.name.bytes().map(escape).collect()
    }
}

impl Repo {
    /// Reads the answer of `/api/models/{name}?blobs=true`.
    pub(crate) fn parse(name: &str, answer: &str) -> Result<Self> {
        let malformed = |found: &str| {
            Error::malformed(
                format_args!("answer of the hub about {name}"),
                "`sha` and `siblings`",
                found,
            )
        };
        let json: Json = serde_json::from_str(answer).map_err(|e| malformed(&e.to_string()))?;
        let commit =
            json["sha"].as_str().filter(|sha| sha.chars().all(|c| c.is_ascii_alphanumeric()));
        let (Some(commit), Some(siblings)) = (commit, json["siblings"].as_array()) else {
            return Err(malformed("something else"));
        };
        let file = |sibling: &Json| {
            let name = sibling["rfilename"].as_str().filter(|name| is_safe(name))?.to_owned();
            let sha256 = sibling["lfs"]["sha256"].as_str().map(str::to_owned);
            Some(RemoteFile { name, size_bytes: sibling["size"].as_u64(), sha256 })
        };
        let files = siblings.iter().filter_map(file).collect();
        Ok(Self { name: name.to_owned(), commit: commit.to_owned(), files })
    }

    /// The one file that is meant; nothing if the whole repository is.
    pub(crate) fn choose(&self, wanted: &Wanted<'_>) -> Result<Option<&RemoteFile>> {
        let fitting: Vec<&RemoteFile> =
            self.files.iter().filter(|file| wanted.fits(&file.name)).collect();
        match fitting[..] {
            [file] => Ok(Some(file)),
            [] if wanted.file.is_none() => Ok(None),
            [] => Err(Error::NotFound {
                kind: format!("file of {}", self.name),
                name: wanted.file.unwrap_or_default().to_owned(),
                known: names(self.files.iter().filter(|file| file.name.ends_with(".gguf"))),
            }),
            _ => Err(Error::unsupported(
                format_args!("several files as one model ({})", self.name),
                format_args!("name one as {}:FILE of {}", self.name, names(fitting.into_iter())),
            )),
        }
    }

    /// The files that a model in safetensors needs.
    pub(crate) fn whole(&self) -> Result<Vec<&RemoteFile>> {
        let is_weights =
            |file: &&RemoteFile| file.name.ends_with(".safetensors") && !file.name.contains('/');
        if !self.files.iter().any(|file| is_weights(&file)) {
            return Err(Error::NotFound {
                kind: "model in GGUF or safetensors".to_owned(),
                name: self.name.clone(),
                known: names(self.files.iter()),
            });
        }
        let is_needed =
            |file: &&RemoteFile| is_weights(file) || BESIDE.contains(&file.name.as_str());
        Ok(self.files.iter().filter(is_needed).collect())
    }
}

fn names<'a>(files: impl Iterator<Item = &'a RemoteFile>) -> String {
    files.map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What a model in safetensors needs beside its weights.
const BESIDE: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
