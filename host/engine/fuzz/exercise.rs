//! What fuzzing and the replay of its corpus do with a file: open it and use all that opened.
//! Returns whether it was accepted; panics are findings.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use jackfield_engine::model::gguf::{Gguf, GgufValue};
use jackfield_engine::model::mmap::ModelBytes;
use jackfield_engine::model::safetensors::Safetensors;
use jackfield_engine::model::{ChatTemplate, Message, StreamDecoder, Tokenizer};
use jackfield_engine::train::Example;

/// Opens the header and touches every value and every tensor.
pub(crate) fn gguf_header(bytes: &[u8]) -> Option<Gguf> {
    let gguf = Gguf::parse(Arc::new(ModelBytes::from_vec("fuzz.gguf", bytes.to_vec()))).ok()?;
    for key in gguf.metadata().keys() {
        match gguf.metadata().get(key) {
            Some(GgufValue::Array(array)) => {
                black_box(array.strings().map(Iterator::count));
                black_box(array.numbers().map(Iterator::count));
                black_box(array.arrays().map(Iterator::count));
            }
            value => drop(black_box(value)),
        }
    }
    for tensor in gguf.tensors() {
        let bytes = gguf.bytes(tensor);
        black_box((bytes.first(), bytes.last()));
    }
    Some(gguf)
}

/// A GGUF file: header, tokenizer, chat template.
pub(crate) fn gguf(bytes: &[u8]) -> bool {
    let Some(gguf) = gguf_header(bytes) else { return false };
    if let Ok(tokenizer) = Tokenizer::from_gguf(gguf.metadata()) {
        use_tokenizer(&tokenizer);
    }
    if let Ok(Some(template)) = ChatTemplate::from_gguf(gguf.metadata()) {
        let messages = [Message::new("user", "Hi"), Message::new("assistant", "Ho")];
        black_box(template.render(&messages, true, None, "<s>", "</s>")).ok();
    }
    true
}

/// A safetensors file.
pub(crate) fn safetensors(bytes: &[u8]) -> bool {
    let bytes = ModelBytes::from_vec("fuzz.safetensors", bytes.to_vec());
    let Ok(model) = Safetensors::parse(bytes) else { return false };
    for tensor in model.tensors() {
        let bytes = model.bytes(tensor);
        black_box((bytes.first(), bytes.last(), tensor.size_bytes()));
    }
    true
}

/// A `tokenizer.json`.
pub(crate) fn tokenizer_json(bytes: &[u8]) -> bool {
    let (path, null) = (Path::new("fuzz.json"), serde_json::Value::Null);
    let Ok(tokenizer) = Tokenizer::from_tokenizer_json(path, bytes, &null, &[]) else {
        return false;
    };
    use_tokenizer(&tokenizer);
    true
}

/// A line of a file of examples.
pub(crate) fn example(bytes: &[u8]) -> bool {
    match Example::parse(bytes) {
        Ok(example) => {
            black_box(example.format().to_string());
            true
        }
        Err(error) => {
            // What a stranger wrote is quoted in part only.
            assert!(error.expected.len() + error.found.len() < 2000, "{error:?}");
            false
        }
    }
}

fn use_tokenizer(tokenizer: &Tokenizer) {
    let mut stream = StreamDecoder::new();
    for text in ["", "ab  ab\n\n<s>", "I'm 123 ä 🙂\u{0}</s>x"] {
        for parse_special in [false, true] {
            let ids = tokenizer.encode(text, parse_special);
            for id in ids.iter().copied().chain([0, u32::MAX]) {
                black_box(stream.push(tokenizer.decode_bytes(id)));
                black_box((tokenizer.id_to_token(id), tokenizer.is_special(id)));
            }
            black_box(tokenizer.decode(&ids, true));
        }
    }
    black_box(stream.finish());
    black_box((tokenizer.token_to_id("a"), tokenizer.end_ids(), tokenizer.add_bos()));
}
