//! Cuts text into the words that byte-level BPE merges within.
//!
//! The patterns are llama.cpp's for `tokenizer.ggml.pre` (`llama-vocab.cpp`): each cuts what the one
//! before it left, and what a pattern does not match is a word too.

use tokenizers::utils::SysRegex;

/// How the words of a model are found.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    patterns: Vec<SysRegex>,
    rules: &'static Rules,
}

/// What `tokenizer.ggml.pre` stands for.
#[derive(Debug)]
struct Rules {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// A word that is a token is that token, whatever the merges say.
    ignores_merges: bool,
    /// Whether a text begins with BOS if the file does not say.
    adds_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer of this name; `None` if there is none.
    pub(super) fn named(name: &str) -> Option<Self> {
        let rules = RULES.iter().find(|rules| rules.names.contains(&name))?;
        let patterns: Result<_, _> =
            rules.patterns.iter().map(|text| SysRegex::new(text)).collect();
        Some(Self { patterns: patterns.ok()?, rules })
    }

    /// All names, for messages.
    pub(super) fn names() -> String {
        let names: Vec<_> = RULES.iter().flat_map(|rules| rules.names).copied().collect();
        names.join(", ")
    }

    pub(super) fn ignores_merges(&self) -> bool {
        self.rules.ignores_merges
    }

    pub(super) fn adds_bos(&self) -> bool {
        self.rules.adds_bos
    }

    /// The words of `text`, in order and without a gap; none is empty.
    ///
    /// A pattern gives up after a million steps back within one match (a megabyte of blanks); the
    /// rest is then one word.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut words = vec![text];
        for pattern in &self.patterns {
            let mut next = Vec::with_capacity(words.len() + text.len() / 4);
            for word in words {
                split_one(pattern, word, &mut next);
            }
            words = next;
        }
        words
    }
}

fn split_one<'t>(pattern: &SysRegex, word: &'t str, words: &mut Vec<&'t str>) {
    let mut end = 0;
    let mut push = |range: std::ops::Range<usize>| {
        if !range.is_empty() {
            words.push(&word[range]);
        }
    };
    for (match_start, match_end) in pattern.find_iter(word) {
        push(end..match_start);
        push(match_start..match_end);
        end = match_end;
    }
    push(end..word.len());
}

const RULES: [Rules; 5] = [
    Rules {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"],
        patterns: &[r"\p{N}", GPT2],
        ignores_merges: false,
        adds_bos: false,
    },
    Rules {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"],
        patterns: &[
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignores_merges: false,
        adds_bos: false,
    },
    Rules {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2"],
        patterns: &[
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignores_merges: true,
        adds_bos: true,
    },
    Rules {
        names: &["gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "exaone4", "mellum"],
        patterns: &[GPT2],
        ignores_merges: false,
        adds_bos: false,
    },
    Rules {
        names: &["default"],
        patterns: &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ignores_merges: false,
        adds_bos: false,
    },
];

/// Radford et al., "Language Models are Unsupervised Multitask Learners": `encoder.py`.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_as_each_model_was_trained() {
        #[rustfmt::skip]
        let cases: [(&str, &str, &[&str]); 8] = [
            ("gpt-2",     "I've 1234  x!",  &["I", "'ve", " 1234", " ", " x", "!"]),
            ("smollm",    "a 12  b",        &["a", " ", "1", "2", " ", " b"]),
            ("qwen2",     "I'LL 12\n\n x",  &["I", "'LL", " ", "1", "2", "\n\n", " x"]),
            ("llama-bpe", "12345 ab_c",     &["123", "45", " ab", "_c"]),
            ("llama-bpe", "a \n b  ",       &["a", " \n", " b", "  "]),
            ("default",   "x=12345;",       &["x", "=", "123", "45", ";"]),
            ("gpt-2",     "",               &[]),
            ("gpt-2",     "übér 東京",       &["übér", " 東京"]),
        ];
        for (name, text, expected) in cases {
            let words = PreTokenizer::named(name).unwrap().split(text);
            let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
            assert_eq!(words, expected, "{name}: {text:?}");
        }
        assert!(PreTokenizer::named("nonsense").is_none());
    }
}
