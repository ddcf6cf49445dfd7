//! Contract suite of rewards: groups of many sizes with odd texts, rated alike by all that were made alike.

use super::random::Random;
use super::{Make, make};
use crate::config::Config;
use crate::kinds::Capability;
use crate::kinds::reward::{RatedAnswer, Reward};

/// Runs the whole suite on rewards made from `config`.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Reward + 'static>(config: &Config) {
    suite_of(&make::<dyn Reward, T>, config);
}

/// The same for rewards that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Reward>, config: &Config) {
    let fresh = || make(config).expect("the configuration is the suite's own");
    let (mut first, mut second) = (fresh(), fresh());
    let mut random = Random::new(11);
    for size in [1, 7, 8, 9, 63, 257] {
        let texts: Vec<String> = (0..size).map(|_| text(&mut random)).collect();
        let answer = |text| RatedAnswer { text, ..answer(&mut random) };
        let answers: Vec<RatedAnswer<'_>> =
            texts.iter().map(|text| text.as_str()).map(answer).collect();
        let rated = first.rate(&answers).expect("answers that a model may give are rated");
        assert_eq!(rated.len(), size, "a number for each answer");
        let odd = rated.iter().zip(&answers).find(|(rated, _)| !rated.is_finite());
        assert_eq!(odd, None, "finite numbers");
        for (who, other) in [("asked again", &mut first), ("another made alike", &mut second)] {
            let again = other.rate(&answers).expect("answers that were rated before are rated");
            assert_eq!(bits(&rated), bits(&again), "{who}: the same answers are rated alike");
        }
    }
    for _ in 0..100 {
        drop(fresh());
    }
}

fn bits(rated: &[f64]) -> Vec<u64> {
    rated.iter().map(|rated| rated.to_bits()).collect()
}

/// What surrounds a text.
fn answer(random: &mut Random) -> RatedAnswer<'static> {
    RatedAnswer {
        prompt: "What is 6 × 7?",
        text: "",
        expected: Some(["42", "", "a\u{301}\0"][random.below(3)]),
        num_tokens: [0, 1, 64, u64::MAX][random.below(4)],
        is_finished: random.below(2) == 0,
    }
}

/// Text that models in training give: mostly none that anybody expects.
fn text(random: &mut Random) -> String {
    const PIECES: [&str; 12] = [
        "42",
        "####",
        "\\boxed{",
        "}",
        "\n",
        " ",
        "\0",
        "{\"a\": [",
        "é",
        "\u{202e}",
        "-1.5e309",
        "<answer>",
    ];
    (0..random.below(40)).map(|_| PIECES[random.below(PIECES.len())]).collect()
}
