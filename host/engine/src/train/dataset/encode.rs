//! From examples to tokens, and which of them are learnt.

use std::error::Error as _;

use super::example::{Example, Format, LineError, Turns};
use crate::model::{ChatTemplate, Message, ModelError, Tokenizer};

/// What becomes of an example with more tokens than a sequence may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// Its first tokens are kept; what has nothing to learn then is passed over. Both are counted.
    Cut,
    /// It is an error.
    Refuse,
}

/// Tokens of an example: of one sequence, or of a preferred one and another.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One, or two.
    pub sequences: Vec<EncodedSequence>,
    /// Whether it was longer.
    pub is_cut: bool,
}

/// Tokens, and whether each is learnt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EncodedSequence {
    /// At least one.
    pub tokens: Vec<u32>,
    /// As many.
    pub counts: Vec<bool>,
}

/// A prompt that the model is to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// With what a chat template adds where the model begins to speak.
    pub tokens: Vec<u32>,
    /// What an answer should come to.
    pub expected: Option<String>,
}

/// Tokenizer, chat template and limits.
#[derive(Debug)]
pub struct ExampleEncoder {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Most rows of a sequence: tokens that predict one.
    length: usize,
    too_long: TooLong,
}

impl Encoded {
    /// Rows of all sequences.
    pub fn num_rows(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.tokens.len().saturating_sub(1)).sum()
    }

    /// Whether every sequence has a token that is predicted and learnt.
    pub fn has_something(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.counts.iter().skip(1).any(|&counts| counts))
    }
}

impl ExampleEncoder {
    /// An encoder for sequences of at most `length` rows.
    pub fn new(
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        length: usize,
        too_long: TooLong,
    ) -> Self {
        Self { tokenizer, template, length, too_long }
    }

    /// Most rows of a sequence.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The tokens of an example.
    ///
    /// A text begins with BOS where the model expects it, and ends with EOS. What is learnt of text after a prompt begins
    /// at the first token in which prompt and whole differ, and ends with EOS, which is learnt. A conversation is
    /// what the chat template makes of it; of that the messages of the assistant are learnt, with what the template writes
    /// after each.
    ///
    /// # Errors
    ///
    /// [`LineError`] for a conversation without a template, one that the template refuses or renders otherwise when
    /// it goes on, one in which nobody says what is to be learnt, and for one that is too long if that is refused.
    pub fn encode(&self, example: &Example) -> Result<Encoded, LineError> {
        let sequences = match example {
            Example::Text(text) => vec![self.text(text)],
            Example::Chat(messages) => vec![self.chat(messages, 0)?],
            Example::Completion { prompt, completion } => vec![self.answer(prompt, completion)?],
            Example::Preference { prompt, chosen, rejected } => {
                vec![self.answer(prompt, chosen)?, self.answer(prompt, rejected)?]
            }
            Example::Prompt { .. } => {
                let expected = "an answer to learn beside the prompt".to_owned();
                return Err(LineError { expected, found: "none".to_owned() });
            }
        };
        let mut encoded = Encoded { sequences, is_cut: false };
        for sequence in &mut encoded.sequences {
            if sequence.tokens.len() <= self.length + 1 {
                continue;
            }
            if self.too_long == TooLong::Refuse {
                let expected =
                    format!("at most {} tokens, or `too_long = \"cut\"`", self.length + 1);
                return Err(LineError { expected, found: sequence.tokens.len().to_string() });
            }
            sequence.tokens.truncate(self.length + 1);
            sequence.counts.truncate(self.length + 1);
            encoded.is_cut = true;
        }
        Ok(encoded)
    }

    /// The tokens of a prompt. Nothing for one that leaves no room for an answer of a token, if such are passed over.
    ///
    /// # Errors
    ///
    /// [`LineError`] for an example that has an answer; as [`encode`](Self::encode).
    pub fn question(&self, example: &Example) -> Result<Option<Question>, LineError> {
        let Example::Prompt { prompt, expected } = example else {
            let (expected, found) = (format!("{}", Format::Prompt), example.format().to_string());
            return Err(LineError { expected, found });
        };
        let tokens = match prompt {
            Turns::Text(prompt) => self.ids(prompt, false),
            Turns::Messages(prompt) => self.ids(&self.render(prompt, true)?, true),
        };
        if tokens.len() < self.length && !tokens.is_empty() {
            return Ok(Some(Question { tokens, expected: expected.clone() }));
        }
        if self.too_long == TooLong::Refuse || tokens.is_empty() {
            let expected = format!("a prompt of 1 to {} tokens", self.length - 1);
            return Err(LineError { expected, found: tokens.len().to_string() });
        }
        Ok(None)
    }

    fn text(&self, text: &str) -> EncodedSequence {
        let mut tokens = self.ids(text, false);
        tokens.extend(self.tokenizer.eos());
        let counts = vec![true; tokens.len()];
        EncodedSequence { tokens, counts }
    }

    fn answer(&self, prompt: &Turns, answer: &Turns) -> Result<EncodedSequence, LineError> {
        match (prompt, answer) {
            (Turns::Text(prompt), Turns::Text(answer)) => {
                let mut tokens = self.ids(&format!("{prompt}{answer}"), false);
                let begin = common(&tokens, &self.ids(prompt, false));
                tokens.extend(self.tokenizer.eos());
                let counts = (0..tokens.len()).map(|at| at >= begin).collect();
                Ok(EncodedSequence { tokens, counts })
            }
            (Turns::Messages(prompt), Turns::Messages(answer)) => {
                self.chat(&[&prompt[..], answer].concat(), prompt.len())
            }
            _ => Err(LineError {
                expected: "text for both prompt and answer, or messages".to_owned(),
                found: "one of each".to_owned(),
            }),
        }
    }

    /// A conversation, of which messages of the assistant from `from` on are learnt.
    fn chat(&self, messages: &[Message], from: usize) -> Result<EncodedSequence, LineError> {
        let whole = self.render(messages, false)?;
        let tokens = self.ids(&whole, true);
        let mut counts = vec![false; tokens.len()];
        let mut said = 0;
        for at in (from..messages.len()).filter(|&at| messages[at].role == ASSISTANT) {
            // Where the model begins to speak when it is asked, and where it has spoken.
            let before = self.render(&messages[..at], true)?;
            let through = match at + 1 == messages.len() {
                true => whole.clone(),
                false => self.render(&messages[..=at], false)?,
            };
            if !(whole.starts_with(&through) && through.starts_with(&before)) {
                return Err(LineError {
                    expected: "a chat template that writes the beginning of a conversation alike \
                               however it goes on"
                        .to_owned(),
                    found: format!("another text of the first {} messages", at + 1),
                });
            }
            let begin = common(&tokens, &self.ids(&before, true));
            let end = common(&tokens, &self.ids(&through, true));
            counts[begin..end.max(begin)].fill(true);
            said += 1;
        }
        if said == 0 {
            let expected = format!("a message of the role `{ASSISTANT}` to learn");
            return Err(LineError { expected, found: "none".to_owned() });
        }
        Ok(EncodedSequence { tokens, counts })
    }

    fn render(&self, messages: &[Message], is_asked: bool) -> Result<String, LineError> {
        let Some(template) = &self.template else {
            let expected = "text: the model has no chat template".to_owned();
            return Err(LineError { expected, found: "messages".to_owned() });
        };
        let token = |id: Option<u32>| id.and_then(|id| self.tokenizer.id_to_token(id));
        let bos = token(self.tokenizer.bos()).unwrap_or_default();
        let eos = token(self.tokenizer.eos()).unwrap_or_default();
        template.render(messages, is_asked, None, bos, eos).map_err(|error| refused(&error))
    }

    /// As a prompt is encoded when the model is served.
    fn ids(&self, text: &str, is_templated: bool) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode(text, is_templated);
        if let Some(bos) = self.tokenizer.bos().filter(|_| self.tokenizer.add_bos())
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        tokens
    }
}

fn refused(error: &ModelError) -> LineError {
    let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    LineError { expected: "a conversation that the chat template takes".to_owned(), found: why }
}

/// How many tokens two lists begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Whose messages are learnt.
const ASSISTANT: &str = "assistant";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CHATML: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}\
                          {% if add_generation_prompt %}<|assistant|>{% endif %}";

    /// Bytes as tokens, with `</s>` as EOS.
    fn encoder(template: &str, length: usize, too_long: TooLong) -> ExampleEncoder {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tokenizer_json");
        let path = path.join("byte_level.json");
        let bytes = std::fs::read(&path).unwrap();
        let config = serde_json::json!({"eos_token": "</s>", "add_bos_token": false});
        let tokenizer = Tokenizer::from_tokenizer_json(&path, &bytes, &config, &[]).unwrap();
        let template = ChatTemplate::new(Path::new("template"), template).unwrap();
        ExampleEncoder::new(tokenizer, Some(template), length, too_long)
    }

    /// What is learnt, as text.
    fn learnt(encoder: &ExampleEncoder, line: &str) -> Vec<String> {
        let encoded = encoder.encode(&Example::parse(line.as_bytes()).unwrap()).unwrap();
        let shown = |sequence: &EncodedSequence| {
            let both = sequence.tokens.iter().zip(&sequence.counts);
            let ids: Vec<u32> = both.filter(|(_, counts)| **counts).map(|(id, _)| *id).collect();
            encoder.tokenizer.decode(&ids, true)
        };
        encoded.sequences.iter().map(shown).collect()
    }

    #[test]
    fn only_what_the_assistant_says_is_learnt() {
        let encoder = encoder(CHATML, 1000, TooLong::Cut);
        let eos = encoder.tokenizer.eos().and_then(|id| encoder.tokenizer.id_to_token(id));
        let end = eos.unwrap_or_default();
        #[rustfmt::skip]
        let cases = [
            (r#"{"text": "ab"}"#, vec![format!("ab{end}")]),
            (r#"{"prompt": "ab", "completion": "ba"}"#, vec![format!("ba{end}")]),
            (r#"{"prompt": "ab", "chosen": "b", "rejected": "aa"}"#, vec![format!("b{end}"), format!("aa{end}")]),
            (r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "user", "content": "ab"}, {"role": "assistant", "content": "ba"}]}"#,
                vec!["b</s>ba</s>".to_owned()]),
            (r#"{"prompt": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}],
                "chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "ab"}]}"#,
                vec!["b</s>".to_owned(), "ab</s>".to_owned()]),
        ];
        for (line, expected) in cases {
            assert_eq!(learnt(&encoder, line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_or_refused() {
        let example = Example::parse(br#"{"prompt": "abab", "completion": "ba"}"#).unwrap();
        for (length, has_something) in [(1, false), (3, true)] {
            let encoded = encoder(CHATML, length, TooLong::Cut).encode(&example).unwrap();
            let found = (encoded.num_rows(), encoded.is_cut, encoded.has_something());
            assert_eq!(found.0, length);
            assert_eq!((found.1, found.2), (true, has_something), "{length}");
        }
        let error = encoder(CHATML, 2, TooLong::Refuse).encode(&example).unwrap_err();
        assert!(error.expected.starts_with("at most 3 tokens"), "{error:?}");
    }

    #[test]
    fn a_conversation_that_cannot_be_learnt_says_why() {
        let chat = |line: &str| Example::parse(line.as_bytes()).unwrap();
        let both = chat(
            r#"{"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        );
        let user = chat(r#"{"messages": [{"role": "user", "content": "a"}]}"#);
        #[rustfmt::skip]
        let cases = [
            (CHATML,                                    &user, "a message of the role `assistant`"),
            ("{{ messages | length }}",                 &both, "writes the beginning of a conversation alike"),
            ("{{ raise_exception('never') }}",          &both, "that the chat template takes"),
        ];
        for (template, example, expected) in cases {
            let error = encoder(template, 99, TooLong::Cut).encode(example).unwrap_err();
            assert!(error.expected.contains(expected), "{error:?}");
        }
        let mut without = encoder(CHATML, 99, TooLong::Cut);
        without.template = None;
        assert!(without.encode(&both).unwrap_err().expected.contains("no chat template"));
    }
}
