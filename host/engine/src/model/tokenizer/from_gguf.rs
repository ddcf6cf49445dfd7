//! Builds a tokenizer from the metadata of a GGUF file.

use super::bpe::ByteLevelBpe;
use super::pre_tokenizer::PreTokenizer;
use super::spm::ScoredMerges;
use super::vocab::{Arena, TokenKind, Vocab};
use super::{Encoder, Roles, Tokenizer, byte_level, ends, spm};
use crate::model::error::ModelError;
use crate::model::gguf::{GgufArray, GgufMetadata, GgufValue};

impl Tokenizer {
    /// Builds the tokenizer that the metadata describes.
    ///
    /// Implemented: `tokenizer.ggml.model` of `gpt2` (byte-level BPE, pre-tokenizers of SmolLM,
    /// Qwen 2, Llama 3, GPT-2, default) and `llama` (SentencePiece by scores).
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] if it is another model, or if its parts do not fit together;
    /// [`ModelError::Malformed`] if a key is missing or of another kind.
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Self, ModelError> {
        let model = metadata
            .str("tokenizer.ggml.model")?
            .ok_or_else(|| metadata.missing("tokenizer.ggml.model", "the name of a tokenizer"))?;
        match model {
            "gpt2" => from_bpe(metadata),
            "llama" => from_spm(metadata),
            other => Err(ModelError::tokenizer(
                metadata.path(),
                "tokenizer.ggml.model to be `gpt2` or `llama`",
                format!("`{other}`"),
            )),
        }
    }
}

fn from_bpe(metadata: &GgufMetadata) -> Result<Tokenizer, ModelError> {
    let name = metadata.str("tokenizer.ggml.pre")?.unwrap_or("default");
    let pre_tokenizer = PreTokenizer::named(name).ok_or_else(|| {
        let expected = format!("tokenizer.ggml.pre to be one of {}", PreTokenizer::names());
        ModelError::tokenizer(metadata.path(), expected, format!("`{name}`"))
    })?;
    let defaults = Roles { adds_bos: pre_tokenizer.adds_bos(), ..Roles::default() };
    let (vocab, roles) = read_vocab(metadata, byte_level_piece, &defaults)?;
    let merges = strings(metadata, "tokenizer.ggml.merges")?;
    let encoder = ByteLevelBpe::new(&vocab, pre_tokenizer, merges.into_iter()).map_err(|bad| {
        let expected = "merges between tokens that make a token";
        let found = format!("merge {} `{}`", bad.index, bad.text);
        ModelError::tokenizer(metadata.path(), expected, found)
    })?;
    Ok(Tokenizer { vocab, roles, encoder: Box::new(encoder) as Box<dyn Encoder> })
}

fn from_spm(metadata: &GgufMetadata) -> Result<Tokenizer, ModelError> {
    // The ids that SentencePiece gives when nobody says otherwise.
    let defaults = Roles {
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        adds_bos: true,
        adds_space_prefix: true,
        ..Roles::default()
    };
    let (vocab, roles) = read_vocab(metadata, spm_piece, &defaults)?;
    let key = "tokenizer.ggml.scores";
    let scores = metadata.array(key)?.ok_or_else(|| metadata.missing(key, "scores"))?;
    let scores = numbers(metadata, key, scores, vocab.len())?;
    // Lossless for what every writer stores: f32.
    let scores = scores.map(|score| score.as_f64().unwrap_or(f64::NAN) as f32);
    let encoder = ScoredMerges::new(&vocab, scores, roles.unknown, roles.adds_space_prefix);
    Ok(Tokenizer { vocab, roles, encoder: Box::new(encoder) })
}

/// Reads tokens, kinds and roles; `piece` writes the bytes that a token stands for.
fn read_vocab(
    metadata: &GgufMetadata,
    piece: impl Fn(&[u8], TokenKind, &mut Vec<u8>),
    defaults: &Roles,
) -> Result<(Vocab, Roles), ModelError> {
    let tokens = strings(metadata, "tokenizer.ggml.tokens")?;
    // One id stays free for "no token".
    if tokens.is_empty() || tokens.len() >= u32::MAX as usize {
        let found = format!("{} tokens", tokens.len());
        return Err(ModelError::tokenizer(metadata.path(), "at least one token", found));
    }
    let kinds = read_kinds(metadata, tokens.len())?;
    let (mut texts, mut pieces, mut bytes) = (Arena::new(), Arena::new(), Vec::new());
    for (text, kind) in tokens.iter().zip(&kinds) {
        bytes.clear();
        piece(text, *kind, &mut bytes);
        if !texts.push(text) || !pieces.push(&bytes) {
            let found = "more";
            return Err(ModelError::tokenizer(metadata.path(), "texts of at most 4 GiB", found));
        }
    }
    let mut vocab = Vocab::new(texts, pieces, kinds);
    let mut roles = read_roles(metadata, vocab.len(), defaults)?;
    ends::find(&mut vocab, &mut roles);
    Ok((vocab, roles))
}

fn read_kinds(metadata: &GgufMetadata, count: usize) -> Result<Vec<TokenKind>, ModelError> {
    let key = "tokenizer.ggml.token_type";
    let Some(array) = metadata.array(key)? else {
        return Ok(vec![TokenKind::Normal; count]);
    };
    let kinds = numbers(metadata, key, array, count)?.map(|value| match value.as_u64() {
        Some(0 | 5) => Ok(TokenKind::Unused),
        Some(1) => Ok(TokenKind::Normal),
        Some(2) => Ok(TokenKind::Unknown),
        Some(3) => Ok(TokenKind::Control),
        Some(4) => Ok(TokenKind::UserDefined),
        Some(6) => Ok(TokenKind::Byte),
        _ => Err(ModelError::malformed(metadata.path(), key, "0 to 6", format!("{value:?}"))),
    });
    kinds.collect()
}

fn read_roles(
    metadata: &GgufMetadata,
    vocab_size: usize,
    defaults: &Roles,
) -> Result<Roles, ModelError> {
    let id = |name: &str, default: Option<u32>| {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = metadata.u64(&key)? else {
            return Ok(default.filter(|id| (*id as usize) < vocab_size));
        };
        let known = u32::try_from(id).ok().filter(|id| (*id as usize) < vocab_size);
        known.map(Some).ok_or_else(|| {
            let expected = format!("an id below {vocab_size}");
            ModelError::malformed(metadata.path(), key, expected, id.to_string())
        })
    };
    let flag = |name: &str, default: bool| {
        let key = format!("tokenizer.ggml.{name}");
        Ok::<bool, ModelError>(metadata.bool(&key)?.unwrap_or(default))
    };
    Ok(Roles {
        bos: id("bos", defaults.bos)?,
        eos: id("eos", defaults.eos)?,
        eot: id("eot", defaults.eot)?,
        unknown: id("unknown", defaults.unknown)?,
        eog: Vec::new(),
        adds_bos: flag("add_bos_token", defaults.adds_bos)?,
        adds_eos: flag("add_eos_token", defaults.adds_eos)?,
        // Byte-level BPE has no such prefix, whatever its file says.
        adds_space_prefix: defaults.adds_space_prefix && flag("add_space_prefix", true)?,
    })
}

/// The strings at `key`, still in the map.
fn strings<'a>(metadata: &'a GgufMetadata, key: &str) -> Result<Vec<&'a [u8]>, ModelError> {
    let array = metadata.array(key)?.ok_or_else(|| metadata.missing(key, "strings"))?;
    let strings = array.strings().ok_or_else(|| {
        ModelError::malformed(metadata.path(), key, "strings", array.kind().name())
    })?;
    // Not the array's length: whatever it says, the strings decide what is allocated.
    Ok(strings.collect())
}

/// The numbers of an array that must have `count`.
fn numbers<'a>(
    metadata: &GgufMetadata,
    key: &str,
    array: GgufArray<'a>,
    count: usize,
) -> Result<impl Iterator<Item = GgufValue<'a>> + use<'a>, ModelError> {
    let malformed = |expected: String, found: String| {
        ModelError::malformed(metadata.path(), key, expected, found)
    };
    if array.len() != count {
        let expected = format!("{count} elements, as there are tokens");
        return Err(malformed(expected, array.len().to_string()));
    }
    array.numbers().ok_or_else(|| malformed("numbers".into(), array.kind().name().into()))
}

fn byte_level_piece(text: &[u8], kind: TokenKind, bytes: &mut Vec<u8>) {
    match kind {
        TokenKind::Normal | TokenKind::Byte => byte_level::decode(text, bytes),
        TokenKind::Unused => {}
        _ => bytes.extend_from_slice(text),
    }
}

fn spm_piece(text: &[u8], kind: TokenKind, bytes: &mut Vec<u8>) {
    match kind {
        TokenKind::Normal => spm::decode(text, bytes),
        TokenKind::Byte => bytes.extend(spm::byte_of(text)),
        TokenKind::Unused => {}
        _ => bytes.extend_from_slice(text),
    }
}
