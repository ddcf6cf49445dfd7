//! What a GGUF file says of a tokenizer of byte-level BPE: the reverse of reading one.

use std::path::Path;

use serde_json::Value;

use super::bpe::ByteLevelBpe;
use super::bytes::byte_tokenizer_json;
use super::pre_tokenizer::PreTokenizer;
use super::vocab::TokenKind;
use super::{Encoder, Tokenizer};
use crate::model::error::ModelError;
use crate::model::files::read_json;
use crate::model::gguf::{GgufValue, GgufWriter};

/// The metadata of a tokenizer, under the keys of llama.cpp.
#[derive(Debug)]
pub struct GgufTokenizer {
    pre: &'static str,
    tokens: Vec<Vec<u8>>,
    kinds: Vec<i32>,
    merges: Vec<String>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
}

impl GgufTokenizer {
    /// Reads `tokenizer.json` in `folder` and what lies beside it. There are `vocab_size` tokens: those that
    /// the file lacks are never meant.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] for another model than byte-level BPE, for words that none of the names of
    /// `tokenizer.ggml.pre` cuts so, and for more tokens than `vocab_size`.
    pub fn from_folder(folder: &Path, vocab_size: usize) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let json = read_json(&path, TOKENIZER_BYTES_MAX, "tokenizer.json")?;
        let mut made = Self::of(&path, &json, &Tokenizer::from_folder(folder)?, vocab_size)?;
        let config = folder.join("config.json");
        if made.bos.is_none() && config.exists() {
            let config = read_json(&config, CONFIG_BYTES_MAX, "config.json")?;
            let bos = config["bos_token_id"].as_u64().filter(|id| *id < vocab_size as u64);
            made.bos = bos.map(|id| id as u32);
        }
        Ok(made)
    }

    /// Tokens that are bytes. A text ends with the byte 0, since readers of GGUF take some token for the end.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] for a vocabulary of less than 256.
    pub fn of_bytes(vocab_size: usize) -> Result<Self, ModelError> {
        let path = Path::new("tokenizer of bytes");
        let mut made =
            Self::of(path, &byte_tokenizer_json(), &Tokenizer::of_bytes(path)?, vocab_size)?;
        made.eos = Some(0);
        Ok(made)
    }

    fn of(
        path: &Path,
        json: &Value,
        tokenizer: &Tokenizer,
        vocab_size: usize,
    ) -> Result<Self, ModelError> {
        let model = &json["model"];
        let kind = model["type"].as_str().unwrap_or("nothing");
        if kind != "BPE" || !json["decoder"].to_string().contains("\"ByteLevel\"") {
            let found = format!("{kind}, decoded otherwise");
            return Err(ModelError::tokenizer(path, "byte-level BPE, to be told in GGUF", found));
        }
        let (vocab, roles) = (&tokenizer.vocab, &tokenizer.roles);
        if vocab.len() > vocab_size {
            let expected = format!("at most {vocab_size} tokens, as the model has");
            return Err(ModelError::tokenizer(path, expected, vocab.len().to_string()));
        }
        let merges: Option<Vec<String>> =
            model["merges"].as_array().into_iter().flatten().map(merge).collect();
        let merges = merges.ok_or_else(|| {
            ModelError::tokenizer(path, "merges of two tokens", "one of another form")
        })?;
        let pre = pre_of(tokenizer, &merges).ok_or_else(|| {
            let expected = format!("words as one of {} cuts them", PRE.join(", "));
            ModelError::tokenizer(path, expected, "others")
        })?;
        let (mut tokens, mut kinds) = (Vec::new(), Vec::new());
        for id in 0..vocab_size as u32 {
            let kind = vocab.kind(id).unwrap_or(TokenKind::Unused);
            tokens.push(match vocab.text(id).filter(|_| kind != TokenKind::Unused) {
                Some(text) => text.to_vec(),
                None => format!("[PAD{id}]").into_bytes(),
            });
            kinds.push(number_of(kind));
        }
        let (bos, eos, unknown) = (roles.bos, roles.eos, roles.unknown);
        let (adds_bos, adds_eos) = (tokenizer.add_bos(), tokenizer.add_eos());
        Ok(Self { pre, tokens, kinds, merges, bos, eos, unknown, adds_bos, adds_eos })
    }

    /// Adds the pairs to a file.
    pub fn write(&self, writer: &mut GgufWriter) {
        writer.pair("tokenizer.ggml.model", &GgufValue::Str("gpt2"));
        writer.pair("tokenizer.ggml.pre", &GgufValue::Str(self.pre));
        writer.strings("tokenizer.ggml.tokens", &self.tokens);
        writer.i32s("tokenizer.ggml.token_type", &self.kinds);
        writer.strings("tokenizer.ggml.merges", &self.merges);
        for (name, id) in [("bos", self.bos), ("eos", self.eos), ("unknown", self.unknown)] {
            if let Some(id) = id {
                writer.pair(&format!("tokenizer.ggml.{name}_token_id"), &GgufValue::U32(id));
            }
        }
        writer.pair("tokenizer.ggml.add_bos_token", &GgufValue::Bool(self.adds_bos));
        writer.pair("tokenizer.ggml.add_eos_token", &GgufValue::Bool(self.adds_eos));
    }
}

/// `left right` of a merge, which is one string or two.
fn merge(rule: &Value) -> Option<String> {
    match rule {
        Value::String(rule) => Some(rule.clone()),
        Value::Array(pair) => match &pair[..] {
            [left, right] => Some(format!("{} {}", left.as_str()?, right.as_str()?)),
            _ => None,
        },
        _ => None,
    }
}

/// The first of [`PRE`] by which the probe comes out in the same tokens.
fn pre_of(tokenizer: &Tokenizer, merges: &[String]) -> Option<&'static str> {
    let expected = tokenizer.encode(PROBE, false);
    PRE.into_iter().find(|name| {
        let Some(pre) = PreTokenizer::named(name) else { return false };
        let rules = merges.iter().map(|rule| rule.as_bytes());
        let encoder = ByteLevelBpe::new(&tokenizer.vocab, pre, rules);
        encoder.is_ok_and(|encoder| encoder.encode(&tokenizer.vocab, PROBE, false) == expected)
    })
}

/// GGUF's `token_type`.
fn number_of(kind: TokenKind) -> i32 {
    match kind {
        TokenKind::Normal => 1,
        TokenKind::Unknown => 2,
        TokenKind::Control => 3,
        TokenKind::UserDefined => 4,
        TokenKind::Unused => 5,
        TokenKind::Byte => 6,
    }
}

/// Names of `tokenizer.ggml.pre`, the plainest first.
const PRE: [&str; 5] = ["gpt-2", "smollm", "qwen2", "llama-bpe", "default"];

/// What these cut in different ways: digits, blanks, ends of lines, case of contractions, letters beside signs.
const PROBE: &str = "I've 1234567 it'S DON'T  be\n\n\n  done...\r\n\t x=12345;y==67 <|>~^ $5.00 \
    übér 東京タワー 😀😀   foo_bar(baz)\u{a0}end   \n   ñandú's 3rd 1st\n";

const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
const CONFIG_BYTES_MAX: u64 = 16 << 20;
