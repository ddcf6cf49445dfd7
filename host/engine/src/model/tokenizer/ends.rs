//! Finds the tokens that end a turn or a generation by their text, because files do not say.
//!
//! The lists and their exceptions are llama.cpp's (`llama_vocab::impl::load`), so that generation
//! stops where it stops, and so that ids agree: a token named here is a control token.

use super::Roles;
use super::vocab::{TokenKind, Vocab};

/// Gives the tokens that end things their role; makes them control tokens where the file forgot.
pub(super) fn find(vocab: &mut Vocab, roles: &mut Roles) {
    let id = |vocab: &Vocab, text: &str| vocab.id(text.as_bytes());
    let mut ends: Vec<u32> = [roles.eos, roles.eot].into_iter().flatten().collect();
    for text in END_OF_TURN.iter().chain(&END_OF_GENERATION) {
        let Some(id) = id(vocab, text) else { continue };
        if roles.eot.is_none() && END_OF_TURN.contains(text) {
            roles.eot = Some(id);
        }
        vocab.set_kind(id, TokenKind::Control);
        ends.push(id);
    }
    for text in FILL_IN_THE_MIDDLE {
        if let Some(id) = id(vocab, text) {
            vocab.set_kind(id, TokenKind::Control);
        }
    }
    for (if_present, text, kind) in NOT_ENDS {
        let Some(not_end) = id(vocab, text) else { continue };
        if if_present.iter().all(|text| id(vocab, text).is_some()) {
            vocab.set_kind(not_end, kind);
            ends.retain(|end| *end != not_end || roles.eos == Some(*end));
        }
    }
    ends.sort_unstable();
    ends.dedup();
    roles.eog = ends;
}

/// What ends a turn, the likeliest first.
const END_OF_TURN: [&str; 9] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<EOT>",
    "_<EOT>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Further tokens after which nothing sensible follows.
#[rustfmt::skip]
const END_OF_GENERATION: [&str; 24] = [
    "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "</s>", "<|eom_id|>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<eos>", "<turn|>", "<|tool_response>", "[e~[", "<|fim_pad|>",
    "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
    "<REPO>", "<reponame>", "<|file_sep|>",
];

/// Structure of fill-in-the-middle prompts.
#[rustfmt::skip]
const FILL_IN_THE_MIDDLE: [&str; 18] = [
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
];

/// Where all texts on the left are in the vocabulary, the one in the middle ends nothing.
const NOT_ENDS: [(&[&str], &str, TokenKind); 7] = [
    // Harmony (gpt-oss) and Solar: an inner message ends, the answer does not.
    (&["<|return|>", "<|call|>"], "<|end|>", TokenKind::UserDefined),
    (&["<|calls|>", "<|flush|>"], "<|end|>", TokenKind::UserDefined),
    // Harmony's channels are parsed from the text.
    (&[], "<|channel|>", TokenKind::UserDefined),
    (&[], "<|message|>", TokenKind::UserDefined),
    (&[], "<|start|>", TokenKind::UserDefined),
    (&[], "<|constrain|>", TokenKind::UserDefined),
    // Gemma 4 has `</s>` for HTML only.
    (&["<|tool_response>"], "</s>", TokenKind::Normal),
];

#[cfg(test)]
mod tests {
    use super::super::vocab::Arena;
    use super::*;

    fn found(texts: &[&str]) -> (Vec<u32>, Option<u32>, Vec<TokenKind>) {
        let mut arena = Arena::new();
        assert!(texts.iter().all(|text| arena.push(text.as_bytes())));
        let kinds = vec![TokenKind::Normal; texts.len()];
        let mut vocab = Vocab::new(arena.clone(), arena, kinds);
        let mut roles = Roles { eos: Some(0), ..Roles::default() };
        find(&mut vocab, &mut roles);
        let kinds = (0..texts.len() as u32).map(|id| vocab.kind(id).unwrap()).collect();
        (roles.eog, roles.eot, kinds)
    }

    #[test]
    fn knows_ends_by_their_names() {
        use TokenKind::{Control, Normal, UserDefined};
        let (ends, eot, kinds) = found(&["a", "<|endoftext|>", "<|im_end|>", "<PRE>"]);
        assert_eq!((ends, eot), (vec![0, 1, 2], Some(2)));
        assert_eq!(kinds, [Normal, Control, Control, Control]);
        let (ends, _, kinds) = found(&["a", "<|return|>", "<|call|>", "<|end|>", "<|start|>"]);
        assert_eq!(ends, [0, 1, 2]);
        assert_eq!(kinds, [Normal, Control, Control, UserDefined, UserDefined]);
        assert_eq!(found(&["a", "</s>", "<|tool_response>"]).0, [0, 2]);
    }
}
