//! From the bytes of one token after the other to text that can be shown.

use std::str::Utf8Error;

/// Releases complete characters only: the start of one waits for its rest, and bytes that can be
/// none become U+FFFD.
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder {
    /// The start of a character: at most 3 bytes between calls.
    pending: Vec<u8>,
    text: String,
}

impl StreamDecoder {
    /// Nothing is pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of the next token and returns the text that they complete, maybe none.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.text.clear();
        self.pending.extend_from_slice(bytes);
        let mut taken = 0;
        loop {
            let rest = &self.pending[taken..];
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    taken = self.pending.len();
                    break;
                }
                Err(error) => {
                    self.text.push_str(valid(rest, error));
                    taken += error.valid_up_to();
                    let Some(invalid) = error.error_len() else { break };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    taken += invalid;
                }
            }
        }
        self.pending.drain(..taken);
        &self.text
    }

    /// Ends the text: the start of a character that never came whole becomes U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }
}

fn valid(bytes: &[u8], error: Utf8Error) -> &str {
    std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_only_complete_characters() {
        /// Name, bytes of each token, text after each and at the end.
        type Case = (&'static str, &'static [&'static [u8]], &'static [&'static str]);
        #[rustfmt::skip]
        let cases: [Case; 5] = [
            ("plain",        &[b"ab", b"", b"c"],                 &["ab", "", "c", ""]),
            ("split",        &[b"x\xf0\x9f", b"\x98", b"\x80y"],  &["x", "", "😀y", ""]),
            ("invalid",      &[b"a\xffb", b"\x80"],               &["a\u{fffd}b", "\u{fffd}", ""]),
            ("broken off",   &[b"\xe2\x82"],                      &["", "\u{fffd}"]),
            ("interrupted",  &[b"\xe2\x82", b"a"],                &["", "\u{fffd}a", ""]),
        ];
        for (name, pushes, expected) in cases {
            let mut decoder = StreamDecoder::new();
            let mut texts: Vec<_> =
                pushes.iter().map(|bytes| decoder.push(bytes).to_owned()).collect();
            texts.push(decoder.finish().to_owned());
            assert_eq!(texts, expected, "{name}");
        }
    }

    #[test]
    fn agrees_with_lossy_decoding_however_the_bytes_are_cut() {
        let bytes = b"a\xf0\x9f\x98\x80\xffz\xe2\x82\xac\xe2\x28\xa1\xf0\x9f";
        let expected = String::from_utf8_lossy(bytes);
        for step in 1..bytes.len() {
            let mut decoder = StreamDecoder::new();
            let mut text = String::new();
            bytes.chunks(step).for_each(|chunk| text.push_str(decoder.push(chunk)));
            text.push_str(decoder.finish());
            assert_eq!(text, expected, "{step} bytes at a time");
        }
    }
}
