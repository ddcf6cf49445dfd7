//! Texts found by their words, for memories that have nothing better.
//!
//! Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, section 3.

use std::collections::{BTreeMap, BTreeSet};

/// The words of a text in lower case; of scripts without spaces the pairs of neighbouring characters.
pub fn terms(text: &str) -> Vec<String> {
    let (mut found, mut word, mut before) = (Vec::new(), String::new(), None);
    for letter in text.chars().chain([' ']) {
        let is_alone = has_no_spaces(letter);
        if letter.is_alphanumeric() && !is_alone {
            word.extend(letter.to_lowercase());
        } else if !word.is_empty() {
            found.push(std::mem::take(&mut word));
        }
        match before {
            Some(first) if is_alone => found.push([first, letter].iter().collect()),
            // The first of a run is a term itself: a run of one has no pair.
            None if is_alone => found.push(letter.to_string()),
            _ => {}
        }
        before = is_alone.then_some(letter);
    }
    found
}

/// Chinese, Japanese.
fn has_no_spaces(letter: char) -> bool {
    matches!(letter, '\u{3041}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}')
}

/// Texts that can be asked which of them a question is about.
#[derive(Debug, Clone, Default)]
pub struct Ranking {
    /// How often each text has each of its terms.
    texts: Vec<BTreeMap<String, u32>>,
    /// How many terms each text has.
    lens: Vec<usize>,
    /// In how many texts each term is.
    spread: BTreeMap<String, usize>,
}

impl Ranking {
    /// Of these texts.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut ranking = Self::default();
        for text in texts {
            let (mut counts, terms) = (BTreeMap::new(), terms(text));
            ranking.lens.push(terms.len());
            for term in terms {
                *counts.entry(term).or_default() += 1;
            }
            for term in counts.keys() {
                *ranking.spread.entry(term.clone()).or_default() += 1;
            }
            ranking.texts.push(counts);
        }
        ranking
    }

    /// How much each text is about a question, in their order: 0 where they share no term.
    pub fn scores(&self, question: &str) -> Vec<f64> {
        let asked: BTreeSet<String> = terms(question).into_iter().collect();
        let mean = self.lens.iter().sum::<usize>() as f64 / self.lens.len().max(1) as f64;
        let mut rarities: Vec<(&String, f64)> = Vec::with_capacity(asked.len());
        for term in &asked {
            let Some(&spread) = self.spread.get(term) else { continue };
            let (all, spread) = (self.texts.len() as f64, spread as f64);
            rarities.push((term, (1.0 + (all - spread + 0.5) / (spread + 0.5)).ln()));
        }
        let score = |(counts, &len): (&BTreeMap<String, u32>, &usize)| {
            let length = K1 * (1.0 - B + B * len as f64 / mean.max(1.0));
            let found =
                rarities.iter().filter_map(|(term, rarity)| Some((counts.get(*term)?, rarity)));
            found
                .map(|(&n, rarity)| rarity * f64::from(n) * (K1 + 1.0) / (f64::from(n) + length))
                .sum::<f64>()
        };
        self.texts.iter().zip(&self.lens).map(score).collect()
    }
}

/// How soon more of a term says no more.
const K1: f64 = 1.2;

/// How much a long text has to say more.
const B: f64 = 0.75;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_pairs_of_characters_are_terms() {
        #[rustfmt::skip]
        let cases: [(&str, &[&str]); 6] = [
            ("Ada's code: 4711.", &["ada", "s", "code", "4711"]),
            ("",                  &[]),
            (" .,;\0",            &[]),
            ("茶",                &["茶"]),
            ("我喜欢 tea",        &["我", "我喜", "喜欢", "tea"]),
            ("École, ÉCOLE",      &["école", "école"]),
        ];
        for (text, expected) in cases {
            assert_eq!(terms(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_shares_rare_terms_comes_first_and_what_shares_none_is_nothing() {
        let texts =
            ["the code of the vault is 4711", "the code of the door is 12", "密码是八", "x"];
        let ranking = Ranking::new(texts);
        let scores = ranking.scores("What is the code of the vault?");
        assert!(scores[0] > scores[1] && scores[1] > 0.0, "{scores:?}");
        assert_eq!(scores[2..], [0.0, 0.0]);
        let chinese = ranking.scores("密码是多少？");
        assert!(chinese[2] > 0.0 && chinese[0] == 0.0, "{chinese:?}");
        assert_eq!(ranking.scores(""), [0.0; 4]);
        assert!(Ranking::new([]).scores("x").is_empty());
    }
}
