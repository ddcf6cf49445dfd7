//! GPT-2's alphabet: every byte as one printable character, so that token texts are valid UTF-8.
//!
//! Source: `bytes_to_unicode` in `encoder.py` of openai/gpt-2.

/// The character that stands for `byte`.
pub(super) fn char_of(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        // The others follow each other from 256 on, in their own order.
        0x00..=0x20 => 256 + u32::from(byte),
        0x7f..=0xa0 => 256 + 33 + u32::from(byte) - 0x7f,
        0xad => 256 + 33 + 34,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `character` stands for.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 256,
        0x121..=0x142 => code - 256 - 33 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Writes the bytes that a token's text stands for; what is not of the alphabet stands for itself.
pub(super) fn decode(text: &[u8], bytes: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(text) else {
        bytes.extend_from_slice(text);
        return;
    };
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_bijection_with_the_known_landmarks() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        let landmarks =
            [(b' ', 'Ġ'), (b'\n', 'Ċ'), (0, 'Ā'), (0x7f, 'ġ'), (0xad, 'Ń'), (b'a', 'a')];
        for (byte, character) in landmarks {
            assert_eq!(char_of(byte), character);
        }
        let mut bytes = Vec::new();
        decode("Ġhi東".as_bytes(), &mut bytes);
        assert_eq!(bytes, " hi東".as_bytes());
    }
}
