//! Whether a text contradicts what is kept: other numbers, other fields, forbidden phrases, altered quotes.

use std::collections::BTreeSet;

use plugin_api::kinds::memory::terms;

use super::directive::Tier;
use super::fields;
use super::kept::Kept;
use super::record::{Entry, Record};
use super::said::{find, mentions, sentences, statement};

/// What a text contradicts: a sentence for each, that names the entry, what is kept and what was found.
pub(crate) fn violations(text: &str, kept: &Kept) -> Vec<String> {
    let mut found = Vec::new();
    for rule in &kept.card.rules {
        for phrase in phrases(rule) {
            if text.to_lowercase().contains(&phrase.to_lowercase()) {
                found.push(format!("forbidden: expected no `{phrase}`, found it"));
            }
        }
    }
    let sentences = sentences(text);
    for entry in &kept.entries {
        let Some(head) = entry.head() else { continue };
        let name = entry.name().to_lowercase();
        for sentence in &sentences {
            if mentions(&sentence.to_lowercase(), &name) {
                found.extend(contradiction(sentence, &name, entry, head));
            }
        }
    }
    found
}

fn contradiction(sentence: &str, name: &str, entry: &Entry, head: &Record) -> Option<String> {
    let told = |what: &str, expected: &str, found: &str| {
        format!("{what}: {}: expected `{expected}`, found `{found}`", entry.citation(head))
    };
    match head.tier {
        Tier::Narrative => None,
        Tier::Structured => {
            let fields = fields::of_canonical(&head.content);
            fields.iter().find_map(|(field, value)| {
                let (expected, found) = (fields::shown(value), value_of(sentence, field)?);
                let is_same = found.trim_matches(['"', '`', '\'']) == expected.to_lowercase();
                (!is_same).then(|| told("conflict", &format!("{field} = {expected}"), &found))
            })
        }
        Tier::Verbatim => {
            let (mine, theirs) = (terms(&head.content), terms(sentence));
            let (kept, said) = (numbers(&mine, name), numbers(&theirs, name));
            // Only what says what the thing is: other sentences may say anything of it.
            let subject = statement(sentence).map(|(subject, _)| subject);
            let is_about =
                subject.is_some_and(|subject| subject == name || subject.ends_with(name));
            if !entry.is_sealed() {
                // It was said in passing, and is only contradicted by another number.
                let is_drift = is_about && !kept.is_empty() && !said.is_empty() && kept != said;
                return is_drift.then(|| told("drift", &head.content, sentence));
            }
            if let Some(quote) =
                quotes(sentence).into_iter().find(|quote| !head.content.contains(quote))
            {
                return Some(told("quote", &head.content, quote));
            }
            let is_drift = kept != said || alike(&mine, &theirs, name) < ALIKE;
            (is_about && is_drift).then(|| told("drift", &head.content, sentence))
        }
    }
}

/// What a sentence says that a field is: `lr = 0.1`, `lr: 0.1`, `lr is 0.1`, `lr 为 0.1`.
fn value_of(sentence: &str, field: &str) -> Option<String> {
    let lower = sentence.to_lowercase();
    let at = find(&lower, &field.to_lowercase())? + field.to_lowercase().len();
    let rest = lower.get(at..)?.trim_start();
    let marks = ["=", ":", "：", "is ", "为", "是"];
    let rest = marks.iter().find_map(|mark| rest.strip_prefix(mark))?.trim_start();
    let value = rest.split([' ', ',', '，', ';', '；', '。', '\n', '}']).next()?;
    let value = value.trim_end_matches(['.', '!', '?']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// What stands between quotation marks.
fn quotes(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (open, close) in [('「', '」'), ('"', '"'), ('“', '”')] {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(open) {
            let Some((quote, more)) = after.split_once(close) else { break };
            found.push(quote);
            rest = more;
        }
    }
    found.retain(|quote| !quote.is_empty());
    found
}

/// The phrases that a rule forbids: those in quotes, or all of it.
fn phrases(rule: &str) -> Vec<&str> {
    let quoted = quotes(rule);
    if quoted.is_empty() { vec![rule] } else { quoted }
}

/// The numbers among terms, but those of the name.
fn numbers<'a>(terms: &'a [String], name: &str) -> BTreeSet<&'a str> {
    let is_number = |term: &&String| term.chars().any(|letter| letter.is_ascii_digit());
    let of_text = terms.iter().filter(is_number).map(String::as_str);
    of_text.filter(|term| !mentions(name, term)).collect()
}

/// How alike two texts are beside the name, from 0 to 1: the share of the shorter one's terms that both have in order.
fn alike(one: &[String], other: &[String], name: &str) -> f64 {
    let of_name: BTreeSet<String> = terms(name).into_iter().collect();
    let without = |terms: &[String]| -> Vec<String> {
        terms.iter().filter(|term| !of_name.contains(*term)).cloned().collect()
    };
    let (one, other) = (without(one), without(other));
    let mut lengths = vec![0_usize; other.len() + 1];
    for mine in &one {
        let mut diagonal = 0;
        for (place, theirs) in other.iter().enumerate() {
            let above = lengths[place + 1];
            lengths[place + 1] =
                if mine == theirs { diagonal + 1 } else { above.max(lengths[place]) };
            diagonal = above;
        }
    }
    let shorter = one.len().min(other.len());
    if shorter == 0 { 1.0 } else { lengths[other.len()] as f64 / shorter as f64 }
}

/// Below, a statement says something else.
const ALIKE: f64 = 0.8;
