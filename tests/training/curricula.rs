//! Curricula: choices that resume, the same in each lane, and what replay keeps from being forgotten.

use std::path::{Path, PathBuf};

use jackfield_engine::model::Tokenizer;
use jackfield_engine::train::{
    DatasetLoader, DatasetOptions, DatasetPosition, ExampleEncoder, TokenBatch, TooLong,
};
use jackfield_tests::{Setup, tiny_model};
use plugin_api::prelude::*;
use tempfile::TempDir;

use crate::components::with_component;
use crate::{parameters, setup, trainer_with};

const LENGTH: usize = 16;

/// Two files: words of one and of the other.
fn files(folder: &TempDir) -> [PathBuf; 2] {
    [("first", "the sea "), ("second", "my lord ")].map(|(name, words)| {
        let path = folder.path().join(name);
        let line = |n: usize| {
            let text = format!("{}{n}", words.repeat(1 + n % 3));
            format!("{}\n", serde_json::json!({"text": text}))
        };
        std::fs::write(&path, (0..24).map(line).collect::<String>()).unwrap();
        path
    })
}

fn plain(files: &[PathBuf], shuffle: usize) -> DatasetLoader {
    let tokenizer = Tokenizer::from_folder(tiny_model("tiny").path()).unwrap();
    let encoder = ExampleEncoder::new(tokenizer, None, LENGTH, TooLong::Cut);
    let options = DatasetOptions {
        tokens_max: 4 * LENGTH,
        num_seqs_max: 4,
        shuffle,
        seed: 3,
        line_bytes_max: 1 << 16,
    };
    DatasetLoader::open(files, encoder, options).unwrap()
}

fn loader(setup: &Setup, files: &[PathBuf]) -> DatasetLoader {
    let (name, curriculum) = setup.wiring.curriculum(&setup.registry).unwrap();
    plain(files, 6).with_curriculum(name, curriculum)
}

fn replaying() -> Setup {
    let setup = setup("cpu").with("curriculum", "reservoir-replay");
    setup.set("reservoir-replay", "capacity", 9).set("reservoir-replay", "ratio", 0.4)
}

fn position_of(loader: &mut DatasetLoader) -> DatasetPosition {
    let json = serde_json::to_string(&loader.position().unwrap()).unwrap();
    serde_json::from_str(&json).unwrap()
}

#[test]
fn choices_go_on_from_wherever_a_checkpoint_stood() {
    let folder = TempDir::new().unwrap();
    let files = files(&folder);
    for setup in [setup("cpu"), replaying()] {
        let mut first = loader(&setup, &files);
        for step in 0..20 {
            let position = position_of(&mut first);
            let expected: Vec<TokenBatch> = (0..3).map(|_| first.batch().unwrap()).collect();
            let mut second = loader(&setup, &files);
            second.seek(position.clone()).unwrap();
            assert_eq!(position_of(&mut second), position);
            let found: Vec<TokenBatch> = (0..3).map(|_| second.batch().unwrap()).collect();
            assert!(found == expected, "step {step}");
        }
        assert!(first.epoch() >= 1, "both files were read");
    }
}

#[test]
fn another_curriculum_begins_afresh_and_a_damaged_state_is_refused() {
    let folder = TempDir::new().unwrap();
    let files = files(&folder);
    let mut replay = loader(&replaying(), &files);
    (0..5).for_each(|_| drop(replay.batch().unwrap()));
    let position = position_of(&mut replay);
    let mut sequential = loader(&setup("cpu"), &files);
    sequential.seek(position.clone()).unwrap();
    assert!(position_of(&mut sequential).curriculum.is_none());
    sequential.batch().unwrap();
    for bytes in ["0", "zz", "00000000", "01000000ff"] {
        let mut damaged = position.clone();
        bytes.clone_into(&mut damaged.curriculum.as_mut().unwrap().bytes);
        let error = loader(&replaying(), &files).seek(damaged).unwrap_err().to_string();
        assert!(error.contains("state of the curriculum"), "{error}");
    }
}

#[test]
fn a_component_chooses_as_the_builtin_and_takes_over_its_state() {
    let (state, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let files = files(&folder);
    let component = with_component(state.path(), "curriculum/reservoir-replay", replaying());
    let (mut here, mut there) = (loader(&replaying(), &files), loader(&component, &files));
    for step in 0..12 {
        assert!(here.batch().unwrap() == there.batch().unwrap(), "step {step}");
    }
    assert_eq!(position_of(&mut here), position_of(&mut there));
    // What one saved the other goes on from, in both directions.
    let (mut from_here, mut from_there) =
        (loader(&component, &files), loader(&replaying(), &files));
    from_here.seek(position_of(&mut here)).unwrap();
    from_there.seek(position_of(&mut there)).unwrap();
    let next = here.batch().unwrap();
    assert!(next == from_here.batch().unwrap() && next == from_there.batch().unwrap());
}

/// Chooses what cannot be.
struct Wrong(Choice);

impl Curriculum for Wrong {
    fn next(&mut self, _: &[SourceView]) -> Result<Choice> {
        Ok(self.0)
    }
}

#[test]
fn a_choice_that_cannot_be_is_an_error_with_its_place() {
    let folder = TempDir::new().unwrap();
    let files = files(&folder);
    let first = files[0].display();
    #[rustfmt::skip]
    let cases = [
        (Choice::new_of(2),                          "choice of the curriculum: expected one of 2 sources, found 2".to_owned()),
        (Choice { source: 0, again: Some(3) },       format!("expected an example that was given before, found {first} at byte 3")),
        (Choice { source: 0, again: Some(1 << 40) }, format!("found {first} at byte {}", 1_u64 << 40)),
    ];
    for (choice, expected) in cases {
        let curriculum: Box<dyn Curriculum> = Box::new(Wrong(choice));
        let mut loader = plain(&files, 1).with_curriculum("wrong".to_owned(), curriculum);
        let error = loader.batch().unwrap_err().to_string();
        assert!(error.contains(&expected), "{error}");
    }
}

/// Losses of the first and the second file after a run over the first and then the second.
fn after_both(setup: &Setup, files: &[PathBuf]) -> [f64; 2] {
    let mut trainer = trainer_with(setup, parameters(), 1e-2);
    let mut loader = loader(setup, files);
    while loader.epoch() == 0 {
        let batch = loader.batch().unwrap();
        trainer.step(std::slice::from_ref(&batch)).unwrap();
    }
    let held = |path: &Path| plain(&[path.to_owned()], 1).first_epoch(64).unwrap();
    [0, 1].map(|file| trainer.evaluate(&held(&files[file])).unwrap().0)
}

#[test]
fn replay_keeps_the_first_file_from_being_forgotten() {
    let folder = TempDir::new().unwrap();
    let files = files(&folder);
    for seed in [1, 2, 3] {
        let constant = |setup: Setup| setup.with("lr-schedule", "constant");
        let forgetful = after_both(&constant(setup("cpu")), &files);
        let replaying = constant(replaying()).set("reservoir-replay", "seed", seed);
        let mindful = after_both(&replaying, &files);
        assert!(mindful[0] < forgetful[0] - 0.1, "seed {seed}: {mindful:?} {forgetful:?}");
    }
}
