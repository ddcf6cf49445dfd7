//! What host and plugin compare before either calls the other.

use super::abi;

/// Digest of everything that both sides have to agree on: the tables and the bytes in them.
pub const DIGEST: [u64; 2] = of(&[
    &abi::DIGEST[0].to_le_bytes(),
    &abi::DIGEST[1].to_le_bytes(),
    include_bytes!("../wire/mod.rs"),
    include_bytes!("../wire/config.rs"),
    include_bytes!("../wire/kinds.rs"),
    include_bytes!("../plan/bytes.rs"),
    include_bytes!("../plan/ops.rs"),
    include_bytes!("../events.rs"),
    include_bytes!("../events/plugins.rs"),
    include_bytes!("backend/export.rs"),
    include_bytes!("backend/import.rs"),
    include_bytes!("backend/received.rs"),
    include_bytes!("backend/sent.rs"),
    include_bytes!("decoding_strategy/mod.rs"),
    include_bytes!("decoding_strategy/export.rs"),
    include_bytes!("decoding_strategy/import.rs"),
    include_bytes!("../wire/events/mod.rs"),
    include_bytes!("../wire/events/crossing.rs"),
    include_bytes!("../wire/events/fields.rs"),
    include_bytes!("../wire/events/params.rs"),
    include_bytes!("../wire/events/record.rs"),
    include_bytes!("hook/mod.rs"),
    include_bytes!("hook/export.rs"),
    include_bytes!("hook/import.rs"),
    include_bytes!("host/mod.rs"),
    include_bytes!("host/file.rs"),
    include_bytes!("host/lend.rs"),
    include_bytes!("host/lent.rs"),
    include_bytes!("kv_cache/export.rs"),
    include_bytes!("kv_cache/import.rs"),
    include_bytes!("logits_processor.rs"),
    include_bytes!("model_source.rs"),
    include_bytes!("op_sink.rs"),
    include_bytes!("piece.rs"),
    include_bytes!("quantizer/export.rs"),
    include_bytes!("quantizer/import.rs"),
    include_bytes!("rows.rs"),
    include_bytes!("scheduler.rs"),
    include_bytes!("traced.rs"),
]);

/// As [`abi::digest`], but eight bytes at a time: every plugin works it out while it compiles, and
/// compilers lose patience with long loops.
const fn of(texts: &[&[u8]]) -> [u64; 2] {
    let mut hash = [SEED, !SEED];
    let mut t = 0;
    while t < texts.len() {
        let (words, rest) = texts[t].as_chunks::<8>();
        let mut i = 0;
        while i < words.len() {
            hash = mix(hash, u64::from_le_bytes(words[i]));
            i += 1;
        }
        i = 0;
        while i < rest.len() {
            hash = mix(hash, rest[i] as u64);
            i += 1;
        }
        hash = mix(hash, texts[t].len() as u64);
        t += 1;
    }
    hash
}

const fn mix(hash: [u64; 2], word: u64) -> [u64; 2] {
    let a = (hash[0] ^ word).wrapping_mul(PRIME);
    let b = (hash[1] ^ word.rotate_left(32)).wrapping_mul(PRIME);
    [a ^ (a >> 32), b ^ (b >> 29)]
}

const SEED: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;
