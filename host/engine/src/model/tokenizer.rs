//! Text to token ids and back, as llama.cpp (GGUF) and Hugging Face (`tokenizer.json`) do it.
//!
//! Two encoders are written here (byte-level BPE, SentencePiece by scores), a third one is the
//! `tokenizers` crate. Nothing adds BOS by itself: that belongs to whoever builds the prompt.

mod bpe;
mod byte_level;
mod bytes;
mod ends;
mod from_gguf;
mod hugging_face;
mod merge;
mod pre_tokenizer;
mod special;
mod spm;
mod stream;
mod to_gguf;
mod vocab;

use std::cell::Cell;
use std::fmt::Debug;

pub use bytes::byte_tokenizer_json;
use plugin_api::Vocabulary;
pub use stream::StreamDecoder;
pub use to_gguf::GgufTokenizer;
use vocab::{TokenKind, Vocab};

/// The tokenizer of one model.
///
/// Built by [`Tokenizer::from_gguf`] or [`Tokenizer::from_folder`]; shared between threads.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    roles: Roles,
    encoder: Box<dyn Encoder>,
}

/// Which tokens begin and end things.
#[derive(Debug, Clone, Default)]
struct Roles {
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    unknown: Option<u32>,
    /// Every token that ends a generation; sorted.
    eog: Vec<u32>,
    adds_bos: bool,
    adds_eos: bool,
    /// The first space of a text was put there by the encoder.
    adds_space_prefix: bool,
}

thread_local! {
    static ENCODED_HERE: Cell<u64> = const { Cell::new(0) };
}

/// One way from text to ids.
trait Encoder: Debug + Send + Sync {
    fn encode(&self, vocab: &Vocab, text: &str, parse_special: bool) -> Vec<u32>;

    /// Special tokens in the text are text.
    fn encode_framed(&self, vocab: &Vocab, text: &str) -> Vec<u32> {
        self.encode(vocab, text, false)
    }
}

impl Tokenizer {
    /// The ids of `text` (below 4 GiB), without BOS and EOS.
    ///
    /// With `parse_special`, `<|im_start|>` in the text becomes that token; without, it is text
    /// like any other, which is what untrusted input needs. Tokens that the model defines as
    /// ordinary words (GGUF: user-defined) are found either way.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        ENCODED_HERE.set(ENCODED_HERE.get() + 1);
        self.encoder.encode(&self.vocab, text, parse_special)
    }

    /// The ids of text that stands within a text: special tokens in it are text, and no space is put first.
    pub fn encode_within(&self, text: &str) -> Vec<u32> {
        if !self.roles.adds_space_prefix {
            return self.encode(text, false);
        }
        // The space that the encoder puts first is the text's own.
        if let Some(rest) = text.strip_prefix(' ').filter(|rest| !rest.is_empty()) {
            return self.encode(rest, false);
        }
        // Behind the end of a line none is put.
        let (ids, mut before) = (self.encode(&["\n", text].concat(), false), Vec::new());
        let line = ids.iter().position(|id| {
            before.extend_from_slice(self.decode_bytes(*id));
            before.len() >= b" \n".len()
        });
        match line {
            Some(line) if before == b" \n" => ids[line + 1..].to_vec(),
            _ => self.encode(text, false),
        }
    }

    /// Texts that the calling thread has cut into tokens, with any tokenizer: whose time that took.
    pub fn encoded_here() -> u64 {
        ENCODED_HERE.get()
    }

    /// The ids of `text` with what the tokenizer's file puts around a text (`[CLS]` … `[SEP]`), as
    /// encoders take it. Special tokens in the text are text like any other.
    pub fn encode_framed(&self, text: &str) -> Vec<u32> {
        self.encoder.encode_framed(&self.vocab, text)
    }

    /// The bytes that a token stands for; they may be part of a character, so that text is made
    /// with a [`StreamDecoder`]. A special token gives its name; an id outside the vocabulary and
    /// a hole in it give nothing.
    pub fn decode_bytes(&self, id: u32) -> &[u8] {
        self.vocab.piece(id).unwrap_or_default()
    }

    /// The text of `ids`, with or without the names of special tokens. Bytes that make no
    /// character become U+FFFD; a space that [`encode`](Self::encode) puts first is taken away.
    pub fn decode(&self, ids: &[u32], with_special: bool) -> String {
        let shown = ids.iter().filter(|id| with_special || !self.is_special(**id));
        let bytes: Vec<u8> = shown.flat_map(|id| self.decode_bytes(*id)).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        match text.strip_prefix(' ').filter(|_| self.roles.adds_space_prefix) {
            Some(stripped) => stripped.to_owned(),
            None => text.into_owned(),
        }
    }

    /// The token with this text, as the model's file spells it (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token_to_id(&self, text: &str) -> Option<u32> {
        self.vocab.id(text.as_bytes())
    }

    /// The text of a token as the model's file spells it, if that is UTF-8.
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        std::str::from_utf8(self.vocab.text(id)?).ok()
    }

    /// Whether a token is structure (control, unknown) and not part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocab.kind(id), Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// Number of ids, holes included; the model's logits may have more columns.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The tokens as plugins may see them.
    ///
    /// # Panics
    ///
    /// Never: a vocabulary that was read has text below 4 GiB, and ids of its own.
    pub fn vocabulary(&self) -> Vocabulary {
        let ids = 0..self.vocab_size() as u32;
        let special = ids.clone().filter(|id| self.is_special(*id)).collect();
        let tokens = ids.map(|id| self.decode_bytes(id));
        let vocabulary = Vocabulary::new(tokens, special, self.end_ids().to_vec());
        vocabulary.expect("ids of the vocabulary")
    }

    /// What a text begins with.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// What a text ends with.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// What a turn of a chat ends with.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// What stands for text without a token.
    pub fn unknown(&self) -> Option<u32> {
        self.roles.unknown
    }

    /// Every token after which generating is over, sorted; EOS and EOT among them.
    pub fn end_ids(&self) -> &[u32] {
        &self.roles.eog
    }

    /// Whether `id` ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.roles.eog.binary_search(&id).is_ok()
    }

    /// Whether the model expects BOS before a text.
    pub fn add_bos(&self) -> bool {
        self.roles.adds_bos && self.roles.bos.is_some()
    }

    /// Whether the model expects EOS after a text (encoders do, decoders do not).
    pub fn add_eos(&self) -> bool {
        self.roles.adds_eos && self.roles.eos.is_some()
    }
}

#[cfg(test)]
mod tests;
