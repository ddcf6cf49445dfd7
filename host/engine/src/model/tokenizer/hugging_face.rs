//! Builds a tokenizer from `tokenizer.json` with the `tokenizers` crate.
//!
//! That crate trusts its files: it may panic on a hostile one and pads to whatever length one
//! says. So it is called behind a guard, with padding and truncation switched off.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::Tokenizer as HfTokenizer;

use super::vocab::{Arena, TokenKind, Vocab};
use super::{Encoder, Roles, Tokenizer, byte_level, ends, spm};
use crate::model::error::ModelError;
use crate::model::files::{read_bounded, read_json};

impl Tokenizer {
    /// Builds the tokenizer of a Hugging Face folder: `tokenizer.json`, and, where they exist,
    /// `tokenizer_config.json`, `generation_config.json` and `config.json` for the special ids.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`] without a `tokenizer.json`; [`ModelError::Json`] or
    /// [`ModelError::Tokenizer`] if a file is not what its name says.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let json = read_bounded(&path, TOKENIZER_BYTES_MAX, "tokenizer.json")?;
        let optional = |name: &'static str| {
            let path = folder.join(name);
            if path.exists() { read_json(&path, CONFIG_BYTES_MAX, name) } else { Ok(Value::Null) }
        };
        let config = optional("tokenizer_config.json")?;
        let ends = [optional("generation_config.json")?, optional("config.json")?];
        Self::from_tokenizer_json(&path, &json, &config, &ends)
    }

    /// Builds a tokenizer from the bytes of `tokenizer.json`; `config` is
    /// `tokenizer_config.json` or null, `ends` are objects whose `eos_token_id` also ends a
    /// generation. `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] if the JSON describes no tokenizer, or one whose ids are sparse.
    pub fn from_tokenizer_json(
        path: &Path,
        json: &[u8],
        config: &Value,
        ends: &[Value],
    ) -> Result<Self, ModelError> {
        let bad = |found: String| ModelError::tokenizer(path, "a usable tokenizer.json", found);
        let mut inner = guard(|| HfTokenizer::from_bytes(json)).map_err(bad)?;
        inner.with_padding(None);
        guard(|| inner.with_truncation(None).map(drop)).map_err(bad)?;
        // What no vocabulary has: an encoder without a token for the unknown says so now.
        guard(|| inner.encode_fast("\u{10fffd}", false)).map_err(bad)?;
        let mut vocab = read_vocab(&inner).map_err(bad)?;
        let mut roles = read_roles(&inner, &vocab, config);
        let more = ends.iter().flat_map(|config| token_ids(&config["eos_token_id"]));
        let more: Vec<u32> = more.filter(|id| (*id as usize) < vocab.len()).collect();
        roles.eos = roles.eos.or(more.first().copied());
        ends::find(&mut vocab, &mut roles);
        roles.eog.extend(more);
        roles.eog.sort_unstable();
        roles.eog.dedup();
        let encoder = HuggingFace { inner, plain: OnceLock::new(), unknown: roles.unknown };
        Ok(Self { vocab, roles, encoder: Box::new(encoder) })
    }
}

/// The `tokenizers` crate as an encoder.
#[derive(Debug)]
struct HuggingFace {
    inner: HfTokenizer,
    /// The same, but special tokens in a text are text; made when first needed.
    plain: OnceLock<HfTokenizer>,
    unknown: Option<u32>,
}

impl Encoder for HuggingFace {
    fn encode(&self, _: &Vocab, text: &str, parse_special: bool) -> Vec<u32> {
        self.ids(if parse_special { &self.inner } else { self.plain() }, text, false)
    }

    fn encode_framed(&self, _: &Vocab, text: &str) -> Vec<u32> {
        self.ids(self.plain(), text, true)
    }
}

impl HuggingFace {
    fn plain(&self) -> &HfTokenizer {
        self.plain.get_or_init(|| {
            let mut plain = self.inner.clone();
            plain.set_encode_special_tokens(true);
            plain
        })
    }

    fn ids(&self, tokenizer: &HfTokenizer, text: &str, is_framed: bool) -> Vec<u32> {
        // Building probed for the one error that encoding knows; should it still occur, the text
        // is unknown to this vocabulary, and that is what the ids say.
        match guard(|| tokenizer.encode_fast(text, is_framed)) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            Err(_) => self.unknown.into_iter().collect(),
        }
    }
}

/// Runs a call into `tokenizers`; a panic there is an error here.
fn guard<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("content on which the `tokenizers` crate panics".to_owned()),
    }
}

/// How token texts stand for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    ByteLevel,
    /// `▁` is a space, `<0x0A>` a byte.
    SentencePiece,
    /// A word has a space before it, `##` marks the inside of one.
    WordPiece,
    Plain,
}

impl Style {
    fn of(tokenizer: &HfTokenizer) -> Self {
        let decoder = serde_json::to_string(&tokenizer.get_decoder()).unwrap_or_default();
        let has = |kind: &str| decoder.contains(&format!("\"type\":\"{kind}\""));
        if has("ByteLevel") {
            Self::ByteLevel
        } else if has("WordPiece") {
            Self::WordPiece
        } else if has("Metaspace") || has("ByteFallback") || decoder.contains('▁') {
            Self::SentencePiece
        } else {
            Self::Plain
        }
    }

    fn piece(self, text: &str, bytes: &mut Vec<u8>) {
        match self {
            Self::ByteLevel => byte_level::decode(text.as_bytes(), bytes),
            Self::SentencePiece => match spm::byte_of(text.as_bytes()) {
                Some(byte) => bytes.push(byte),
                None => spm::decode(text.as_bytes(), bytes),
            },
            Self::WordPiece => match text.strip_prefix("##") {
                Some(inside) => bytes.extend_from_slice(inside.as_bytes()),
                None => bytes.extend([b" ", text.as_bytes()].concat()),
            },
            Self::Plain => bytes.extend_from_slice(text.as_bytes()),
        }
    }
}

fn read_vocab(tokenizer: &HfTokenizer) -> Result<Vocab, String> {
    let style = Style::of(tokenizer);
    let added = tokenizer.get_added_tokens_decoder();
    let tokens = tokenizer.get_vocab(true);
    let id_max = tokens.values().copied().max().ok_or("no tokens")?;
    let size_max = tokens.len() * 4 + 65_536;
    if id_max as usize >= size_max {
        return Err(format!("{} tokens with ids up to {id_max}", tokens.len()));
    }
    let mut by_id: Vec<Option<&str>> = vec![None; id_max as usize + 1];
    for (text, id) in &tokens {
        by_id[*id as usize] = Some(text);
    }
    let (mut texts, mut pieces) = (Arena::new(), Arena::new());
    let (mut kinds, mut bytes) = (Vec::with_capacity(by_id.len()), Vec::new());
    for (id, text) in (0_u32..).zip(by_id) {
        bytes.clear();
        let kind = match (text, added.get(&id)) {
            (None, _) => TokenKind::Unused,
            (Some(text), Some(token)) => {
                bytes.extend_from_slice(text.as_bytes());
                if token.special { TokenKind::Control } else { TokenKind::UserDefined }
            }
            (Some(text), None) => {
                style.piece(text, &mut bytes);
                TokenKind::Normal
            }
        };
        kinds.push(kind);
        if !texts.push(text.unwrap_or_default().as_bytes()) || !pieces.push(&bytes) {
            return Err("more than 4 GiB of token texts".to_owned());
        }
    }
    Ok(Vocab::new(texts, pieces, kinds))
}

fn read_roles(tokenizer: &HfTokenizer, vocab: &Vocab, config: &Value) -> Roles {
    let named = |key: &str| {
        let token = &config[key];
        let text = token.as_str().or_else(|| token["content"].as_str())?;
        vocab.id(text.as_bytes())
    };
    let flag = |key: &str| config[key].as_bool();
    // Without a word in the config, what the post-processor puts around nothing decides.
    let frame = guard(|| tokenizer.encode_fast("", true));
    let frame = frame.map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default();
    let (bos, eos) = (named("bos_token"), named("eos_token"));
    Roles {
        bos,
        eos,
        eot: None,
        unknown: named("unk_token"),
        eog: Vec::new(),
        adds_bos: flag("add_bos_token").unwrap_or(bos.is_some() && frame.first() == bos.as_ref()),
        adds_eos: flag("add_eos_token").unwrap_or(eos.is_some() && frame.last() == eos.as_ref()),
        adds_space_prefix: flag("add_prefix_space").unwrap_or(false),
    }
}

/// `eos_token_id` is a number or a list of them.
fn token_ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value.as_array() {
        Some(ids) => ids.iter().filter_map(one).collect(),
        None => one(value).into_iter().collect(),
    }
}

/// The largest real one here has 33 MB.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
const CONFIG_BYTES_MAX: u64 = 16 << 20;
