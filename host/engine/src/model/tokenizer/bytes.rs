//! The tokenizer of models that learnt plain text: a token is a byte, its id the byte's number.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Tokenizer, byte_level};
use crate::model::error::ModelError;

/// `tokenizer.json` for tokens that are bytes: byte-level BPE without a merge.
pub fn byte_tokenizer_json() -> Value {
    let vocab: Map<String, Value> = (0..=255_u8)
        .map(|byte| (byte_level::char_of(byte).to_string(), Value::from(byte)))
        .collect();
    let byte_level = |is_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": is_regex,
        })
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level(false),
        "post_processor": null,
        "decoder": byte_level(false),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}

impl Tokenizer {
    /// Tokens that are bytes; `path` is for messages.
    ///
    /// # Errors
    ///
    /// None that a caller can cause: those of [`from_tokenizer_json`](Self::from_tokenizer_json).
    pub fn of_bytes(path: &Path) -> Result<Self, ModelError> {
        let json = byte_tokenizer_json().to_string();
        Self::from_tokenizer_json(path, json.as_bytes(), &Value::Null, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_bytes_of_the_text() {
        let tokenizer = Tokenizer::of_bytes(Path::new("bytes")).unwrap();
        assert_eq!(tokenizer.vocab_size(), 256);
        for text in ["", "a", "So, 12\n\n  'tis über 東京 😀\u{0}\t", "   "] {
            let ids = tokenizer.encode(text, true);
            let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
            assert_eq!(ids, bytes, "{text:?}");
            assert_eq!(tokenizer.decode(&ids, true), text);
        }
        assert_eq!(tokenizer.decode_bytes(0xff), [0xff]);
    }
}
