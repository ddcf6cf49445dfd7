//! Tokenizers from small handmade vocabularies.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::error::ModelError;
use crate::model::gguf::Gguf;
use crate::model::gguf::writer::Writer;
use crate::model::mmap::ModelBytes;

fn build(writer: &Writer) -> Result<Tokenizer, ModelError> {
    let bytes = ModelBytes::from_vec("test.gguf", writer.bytes());
    Tokenizer::from_gguf(Gguf::parse(Arc::new(bytes)).unwrap().metadata())
}

/// All 256 byte tokens, `he`, `ll`, `hell`, `Ġhe`, and two specials.
fn bpe(pre: &str) -> Writer {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_level::char_of(byte).into()).collect();
    tokens.extend(["he", "ll", "hell", "Ġhe", "<|im_end|>", "<tool>", "hex"].map(String::from));
    let mut kinds = vec![1; tokens.len()];
    (kinds[260], kinds[261]) = (3, 4);
    Writer::new()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", pre)
        .strs("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strs("tokenizer.ggml.merges", &["h e", "l l", "he ll", "Ġ he"])
        .u32("tokenizer.ggml.eos_token_id", 260)
}

#[test]
fn merges_bytes_and_finds_special_tokens() {
    let tokenizer = build(&bpe("smollm")).unwrap();
    let x = u32::from(b'x');
    #[rustfmt::skip]
    let cases: [(&str, bool, &[u32]); 6] = [
        ("",                     true,  &[]),
        ("hell",                 true,  &[258]),
        (" hex",                 true,  &[259, x]),
        ("hex<|im_end|>hell",    true,  &[256, x, 260, 258]),
        ("x<tool>",              false, &[x, 261]),
        ("1\n",                  true,  &[u32::from(b'1'), u32::from(b'\n')]),
    ];
    for (text, parse_special, expected) in cases {
        let ids = tokenizer.encode(text, parse_special);
        assert_eq!(ids, expected, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
    assert_eq!(tokenizer.encode("<|im_end|>", false).len(), 10, "plain text when not parsed");
    assert_eq!(tokenizer.decode(&[258, 260], false), "hell");
    assert_eq!(tokenizer.decode_bytes(259), b" he");
    assert_eq!(tokenizer.decode_bytes(9999), b"");
    assert!(tokenizer.is_special(260) && !tokenizer.is_special(261));
    assert_eq!(tokenizer.token_to_id("Ġhe"), Some(259));
    assert_eq!(tokenizer.id_to_token(259), Some("Ġhe"));
    assert_eq!((tokenizer.eos(), tokenizer.eot(), tokenizer.bos()), (Some(260), Some(260), None));
    assert_eq!(tokenizer.end_ids(), [260]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.add_bos()), (263, false));
}

#[test]
fn llama_3_takes_a_word_that_is_a_token_whole() {
    let tokenizer = build(&bpe("llama-bpe")).unwrap();
    assert_eq!(tokenizer.encode("hex", true), [262]);
    assert_eq!(build(&bpe("qwen2")).unwrap().encode("hex", true), [256, u32::from(b'x')]);
}

/// `▁`, letters, words with scores, and byte tokens for half of `ä`.
fn spm(adds_space_prefix: bool) -> Writer {
    let tokens =
        ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁a", "bb", "<0xC3>", "<0xA4>", "\n\n"];
    let scores = [0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0, -2.0, 0.0, 0.0, 0.0];
    Writer::new()
        .str("tokenizer.ggml.model", "llama")
        .strs("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &[2, 3, 3, 1, 1, 1, 1, 1, 1, 6, 6, 4])
        .bool("tokenizer.ggml.add_space_prefix", adds_space_prefix)
}

#[test]
fn merges_the_highest_score_and_falls_back_to_bytes() {
    let tokenizer = build(&spm(false)).unwrap();
    #[rustfmt::skip]
    let cases: [(&str, &[u32]); 6] = [
        ("ab",       &[6]),
        (" ab",      &[7, 5]),       // `▁a` beats `ab`
        ("abb",      &[6, 5]),       // equal scores: the leftmost
        ("aäb",      &[4, 9, 10, 5]),
        ("a\n\nb",   &[4, 11, 5]),
        ("z</s>",    &[0, 2]),       // no byte token for z
    ];
    for (text, expected) in cases {
        assert_eq!(tokenizer.encode(text, true), expected, "{text:?}");
    }
    assert_eq!(tokenizer.decode(&[7, 9, 10], false), " aä");
    assert!(tokenizer.add_bos());
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.unknown()),
        (Some(1), Some(2), Some(0))
    );
}

#[test]
fn prefixes_a_space_at_the_start_and_after_a_special_token() {
    let tokenizer = build(&spm(true)).unwrap();
    assert_eq!(tokenizer.encode("a</s>ab", true), [7, 2, 7, 5]);
    assert_eq!(tokenizer.decode(&[7, 5], false), "ab");
    assert_eq!(tokenizer.encode_within(" ab"), [7, 5], "the space is the text's own");
    assert_eq!(build(&spm(false)).unwrap().encode_within("ab"), [6]);
}

#[test]
fn no_space_is_put_before_text_within_a_text() {
    let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁a", "<0x0A>"];
    let scores = [0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0, 0.0];
    let writer = Writer::new()
        .str("tokenizer.ggml.model", "llama")
        .strs("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &[2, 3, 3, 1, 1, 1, 1, 1, 6]);
    let tokenizer = build(&writer).unwrap();
    assert_eq!(tokenizer.encode("ab", false), [7, 5]);
    #[rustfmt::skip]
    let cases: [(&str, &[u32]); 5] =
        [("ab", &[6]), (" ab", &[7, 5]), ("\nab", &[8, 6]), (" ", &[3]), ("", &[])];
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode_within(text), ids, "{text:?}");
    }
}

#[test]
fn refuses_tokenizers_whose_parts_do_not_fit() {
    let base = Writer::new().str("tokenizer.ggml.model", "gpt2");
    let tokens = base.clone().strs("tokenizer.ggml.tokens", &["a", "b"]);
    let spm = Writer::new().str("tokenizer.ggml.model", "llama");
    let spm = spm.strs("tokenizer.ggml.tokens", &["a", "b"]);
    #[rustfmt::skip]
    let cases = [
        ("no model",     Writer::new(),                                              "no such key"),
        ("t5",           Writer::new().str("tokenizer.ggml.model", "t5"),            "`gpt2` or `llama`"),
        ("unknown pre",  base.clone().str("tokenizer.ggml.pre", "x"),                "one of smollm"),
        ("no tokens",    base.clone(),                                               "no such key"),
        ("zero tokens",  base.clone().strs::<&str>("tokenizer.ggml.tokens", &[]),    "0 tokens"),
        ("no strings",   base.i32s("tokenizer.ggml.tokens", &[1]),                   "expected strings"),
        ("no merges",    tokens.clone(),                                             "no such key"),
        ("bad merge",    tokens.clone().strs("tokenizer.ggml.merges", &["a b"]),     "merge 0 `a b`"),
        ("no space",     tokens.clone().strs("tokenizer.ggml.merges", &["ab"]),      "merge 0 `ab`"),
        ("empty merge",  tokens.clone().strs("tokenizer.ggml.merges", &[""]),        "merge 0 ``"),
        ("few kinds",    tokens.clone().i32s("tokenizer.ggml.token_type", &[1]),     "2 elements"),
        ("kind 9",       tokens.clone().i32s("tokenizer.ggml.token_type", &[1, 9]),  "0 to 6"),
        ("bos outside",  tokens.u32("tokenizer.ggml.bos_token_id", 2),               "an id below 2"),
        ("no scores",    spm.clone(),                                                "no such key"),
        ("few scores",   spm.f32s("tokenizer.ggml.scores", &[0.0]),                  "2 elements"),
    ];
    for (name, writer, expected) in cases {
        let error = build(&writer).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

fn hugging_face(json: &Value, config: &Value) -> Result<Tokenizer, ModelError> {
    let json = serde_json::to_vec(json).unwrap();
    let ends = [json!({"eos_token_id": [3, 99]})];
    Tokenizer::from_tokenizer_json(Path::new("tokenizer.json"), &json, config, &ends)
}

fn hugging_face_json() -> Value {
    let special = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": special})
    };
    json!({
        "version": "1.0",
        "padding": {"strategy": {"Fixed": 4_000_000_000_u64}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [special(3, "<|im_end|>", true), special(4, "<tool>", false)],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "Ġa": 2}, "merges": ["Ġ a"]},
    })
}

#[test]
fn reads_tokenizer_json() {
    let config = json!({"bos_token": {"content": "a"}, "eos_token": "<|im_end|>",
        "add_bos_token": true});
    let tokenizer = hugging_face(&hugging_face_json(), &config).unwrap();
    assert_eq!(tokenizer.encode("a a<|im_end|><tool>", true), [0, 2, 3, 4]);
    assert_eq!(tokenizer.encode("a a<|im_end|><tool>", false), [0, 2, 4]);
    assert_eq!(tokenizer.decode(&[0, 2, 3], false), "a a");
    assert_eq!(tokenizer.decode_bytes(3), b"<|im_end|>");
    assert!(tokenizer.is_special(3) && !tokenizer.is_special(4));
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.eot()), (Some(0), Some(3), Some(3)));
    assert_eq!((tokenizer.end_ids(), tokenizer.add_bos()), (&[3][..], true));
}

#[test]
fn refuses_a_tokenizer_json_with_ids_from_nowhere() {
    let mut json = hugging_face_json();
    json["model"]["vocab"]["z"] = 4_000_000_000_u64.into();
    let error = hugging_face(&json, &Value::Null).unwrap_err().to_string();
    assert!(error.contains("ids up to 4000000000"), "{error}");
    assert!(hugging_face(&json!({}), &Value::Null).is_err());
}
