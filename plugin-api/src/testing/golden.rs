//! Known answers from other implementations, in JSON of the form `{entry: {field: numbers}}`.

use super::quantizer::{decoded, encoded};
use crate::kinds::quantizer::Quantizer;

/// The numbers of a field, nested lists flattened.
///
/// # Panics
///
/// If there is no such entry or field, or it holds something else.
pub fn numbers(json: &str, entry: &str, field: &str) -> Vec<f64> {
    let after = |text: &'_ str, name: &str| {
        text.find(&format!("\"{name}\":")).map(|at| at + name.len() + 3)
    };
    let at = after(json, entry).unwrap_or_else(|| panic!("no entry `{entry}`"));
    let fields = &json[at..];
    let at = after(fields, field).unwrap_or_else(|| panic!("no field `{field}` in `{entry}`"));
    let rest = &fields[at..];
    let mut depth = 0;
    let end = rest.find(|c: char| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        depth == 0 && (c == ']' || c == ',' || c == '}')
    });
    let list = &rest[..end.unwrap_or(rest.len())];
    let words = list.split(|c: char| c == ',' || c == '[' || c == ']' || c.is_whitespace());
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"));
    words.filter(|word| !word.is_empty()).map(number).collect()
}

/// Checks a quantizer against the fields `bytes` and `deq` of an entry: decoded to the bit; and,
/// where the entry has `x` and the method is fixed, encoded to the byte.
///
/// # Panics
///
/// With the first difference.
pub fn check_quantizer(quantizer: &dyn Quantizer, json: &str, entry: &str, encodes: bool) {
    let bytes: Vec<u8> = numbers(json, entry, "bytes").into_iter().map(|x| x as u8).collect();
    let expected = numbers(json, entry, "deq");
    let found = decoded(quantizer, &bytes);
    assert_eq!(found.len(), expected.len(), "{entry}: elements");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(f64::from(*found) == expected, "{entry}: element {i} is {found}, not {expected}");
    }
    if encodes {
        let x: Vec<f32> = numbers(json, entry, "x").into_iter().map(|x| x as f32).collect();
        assert!(encoded(quantizer, &x) == bytes, "{entry}: encoded bytes differ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_numbers_by_entry_and_field() {
        let json = r#"{"a": {"x": 1, "y": [[1, -2.5], [3e2]]}, "b": {"y": []}}"#;
        assert_eq!(numbers(json, "a", "y"), [1.0, -2.5, 300.0]);
        assert_eq!(numbers(json, "a", "x"), [1.0]);
        assert_eq!(numbers(json, "b", "y"), [0.0; 0]);
    }
}
